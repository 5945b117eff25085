"""SigV4: AWS's published vectors and examples, and botocore as an oracle for everything else."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from slurper.http.messages import Request, encode_head
from slurper.objectstore.s3.signing import UNSIGNED_PAYLOAD, Signer, signing_key
from slurper.objectstore.urls import canonical_query
from slurper.secrets import S3Credentials
from tests.servers.signatures import canonical_request, signature, string_to_sign

EMPTY = hashlib.sha256(b"").hexdigest()

# The "AWS Signature Version 4 Test Suite": one key pair, one time, service "service".
SUITE_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE_DATE = "20150830T123600Z"
SUITE_HEADERS = {"host": "example.amazonaws.com", "x-amz-date": SUITE_DATE}
FORM = "application/x-www-form-urlencoded"
UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

SUITE = {
    "get-vanilla": (
        ("GET", "/", [], {}, b""),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "get-vanilla-query-order-key-case": (
        ("GET", "/", [("Param2", "value2"), ("Param1", "value1")], {}, b""),
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "get-vanilla-query-unreserved": (
        ("GET", "/", [(UNRESERVED, UNRESERVED)], {}, b""),
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    "get-vanilla-empty-query-key": (
        ("GET", "/", [("Param1", "value1")], {}, b""),
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    "get-unreserved": (
        ("GET", f"/{UNRESERVED}", [], {}, b""),
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    "get-utf8": (
        ("GET", quote("/ሴ"), [], {}, b""),
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    "get-header-value-trim": (
        ("GET", "/", [], {"my-header1": " value1", "my-header2": ' "a   b   c"'}, b""),
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    "post-vanilla": (
        ("POST", "/", [], {}, b""),
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    "post-x-www-form-urlencoded": (
        ("POST", "/", [], {"content-type": FORM}, b"Param1=value1"),
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "post-sts-header-before": (
        (
            "POST",
            "/",
            [],
            {
                "x-amz-security-token": (
                    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
                )
            },
            b"",
        ),
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
}


def sign(
    method: str,
    path: str,
    query: str,
    headers: dict[str, str],
    payload: str,
    *,
    secret: str,
    service: str,
) -> str:
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/us-east-1/{service}/aws4_request"
    canonical = canonical_request(method, path, query, headers, payload)
    key = signing_key(secret, date[:8], "us-east-1", service)
    return signature(key, string_to_sign(date, scope, canonical))


@pytest.mark.parametrize("name", SUITE)
def test_the_published_test_suite(name: str) -> None:
    (method, path, query, headers, body), expected = SUITE[name]
    payload = hashlib.sha256(body).hexdigest()
    headers = SUITE_HEADERS | headers
    found = sign(
        method,
        path,
        canonical_query(query),
        headers,
        payload,
        secret=SUITE_SECRET,
        service="service",
    )
    assert found == expected


# "Signature Calculations for the Authorization Header", Amazon S3 API Reference.
S3_KEY = S3Credentials(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
)
S3_DATE = "20130524T000000Z"
S3_HOST = "examplebucket.s3.amazonaws.com"
WELCOME = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()

S3_EXAMPLES = {
    "GET object": (
        ("GET", "/test.txt", [], {"range": "bytes=0-9"}, EMPTY),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "PUT object": (
        (
            "PUT",
            quote("/test$file.text"),
            [],
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            WELCOME,
        ),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "GET bucket lifecycle": (
        ("GET", "/", [("lifecycle", "")], {}, EMPTY),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list objects": (
        ("GET", "/", [("prefix", "J"), ("max-keys", "2")], {}, EMPTY),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


@pytest.mark.parametrize("name", S3_EXAMPLES)
def test_the_examples_of_the_s3_reference(name: str) -> None:
    (method, path, query, headers, payload), expected = S3_EXAMPLES[name]
    fixed = {"host": S3_HOST, "x-amz-content-sha256": payload, "x-amz-date": S3_DATE}
    found = sign(
        method,
        path,
        canonical_query(query),
        fixed | headers,
        payload,
        secret=S3_KEY.secret_access_key,
        service="s3",
    )
    assert found == expected


class Clock:
    def __init__(self, moment: str = "2013-05-24T00:00:00Z") -> None:
        self.now = datetime.fromisoformat(moment).timestamp()

    def __call__(self) -> float:
        return self.now


def signer(credentials: S3Credentials = S3_KEY, clock: Clock | None = None) -> Signer:
    return Signer(credentials, host=S3_HOST, region="us-east-1", clock=clock or Clock())


def signed(sign_one: Signer, request: Request) -> dict[str, str]:
    """All headers of one send, as they go on the wire."""
    head = encode_head(
        request.method,
        request.target,
        request.headers,
        0,
        added=f"host: {S3_HOST}\r\n{sign_one(request)}",
    )
    lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def signature_of(headers: dict[str, str]) -> str:
    return headers["authorization"].rpartition("Signature=")[2]


def signed_names(headers: dict[str, str]) -> list[str]:
    return headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")


def test_the_signer_agrees_with_the_pure_functions() -> None:
    sent = signed(
        signer(), Request("GET", "/a/../b?list-type=2&prefix=a%2Fb", {"x-amz-meta-a": "b"})
    )
    assert sent["x-amz-content-sha256"] == UNSIGNED_PAYLOAD
    names = ("host", "x-amz-content-sha256", "x-amz-date", "x-amz-meta-a")
    assert signature_of(sent) == sign(
        "GET",
        "/a/../b",
        "list-type=2&prefix=a%2Fb",
        {name: sent[name] for name in names},
        UNSIGNED_PAYLOAD,
        secret=S3_KEY.secret_access_key,
        service="s3",
    )
    assert sent["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-a, Signature="
    )


def test_only_what_proxies_leave_alone_is_signed() -> None:
    headers = {
        "range": "bytes=0-1",
        "if-match": '"x"',
        "cache-control": "no-store",
        "content-type": "a/b",
        "content-md5": "x",
        "x-amz-meta-z": "1",
    }
    sent = signed(signer(), Request("PUT", "/k", headers))
    assert signed_names(sent) == [
        "content-md5",
        "content-type",
        "host",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-meta-z",
    ]
    assert headers.items() <= sent.items()
    assert "accept-encoding" not in sent


def test_a_session_token_is_sent_and_signed() -> None:
    credentials = S3Credentials(access_key_id="A", secret_access_key="B", session_token="token//+=")
    sent = signed(signer(credentials), Request("GET", "/k", {}))
    assert sent["x-amz-security-token"] == "token//+="
    assert "x-amz-security-token" in signed_names(sent)


def test_the_clock_moves_through_seconds_and_days() -> None:
    clock = Clock("2023-12-31T23:59:59Z")
    sign_at = signer(clock=clock)
    first = signed(sign_at, Request("GET", "/k", {}))
    again = signed(sign_at, Request("GET", "/k", {}))
    clock.now += 1
    second = signed(sign_at, Request("GET", "/k", {}))
    assert first == again
    assert (first["x-amz-date"], second["x-amz-date"]) == ("20231231T235959Z", "20240101T000000Z")
    assert "/20240101/" in second["authorization"]
    fresh = signed(signer(clock=clock), Request("GET", "/k", {}))
    assert second == fresh


def test_the_skew_is_added_to_the_clock() -> None:
    sign_at = signer()
    sign_at.skew_seconds = 3600.0
    assert signed(sign_at, Request("GET", "/k", {}))["x-amz-date"] == "20130524T010000Z"


def test_metadata_names_do_not_fill_memory() -> None:
    sign_at = signer()
    for number in range(3000):
        signed(sign_at, Request("PUT", "/k", {f"x-amz-meta-{number}": "v"}))
    assert len(sign_at._layouts) <= 1024


def test_the_request_is_left_as_it_was() -> None:
    request = Request("GET", "/k", {"x-amz-meta-a": "b"})
    signer()(request)
    assert request.headers == {"x-amz-meta-a": "b"}


# Hostile keys, queries and values against an implementation that is not ours.

keys = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("/.+%?#&=~ \x01\n"), min_size=1
)
# Python, and so botocore, takes four more control characters for white space than anybody else.
white_space = st.sampled_from(" \t\v\f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000")
values = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | white_space)
metadata_names = st.from_regex(r"x-amz-meta-[a-z0-9_.-]{1,8}", fullmatch=True)


@given(
    key=keys,
    parameters=st.dictionaries(keys, keys, max_size=3),
    metadata=st.dictionaries(metadata_names, values, max_size=3),
    method=st.sampled_from(("GET", "PUT", "HEAD", "POST", "DELETE")),
    token=st.none() | st.just("to/ken+="),
)
def test_botocore_signs_the_same(
    key: str,
    parameters: dict[str, str],
    metadata: dict[str, str],
    method: str,
    token: str | None,
) -> None:
    path, query = quote(f"/bucket/{key}", safe="-_.~/"), canonical_query(parameters.items())
    assert_botocore_agrees(method, f"{path}?{query}" if query else path, metadata, token)


def assert_botocore_agrees(
    method: str, target: str, headers: dict[str, str], token: str | None = None
) -> None:
    on_the_wire = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    pair = S3Credentials(access_key_id="AK", secret_access_key="SK", session_token=token)
    sent = signed(signer(pair), Request(method, target, on_the_wire))

    theirs = AWSRequest(method, f"https://{S3_HOST}{target}", headers=headers)
    theirs.context["client_config"] = Config(s3={"payload_signing_enabled": False})
    moment = datetime(2013, 5, 24, tzinfo=UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        oracle = botocore.auth.S3SigV4Auth(Credentials("AK", "SK", token), "s3", "us-east-1")
        oracle.add_auth(theirs)
    assert sent["authorization"] == theirs.headers["Authorization"]
    assert on_the_wire.items() <= sent.items()


HOSTILE_VALUES = [
    "",
    " ",
    "\t",
    " \t ",
    "a\tb",
    "a\t\tb",
    "a \t b",
    "\ta\t",
    "  a  b  ",
    "a\vb",
    "a\fb",
    '"a   b"',
    'attachment; filename="a  b\tc.txt"',
    "a,  b,c",
    "a\xa0b",
    "a\xa0",
    "\u3000a\u3000\u3000b",
    "a\x85b",
    "à la carte  \u00c3\u00a0",
    "1\u202f000\u2009€",
    "%20%25+%2B",
    "100%",
    "%s %d %%",
    "ü ü 日本語 🎉",
    "=?UTF-8?Q?=C3=A4?=",
    ":: ;; ,, ==",
    "x" * 2000,
]


@pytest.mark.parametrize("value", HOSTILE_VALUES)
@pytest.mark.parametrize("name", ["x-amz-meta-a", "content-type", "x-amz-copy-source"])
def test_a_hostile_value_is_signed_as_botocore_signs_it_and_sent_as_it_is(
    name: str, value: str
) -> None:
    assert_botocore_agrees("PUT", "/bucket/k", {name: value, "x-amz-meta-other": "plain"})


@pytest.mark.parametrize(
    "key",
    [
        "100%",
        "%2F",
        "a%20b",
        "a+b",
        "a b",
        "a//b",
        "/a",
        "a/",
        "..",
        "a/../b",
        "ü",
        "~*'()!",
        "\x7f",
    ],
)
def test_a_hostile_key_is_signed_as_botocore_signs_it(key: str) -> None:
    path = quote(f"/bucket/{key}", safe="-_.~/")
    assert_botocore_agrees("PUT", path, {"x-amz-meta-a": "a\tb"})
    assert_botocore_agrees(
        "GET", f"/bucket?{canonical_query([('prefix', key), ('marker', key)])}", {}
    )
