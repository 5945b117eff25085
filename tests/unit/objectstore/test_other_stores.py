"""Answers that some stores give although nothing is wrong, each with its neighbours that are."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import replace

import pytest

from slurper import errors
from slurper.job.model import Capabilities
from slurper.objectstore import dialects, factory
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders, ObjectMeta, StoredObject
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import Dialect
from tests.unit.http.scripted import Peer, answer
from tests.unit.objectstore.answers import (
    NO_HEADERS,
    OPTIONS,
    PLAIN,
    Open,
    error,
    found,
    headers_of,
    in_turn,
    line_of,
    listed,
)

BODY = b"0123456789"
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
DENIED = error("403 Forbidden", "AccessDenied")
ABSENT = error("404 Not Found", "NoSuchKey")
REFUSED = error("412 Precondition Failed", "PreconditionFailed")


def described(size: int = len(BODY), *, etag: str = f'"{MD5}"', more: str = "") -> bytes:
    """The answer to a HEAD."""
    tag = f"ETag: {etag}\r\n" if etag else ""
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{tag}{more}\r\n".encode()


def methods_of(server: object) -> list[str]:
    return [request.line.decode().split()[0] for request in server.requests]  # type: ignore[attr-defined]


# Ranges


@pytest.mark.parametrize(
    ("status", "content_range", "body", "size"),
    [
        ("206 Partial Content", "bytes 2-5/9", b"2345", 9),
        ("200 OK", "bytes 2-5/9", b"2345", 9),
        ("200 OK", "Bytes 2-5/9", b"2345", 9),
        ("206 Partial Content", "bytes=2-5/9", b"2345", 9),
        ("200 OK", "bytes 2-5/6", b"2345", 6),
        ("200 OK", "bytes 1-4/9", b"1234", None),
        ("200 OK", "bytes 2-5/9", b"234", None),
        ("200 OK", "bytes 2-5/9", b"012345678", None),
        ("200 OK", "bytes 2-5/*", b"2345", None),
        ("200 OK", "2-5/9", b"2345", None),
        ("200 OK", "", b"2345", None),
        ("206 Partial Content", "", b"2345", None),
        ("203 Changed", "bytes 2-5/9", b"2345", None),
    ],
)
async def test_a_ranged_get_counts_by_the_range_it_names_and_not_by_its_status(
    open_s3: Open, status: str, content_range: str, body: bytes, size: int | None
) -> None:
    lines = (f"Content-Range: {content_range}",) if content_range else ()
    store, _ = await open_s3(found(body, *lines, status=status))
    if size is None:
        with pytest.raises(errors.IntegrityError):
            await store.get("k", byte_range=ByteRange(2, 6))
        return
    download = await store.get("k", byte_range=ByteRange(2, 6))
    assert (bytes(download.body), download.stored.meta.size) == (body, size)


@pytest.mark.parametrize(
    ("status", "content_range", "is_whole"),
    [
        ("206 Partial Content", "bytes 0-9/10", True),
        ("206 Partial Content", "bytes 0-9/11", False),
        ("206 Partial Content", "bytes 1-10/11", False),
        ("206 Partial Content", "bytes 0-8/9", False),
        ("206 Partial Content", f"bytes 0-9/{'9' * 5000}", False),
        ("206 Partial Content", "", False),
        ("203 Changed", "bytes 0-9/10", False),
    ],
)
async def test_a_part_that_is_the_whole_is_the_object(
    open_s3: Open, status: str, content_range: str, *, is_whole: bool
) -> None:
    lines = (f"Content-Range: {content_range}",) if content_range else ()
    store, _ = await open_s3(found(BODY, *lines, status=status))
    if is_whole:
        assert bytes((await store.get("k")).body) == BODY
        return
    with pytest.raises(errors.StoreError, match="part"):
        await store.get("k")


# A HEAD that tells no size

SILENT = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nX-Amz-Meta-Who: me\r\n\r\n'
IN_CHUNKS = (
    b'HTTP/1.1 200 OK\r\nETag: "e"\r\nX-Amz-Meta-Who: me\r\nTransfer-Encoding: chunked\r\n\r\n'
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("head", [SILENT, IN_CHUNKS], ids=["silent", "in chunks"])
@pytest.mark.parametrize(
    ("read", "size"),
    [
        (found(b"x", "Content-Range: bytes 0-0/77", status="206 Partial Content"), 77),
        (found(b"x", "Content-Range: bytes 0-0/77"), 77),
        (found(BODY), 10),
        (found(), 0),
        (CHUNKED, 3),
        (error("416 Range Not Satisfiable", "InvalidRange"), 0),
        (found(b"x", status="206 Partial Content"), None),
    ],
)
async def test_a_head_without_a_size_is_helped_by_the_first_byte(
    open_s3: Open, head: bytes, read: bytes, size: int | None
) -> None:
    store, server = await open_s3(head, read)
    if size is None:
        with pytest.raises(errors.StoreError, match="no size"):
            await store.head("k")
        return
    stored = await store.head("k")
    assert (stored.meta.size, stored.meta.etag, stored.headers.metadata) == (
        size,
        '"e"',
        {"who": "me"},
    )
    assert methods_of(server) == ["HEAD", "GET"]
    assert headers_of(server)["range"] == "bytes=0-0"


@pytest.mark.parametrize("status", ["405 Method Not Allowed", "501 Not Implemented"])
@pytest.mark.parametrize(
    ("read", "size", "asked"),
    [
        ([found(b"x", "Content-Range: bytes 0-0/77", "X-Amz-Meta-Who: me")], 77, 2),
        ([error("416 Not Satisfiable", "InvalidRange"), found(b"", "X-Amz-Meta-Who: me")], 0, 3),
    ],
)
async def test_a_store_without_head_is_asked_for_the_first_byte(
    open_s3: Open, status: str, read: list[bytes], size: int, asked: int
) -> None:
    refusal = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    store, server = await open_s3(refusal, *read)
    stored = await store.head("k")
    assert (stored.meta.size, stored.headers.metadata) == (size, {"who": "me"})
    assert methods_of(server) == ["HEAD", "GET", "GET"][:asked]


async def test_what_a_get_is_refused_as_well_stays_refused(open_s3: Open) -> None:
    refusal = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
    store, _ = await open_s3(refusal, error("405 Method Not Allowed", "MethodNotAllowed"))
    with pytest.raises(errors.StoreError, match="MethodNotAllowed"):
        await store.head("k")


# Conditions on an ETag


@pytest.mark.parametrize("listed_as", [f'"{MD5}"', MD5, f'W/"{MD5}"', f"&quot;{MD5}&quot;"])
async def test_a_condition_names_the_etag_in_quotes_however_it_was_listed(
    open_s3: Open, listed_as: str
) -> None:
    store, server = await open_s3(found(BODY))
    await store.get("k", if_match=listed_as)
    assert headers_of(server)["if-match"] == f'"{MD5}"'


@pytest.mark.parametrize("shown_as", [f'"{MD5}"', MD5, f'W/"{MD5}"'])
@pytest.mark.parametrize("byte_range", [None, ByteRange(0, 10)])
async def test_an_if_match_refused_although_it_holds_is_not_sent_any_more(
    open_s3: Open, shown_as: str, byte_range: ByteRange | None
) -> None:
    read = answer(BODY, f"ETag: {shown_as}")
    other = answer(BODY, 'ETag: "another"')
    store, server = await open_s3(REFUSED, described(etag=shown_as), read, read, other)
    for _ in range(2):
        download = await store.get("k", if_match=f'W/"{MD5}"', byte_range=byte_range)
        assert bytes(download.body) == BODY
    with pytest.raises(errors.PreconditionFailed, match="another"):
        await store.get("k", if_match=f'W/"{MD5}"', byte_range=byte_range)
    assert methods_of(server) == ["GET", "HEAD", "GET", "GET", "GET"]
    assert factory.found_since(PLAIN, store.dialect) == Capabilities(obeys_if_match=False)
    assert ["if-match" in headers_of(server, index) for index in range(5)] == [
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "head", [described(etag='"another"'), ABSENT, described(etag=""), REFUSED, DENIED]
)
async def test_an_if_match_refused_for_another_version_stays_a_refusal(
    open_s3: Open, head: bytes
) -> None:
    silent = head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    store, server = await open_s3(REFUSED, silent, listed(), found(BODY))
    with pytest.raises(errors.PreconditionFailed):
        await store.get("k", if_match=f'"{MD5}"')
    await store.get("k", if_match=f'"{MD5}"')
    assert headers_of(server)["if-match"] == f'"{MD5}"'


# What is accepted


@pytest.mark.parametrize(
    ("dialect", "accepted"),
    [
        *((dialect, "identity") for dialect in dialects.BY_PROVIDER if dialect.name[:3] != "gcs"),
        (dialects.GENERIC, "identity"),
        (dialects.GOOGLE, "gzip"),
    ],
    ids=lambda value: value.name if isinstance(value, Dialect) else value,
)
async def test_what_is_stored_is_asked_for_and_the_wish_is_not_signed(
    open_s3: Open, dialect: Dialect, accepted: str
) -> None:
    part = found(b"x", "Content-Range: bytes 0-0/9", status="206 Partial Content")
    store, server = await open_s3(
        found(BODY), part, described(), dialect=replace(dialect, virtual_hosted=False)
    )
    await store.get("k")
    await store.get("k", byte_range=ByteRange(0, 1))
    await store.head("k")
    for index in range(3):
        sent = headers_of(server, index)
        assert sent["accept-encoding"] == accepted
        assert "accept-encoding" not in sent["authorization"]


# Writes that are answered without an ETag


def no_etag(body: bytes = b"", *headers: str) -> bytes:
    return answer(body, *headers)


@pytest.mark.parametrize("unanswered", [no_etag(), no_etag(b"", 'ETag: ""'), no_etag(b"OK")])
@pytest.mark.parametrize(
    ("then", "asked"),
    [
        ([described()], ["HEAD"]),
        ([described(etag=MD5.upper())], ["HEAD"]),
        ([described(etag='"x"'), found(BODY)], ["HEAD", "GET"]),
        ([described(etag=""), found(BODY)], ["HEAD", "GET"]),
    ],
)
async def test_a_put_without_an_etag_counts_when_the_object_is_there(
    open_s3: Open, unanswered: bytes, then: list[bytes], asked: list[str]
) -> None:
    store, server = await open_s3(unanswered, *then)
    await store.put("k", Body([BODY[:4], BODY[4:]]), NO_HEADERS)
    assert methods_of(server) == ["PUT", *asked]


@pytest.mark.parametrize(
    "then",
    [
        [described(9)],
        [described(etag='"x"'), found(b"012345678!")],
        [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", listed()],
        [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", DENIED],
    ],
    ids=["other size", "other bytes", "absent", "not to be seen"],
)
async def test_a_put_without_an_etag_is_none_without_its_object(
    open_s3: Open, then: list[bytes]
) -> None:
    store, _ = await open_s3(no_etag(b"<html>hello</html>"), *then)
    with pytest.raises(errors.TransportError, match="no ETag"):
        await store.put("k", Body([BODY]), NO_HEADERS)


async def test_an_error_without_an_etag_is_an_error(open_s3: Open) -> None:
    store, server = await open_s3(error("200 OK", "AccessDenied"), described())
    with pytest.raises(errors.AccessDenied):
        await store.put("k", Body([BODY]), NO_HEADERS)
    assert methods_of(server) == ["PUT"]


async def test_large_bytes_are_compared_in_pieces(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurper.objectstore.s3.writing.COMPARED_BYTES", 4)
    parts = [
        found(BODY[at : at + 4], f"Content-Range: bytes {at}-{min(at + 4, 10) - 1}/10")
        for at in range(0, 10, 4)
    ]
    store, server = await open_s3(no_etag(), described(etag='"x"'), *parts)
    await store.put("k", Body([BODY[:1], BODY[1:7], BODY[7:]]), NO_HEADERS)
    ranges = [headers_of(server, index)["range"] for index in range(2, 5)]
    assert ranges == ["bytes=0-3", "bytes=4-7", "bytes=8-9"]


def parts_listed(*rows: tuple[int, str, int]) -> bytes:
    text = "".join(
        f"<Part><PartNumber>{number}</PartNumber><LastModified>x</LastModified>"
        f"<ETag>{etag}</ETag><Size>{size}</Size></Part>"
        for number, etag, size in rows
    )
    return answer(f"<ListPartsResult><UploadId>u</UploadId>{text}</ListPartsResult>".encode())


COPIED = answer(b"<CopyPartResult><ETag></ETag></CopyPartResult>")
META = ObjectMeta("k", 99, '"e"', None, "")


@pytest.mark.parametrize("operation", ["put", "copy"])
@pytest.mark.parametrize(
    ("then", "etag"),
    [
        (parts_listed((2, "&quot;p2&quot;", 10)), '"p2"'),
        (parts_listed((1, '"p1"', 10), (2, '"p2"', 10), (3, '"p3"', 10)), '"p2"'),
        (parts_listed((2, "p2", 10)), "p2"),
        (parts_listed((2, '"p2"', 9)), None),
        (parts_listed((1, '"p1"', 10)), None),
        (parts_listed((2, "", 10)), None),
        (parts_listed(), None),
        (error("501 Not Implemented", "NotImplemented"), None),
    ],
)
async def test_a_part_without_an_etag_is_told_by_the_list_of_parts(
    open_s3: Open, operation: str, then: bytes, etag: str | None
) -> None:
    unanswered = no_etag() if operation == "put" else COPIED
    store, server = await open_s3(unanswered, then)

    async def write() -> str:
        if operation == "put":
            return (await store.put_part("k", "u", 2, Body([BODY]))).etag
        return (await store.copy_part("k", "u", 2, "b", META, ByteRange(10, 20))).etag

    if etag is None:
        with pytest.raises(errors.TransportError, match="no ETag"):
            await write()
    else:
        assert await write() == etag
    assert line_of(server) == "GET /bkt/k?max-parts=1&part-number-marker=1&uploadId=u HTTP/1.1"


@pytest.mark.parametrize("told", ["<ETag></ETag>", "", "<ETag>&quot;&quot;</ETag>"])
async def test_a_copy_without_an_etag_counts_by_its_head(open_s3: Open, told: str) -> None:
    body = f'<?xml version="1.0"?><CopyObjectResult>{told}</CopyObjectResult>'.encode()
    source = StoredObject(META, ObjectHeaders())
    store, server = await open_s3(answer(body), described(99, etag='"y"'))
    assert await store.copy_object("to", "b", source) == '"y"'
    assert methods_of(server) == ["PUT", "HEAD"]
    store, _ = await open_s3(answer(body), described(98))
    with pytest.raises(errors.IntegrityError, match="98 bytes"):
        await store.copy_object("to", "b", source)
    store, _ = await open_s3(answer(body), described(99))
    of_other_bytes = StoredObject(META._replace(etag="f" * 32), ObjectHeaders())
    with pytest.raises(errors.IntegrityError, match="ETag"):
        await store.copy_object("to", "b", of_other_bytes)


@pytest.mark.parametrize("shown", [MD5, f'W/"{MD5}"', f"&amp;quot;{MD5}&amp;quot;"])
async def test_a_copy_is_compared_by_the_meaning_of_its_etag(open_s3: Open, shown: str) -> None:
    body = f"<CopyObjectResult><ETag>{shown}</ETag></CopyObjectResult>".encode()
    store, server = await open_s3(answer(body))
    source = StoredObject(META._replace(etag=f'"{MD5}"'), ObjectHeaders())
    await store.copy_object("to", "b", source)
    assert methods_of(server) == ["PUT"]
    other = StoredObject(META._replace(etag="f" * 32), ObjectHeaders())
    with pytest.raises(errors.IntegrityError, match="ETag"):
        await store.copy_object("to", "b", other)


# Buckets that want Content-MD5


def wanting(code: str, message: str, status: str = "400 Bad Request") -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return answer(body.encode(), status=status)


LOCKED = wanting(
    "InvalidRequest",
    "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object "
    "Lock parameters",
)


@pytest.mark.parametrize(
    "refusal",
    [
        LOCKED,
        wanting("MissingContentMD5", "Missing required header for this request: Content-Md5."),
        wanting("InvalidRequest", "Missing required header for this request: Content-MD5"),
        wanting("InvalidRequest", "Content-MD5 HTTP header is required for Put Part requests"),
    ],
)
@pytest.mark.parametrize("checksum", [None, Algorithm.CRC32C])
async def test_a_rule_of_retention_that_wants_md5_gets_it_from_then_on(
    open_s3: Open, refusal: bytes, checksum: Algorithm | None
) -> None:
    dialect = replace(PLAIN, checksum=checksum)
    store, server = await open_s3(refusal, found(), dialect=dialect)
    body = Body([BODY])
    await store.put("k", body, NO_HEADERS)
    await store.put("l", body, NO_HEADERS)
    await store.put_part("m", "u", 1, body)
    sent = [headers_of(server, index).get("content-md5") for index in range(4)]
    assert sent == [None, *[body.checksum(Algorithm.MD5)] * 3]
    assert "content-md5" in headers_of(server)["authorization"]
    assert factory.found_since(dialect, store.dialect) == Capabilities(wants_md5=True)
    crc = checksum and body.checksum(checksum)
    assert headers_of(server).get("x-amz-checksum-crc32c") == crc


async def test_a_bucket_that_is_known_to_want_md5_gets_it_at_once(open_s3: Open) -> None:
    store, server = await open_s3(found(), dialect=replace(PLAIN, wants_md5=True))
    body = Body([BODY])
    await store.put("k", body, NO_HEADERS)
    await store.put_part("m", "u", 1, body)
    sent = [headers_of(server, index).get("content-md5") for index in range(2)]
    assert sent == [body.checksum(Algorithm.MD5)] * 2


@pytest.mark.parametrize(
    ("refusal", "checksum"),
    [
        (wanting("InvalidRequest", "too many words"), None),
        (wanting("AccessDenied", "Content-MD5 is required", "403 Forbidden"), None),
        (LOCKED, Algorithm.MD5),
    ],
)
async def test_other_refusals_are_not_sent_again_with_md5(
    open_s3: Open, refusal: bytes, checksum: Algorithm | None
) -> None:
    store, server = await open_s3(refusal, dialect=replace(PLAIN, checksum=checksum))
    with pytest.raises(errors.StoreError):
        await store.put("k", Body([BODY]), NO_HEADERS)
    assert len(server.requests) == 1


async def test_an_answer_in_chunks_to_a_head_leaves_its_connection_of_use(open_s3: Open) -> None:
    connections = 0
    play = in_turn(IN_CHUNKS, found(b"x", "Content-Range: bytes 0-0/7"), described())

    async def script(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await play(peer)

    store, _ = await open_s3(script=script, options=replace(OPTIONS, request_retries=0))
    assert [(await store.head("k")).meta.size for _ in range(2)] == [7, 10]
    assert connections == 1


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_a_listing_that_comes_compressed_is_read(open_s3: Open, coding: str) -> None:
    plain = listed("a", "b").partition(b"\r\n\r\n")[2]
    store, server = await open_s3(answer(gzip.compress(plain), f"Content-Encoding: {coding}"))
    assert [meta.key for meta in (await store.list_page()).objects] == ["a", "b"]
    assert headers_of(server)["accept-encoding"] == "identity"


async def test_a_listing_that_says_it_is_compressed_and_is_not_is_refused(open_s3: Open) -> None:
    store, _ = await open_s3(answer(b"no gzip", "Content-Encoding: gzip"))
    with pytest.raises(errors.ListingError):
        await store.list_page()
