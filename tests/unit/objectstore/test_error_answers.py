"""What error answers mean, however badly they are written."""

from __future__ import annotations

import gzip
import json
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.http.messages import Response
from slurper.objectstore import documents
from slurper.objectstore.error_answers import (
    asks_to_slow_down,
    read_failure,
    skew_seconds,
    to_error,
)


def answer(status: int, body: bytes = b"", retries: int = 0, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, [body], len(body), retries)


def document(code: str, message: str = "Because.", *, more: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>{message}</Message>{more}<RequestId>R1</RequestId></Error>"
    ).encode()


def error_of(
    response: Response, *, key: str | None = "k", hidden: tuple[str, ...] = ()
) -> errors.SlurperError:
    return to_error(response, "GetObject", bucket="b", key=key, hidden=hidden)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", errors.NotFound),
        (404, "NoSuchUpload", errors.NotFound),
        (404, "", errors.NotFound),
        (404, "NoSuchBucket", errors.Misdirected),
        (403, "AccessDenied", errors.AccessDenied),
        (403, "", errors.AccessDenied),
        (403, "InvalidAccessKeyId", errors.CredentialsRejected),
        (403, "SignatureDoesNotMatch", errors.CredentialsRejected),
        (403, "RequestTimeTooSkewed", errors.CredentialsRejected),
        (400, "ExpiredToken", errors.CredentialsRejected),
        (400, "InvalidToken", errors.CredentialsRejected),
        (400, "AuthorizationHeaderMalformed", errors.CredentialsRejected),
        (401, "Unauthorized", errors.CredentialsRejected),
        (401, "", errors.CredentialsRejected),
        (403, "InvalidObjectState", errors.RequiresRetrieval),
        (412, "PreconditionFailed", errors.PreconditionFailed),
        (412, "", errors.PreconditionFailed),
        (409, "ConditionalRequestConflict", errors.UnavailableStore),
        (503, "SlowDown", errors.Throttled),
        (503, "", errors.Throttled),
        (429, "", errors.Throttled),
        (400, "Throttling", errors.Throttled),
        (500, "InternalError", errors.UnavailableStore),
        (502, "", errors.UnavailableStore),
        (400, "RequestTimeout", errors.UnavailableStore),
        (408, "", errors.UnavailableStore),
        (200, "InternalError", errors.UnavailableStore),
        (200, "SlowDown", errors.Throttled),
        (301, "PermanentRedirect", errors.Misdirected),
        (307, "TemporaryRedirect", errors.Misdirected),
        *((status, "", errors.Misdirected) for status in (300, 301, 302, 303, 307, 308)),
        (304, "", errors.StoreError),
        (400, "BadDigest", errors.BytesRefused),
        (400, "EntityTooLarge", errors.StoreError),
        (501, "NotImplemented", errors.StoreError),
        (418, "", errors.StoreError),
    ],
)
def test_status_and_code_decide(status: int, code: str, kind: type[errors.SlurperError]) -> None:
    error = error_of(answer(status, document(code) if code else b""))
    assert type(error) is kind


@pytest.mark.parametrize(
    ("status", "code", "headers", "asks"),
    [
        (503, "SlowDown", {}, True),
        (503, "SlowDownRead", {}, True),
        (503, "RequestLimitExceeded", {}, True),
        (500, "SlowDown", {}, True),
        (200, "SlowDown", {}, True),
        (403, "rateLimitExceeded", {}, True),
        (503, "ServiceUnavailable", {}, False),
        (503, "ServiceUnavailable", {"retry_after": "1"}, False),
        (503, "AnythingElse", {}, False),
        (503, "backendError", {}, False),
        (503, "", {}, False),
        (503, "", {"retry_after": "1"}, True),
        (500, "InternalError", {}, False),
    ],
)
def test_the_code_asks_to_slow_down_or_without_one_a_time(
    status: int, code: str, headers: dict[str, Any], asks: bool
) -> None:
    response = answer(status, document(code) if code else b"", **headers)
    assert asks_to_slow_down(response) is asks


def test_a_404_that_concerns_no_key_concerns_the_bucket() -> None:
    assert type(error_of(answer(404), key=None)) is errors.NoSuchBucket


def test_the_error_tells_all_it_knows() -> None:
    response = answer(503, document("SlowDown", "Reduce &lt;your&gt; rate."), 3)
    error = error_of(response)
    assert isinstance(error, errors.Throttled)
    assert (error.status, error.code, error.bucket, error.key) == (503, "SlowDown", "b", "k")
    assert (error.request_id, error.retries) == ("R1", 3)
    assert str(error) == ("GetObject answered HTTP 503 SlowDown: Reduce <your> rate. (request R1)")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own


@pytest.mark.parametrize(
    "body",
    [
        document("NoSuchKey"),
        document("NoSuchKey")[:80],
        b'<Error xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Code>NoSuchKey</Code></Error>',
        b"<s3:Error><s3:Code>\n NoSuchKey </s3:Code></s3:Error>",
    ],
)
def test_codes_are_found_in_any_clothing(body: bytes) -> None:
    assert read_failure(answer(404, body)).code == "NoSuchKey"


def test_a_zipped_document_is_unzipped() -> None:
    zipped = gzip.compress(document("AccessDenied", "Not you."))
    failure = read_failure(answer(403, zipped, content_encoding="gzip"))
    assert (failure.code, failure.message) == ("AccessDenied", "Not you.")
    assert read_failure(answer(403, zipped[:40], content_encoding="gzip")).code in ("", "AccessD")
    assert read_failure(answer(403, b"not zipped", content_encoding="gzip")).code == ""


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(documents.text_of(answer(500, bomb, content_encoding="gzip"))) <= 64 * 1024


def test_a_web_page_is_told_without_its_words() -> None:
    page = b"<html><style>b{}</style><body><h1>502</h1>\n<p>Bad <b>gateway</b></body></html>"
    assert str(error_of(answer(502, page))) == "GetObject answered HTTP 502: a web page"


def test_a_web_page_in_a_stores_stead_is_named_with_its_place() -> None:
    body = b"<!DOCTYPE html><html><head><title>MinIO Console</title></head><body/></html>"
    error = to_error(
        answer(404, body), "ListObjectsV2", bucket="b", key=None, origin="http://h.example:9001"
    )
    assert isinstance(error, errors.StoreError)
    assert str(error) == ("ListObjectsV2 answered HTTP 404: a web page answers at h.example:9001")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (again.is_page, again.leads_to, str(again)) == (True, "", str(error))


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://h.example/s3cr3t?token=s3cr3t", "from http to https, to https://h.example"),
        ("/login/s3cr3t#s3cr3t", "it redirects, to another path"),
        ("http://u\x01.example:80/", "it redirects, to http://u.example:80"),
        ("http://[", "it redirects"),
        ("https://me:s3cr3t@h.example/x", "to https://h.example"),
        ("?s3cr3t", "GetObject answered HTTP 302"),
        ("", "GetObject answered HTTP 302"),
    ],
)
def test_a_redirect_says_to_which_server_it_leads_and_hides_the_rest(to: str, said: str) -> None:
    error = to_error(
        answer(302, location=to), "GetObject", bucket="b", key="k", origin="http://h.example"
    )
    assert said in str(error)
    assert "s3cr3t" not in str(error)


def test_a_redirect_of_a_store_is_told_by_its_region() -> None:
    error = error_of(answer(301, x_amz_bucket_region="eu-west-1", location="https://x/"))
    assert isinstance(error, errors.Misdirected)
    assert (error.leads_to, error.is_page) == ("", False)


def test_a_long_message_is_cut() -> None:
    assert len(str(error_of(answer(500, document("InternalError", "x" * 10_000))))) < 200


def test_secrets_do_not_come_back() -> None:
    body = document("InvalidToken", "The token s3cr3t+/= is malformed.")
    assert "s3cr3t" not in str(error_of(answer(400, body), hidden=("s3cr3t+/=",)))


@pytest.mark.parametrize(
    "response",
    [
        answer(301, document("PermanentRedirect"), x_amz_bucket_region="eu-west-1"),
        answer(301, x_amz_bucket_region="eu-west-1"),
        answer(400, document("AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>")),
    ],
)
def test_a_region_hint_becomes_advice(response: Response) -> None:
    error = error_of(response, key=None)
    assert error.blocks_job
    assert "set that region" in str(error)
    assert "eu-west-1" in str(error)
    assert "eu-west-1" in str(error_of(response))


@given(
    st.integers(100, 599),
    st.binary(max_size=300),
    st.sampled_from(("", "gzip")),
    st.text(max_size=20),
)
def test_nothing_a_store_sends_breaks_the_reader(
    status: int, body: bytes, encoding: str, header: str
) -> None:
    response = answer(status, body, content_encoding=encoding, retry_after=header, date=header)
    assert isinstance(error_of(response), errors.SlurperError)
    skew = skew_seconds(response, 0.0)
    assert skew is None or isinstance(skew, float)


def test_the_difference_of_clocks_is_read_from_the_date() -> None:
    now = 1_700_000_000.0
    ahead = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now + 3600))
    assert skew_seconds(answer(403, date=ahead), now) == 3600.0
    assert skew_seconds(answer(403), now) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (document("InternalError"), True),
        (b" \n\n  " + document("InternalError"), True),
        (b"\n" * 5000 + b"<Error/>", False),
        (b"\n" * 5000 + b"<Error><Code>x</Code></Error>", True),
        (b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>", False),
        (b"<Errors>", False),
        (b"", False),
    ],
)
def test_an_error_in_a_success_is_recognised(body: bytes, *, expected: bool) -> None:
    assert documents.holds_error(answer(200, body)) is expected


def test_the_document_that_joins_parts() -> None:
    parts = [(1, '"a&b"', "ChecksumCRC32C", "x<y=="), (2, '"c"', "", "")]
    assert documents.complete_upload(parts) == (
        b'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b'<Part><ChecksumCRC32C>x&lt;y==</ChecksumCRC32C><ETag>"a&amp;b"</ETag>'
        b"<PartNumber>1</PartNumber></Part>"
        b'<Part><ETag>"c"</ETag><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>'
    )


# Google's JSON


def google(reason: str, message: str = "Because.") -> bytes:
    row = {"message": message, "domain": "global", "reason": reason}
    about = {"error": {"code": 400, "message": message, "errors": [row]}}
    return json.dumps(about, indent=1).encode()


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "rateLimitExceeded", errors.Throttled),
        (403, "userRateLimitExceeded", errors.Throttled),
        (429, "rateLimitExceeded", errors.Throttled),
        (403, "forbidden", errors.AccessDenied),
        (403, "insufficientPermissions", errors.AccessDenied),
        (403, "userProjectAccountProblem", errors.AccessDenied),
        (401, "authError", errors.CredentialsRejected),
        (401, "required", errors.CredentialsRejected),
        (404, "notFound", errors.NotFound),
        (412, "conditionNotMet", errors.PreconditionFailed),
        (500, "internalError", errors.UnavailableStore),
        (503, "backendError", errors.UnavailableStore),
        (400, "invalid", errors.StoreError),
    ],
)
def test_reasons_of_google(status: int, reason: str, kind: type[errors.StoreError]) -> None:
    error = error_of(answer(status, google(reason, 'a "quoted"\nwör d')))
    assert type(error) is kind
    assert isinstance(error, errors.StoreError)
    assert (error.code, error.detail) == (reason, 'a "quoted" wör d')


def test_a_reason_is_found_in_zipped_json() -> None:
    zipped = gzip.compress(google("rateLimitExceeded"))
    for body in (zipped, zipped[:-8]):
        assert read_failure(answer(403, body, content_encoding="gzip")).code == "rateLimitExceeded"


def test_json_may_end_anywhere() -> None:
    whole = google("rateLimitExceeded", "Too many.")
    for end in range(len(whole)):
        found = read_failure(answer(403, whole[:end]))
        assert found.code in ("", "rateLimitExceeded")
        if b'"Too many."' in whole[:end]:
            assert found.message == "Too many."


def test_a_bucket_that_google_does_not_have() -> None:
    assert type(error_of(answer(404, google("notFound")), key=None)) is errors.NoSuchBucket
    lacking = google("notFound", "The specified bucket does not exist.")
    assert type(error_of(answer(404, lacking))) is errors.Misdirected
