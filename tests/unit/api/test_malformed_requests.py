"""Every request that cannot be meant is refused, by name, before anything happens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from slurper.api.envelope import Code
from slurper.job import rules
from tests.unit.api import bodies
from tests.unit.api.bodies import ABSENT, Json
from tests.unit.api.conftest import ACCOUNT, JOBS, Api, running, settings_in

LONG = "k" * 1_025
MULTIBYTE = "ü" * 513  # 1,026 bytes in 513 characters
SOURCE_CHECK = f"/accounts/{ACCOUNT}/slurper/source/connectivity-precheck"
TARGET_CHECK = f"/accounts/{ACCOUNT}/slurper/target/connectivity-precheck"


class Case(NamedTuple):
    """A malformed body, and what its answer must name."""

    name: str
    body: object
    pointer: str | None
    code: Code = Code.INVALID_FIELD
    says: str = ""


def secret(**changes: object) -> Json:
    return bodies.from_s3(secret=bodies.s3_secret(**changes))


def gcs_secret(**changes: object) -> Json:
    return bodies.from_gcs(secret=bodies.gcs_secret(**changes))


def endpoint(url: object) -> Json:
    return bodies.from_s3(endpoint=url)


def keys(*names: object, **changes: object) -> Json:
    return bodies.from_s3(keys=list(names), **changes)


# One application for the whole table: a refused request leaves nothing behind, as each case checks.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with running(settings_in(tmp_path_factory.mktemp("api"))) as api:
        yield api


MISSING = Code.MISSING_FIELD
BUCKET = Code.INVALID_BUCKET_NAME
KEY = Code.INVALID_OBJECT_NAME

CREATE = [
    # What a job is made of
    Case("nothing", {}, "/source", MISSING, "is required"),
    Case("no target", bodies.create(target=ABSENT), "/target", MISSING),
    Case("null source", bodies.create(source=None), "/source", says="must be an object"),
    Case("source is text", bodies.create(source="s3://bucket"), "/source"),
    Case("source is a list", bodies.create(source=[bodies.s3_source()]), "/source"),
    Case("target is a number", bodies.create(target=7), "/target"),
    Case("overwrite as text", bodies.create(overwrite="true"), "/overwrite", says="true or false"),
    Case("overwrite as number", bodies.create(overwrite=1), "/overwrite"),
    Case("overwrite null", bodies.create(overwrite=None), "/overwrite"),
    # Vendors
    Case("no vendor", bodies.from_s3(vendor=ABSENT), "/source/vendor", MISSING, "'s3', 'gcs'"),
    Case("null vendor", bodies.from_s3(vendor=None), "/source/vendor"),
    Case("unknown vendor", bodies.from_s3(vendor="azure"), "/source/vendor", says="one of 's3'"),
    Case("vendor in capitals", bodies.from_s3(vendor="S3"), "/source/vendor"),
    Case("vendor of half a pair", bodies.from_s3(vendor="\ud800"), "/source/vendor"),
    Case("vendor is a list", bodies.from_s3(vendor=["s3"]), "/source/vendor"),
    Case("no target vendor", bodies.to_r2(vendor=ABSENT), "/target/vendor", MISSING),
    Case("unknown target vendor", bodies.to_r2(vendor="aws"), "/target/vendor"),
    # Buckets
    Case("no bucket", bodies.from_s3(bucket=ABSENT), "/source/bucket", MISSING),
    Case("bucket is a number", bodies.from_s3(bucket=123), "/source/bucket", says="a string"),
    Case("null bucket", bodies.from_s3(bucket=None), "/source/bucket"),
    Case("empty bucket", bodies.from_s3(bucket=""), "/source/bucket", BUCKET),
    Case("S3 bucket too short", bodies.from_s3(bucket="ab"), "/source/bucket", BUCKET, "3 to 255"),
    Case("S3 bucket too long", bodies.from_s3(bucket="b" * 256), "/source/bucket", BUCKET),
    Case("S3 bucket with a path", bodies.from_s3(bucket="abc/d"), "/source/bucket", BUCKET, "path"),
    Case("S3 bucket as URL", bodies.from_s3(bucket="s3://abc"), "/source/bucket", BUCKET, "no sch"),
    Case("S3 bucket of dots", bodies.from_s3(bucket="..."), "/source/bucket", BUCKET),
    Case("S3 bucket with two dots", bodies.from_s3(bucket="a..b"), "/source/bucket", BUCKET),
    Case("S3 bucket with a space", bodies.from_s3(bucket="a b"), "/source/bucket", BUCKET),
    Case("S3 bucket with a newline", bodies.from_s3(bucket="abc\n"), "/source/bucket", BUCKET),
    Case("S3 bucket with umlaut", bodies.from_s3(bucket="büro"), "/source/bucket", BUCKET),
    Case("S3 bucket of half a pair", bodies.from_s3(bucket="ab\udc80c"), "/source/bucket", BUCKET),
    Case("R2 bucket in capitals", bodies.from_r2(bucket="Photos"), "/source/bucket", BUCKET),
    Case("R2 bucket with a dot", bodies.from_r2(bucket="a.b.c"), "/source/bucket", BUCKET),
    Case("R2 bucket, final hyphen", bodies.from_r2(bucket="abc-"), "/source/bucket", BUCKET),
    Case("R2 target too long", bodies.to_r2(bucket="b" * 64), "/target/bucket", BUCKET, "3 to 63"),
    Case("R2 target too short", bodies.to_r2(bucket="ab"), "/target/bucket", BUCKET),
    Case("R2 target underscore", bodies.to_r2(bucket="a_b"), "/target/bucket", BUCKET),
    Case("R2 target, first hyphen", bodies.to_r2(bucket="-abc"), "/target/bucket", BUCKET),
    Case("no target bucket", bodies.to_r2(bucket=ABSENT), "/target/bucket", MISSING),
    Case("GCS bucket in capitals", bodies.from_gcs(bucket="Photos"), "/source/bucket", BUCKET),
    Case("GCS bucket part too long", bodies.from_gcs(bucket="b" * 64), "/source/bucket", BUCKET),
    Case("GCS bucket, two dots", bodies.from_gcs(bucket="a..b"), "/source/bucket", BUCKET),
    # Secrets
    Case("no secret", bodies.from_s3(secret=ABSENT), "/source/secret", MISSING),
    Case("null secret", bodies.from_s3(secret=None), "/source/secret", says="must be an object"),
    Case("secret is text", bodies.from_s3(secret="AKIA:s"), "/source/secret"),
    Case("no key id", secret(accessKeyId=ABSENT), "/source/secret/accessKeyId", MISSING),
    Case("key id in snake case", secret(accessKeyId=ABSENT, access_key_id="A"),
         "/source/secret/accessKeyId", MISSING),
    Case("key id is a number", secret(accessKeyId=1), "/source/secret/accessKeyId"),
    Case("empty key id", secret(accessKeyId=""), "/source/secret/accessKeyId"),
    Case("key id with a newline", secret(accessKeyId="AK\n"), "/source/secret/accessKeyId",
         says="line break"),
    Case("key id with a slash", secret(accessKeyId="A/K"), "/source/secret/accessKeyId"),
    Case("key id not ASCII", secret(accessKeyId="ÄK"), "/source/secret/accessKeyId"),
    Case("key id too long", secret(accessKeyId="A" * 1_025), "/source/secret/accessKeyId"),
    Case("empty token", secret(sessionToken=""), "/source/secret/sessionToken"),
    Case("token is a number", secret(sessionToken=1), "/source/secret/sessionToken"),
    Case("token with a line break", secret(sessionToken="a\nb"), "/source/secret/sessionToken"),
    Case("token beyond ASCII", secret(sessionToken="ü"), "/source/secret/sessionToken"),
    Case("token without end", secret(sessionToken="t" * 20_000), "/source/secret/sessionToken"),
    Case("no secret key", secret(secretAccessKey=ABSENT), "/source/secret/secretAccessKey",
         MISSING),
    Case("null secret key", secret(secretAccessKey=None), "/source/secret/secretAccessKey"),
    Case("secret key is a number", secret(secretAccessKey=1), "/source/secret/secretAccessKey"),
    Case("empty secret key", secret(secretAccessKey=""), "/source/secret/secretAccessKey"),
    Case("secret key, final space", secret(secretAccessKey="abc "),
         "/source/secret/secretAccessKey", says="space"),
    Case("secret key with a tab", secret(secretAccessKey="a\tc"), "/source/secret/secretAccessKey"),
    Case("secret key with NUL", secret(secretAccessKey="a\0c"), "/source/secret/secretAccessKey"),
    Case("secret key of half a pair", secret(secretAccessKey="a\udfffc"),
         "/source/secret/secretAccessKey", says="Unicode"),
    Case("no target secret", bodies.to_r2(secret=ABSENT), "/target/secret", MISSING),
    Case("empty target secret", bodies.to_r2(secret={}), "/target/secret/accessKeyId", MISSING),
    Case("S3 keys for GCS", bodies.from_gcs(secret=bodies.s3_secret()),
         "/source/secret/clientEmail", MISSING),
    Case("not an address", gcs_secret(clientEmail="mover"), "/source/secret/clientEmail"),
    Case("address with a newline", gcs_secret(clientEmail="a@b\n"), "/source/secret/clientEmail"),
    Case("no private key", gcs_secret(privateKey=ABSENT), "/source/secret/privateKey", MISSING),
    Case("private key not PEM", gcs_secret(privateKey="MIIE"), "/source/secret/privateKey",
         says="BEGIN PRIVATE KEY"),
    Case("public key", gcs_secret(privateKey=bodies.PEM.replace("PRIVATE", "PUBLIC")),
         "/source/secret/privateKey"),
    Case("private key too long", gcs_secret(privateKey="A" * 20_000), "/source/secret/privateKey"),
    # Endpoints
    Case("endpoint is a number", endpoint(9000), "/source/endpoint"),
    Case("empty endpoint", endpoint(""), "/source/endpoint", says="leave it out"),
    Case("http endpoint", endpoint("http://127.0.0.1:9"), "/source/endpoint",
         says="SLURPER_ALLOW_HTTP"),
    Case("http target", bodies.create(target=bodies.s3_source(endpoint="http://127.0.0.1:9")),
         "/target/endpoint", says="SLURPER_ALLOW_HTTP"),
    Case("ftp endpoint", endpoint("ftp://example.com"), "/source/endpoint", says="https://"),
    Case("bare host", endpoint("s3.example.com"), "/source/endpoint", says="write https://"),
    Case("bare host and port", endpoint("s3.example.com:9000"), "/source/endpoint"),
    Case("no host", endpoint("https://"), "/source/endpoint", says="host"),
    Case("endpoint, user", endpoint("https://key@example.com"), "/source/endpoint", says="secret"),
    Case("endpoint, empty user", endpoint("https://@example.com"), "/source/endpoint"),
    Case("endpoint with a query", endpoint("https://example.com/?a=b"), "/source/endpoint"),
    Case("endpoint with an empty query", endpoint("https://example.com?"), "/source/endpoint"),
    Case("endpoint with a fragment", endpoint("https://example.com/#x"), "/source/endpoint"),
    Case("endpoint with a path", endpoint("https://example.com/s3"), "/source/endpoint",
         says="path"),
    Case("endpoint, port 0", endpoint("https://example.com:0"), "/source/endpoint", says="port"),
    Case("endpoint, port too large", endpoint("https://example.com:65536"), "/source/endpoint"),
    Case("endpoint, port not a number", endpoint("https://example.com:s3"), "/source/endpoint"),
    Case("endpoint with a space", endpoint("https://exa mple.com"), "/source/endpoint"),
    Case("endpoint with a newline", endpoint("https://example.com\n"), "/source/endpoint"),
    Case("endpoint with a backslash", endpoint("https://example.com\\@a"), "/source/endpoint"),
    Case("endpoint not ASCII", endpoint("https://büro.example"), "/source/endpoint", says="xn--"),
    Case("endpoint, broken IPv6", endpoint("https://[::1"), "/source/endpoint"),
    Case("endpoint too long", endpoint("https://" + "a" * 2_048), "/source/endpoint"),
    # Region, jurisdiction, prefix
    Case("region is a number", bodies.from_s3(region=1), "/source/region"),
    Case("region with a slash", bodies.from_s3(region="us/east"), "/source/region"),
    Case("region with a newline", bodies.from_s3(region="auto\n"), "/source/region"),
    Case("region too long", bodies.from_s3(region="r" * 65), "/source/region"),
    Case("unknown jurisdiction", bodies.from_r2(jurisdiction="mars"), "/source/jurisdiction",
         says="'fedramp'"),
    Case("null jurisdiction", bodies.to_r2(jurisdiction=None), "/target/jurisdiction"),
    Case("jurisdiction in capitals", bodies.to_r2(jurisdiction="EU"), "/target/jurisdiction"),
    Case("jurisdiction is a number", bodies.to_r2(jurisdiction=1), "/target/jurisdiction"),
    Case("prefix is a number", bodies.from_s3(pathPrefix=1), "/source/pathPrefix"),
    Case("prefix too long", bodies.from_s3(pathPrefix=LONG), "/source/pathPrefix", KEY, "1025"),
    Case("prefix too long in bytes", bodies.from_s3(pathPrefix=MULTIBYTE), "/source/pathPrefix",
         KEY, "1026 bytes"),
    Case("prefix with NUL", bodies.from_s3(pathPrefix="a\0"), "/source/pathPrefix", KEY, "NUL"),
    Case("prefix of half a pair", bodies.from_s3(pathPrefix="\ud800"), "/source/pathPrefix"),
    # Keys
    Case("keys is text", bodies.from_s3(keys="a"), "/source/keys", says="must be a list"),
    Case("keys is an object", bodies.from_s3(keys={"a": 1}), "/source/keys"),
    Case("no keys", keys(), "/source/keys", says="names no key"),
    Case("too many keys", keys(*map(str, range(10_001))), "/source/keys", says="10000"),
    Case("key is a number", keys("a", 1), "/source/keys/1", says="must be a string"),
    Case("null key", keys(None), "/source/keys/0"),
    Case("empty key", keys("a", "b", ""), "/source/keys/2", KEY, "is empty"),
    Case("key too long", keys(LONG), "/source/keys/0", KEY, "at most 1024"),
    Case("key too long in bytes", keys(MULTIBYTE), "/source/keys/0", KEY, "1026 bytes"),
    Case("key with NUL", keys("a\0b"), "/source/keys/0", KEY, "NUL"),
    Case("key of half a pair", keys("a\ud800"), "/source/keys/0", says="surrogate"),
    Case("key outside the prefix", keys("in/a", "out/b", pathPrefix="in/"), "/source/keys/1",
         says="pathPrefix"),
    # Options
    Case("options is a list", bodies.create(options=[]), "/options"),
    Case("an option with a typing error", bodies.create(options={"bandwithLimit": 1}),
         "/options/bandwithLimit", says="not known here"),
    Case("a filter with a typing error", bodies.create(options={"contentTypes": {"includ": []}}),
         "/options/contentTypes/includ", says="not known here"),
    Case("skipEmpty as text", bodies.create(options={"skipEmpty": "yes"}), "/options/skipEmpty"),
    Case("validateMedia null", bodies.create(options={"validateMedia": None}),
         "/options/validateMedia"),
    Case("stripPrefix as number", bodies.create(options={"stripPrefix": 0}),
         "/options/stripPrefix"),
    Case("maxObjectSize zero", bodies.create(options={"maxObjectSize": 0}),
         "/options/maxObjectSize", says="at least 1"),
    Case("maxObjectSize as text", bodies.create(options={"maxObjectSize": "1"}),
         "/options/maxObjectSize"),
    Case("maxObjectSize as fraction", bodies.create(options={"maxObjectSize": 1.5}),
         "/options/maxObjectSize"),
    Case("maxObjectSize too large", bodies.create(options={"maxObjectSize": 2**63}),
         "/options/maxObjectSize"),
    Case("bandwidthLimit zero", bodies.create(options={"bandwidthLimit": 0}),
         "/options/bandwidthLimit", says="at least 1"),
    Case("bandwidthLimit with a unit", bodies.create(options={"bandwidthLimit": "1MB"}),
         "/options/bandwidthLimit", says="whole number"),
    Case("requestRateLimit negative", bodies.create(options={"requestRateLimit": -1}),
         "/options/requestRateLimit", says="at least 1"),
    Case("requestRateLimit too large", bodies.create(options={"requestRateLimit": 2**63}),
         "/options/requestRateLimit"),
    Case("serverSideCopy as text", bodies.create(options={"serverSideCopy": "no"}),
         "/options/serverSideCopy", says="true or false"),
    Case("countObjects as number", bodies.create(options={"countObjects": 1}),
         "/options/countObjects"),
    Case("an unknown header required",
         bodies.create(options={"require": ["metadata", "x-amz-tagging"]}),
         "/options/require/1", says="must be one of cache-control"),
    Case("one header required, not in a list", bodies.create(options={"require": "metadata"}),
         "/options/require"),
    Case("content types as list", bodies.create(options={"contentTypes": ["image/*"]}),
         "/options/contentTypes"),
    Case("content type alone", bodies.create(options={"contentTypes": {"include": ["image"]}}),
         "/options/contentTypes/include/0", says="type/subtype"),
    Case("content type with a parameter",
         bodies.create(options={"contentTypes": {"exclude": ["a/b", "text/html; charset=utf-8"]}}),
         "/options/contentTypes/exclude/1"),
    Case("too many content types",
         bodies.create(options={"contentTypes": {"include": ["a/b"] * 101}}),
         "/options/contentTypes/include"),
]  # fmt: skip


async def assert_refused(api: Api, answer: httpx.Response, case: Case) -> None:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    assert body["success"] is False
    assert body["result"] is None
    assert body["messages"] == []
    first = body["errors"][0]
    assert first["code"] == case.code
    assert first.get("source", {}).get("pointer") == case.pointer
    assert case.says in first["message"]
    assert "s3cr3t" not in answer.text
    assert await api.store.list_jobs(ACCOUNT, limit=50, offset=0) == []


@pytest.mark.parametrize("case", CREATE, ids=lambda case: case.name)
async def test_create_is_refused(api: Api, case: Case) -> None:
    # With escapes for everything beyond ASCII, so that half of a surrogate pair can be sent.
    content = json.dumps(case.body)
    answer = await api.client.post(
        JOBS, content=content, headers={"content-type": "application/json"}
    )
    await assert_refused(api, answer, case)


PRECHECKS = [
    ("source", Case("no vendor", bodies.s3_source(vendor=ABSENT), "/vendor", MISSING)),
    ("source", Case("unknown vendor", bodies.s3_source(vendor="b2"), "/vendor")),
    ("source", Case("no bucket", bodies.r2_source(bucket=ABSENT), "/bucket", MISSING)),
    ("source", Case("bucket name", bodies.r2_source(bucket="A"), "/bucket", BUCKET)),
    ("source", Case("http", bodies.s3_source(endpoint="http://a.example"), "/endpoint")),
    ("source", Case("empty key", bodies.s3_source(keys=[""]), "/keys/0", KEY)),
    ("source", Case("prefix", bodies.s3_source(keys=["b"], pathPrefix="a"), "/keys/0")),
    ("source", Case("secret", bodies.gcs_source(secret={}), "/secret/clientEmail", MISSING)),
    ("source", Case("create body", bodies.create(), "/vendor", MISSING)),
    ("target", Case("no vendor", bodies.r2_target(vendor=ABSENT), "/vendor", MISSING)),
    ("target", Case("bucket name", bodies.r2_target(bucket="A"), "/bucket", BUCKET)),
    ("target", Case("jurisdiction", bodies.r2_target(jurisdiction="uk"), "/jurisdiction")),
    ("target", Case("secret", bodies.r2_target(secret={"accessKeyId": "A"}),
                    "/secret/secretAccessKey", MISSING)),
    ("target", Case("http", bodies.s3_source(endpoint="http://a.example"), "/endpoint")),
]  # fmt: skip


@pytest.mark.parametrize(("side", "case"), PRECHECKS, ids=lambda value: getattr(value, "name", ""))
async def test_precheck_is_refused(api: Api, side: str, case: Case) -> None:
    path = SOURCE_CHECK if side == "source" else TARGET_CHECK
    await assert_refused(api, await api.client.put(path, json=case.body), case)


NEW_SECRETS = [
    Case("source is text", {"source": "AKIA"}, "/source", says="must be an object"),
    Case("target is a list", {"target": []}, "/target"),
    Case("no secret", {"source": {}}, "/source/secret", MISSING, "is required"),
    Case("secret is text", {"target": {"secret": "AKIA:s"}}, "/target/secret", says="an object"),
    Case("null secret", {"target": {"secret": None}}, "/target/secret"),
    Case("empty secret", {"source": {"secret": {}}}, "/source/secret/accessKeyId", MISSING),
    Case("half a pair", {"source": {"secret": {"accessKeyId": "A"}}},
         "/source/secret/secretAccessKey", MISSING),
    Case("key id with a space", {"source": {"secret": bodies.s3_secret(accessKeyId="A ")}},
         "/source/secret/accessKeyId", says="space"),
    Case("secret key, final newline", {"target": {"secret": bodies.s3_secret(
         secretAccessKey="s3cr3t\n")}}, "/target/secret/secretAccessKey", says="line break"),
    Case("half a service account", {"source": {"secret": {"clientEmail": "a@b.c"}}},
         "/source/secret/privateKey", MISSING),
    Case("private key not PEM", {"target": {"secret": bodies.gcs_secret(privateKey="MIIE")}},
         "/target/secret/privateKey", says="BEGIN PRIVATE KEY"),
    Case("in snake case", {"source": {"secret": {"access_key_id": "A", "secret_access_key": "b"}}},
         "/source/secret/accessKeyId", MISSING),
]  # fmt: skip


@pytest.mark.parametrize("operation", ["resume", "retryFailed"])
@pytest.mark.parametrize("case", NEW_SECRETS, ids=lambda case: case.name)
async def test_new_secrets_are_refused(api: Api, operation: str, case: Case) -> None:
    answer = await api.client.put(f"{JOBS}/{'0' * 64}/{operation}", json=case.body)
    await assert_refused(api, answer, case)


CHANGES = [
    Case("no options", {}, "/options", MISSING),
    Case("null options", {"options": None}, "/options"),
    Case("options is a list", {"options": []}, "/options"),
    Case("nothing to change", {"options": {}}, "/options", says="names nothing"),
    Case("zero", {"options": {"bandwidthLimit": 0}}, "/options/bandwidthLimit"),
    Case("a fraction", {"options": {"requestRateLimit": 0.5}}, "/options/requestRateLimit"),
]  # fmt: skip


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.name)
async def test_changes_are_refused(api: Api, case: Case) -> None:
    answer = await api.client.patch(f"{JOBS}/{'0' * 64}", json=case.body)
    await assert_refused(api, answer, case)


JSON_TYPE = "application/json"
VALID = json.dumps(bodies.create())

BROKEN = [
    ("empty", b"", JSON_TYPE, "empty"),
    ("only space", b" \n", JSON_TYPE, "empty"),
    ("cut off", VALID[:-1].encode(), JSON_TYPE, "not valid JSON"),
    ("two objects", VALID.encode() * 2, JSON_TYPE, "Extra data"),
    ("a list", b"[]", JSON_TYPE, "must be a JSON object"),
    ("null", b"null", JSON_TYPE, "must be a JSON object"),
    ("text", b'"create"', JSON_TYPE, "must be a JSON object"),
    ("single quotes", b"{'source': 1}", JSON_TYPE, "not valid JSON"),
    ("a comment", b"{/* */}", JSON_TYPE, "not valid JSON"),
    ("a final comma", b'{"overwrite": true,}', JSON_TYPE, "not valid JSON"),
    ("a raw control character", b'{"a": "\x01"}', JSON_TYPE, "control character"),
    ("NaN", b'{"overwrite": NaN}', JSON_TYPE, "NaN"),
    ("Infinity", b'{"overwrite": -Infinity}', JSON_TYPE, "Infinity"),
    ("a member twice", b'{"overwrite": true, "overwrite": false}', JSON_TYPE, "more than once"),
    ("a nested member twice", b'{"source": {"bucket": 1, "bucket": 2}}', JSON_TYPE, '"bucket"'),
    ("half a pair twice", rb'{"\ud800": 1, "\ud800": 2}', JSON_TYPE, "more than once"),
    ("a huge number", b'{"overwrite": ' + b"9" * 5_000 + b"}", JSON_TYPE, "number"),
    ("a deep nest", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON_TYPE, "too deeply"),
    ("not UTF-8", b'{"a": "\xff"}', JSON_TYPE, "UTF-8 at byte 7"),
    ("UTF-16", VALID.encode("utf-16"), JSON_TYPE, "UTF-8"),
    ("a byte order mark", b"\xef\xbb\xbf" + VALID.encode(), JSON_TYPE, "BOM"),
    ("a form", b"source=a", "application/x-www-form-urlencoded", "Content-Type"),
    ("plain text", VALID.encode(), "text/plain", "Content-Type"),
    ("no content type", VALID.encode(), "", "Content-Type"),
    ("another charset", VALID.encode(), "application/json; charset=latin-1", "UTF-8"),
]


@pytest.mark.parametrize(("content", "kind", "says"), [one[1:] for one in BROKEN],
                         ids=[one[0] for one in BROKEN])  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_what_is_no_json_object_is_refused(
    api: Api, method: str, content: bytes, kind: str, says: str
) -> None:
    path = JOBS if method == "POST" else SOURCE_CHECK
    headers = {"content-type": kind} if kind else {}
    answer = await api.client.request(method, path, content=content, headers=headers)
    case = Case("", None, None, Code.MALFORMED_REQUEST, says)
    await assert_refused(api, answer, case)


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"), BROKEN, ids=[one[0] for one in BROKEN]
)
@pytest.mark.parametrize("operation", ["resume", "retryFailed"])
async def test_an_optional_body_is_empty_or_a_json_object(
    api: Api, operation: str, name: str, content: bytes, kind: str, says: str
) -> None:
    headers = {"content-type": kind} if kind else {}
    path = f"{JOBS}/{'0' * 64}/{operation}"
    answer = await api.client.put(path, content=content, headers=headers)
    if name in {"empty", "only space", "null"}:
        assert answer.status_code == 404
        assert answer.json()["errors"][0]["code"] == Code.JOB_NOT_FOUND
    else:
        await assert_refused(api, answer, Case("", None, None, Code.MALFORMED_REQUEST, says))


async def test_a_compressed_body_is_refused(api: Api) -> None:
    headers = {"content-type": JSON_TYPE, "content-encoding": "gzip"}
    answer = await api.client.post(JOBS, content=b"\x1f\x8b", headers=headers)
    case = Case("", None, None, Code.MALFORMED_REQUEST, "Content-Encoding")
    await assert_refused(api, answer, case)


PAGES = [
    ("limit=0", "/query/limit", "at least 1"),
    ("limit=51", "/query/limit", "at most 50"),
    ("limit=-1", "/query/limit", "at least 1"),
    ("limit=ten", "/query/limit", "whole number"),
    ("limit=", "/query/limit", "whole number"),
    ("limit=5.0", "/query/limit", "whole number"),
    ("limit=1_0", "/query/limit", "whole number"),
    ("limit=%205", "/query/limit", "whole number"),
    ("limit=%D9%A5", "/query/limit", "whole number"),
    ("limit=1e1", "/query/limit", "whole number"),
    ("limit=99999999999999999999", "/query/limit", "18 digits"),
    ("offset=-1", "/query/offset", "at least 0"),
    ("offset=x", "/query/offset", "whole number"),
    ("offset=", "/query/offset", "whole number"),
    ("offset=99999999999999999999", "/query/offset", "18 digits"),
]


@pytest.mark.parametrize(("query", "pointer", "says"), PAGES)
@pytest.mark.parametrize("path", [JOBS, f"{JOBS}/{'0' * 64}/logs"])
async def test_a_page_out_of_bounds_is_refused(
    api: Api, path: str, query: str, pointer: str, says: str
) -> None:
    answer = await api.client.get(f"{path}?{query}")
    await assert_refused(api, answer, Case("", None, pointer, Code.INVALID_FIELD, says))


@pytest.mark.parametrize("account", ["a" * 64, "a.b", "-a", "a-", "%20", "%C3%BC", "a%3Ab", ".."])
async def test_an_account_id_that_cannot_be_one_is_refused(api: Api, account: str) -> None:
    answer = await api.client.get(f"/accounts/{account}/slurper/jobs")
    assert answer.status_code in {400, 404}
    assert answer.json()["errors"][0]["code"] == Code.NO_ROUTE


async def test_everything_wrong_is_named_at_once(api: Api) -> None:
    body = bodies.create(
        overwrite="no",
        source=bodies.s3_source(bucket="A", region=1, keys=[1]),
        target=bodies.r2_target(secret={}),
    )
    answer = await api.client.post(JOBS, json=body)
    assert [item["source"]["pointer"] for item in answer.json()["errors"]] == [
        "/overwrite",
        "/source/bucket",
        "/source/region",
        "/source/keys/0",
        "/target/secret/accessKeyId",
        "/target/secret/secretAccessKey",
    ]


async def test_millions_of_wrong_keys_are_one_error(api: Api) -> None:
    content = json.dumps(bodies.from_s3(keys=[1] * 2_000_000))
    answer = await api.client.post(JOBS, content=content, headers={"content-type": JSON_TYPE})
    (error,) = answer.json()["errors"]
    assert error["source"]["pointer"] == "/source/keys"
    assert error["message"] == "source.keys: has more than 10000 entries"


async def test_the_table_is_large_enough() -> None:
    assert len(CREATE) + len(PRECHECKS) + len(BROKEN) + len(PAGES) >= 60
    assert rules.MAX_KEYS == 10_000
