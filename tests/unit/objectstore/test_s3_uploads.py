"""Multipart uploads on the wire: checksums, errors within successes, and lost answers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from slurper import errors
from slurper.objectstore import checksums, dialects
from slurper.objectstore.base import Body, CreatedUpload, ObjectHeaders, Part
from slurper.objectstore.checksums import Algorithm
from tests.unit.http.scripted import Peer, Script, answer
from tests.unit.objectstore.answers import (
    NO_HEADERS,
    PLAIN,
    Open,
    error,
    found,
    headers_of,
    line_of,
    listed,
)

CREATED = (
    b"<InitiateMultipartUploadResult><UploadId>u/+id</UploadId></InitiateMultipartUploadResult>"
)
PARTS = [
    Part(
        1, 3, '"900150983cd24fb0d6963f7d28e17f72"', checksums.encode(Algorithm.CRC64NVME, [b"abc"])
    ),
    Part(
        2, 2, '"5a446ee8b1ca5ea5a58a7a5a3eb2a3e9"', checksums.encode(Algorithm.CRC64NVME, [b"de"])
    ),
]
WHOLE = checksums.encode(Algorithm.CRC64NVME, [b"abcde"])


def completed(*, etag: str = '"x-2"', more: str = "") -> bytes:
    return answer(
        f'<?xml version="1.0"?>\n<CompleteMultipartUploadResult><ETag>{etag}</ETag>{more}'
        "</CompleteMultipartUploadResult>".encode()
    )


async def test_an_upload_from_creation_to_completion(open_s3: Open) -> None:
    created = answer(CREATED, "x-amz-checksum-type: FULL_OBJECT")
    store, server = await open_s3(created, found(), found(), completed(), dialect=dialects.AWS)
    headers = ObjectHeaders({"content-type": "a/b", "expires": "0"}, {"m": "1"})
    begun = await store.create_upload("k", headers)
    assert begun == CreatedUpload("u/+id", whole_checked=True)
    upload = begun.upload_id
    sent = headers_of(server)
    assert line_of(server) == "POST /bkt/k?uploads= HTTP/1.1"
    assert (sent["content-type"], sent["expires"], sent["x-amz-meta-m"]) == ("a/b", "0", "1")
    assert sent["x-amz-checksum-algorithm"] == "CRC64NVME"
    assert sent["x-amz-checksum-type"] == "FULL_OBJECT"

    parts = [
        await store.put_part("k", upload, 1, Body([b"abc"])),
        await store.put_part("k", upload, 2, Body([b"de"])),
    ]
    assert line_of(server) == "PUT /bkt/k?partNumber=2&uploadId=u%2F%2Bid HTTP/1.1"
    assert headers_of(server)["x-amz-checksum-crc64nvme"] == parts[1].checksum
    assert parts[1] == Part(2, 2, '"e"', PARTS[1].checksum)

    etag = await store.complete_upload("k", upload, parts, if_absent=True, whole_checked=True)
    assert etag == '"x-2"'
    sent = headers_of(server)
    assert line_of(server) == "POST /bkt/k?uploadId=u%2F%2Bid HTTP/1.1"
    assert sent["x-amz-checksum-crc64nvme"] == WHOLE
    assert sent["x-amz-mp-object-size"] == "5"
    assert sent["if-none-match"] == "*"
    assert f"<ChecksumCRC64NVME>{PARTS[0].checksum}<".encode() in server.requests[-1].body


async def test_a_store_that_joins_checksums_otherwise_is_not_given_the_whole(
    open_s3: Open,
) -> None:
    created = answer(CREATED, "x-amz-checksum-type: COMPOSITE")
    more = "<ChecksumCRC64NVME>abc=-2</ChecksumCRC64NVME><ChecksumType>COMPOSITE</ChecksumType>"
    store, server = await open_s3(created, completed(more=more), dialect=dialects.R2)
    begun = await store.create_upload("k", NO_HEADERS)
    assert not begun.whole_checked
    await store.complete_upload("k", begun.upload_id, PARTS, whole_checked=begun.whole_checked)
    assert "x-amz-checksum-crc64nvme" not in headers_of(server)


@pytest.mark.parametrize("promised", [True, False])
async def test_an_upload_is_completed_by_the_promise_of_its_begin(
    open_s3: Open, *, promised: bool
) -> None:
    store, server = await open_s3(completed(), dialect=dialects.R2)
    await store.complete_upload("k", "u", PARTS, whole_checked=promised)
    sent = headers_of(server).get("x-amz-checksum-crc64nvme")
    assert sent == (WHOLE if promised else None)


async def test_the_whole_must_be_made_of_the_parts(open_s3: Open) -> None:
    more = "<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>"
    store, _ = await open_s3(completed(more=more), dialect=dialects.R2)
    with pytest.raises(errors.IntegrityError, match="the parts make"):
        await store.complete_upload("k", "u", PARTS)


async def test_parts_verified_by_md5_declare_no_algorithm(open_s3: Open) -> None:
    dialect = replace(PLAIN, checksum=Algorithm.MD5)
    store, server = await open_s3(answer(CREATED), found(), completed(), dialect=dialect)
    upload = (await store.create_upload("k", NO_HEADERS)).upload_id
    assert "x-amz-checksum-algorithm" not in headers_of(server)
    part = await store.put_part("k", upload, 1, Body([b"abc"]))
    assert part.checksum == ""
    assert headers_of(server)["content-md5"] == "kAFQmDzST7DWlj99KOF/cg=="
    await store.complete_upload("k", upload, [part])
    assert b"Checksum" not in server.requests[-1].body


async def test_creation_is_not_repeated_when_its_fate_is_unknown(open_s3: Open) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.request()

    store, server = await open_s3(script=hang_up)
    with pytest.raises(errors.TransportError):
        await store.create_upload("k", NO_HEADERS)
    assert len(server.requests) == 1


async def test_creation_must_name_an_upload(open_s3: Open) -> None:
    store, _ = await open_s3(answer(b"<html/>"))
    with pytest.raises(errors.TransportError, match="no upload id"):
        await store.create_upload("k", NO_HEADERS)


async def test_completion_waits_for_the_result_behind_blanks(open_s3: Open) -> None:
    blanks = answer(b"\n" * 20 + completed().split(b"\r\n\r\n", 1)[1])
    store, _ = await open_s3(blanks)
    assert await store.complete_upload("k", "u", PARTS) == '"x-2"'


async def test_a_passing_error_in_a_success_is_completed_again(open_s3: Open) -> None:
    store, server = await open_s3(error("200 OK", "InternalError"), completed())
    assert await store.complete_upload("k", "u", PARTS) == '"x-2"'
    assert len(server.requests) == 2


async def test_a_lasting_error_in_a_success_is_an_error(open_s3: Open) -> None:
    store, _ = await open_s3(error("200 OK", "InvalidPart"))
    with pytest.raises(errors.StoreError, match="InvalidPart"):
        await store.complete_upload("k", "u", PARTS)


GONE = error("404 Not Found", "NoSuchUpload")
EXISTS = error("412 Precondition Failed", "PreconditionFailed")
ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
JOINED = hashlib.md5(bytes.fromhex("".join(part.etag.strip('"') for part in PARTS)))  # noqa: S324
MADE_OF_PARTS = f'"{JOINED.hexdigest()}-2"'
OPAQUE = [replace(part, etag=f'"opaque-{part.number}"') for part in PARTS]


def described(etag: str, size: int = 5) -> bytes:
    return f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: {size}\r\n\r\n".encode()


def losing_the_first_answer(*responses: bytes) -> Script:
    left = [b"", *responses]

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            response = left.pop(0) if len(left) > 1 else left[0]
            if not response:
                return
            await peer.send(response)

    return script


@pytest.mark.parametrize(
    ("parts", "then", "head"),
    [
        (PARTS, GONE, described(MADE_OF_PARTS)),
        (PARTS, EXISTS, described(MADE_OF_PARTS)),
        (OPAQUE, GONE, described('"anything-2"')),
    ],
)
async def test_a_completion_whose_answer_was_lost_has_succeeded(
    open_s3: Open, parts: list[Part], then: bytes, head: bytes
) -> None:
    store, server = await open_s3(script=losing_the_first_answer(then, head, found()))
    etag = head.split(b"ETag: ")[1].split(b"\r\n")[0].decode()
    assert await store.complete_upload("k", "u", parts, if_absent=True) == etag
    methods = [line_of(server, index).split()[0] for index in range(len(server.requests))]
    # What exists may have been made by another upload of these parts; then this one is dropped.
    assert methods == ["POST", "POST", "HEAD", *(["DELETE"] if then == EXISTS else [])]


@pytest.mark.parametrize(
    ("parts", "head"),
    [
        (PARTS, ABSENT),
        (PARTS, described('"900150983cd24fb0d6963f7d28e17f72"')),
        (PARTS, described('"900150983cd24fb0d6963f7d28e17f72-2"')),
        (PARTS, described(MADE_OF_PARTS, size=6)),
        (OPAQUE, described('"anything-3"')),
        (OPAQUE, described('"anything-2"', size=6)),
    ],
)
async def test_an_upload_that_is_gone_without_its_object_is_lost(
    open_s3: Open, parts: list[Part], head: bytes
) -> None:
    store, _ = await open_s3(script=losing_the_first_answer(GONE, head, listed()))
    with pytest.raises(errors.NotFound, match="NoSuchUpload"):
        await store.complete_upload("k", "u", parts)


async def test_without_a_lost_answer_only_proof_counts(open_s3: Open) -> None:
    store, _ = await open_s3(GONE, described('"anything-2"'))
    with pytest.raises(errors.NotFound):
        await store.complete_upload("k", "u", OPAQUE)
    store, _ = await open_s3(GONE, described(MADE_OF_PARTS))
    assert await store.complete_upload("k", "u", PARTS) == MADE_OF_PARTS


ABSENT = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [
        completed(etag=""),
        completed(etag="&quot;&quot;"),
        answer(b"<CompleteMultipartUploadResult><ETag/></CompleteMultipartUploadResult>"),
        answer(b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>"),
        answer(b""),
        answer(b"<html>Welcome</html>"),
    ],
)
async def test_a_completion_that_names_no_etag_is_confirmed_by_head(
    open_s3: Open, said: bytes
) -> None:
    etag = f'"{JOINED.hexdigest()}-2"'
    store, server = await open_s3(said, described(etag))
    assert await store.complete_upload("k", "u", PARTS) == etag
    assert line_of(server) == "HEAD /bkt/k HTTP/1.1"


async def test_where_etags_tell_nothing_the_result_of_the_completion_must_be_one(
    open_s3: Open,
) -> None:
    store, _ = await open_s3(completed(etag=""), described('"other"'))
    assert await store.complete_upload("k", "u", PARTS) == '"other"'
    store, _ = await open_s3(answer(b"<html>Welcome</html>"), described('"other"'))
    with pytest.raises(errors.TransportError, match="names no ETag: it sends a web page"):
        await store.complete_upload("k", "u", PARTS)


@pytest.mark.parametrize("shown", [listed(), None])
async def test_a_completion_that_made_no_such_object_has_not_succeeded(
    open_s3: Open, shown: bytes | None
) -> None:
    seen = [ABSENT, shown] if shown is not None else [described('"other"', size=4)]
    store, _ = await open_s3(completed(etag=""), *seen)
    with pytest.raises(errors.TransportError, match="names no ETag"):
        await store.complete_upload("k", "u", PARTS)


@pytest.mark.parametrize("known", [True, False])
async def test_a_condition_on_the_completion_only_where_it_is_known(
    open_s3: Open, *, known: bool
) -> None:
    dialect = replace(PLAIN, conditional_put=not known, conditional_completion=known)
    store, server = await open_s3(completed(), dialect=dialect)
    await store.complete_upload("k", "u", PARTS, if_absent=True)
    assert ("if-none-match" in headers_of(server)) is known


async def test_aborting_what_is_gone_is_no_error(open_s3: Open) -> None:
    store, server = await open_s3(GONE)
    await store.abort_upload("k", "u")
    assert line_of(server) == "DELETE /bkt/k?uploadId=u HTTP/1.1"


async def test_aborting_can_fail(open_s3: Open) -> None:
    store, _ = await open_s3(error("403 Forbidden", "AccessDenied"))
    with pytest.raises(errors.AccessDenied):
        await store.abort_upload("k", "u")
