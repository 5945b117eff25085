"""No request, and no answer of a store, keeps the control plane's event loop from others for long.

The loop also renews the lease and answers everybody else. `stalls` measures the longest time
between two turns of a task in the loop of the real service, in CPU time of that process. So a busy
machine changes nothing, and a thread that keeps the interpreter from the loop counts.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import secrets
from collections.abc import Callable, Iterator
from http import HTTPStatus

import httpx
import pytest

from slurper.demo.servers import S3Server
from slurper.job import rules
from tests.security.hostile import Answers, Asked, HostileStore, Reply, hostile_store
from tests.security.stalls import Measured, serving_measured
from tests.servers.gcs import tokens

MOST_MS = 50.0
TOKEN = secrets.token_urlsafe(32)
ACCOUNT = "b" * 32
PAIR = {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2hunter2"}
MIB = 1 << 20


class Service:
    """The service under measurement, and the store that it is sent to."""

    def __init__(self, measured: Measured, store: HostileStore, client: httpx.Client) -> None:
        self.measured = measured
        self.store = store
        self._client = client

    def call(self, method: str, path: str, content: bytes | None = None) -> httpx.Response:
        return self._client.request(
            method,
            f"{self.measured.url}/accounts/{ACCOUNT}/slurper/{path}",
            content=content,
            headers={"authorization": f"Bearer {TOKEN}", "content-type": "application/json"},
        )

    def side(self, **more: object) -> dict[str, object]:
        return {
            "vendor": "s3",
            "bucket": "photos",
            "endpoint": self.store.url,
            "region": "auto",
            "secret": PAIR,
            **more,
        }


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with hostile_store(lambda _: Reply(b"", status=404)) as store:
        env = {
            **os.environ,
            "SLURPER_API_TOKEN": TOKEN,
            "SLURPER_DATA_DIR": str(tmp_path_factory.mktemp("service")),
            "SLURPER_ALLOW_HTTP": "true",
            "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
            "SLURPER_GCS_ENDPOINT": store.url,
            "SLURPER_GCS_TOKEN_URI": f"{store.url}/token",
            "SLURPER_WORKERS": "1",
            "SLURPER_REQUEST_RETRIES": "0",
        }
        with serving_measured(env) as measured, httpx.Client(timeout=150.0) as client:
            service = Service(measured, store, client)
            # What is loaded at its first use is not what is measured.
            store.answers = short_list
            for side in ("source", "target"):
                body = json.dumps(service.side()).encode()
                service.call("PUT", f"{side}/connectivity-precheck", body)
            measured.longest_ms()
            yield service


def stalls(service: Service, call: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    service.measured.longest_ms()
    answer = call()
    return answer, service.measured.longest_ms()


# Bodies


def with_keys(keys: bytes) -> bytes:
    side = (
        b'{"vendor":"s3","bucket":"photos","endpoint":"http://127.0.0.1:9","secret":%s,"keys":%s}'
    )
    source = side % (json.dumps(PAIR).encode(), keys)
    target = json.dumps({"vendor": "r2", "bucket": "target", "secret": PAIR}).encode()
    return b'{"source":%s,"target":%s}' % (source, target)


def key_list(key: str, *, last: str = "") -> bytes:
    """Ten thousand keys."""
    fill = [f"{number:05}{key}" for number in range(rules.MAX_KEYS - bool(last))]
    return json.dumps([*fill, *([last] if last else [])]).encode()


FULL = 30 * MIB
LONG = "k" * (rules.MAX_KEY_BYTES - 5)
ESCAPED = "ü" * ((rules.MAX_KEY_BYTES - 5) // 2)
MEMBERS = b",".join(b'"m%d":0' % number for number in range(55_000))

# Made when they are needed, because they take much memory.
BODIES: dict[str, Callable[[], bytes]] = {
    "members given twice": lambda: b'{%s,"m1":0}' % MEMBERS,
    "objects with members given twice": lambda: with_keys(
        b'[%s{"a":0,"a":0}]' % (b'{"a":0},' * 2 * MIB)
    ),
    "thirty megabytes of numbers": lambda: with_keys(b"[%s0]" % (b"0," * (FULL // 2))),
    "thirty megabytes of objects": lambda: with_keys(b"[%s{}]" % (b"{}," * (FULL // 3))),
    "thirty megabytes of lists of lists": lambda: with_keys(
        b"[%s[]]" % (b"[[],[]]," * (FULL // 8))
    ),
    "thirty megabytes of keys": lambda: with_keys(b'[%s""]' % (b'"",' * (FULL // 3))),
    "thirty megabytes of blanks": lambda: with_keys(b"[%s]" % (b" \n" * (FULL // 2))),
    "thirty megabytes of one key": lambda: with_keys(b'["%s"]' % (b"k" * FULL)),
    "thirty megabytes of escapes": lambda: with_keys(b'["%s"]' % (rb"\u0061" * (FULL // 6))),
    "thirty megabytes of backslashes": lambda: with_keys(b'["%s"]' % (rb"\\" * (FULL // 2))),
    "thirty megabytes of one number": lambda: with_keys(b"[%s]" % (b"9" * FULL)),
    "thirty megabytes of nonsense": lambda: b"x" * FULL,
    "nested a million times": lambda: with_keys(b"[" * MIB + b"]" * MIB),
    "all keys that are allowed": lambda: with_keys(key_list(LONG)),
    "all keys that are allowed, escaped": lambda: with_keys(key_list(ESCAPED)),
    "all keys, and the last is wrong": lambda: with_keys(key_list(LONG, last=f"{LONG}toolong")),
    "all keys, and the last is a number": lambda: with_keys(key_list(LONG)[:-1] + b",0]"),
    "all keys in reverse": lambda: with_keys(json.dumps(json.loads(key_list(LONG))[::-1]).encode()),
    "unknown members": lambda: json.dumps(
        {f"{'member' * 10}{number}": {} for number in range(100)}
    ).encode(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BODIES)
def test_no_body_keeps_the_loop_busy(service: Service, name: str) -> None:
    body = BODIES[name]()
    answer, longest = stalls(service, lambda: service.call("POST", "jobs", body))
    assert answer.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}, answer.text[:500]
    assert longest <= MOST_MS


@pytest.mark.parametrize("name", ["thirty megabytes of numbers", "all keys that are allowed"])
@pytest.mark.parametrize("place", ["jobs/{}/resume", "jobs/{}/retryFailed", "target/{}"])
def test_large_bodies_are_read_only_where_keys_may_be(
    service: Service, name: str, place: str
) -> None:
    job = place.format("connectivity-precheck" if place.startswith("target") else "0" * 64)
    body = BODIES[name]()
    answer, longest = stalls(service, lambda: service.call("PUT", job, body))
    assert answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert "larger than 1048576 bytes; no request of this kind" in answer.text
    assert longest <= MOST_MS


# Answers of stores


def is_listing(asked: Asked) -> bool:
    return asked.method == "GET" and asked.path.count("/") == 1 and "uploads" not in asked.query


def row(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{'0' * 32}&quot;</ETag><Size>1</Size></Contents>"
    )


def listing(inside: str, *, truncated: bool = False) -> bytes:
    more = str(truncated).lower()
    head = f"<KeyCount>1</KeyCount><IsTruncated>{more}</IsTruncated>"
    return f"<ListBucketResult>{head}{inside}</ListBucketResult>".encode()


def short_list(asked: Asked) -> Reply:
    """A bucket of a few objects, which has more if it is asked for more."""
    if is_listing(asked):
        key = "b" if "start-after" in asked.query or "marker" in asked.query else "a"
        return Reply(listing(row(key), truncated=key == "a"))
    if asked.method == "POST":
        return Reply(b"<I><UploadId>u</UploadId></I>")
    return Reply(b"x" if asked.method == "GET" else b"", {"ETag": '"e"'})


def every_listing(body: bytes, **headers: str) -> Answers:
    return lambda asked: Reply(body, headers) if is_listing(asked) else short_list(asked)


def long_listing(body: bytes) -> Answers:
    """The first page is short; this is the long one that shows the order."""

    def answers(asked: Asked) -> Reply:
        is_long = is_listing(asked) and int(asked.query.get("max-keys", "1000")) > 20
        return Reply(body) if is_long else short_list(asked)

    return answers


def every_document(body: bytes, status: int = 200) -> Answers:
    return lambda _: Reply(body, {"Content-Type": "application/xml"}, status)


def uploads(body: str) -> Answers:
    document = f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode()
    return lambda asked: Reply(document) if "uploads" in asked.query else short_list(asked)


def filled(piece: str, size: int) -> str:
    return piece * (size // len(piece))


FEW = 250 << 10
PAGE = 4_000_000
WIDE = "".join(f"<f{number}>1</f{number}>" for number in range(500))
ATTRIBUTES = "".join(f' a{number}=""' for number in range(20_000))
SIXTEEN = 16 * MIB

ANSWERS: dict[str, Callable[[], Answers]] = {
    "16 MiB nested": lambda: every_listing(listing(filled("<a>", SIXTEEN))),
    "16 MiB repeated": lambda: every_listing(listing(filled("<a/>", SIXTEEN))),
    "16 MiB of rows": lambda: every_listing(listing(filled(row("a"), SIXTEEN))),
    "nested": lambda: every_listing(listing(filled("<a>", FEW // 2) + filled("</a>", FEW // 2))),
    "repeated": lambda: every_listing(listing(filled("<a/>", FEW))),
    "repeated in a row": lambda: every_listing(
        listing(f"<Contents>{filled('<a/>', FEW)}</Contents>")
    ),
    "attributes": lambda: every_listing(listing(f"<a{ATTRIBUTES[:FEW]}/>")),
    "references": lambda: every_listing(listing(f"<a>{filled('&#38;', FEW)}</a>")),
    "references to control characters": lambda: every_listing(
        listing(f"<a>{filled('&#1;', FEW)}</a>")
    ),
    "zeros in a reference": lambda: every_listing(listing(f"<a>&#x{filled('0', FEW)}g;</a>")),
    "comments": lambda: every_listing(f"<x>{filled('<!---->', FEW)}".encode()),
    "only comments": lambda: every_listing(filled("<!---->", FEW).encode()),
    "one long key": lambda: every_listing(listing(row(filled("%41", FEW)))),
    "rows of many elements": lambda: every_listing(
        listing(f"<Contents><Key>a</Key>{WIDE}</Contents>")
    ),
    "zipped": lambda: every_listing(gzip.compress(listing(filled("<a/>", 32 * MIB)))),
    "zipped, as it says": lambda: every_listing(
        gzip.compress(listing(filled("<a/>", 32 * MIB))), **{"Content-Encoding": "gzip"}
    ),
    "a long page of keys": lambda: long_listing(
        listing("".join(row(f"{n:04}" + "%41" * 1020) for n in range(1000)), truncated=True)
    ),
    "a long page of keys in no order": lambda: long_listing(
        listing("".join(row(f"{n * 7919 % 1000:04}k" * 200) for n in range(1000)), truncated=True)
    ),
    "a long page, nested": lambda: long_listing(
        listing(filled("<a>", PAGE // 2) + filled("</a>", PAGE // 2))
    ),
    "a long page, repeated": lambda: long_listing(listing(filled("<a/>", PAGE))),
    "a long page of short rows": lambda: long_listing(
        listing(filled("<Contents><Key>a</Key></Contents>", PAGE))
    ),
    "a long page of few tags": lambda: long_listing(
        listing(filled(f"<a>{'%41' * 2000}</a>", PAGE))
    ),
    "a long page of references": lambda: long_listing(
        listing(filled(f"<a>{'&#38;' * 2000}</a>", PAGE))
    ),
    "a long page of attributes": lambda: long_listing(
        listing(filled(f"<a{ATTRIBUTES[:15_000]}/>", PAGE))
    ),
    "many uploads": lambda: uploads(
        filled("<Upload><Key>k</Key><UploadId>u</UploadId></Upload>", PAGE)
    ),
    "uploads, nested": lambda: uploads(filled("<Upload>", PAGE)),
    "a web page of comments": lambda: every_document(filled("<!---->", 60_000).encode(), 403),
    "a web page of titles": lambda: every_document(
        b"<html>" + filled("<title>", 60_000).encode(), 403
    ),
    "a web page of half titles": lambda: every_document(
        b"<html>" + filled("<title", 60_000).encode(), 403
    ),
    "a web page of styles": lambda: every_document(
        b"<html>" + filled("<style ", 60_000).encode(), 403
    ),
    "a web page of angles": lambda: every_document(filled("<", 60_000).encode(), 403),
    "an error of names": lambda: every_document(
        f"<Error><Code>{filled('&amp;', 60_000)}</Code></Error>".encode(), 400
    ),
    "JSON": lambda: every_document(b"[" * FEW),
    "one header, many times": lambda: lambda _: Reply(b"", more=[("a", "")] * 12_000),
    "many headers": lambda: lambda _: Reply(b"", more=[(f"{n:x}", "") for n in range(8_000)]),
    "chunks of one byte": lambda: lambda _: Reply(listing(filled("<a/>", FEW)), chunk_bytes=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_of_a_store_keeps_the_loop_busy(service: Service, name: str, side: str) -> None:
    service.store.answers = ANSWERS[name]()
    body = json.dumps(service.side()).encode()
    answer, longest = stalls(
        service, lambda: service.call("PUT", f"{side}/connectivity-precheck", body)
    )
    assert answer.status_code == HTTPStatus.OK, answer.text[:500]
    assert longest <= MOST_MS


def of_google(listed: bytes) -> Answers:
    token = json.dumps({"access_token": "t", "expires_in": 3600}).encode()
    return lambda asked: Reply(token if asked.path == "/token" else listed)


GOOGLE: dict[str, Callable[[], bytes]] = {
    "16 MiB of lists": lambda: b'{"items":[%s[]]}' % (b"[]," * (SIXTEEN // 3)),
    "lists": lambda: b'{"items":[%s[]]}' % (b"[]," * (FEW // 3)),
    "objects": lambda: b'{"items":[%s{}]}' % (b"{}," * (FEW // 3)),
    "names": lambda: b'{"items":[%s{"name":"z"}]}' % (b'{"name":"a"},' * (FEW // 13)),
    "nested": lambda: b'{"items":%s' % (b"[" * FEW),
    "a long number": lambda: b'{"items":[{"name":"a","size":%s}]}' % (b"9" * FEW),
}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("name", GOOGLE)
def test_no_answer_of_google_keeps_the_loop_busy(service: Service, name: str, side: str) -> None:
    service.store.answers = of_google(GOOGLE[name]())
    secret = {"clientEmail": tokens.EMAIL, "privateKey": tokens.pem("right")}
    body = json.dumps({"vendor": "gcs", "bucket": "photos", "secret": secret}).encode()
    answer, longest = stalls(
        service, lambda: service.call("PUT", f"{side}/connectivity-precheck", body)
    )
    assert answer.status_code == HTTPStatus.OK, answer.text[:500]
    assert longest <= MOST_MS


def test_a_page_that_is_too_long_for_the_question_is_refused(service: Service) -> None:
    """The answer says what was asked for, and how long an answer may be."""
    service.store.answers = every_listing(listing(filled(row("a"), MIB)))
    body = json.dumps(service.side()).encode()
    result = service.call("PUT", "source/connectivity-precheck", body).json()["result"]
    assert result["connectivityStatus"] == "error"
    (reason,) = result["reasons"]
    assert "the listing of at most 1 key is too large to be one" in reason["message"]
    assert "exceeds 262144 body bytes" in reason["message"]


# A large job


@pytest.mark.slow
@pytest.mark.parametrize("key", [LONG, ESCAPED], ids=["plain", "escaped"])
def test_a_job_of_ten_thousand_keys_keeps_the_loop_from_nobody(
    service: Service,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    key: str,
) -> None:
    """Made, driven, read back, listed, and ended."""
    secret = {
        "accessKeyId": ministack.access_key_id,
        "secretAccessKey": ministack.secret_access_key,
    }
    side = {
        "vendor": "s3",
        "endpoint": ministack.endpoint,
        "region": ministack.region,
        "secret": secret,
    }
    source = {**side, "bucket": make_bucket(ministack), "keys": json.loads(key_list(key))}
    target = {**side, "bucket": make_bucket(ministack)}
    body = json.dumps({"source": source, "target": target}).encode()
    made, longest = stalls(service, lambda: service.call("POST", "jobs", body))
    assert made.status_code == HTTPStatus.CREATED, made.text[:500]
    assert longest <= MOST_MS
    job = made.json()["result"]["id"]
    for method, path in [
        ("GET", f"jobs/{job}"),
        ("GET", "jobs"),
        ("GET", f"jobs/{job}/progress"),
        ("PUT", f"jobs/{job}/pause"),
        ("PUT", f"jobs/{job}/resume"),
        ("PUT", f"jobs/{job}/abort"),
        ("DELETE", f"jobs/{job}"),
    ]:
        answer, longest = stalls(service, functools.partial(service.call, method, path))
        assert answer.status_code in {HTTPStatus.OK, HTTPStatus.CONFLICT}, answer.text[:500]
        assert longest <= MOST_MS, path
