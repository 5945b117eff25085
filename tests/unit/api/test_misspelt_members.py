"""A member that a request does not have is refused by name, never ignored: it may be a selection.

What clients of the API are known to send goes through: see `test_what_clients_send`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from slurper.api import members
from slurper.api.envelope import Code
from slurper.api.json_reader import MAX_MEMBERS
from tests.unit.api import bodies
from tests.unit.api.bodies import Json
from tests.unit.api.conftest import ACCOUNT, JOBS, Api, running, settings_in

SOURCE_CHECK = f"/accounts/{ACCOUNT}/slurper/source/connectivity-precheck"
TARGET_CHECK = f"/accounts/{ACCOUNT}/slurper/target/connectivity-precheck"
JOB = f"{JOBS}/{'0' * 64}"


class Case(NamedTuple):
    """A body with one member too many, where that is, and what its sender is told."""

    body: Json
    pointer: str
    says: str


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with running(settings_in(tmp_path_factory.mktemp("api"))) as api:
        yield api


def _case(where: str, name: str, meant: str) -> Case:
    says = f"did you mean {meant}?" if " " not in meant or " or " in meant else meant
    make = {"": bodies.create, "/source": bodies.from_s3, "/target": bodies.to_r2}
    if where in make:
        return Case(make[where](**{name: "v"}), f"{where}/{name}", says)
    if where == "/source/secret":
        secret = bodies.s3_secret(**{name: "v"})
        return Case(bodies.from_s3(secret=secret), f"{where}/{name}", says)
    return Case(bodies.create(options={name: "v"}), f"{where}/{name}", says)


CREATE = [
    _case(*row)
    for row in (
        # A selection that would copy everything
        ("", "keys", "/source/keys"),
        ("", "Keys", "/source/keys"),
        ("", "pathPrefix", "/source/pathPrefix"),
        ("", "path_prefix", "/source/pathPrefix"),
        ("", "prefix", "/source/pathPrefix"),
        ("", "objects", "/source/keys"),
        ("", "source_keys", "/source/keys"),
        ("/source", "prefix", "pathPrefix"),
        ("/source", "Prefix", "pathPrefix"),
        ("/source", "pathprefix", "pathPrefix"),
        ("/source", "PathPrefix", "pathPrefix"),
        ("/source", "path-prefix", "pathPrefix"),
        ("/source", "pathPrefx", "pathPrefix"),
        ("/source", "path", "pathPrefix"),
        ("/source", "key", "keys"),
        ("/source", "KEYS", "keys"),
        ("/source", "objects", "keys"),
        ("/target", "pathPrefix", "/source/pathPrefix"),
        ("/target", "path_prefix", "/source/pathPrefix"),
        ("/target", "prefix", "/source/pathPrefix"),
        ("/target", "keys", "/source/keys"),
        # What is there already
        ("", "overWrite", "overwrite"),
        ("", "over_write", "overwrite"),
        ("", "overwriteFiles", "overwrite"),
        ("", "overwriteObjects", "overwrite"),
        ("/source", "overwrite", "/overwrite"),
        ("/options", "overwrite", "/overwrite"),
        # Sides
        ("", "destination", "target"),
        ("", "sources", "source"),
        ("", "bucket", "/source/bucket or /target/bucket"),
        ("", "sourceBucket", "/source/bucket"),
        ("", "secret", "/source/secret or /target/secret"),
        ("/source", "provider", "vendor"),
        ("/source", "bucketName", "bucket"),
        ("/source", "end_point", "endpoint"),
        ("/source", "url", "endpoint"),
        ("/source", "credentials", "secret"),
        ("/source", "accessKeyId", "/source/secret/accessKeyId or /target/secret/accessKeyId"),
        ("/source", "accountId", "the account is the one that the request's path names"),
        ("/source", "jurisdiction", "belongs to sides of vendor r2; leave it out"),
        ("/target", "endpoint", "belongs to sides of vendor s3; leave it out"),
        ("/target", "region", "belongs to sides of vendor s3; leave it out"),
        ("/source", "s3", "known are bucket, endpoint"),
        ("/source/secret", "session_token", "sessionToken"),
        ("/source/secret", "secretKey", "secretAccessKey"),
        ("/source/secret", "clientEmail", "belongs to the other kind of secret"),
        # Options
        ("", "skipEmpty", "/options/skipEmpty"),
        ("", "bandwidthLimit", "/options/bandwidthLimit"),
        ("", "option", "options"),
        ("/options", "skip_empty", "skipEmpty"),
        ("/options", "contentType", "contentTypes"),
        ("/options", "include", "/options/contentTypes/include"),
        # Nothing like it
        ("", "jobName", "known are options, overwrite, source and target"),
        ("", "", "known are options, overwrite, source and target"),
        ("/options", "dryRun", "known are"),
    )
]

SOURCE = [
    Case(bodies.s3_source(prefix="a"), "/prefix", "did you mean pathPrefix?"),
    Case(bodies.r2_source(Keys=["a"]), "/Keys", "did you mean keys?"),
    Case(bodies.gcs_source(region="a"), "/region", "belongs to sides of vendor s3"),
    Case(bodies.s3_source(overwrite=False), "/overwrite", "known are bucket"),
    Case(
        bodies.s3_source(pathPrefix="a", path_prefix="b"), "/path_prefix", "contradicts pathPrefix"
    ),
]
TARGET = [
    Case(bodies.r2_target(buckets="a"), "/buckets", "did you mean bucket?"),
    Case(bodies.r2_target(pathPrefix="a"), "/pathPrefix", "known are bucket"),
    Case(bodies.s3_source(path_prefix="a"), "/path_prefix", "known are bucket"),
]
CHANGE = [
    Case({"options": {"bandwithLimit": 1}}, "/options/bandwithLimit", "mean bandwidthLimit?"),
    Case({"options": {"skipEmpty": True}}, "/options/skipEmpty", "cannot be changed here"),
    Case({"options": {}, "overwrite": True}, "/overwrite", "cannot be changed here"),
    Case({"options": {}, "bandwidthLimit": 1}, "/bandwidthLimit", "/options/bandwidthLimit"),
]
_SECRET = {"secret": bodies.s3_secret()}
NEW_SECRETS = [
    Case({"source": {**_SECRET, "bucket": "b"}}, "/source/bucket", "changes only secret"),
    Case({"source": {**_SECRET, "vendor": "s3"}}, "/source/vendor", "changes only secret"),
    Case({"Target": _SECRET}, "/Target", "did you mean target?"),
    Case(_SECRET, "/secret", "did you mean /source/secret or /target/secret?"),
    Case({"destination": _SECRET}, "/destination", "did you mean target?"),
    Case(
        {"source": {"secret": bodies.s3_secret(session_token="t")}},
        "/source/secret/session_token",
        "did you mean sessionToken?",
    ),
]

REQUESTS = [
    (method, path, case)
    for method, path, cases in (
        ("POST", JOBS, CREATE),
        ("PUT", SOURCE_CHECK, SOURCE),
        ("PUT", TARGET_CHECK, TARGET),
        ("PATCH", JOB, CHANGE),
        ("PUT", f"{JOB}/resume", NEW_SECRETS),
        ("PUT", f"{JOB}/retryFailed", NEW_SECRETS),
    )
    for case in cases
]


@pytest.mark.parametrize(
    ("method", "path", "case"),
    REQUESTS,
    ids=[f"{path.rpartition('/')[2]} {case.pointer}" for _, path, case in REQUESTS],
)
async def test_a_misspelt_member_is_refused_and_the_right_one_named(
    api: Api, method: str, path: str, case: Case
) -> None:
    answer = await api.client.request(method, path, json=case.body)
    assert answer.status_code == 400, answer.text
    (error,) = answer.json()["errors"]
    assert error["code"] == Code.INVALID_FIELD
    assert error["source"] == {"pointer": case.pointer}
    assert case.says in error["message"]
    assert await api.store.list_jobs(ACCOUNT, limit=1, offset=0) == []


async def test_path_prefix_in_snake_case_selects_as_path_prefix_does(api: Api) -> None:
    """Each key outside the prefix is refused, which shows that there is one."""
    for prefixes in (
        {"path_prefix": "in/"},
        {"path_prefix": "in/", "pathPrefix": None},
        {"path_prefix": "in/", "pathPrefix": "in/"},
        {"path_prefix": None, "pathPrefix": "in/"},
    ):
        body = bodies.from_s3(keys=["out/a"], **prefixes)
        answer = await api.client.post(JOBS, json=body)
        (error,) = answer.json()["errors"]
        assert error["source"] == {"pointer": "/source/keys/0"}
        assert "pathPrefix" in error["message"]
    answer = await api.client.post(JOBS, json=bodies.from_s3(path_prefix=1))
    assert answer.json()["errors"][0]["source"] == {"pointer": "/source/pathPrefix"}


async def test_two_prefixes_that_differ_are_refused(api: Api) -> None:
    body = bodies.from_s3(pathPrefix="a/", path_prefix="b/")
    (error,) = (await api.client.post(JOBS, json=body)).json()["errors"]
    assert error["source"] == {"pointer": "/source/path_prefix"}
    assert "contradicts pathPrefix" in error["message"]


_NULLS = {"endpoint": None, "region": None, "pathPrefix": None, "path_prefix": None, "keys": None}
_NO_GCS_SECRET = {"clientEmail": None, "privateKey": None}
_NO_S3_SECRET = {"accessKeyId": None, "secretAccessKey": None, "sessionToken": None}
SENT_BY_CLIENTS = {
    "nulls of every member": bodies.from_s3(**_NULLS),
    "nulls of other vendors, GCS": bodies.from_gcs(**_NULLS, jurisdiction=None),
    "nulls of the other side": bodies.to_r2(**_NULLS),
    "jurisdictions": bodies.create(
        source=bodies.r2_source(jurisdiction="us"), target=bodies.r2_target(jurisdiction="eu")
    ),
    "null of the other secret": bodies.from_s3(secret=bodies.s3_secret(**_NO_GCS_SECRET)),
    "null of the other secret, GCS": bodies.from_gcs(secret=bodies.gcs_secret(**_NO_S3_SECRET)),
    "null session token": bodies.from_s3(secret=bodies.s3_secret(sessionToken=None)),
    "null options": bodies.create(options=None, overwrite=True),
}


@pytest.mark.parametrize("name", SENT_BY_CLIENTS)
async def test_what_clients_send_goes_through(api: Api, name: str) -> None:
    """No store can be reached in here, so what has passed validation is a 403."""
    answer = await api.client.post(JOBS, json=SENT_BY_CLIENTS[name])
    if "GCS" in name:
        # Past validation a made-up private key is found to be none.
        (error,) = answer.json()["errors"]
        assert error["message"].startswith("source.secret.privateKey: is not an RSA private key")
    else:
        assert answer.status_code == 403
        assert {error["code"] for error in answer.json()["errors"]} == {Code.PRECHECK_FAILED}


async def test_new_secrets_may_have_nulls_for_the_other_kind(api: Api) -> None:
    for secret in (bodies.s3_secret(**_NO_GCS_SECRET), bodies.gcs_secret(**_NO_S3_SECRET)):
        body = {"source": {"secret": secret}, "target": None}
        answer = await api.client.put(f"{JOB}/resume", json=body)
        assert answer.json()["errors"][0]["code"] == Code.JOB_NOT_FOUND


async def test_a_name_of_any_length_is_refused_at_once_and_not_repeated(api: Api) -> None:
    name = "prefix" * 1_000_000
    began = time.monotonic()
    answer = await api.client.post(JOBS, json=bodies.from_s3(**{name: 1}))
    assert time.monotonic() - began < 5
    (error,) = answer.json()["errors"]
    assert error["source"]["pointer"] == f"/source/{name[: members.MOST_CHARACTERS]}…"
    assert len(answer.content) < 1_000


async def test_any_number_of_unknown_members_is_one_error(api: Api) -> None:
    body = bodies.from_s3(**{f"member{number}": 1 for number in range(300_000)})
    answer = await api.client.post(JOBS, json=body)
    (error,) = answer.json()["errors"]
    assert error["code"] == Code.MALFORMED_REQUEST
    assert f"more than {MAX_MEMBERS} members" in error["message"]
