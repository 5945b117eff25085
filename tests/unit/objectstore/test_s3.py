"""S3 requests as they go on the wire, and answers no well-behaved test server would give."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from slurper import errors
from slurper.objectstore import checksums, dialects
from slurper.objectstore.base import (
    Body,
    ByteRange,
    Download,
    ObjectHeaders,
    ObjectMeta,
    Part,
    SourceMd5,
    StoreAddress,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import AWS, GENERIC, R2, WASABI, Dialect
from slurper.objectstore.s3.store import S3ObjectStore
from slurper.secrets import GcsCredentials
from tests.unit.http.scripted import Peer, answer
from tests.unit.objectstore.answers import (
    NO_HEADERS,
    OPTIONS,
    PAIR,
    PLAIN,
    Open,
    error,
    found,
    headers_of,
    line_of,
    listed,
)

# What goes out


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a//b", "/bkt/a//b"),
        ("/lead", "/bkt//lead"),
        ("dir/", "/bkt/dir/"),
        ("a/../b", "/bkt/a/../b"),
        ("a/./b", "/bkt/a/./b"),
        ("..", "/bkt/.."),
        ("x y+%25&=?#", "/bkt/x%20y%2B%2525%26%3D%3F%23"),
        ("ü", "/bkt/%C3%BC"),
        ("u\u0308", "/bkt/u%CC%88"),
        ("😀", "/bkt/%F0%9F%98%80"),
        ("\x01", "/bkt/%01"),
        ("new\nline", "/bkt/new%0Aline"),
        ("-_.~", "/bkt/-_.~"),
        ("odd\udcff", "/bkt/odd%FF"),
    ],
)
async def test_keys_go_out_byte_for_byte(open_s3: Open, key: str, path: str) -> None:
    store, server = await open_s3(found(b"body"))
    await store.get(key)
    assert line_of(server) == f"GET {path} HTTP/1.1"


async def test_a_get_asks_for_what_is_stored_and_nothing_else(open_s3: Open) -> None:
    store, server = await open_s3(found(b"body"))
    await store.get("k", if_match='"e"')
    sent = headers_of(server)
    assert (sent["if-match"], sent["x-amz-checksum-mode"]) == ('"e"', "ENABLED")
    assert sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert sent["x-amz-security-token"] == "ST-secret"
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert sent["accept-encoding"] == "identity"
    assert not {"accept", "range", "content-type"} & sent.keys()


@pytest.mark.parametrize("byte_range", [None, ByteRange(0, 500_000)])
async def test_the_checksum_asked_for_is_there_when_the_body_is(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch, byte_range: ByteRange | None
) -> None:
    data = bytes(index % 251 for index in range(500_000))
    expected = checksums.encode(Algorithm.CRC32C, [data])
    wrong = checksums.encode(Algorithm.CRC32C, [b"other"])
    store, _ = await open_s3(found(data), found(data, f"x-amz-checksum-crc32c: {wrong}"))

    def never(*_: object) -> str:
        raise AssertionError("computed again")

    monkeypatch.setattr(checksums, "encode", never)

    async def read() -> Download:
        return await store.get(
            "k", byte_range=byte_range, max_bytes=len(data), checksum=Algorithm.CRC32C
        )

    download = await read()
    assert download.body.checksum(Algorithm.CRC32C) == expected
    if byte_range is None:
        with pytest.raises(errors.IntegrityError, match="the source announces"):
            await read()


@pytest.mark.parametrize("pays", [True, False])
async def test_every_request_says_who_pays(open_s3: Open, *, pays: bool) -> None:
    uploaded = answer(b"<r><UploadId>u</UploadId></r>")
    part = found(b"x", "Content-Range: bytes 0-0/9", status="206 Partial Content")
    store, server = await open_s3(
        listed("k"), found(b"body"), part, uploaded, found(), requester_pays=pays
    )
    await store.list_page()
    await store.get("k")
    await store.get("k", byte_range=ByteRange(0, 1))
    await store.create_upload("k", NO_HEADERS)
    await store.put_part("k", "u", 1, Body([b"x"]))
    assert len(server.requests) == 5
    for number in range(5):
        sent = headers_of(server, number)
        assert sent.get("x-amz-request-payer") == ("requester" if pays else None)
        assert ("x-amz-request-payer" in sent["authorization"]) == pays


async def test_an_empty_etag_is_no_condition(open_s3: Open) -> None:
    store, server = await open_s3(found(b"body"))
    await store.get("k", if_match="")
    assert "if-match" not in headers_of(server)


async def test_an_empty_key_would_be_the_bucket(open_s3: Open) -> None:
    store, server = await open_s3(found())
    with pytest.raises(errors.ConfigurationError):
        await store.put("", Body([]), NO_HEADERS)
    assert server.requests == []


@pytest.mark.parametrize(
    ("algorithm", "header"),
    [
        (Algorithm.CRC64NVME, "x-amz-checksum-crc64nvme"),
        (Algorithm.CRC32C, "x-amz-checksum-crc32c"),
        (Algorithm.CRC32, "x-amz-checksum-crc32"),
        (Algorithm.MD5, "content-md5"),
    ],
)
async def test_every_put_brings_a_checksum(
    open_s3: Open, algorithm: Algorithm, header: str
) -> None:
    store, server = await open_s3(found(), dialect=replace(PLAIN, checksum=algorithm))
    headers = ObjectHeaders({"content-type": "a/b", "expires": "0"}, {"who": "Ã¼"})
    assert await store.put("k", Body([b"1234", b"56789"]), headers) == '"e"'
    sent = headers_of(server)
    assert sent[header] == checksums.encode(algorithm, [b"123456789"])
    assert header in sent["authorization"]
    assert (sent["content-type"], sent["expires"], sent["x-amz-meta-who"]) == ("a/b", "0", "Ã¼")
    assert server.requests[0].body == b"123456789"
    assert "if-none-match" not in sent


async def test_an_object_without_content_type_is_put_without(open_s3: Open) -> None:
    store, server = await open_s3(found())
    await store.put("k", Body([b"x"]), NO_HEADERS)
    assert "content-type" not in headers_of(server)


@pytest.mark.parametrize("conditional", [True, False])
async def test_if_absent_where_the_store_knows_conditions(
    open_s3: Open, *, conditional: bool
) -> None:
    store, server = await open_s3(found(), dialect=replace(PLAIN, conditional_put=conditional))
    await store.put("k", Body([]), NO_HEADERS, if_absent=True)
    assert headers_of(server).get("if-none-match") == ("*" if conditional else None)


async def test_a_listing_is_asked_for_by_key_not_by_token(open_s3: Open) -> None:
    store, server = await open_s3(listed())
    await store.list_page(prefix="p/ü", start_after="p/ü+ \udcff", max_keys=7)
    assert line_of(server) == (
        "GET /bkt?encoding-type=url&list-type=2&max-keys=7&prefix=p%2F%C3%BC"
        "&start-after=p%2F%C3%BC%2B%20%FF HTTP/1.1"
    )


@pytest.mark.parametrize(
    ("dialect", "asked"), [(dialects.AWS, "RestoreStatus"), (dialects.GENERIC, None)]
)
async def test_a_listing_tells_of_restores_where_that_is_known(
    open_s3: Open, dialect: Dialect, asked: str | None
) -> None:
    store, server = await open_s3(listed(), dialect=dialect)
    await store.list_page()
    assert headers_of(server).get("x-amz-optional-object-attributes") == asked


VERSIONED = b"<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>"


@pytest.mark.parametrize(
    ("said", "keeps"),
    [
        (answer(VERSIONED % b"Enabled"), True),
        (answer(VERSIONED % b"Suspended"), True),
        (answer(b"<VersioningConfiguration/>"), False),
        (listed(), False),  # of a store that has not seen the question
        (error("501 Not Implemented", "NotImplemented"), False),
        (error("405 Method Not Allowed", "MethodNotAllowed"), False),
    ],
)
async def test_whether_a_bucket_keeps_versions(
    open_s3: Open,
    said: bytes,
    keeps: bool,
) -> None:
    store, server = await open_s3(said)
    assert await store.keeps_versions() is keeps
    assert line_of(server) == "GET /bkt?versioning= HTTP/1.1"


async def test_who_may_not_ask_for_versions_learns_it(open_s3: Open) -> None:
    store, _ = await open_s3(error("403 Forbidden", "AccessDenied"))
    with pytest.raises(errors.AccessDenied):
        await store.keeps_versions()


async def test_stores_that_mishandle_encoding_are_not_asked_for_it(open_s3: Open) -> None:
    store, server = await open_s3(listed(), dialect=dialects.DIGITALOCEAN)
    await store.list_page()
    assert line_of(server) == "GET /bkt?list-type=2&max-keys=1000 HTTP/1.1"


@pytest.mark.parametrize(
    ("origin", "bucket", "authority", "path"),
    [
        ("https://s3.us-east-1.amazonaws.com", "bkt", "bkt.s3.us-east-1.amazonaws.com", "/k"),
        ("https://s3.us-east-1.amazonaws.com", "b.kt", "s3.us-east-1.amazonaws.com", "/b.kt/k"),
        ("https://s3.us-east-1.amazonaws.com", "Bkt", "s3.us-east-1.amazonaws.com", "/Bkt/k"),
        ("http://127.0.0.1:9000", "bkt", "127.0.0.1:9000", "/bkt/k"),
        ("http://[::1]:9000", "bkt", "[::1]:9000", "/bkt/k"),
    ],
)
async def test_the_bucket_stands_in_the_host_where_it_can(
    origin: str, bucket: str, authority: str, path: str
) -> None:
    address = StoreAddress(
        origin=origin, bucket=bucket, region="us-east-1", dialect=dialects.AWS, credentials=PAIR
    )
    store = S3ObjectStore(address, OPTIONS)
    assert store._target("k") == path
    assert store._signer._host == authority
    await store.close()


async def test_only_a_key_pair_opens_an_s3_store() -> None:
    address = StoreAddress(
        origin="https://h",
        bucket="b",
        region="r",
        dialect=PLAIN,
        credentials=GcsCredentials(client_email="e", private_key="k"),
    )
    with pytest.raises(errors.ConfigurationError):
        S3ObjectStore(address, OPTIONS)


# What comes back from GET and HEAD


@pytest.mark.parametrize("size", [4, 300_000, 3_000_000])
@pytest.mark.parametrize("algorithm", Algorithm)
async def test_the_sources_own_checksum_is_compared(
    open_s3: Open, algorithm: Algorithm, size: int
) -> None:
    data = bytes(index % 251 for index in range(size))
    flipped = data[:-2] + bytes([data[-2] ^ 0xFF]) + data[-1:]
    told = f"x-amz-checksum-{algorithm}: {checksums.encode(algorithm, [data])}"
    store, server = await open_s3(found(data, told), found(flipped, told), found(flipped, told))
    assert bytes((await store.get("k", max_bytes=size)).body) == data
    assert headers_of(server)["x-amz-checksum-mode"] == "ENABLED"
    with pytest.raises(
        errors.ChecksumDisagrees, match=f"x-amz-checksum-{algorithm} .*, the source"
    ):
        await store.get("k", max_bytes=size)
    unjudged = await store.get("k", max_bytes=size, compares=False)
    assert unjudged.stored.told == (algorithm, checksums.encode(algorithm, [data]))


async def test_of_several_checksums_the_cheapest_is_compared(open_s3: Open) -> None:
    right = checksums.encode(Algorithm.CRC64NVME, [b"body"])
    told = ("x-amz-checksum-sha256: AAAA", f"x-amz-checksum-crc64nvme: {right}")
    store, _ = await open_s3(found(b"body", *told))
    assert bytes((await store.get("k")).body) == b"body"


MD5_OF_BODY = checksums.encode(Algorithm.MD5, [b"body"])
OTHER_MD5 = checksums.encode(Algorithm.MD5, [b"other"])


def plain(data: bytes, *headers: str) -> bytes:
    """An answer whose ETag is the MD5 of `data`; of a PUT it has no body."""
    digits = base64.b64decode(checksums.encode(Algorithm.MD5, [data])).hex()
    return found(b"body", *headers).replace(b'ETag: "e"', f'ETag: "{digits}"'.encode())


def stored(etag: str, *headers: str) -> bytes:
    return found(b"", *headers).replace(b'ETag: "e"', f"ETag: {etag}".encode())


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ((), MD5_OF_BODY),
        (("x-amz-server-side-encryption: AES256",), MD5_OF_BODY),
        (("x-amz-server-side-encryption: aws:kms",), ""),
        (("x-amz-server-side-encryption: aws:kms:dsse",), ""),
        (("x-amz-server-side-encryption-customer-algorithm: AES256",), ""),
        (("x-oss-object-type: Appendable",), ""),
        (("x-oss-object-type: Normal",), MD5_OF_BODY),
        # What takes long need not be computed here, for the target compares the MD5.
        (("x-amz-checksum-sha256: AAAA",), MD5_OF_BODY),
        ((f"x-amz-checksum-crc32c: {checksums.encode(Algorithm.CRC32C, [b'body'])}",), ""),
    ],
)
async def test_the_etag_of_a_single_put_tells_an_md5(
    open_s3: Open, headers: tuple[str, ...], told: str
) -> None:
    store, _ = await open_s3(*[plain(b"body", *headers)] * 2)
    download = await store.get("k", md5=SourceMd5.INSTEAD)
    assert download.body.source_md5 == told
    if "sha256" not in str(headers):
        assert (await store.get("k")).body.source_md5 == ""


@pytest.mark.parametrize(
    "etag", ['"e"', '"0123456789abcdef0123456789abcdef-2"', '"0123456789abcde"']
)
async def test_other_etags_tell_none(open_s3: Open, etag: str) -> None:
    store, _ = await open_s3(stored(etag))
    assert (await store.get("k", md5=SourceMd5.INSTEAD)).body.source_md5 == ""


def body_told(md5: str) -> Body:
    body = Body([b"body"])
    body.source_md5 = md5
    return body


@pytest.mark.parametrize(
    ("dialect", "sent_too"),
    [
        (AWS, ""),
        (R2, ""),
        (WASABI, ""),
        (replace(GENERIC, verifies_md5=True), ""),
        (GENERIC, "x-amz-checksum-crc32c"),
        (replace(GENERIC, checksum=Algorithm.MD5), ""),
    ],
)
async def test_the_md5_that_the_source_tells_goes_with_the_put(
    open_s3: Open, dialect: Dialect, sent_too: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, server = await open_s3(plain(b"body"), dialect=dialect)
    computed: list[Algorithm] = []
    encode = checksums.encode

    def noted(algorithm: Algorithm, chunks: Sequence[bytes]) -> str:
        computed.append(algorithm)
        return encode(algorithm, chunks)

    monkeypatch.setattr(checksums, "encode", noted)
    await store.put("k", body_told(MD5_OF_BODY), ObjectHeaders())
    sent = headers_of(server)
    assert sent["content-md5"] == MD5_OF_BODY
    assert [name for name in sent if name.startswith("x-amz-checksum")] == [sent_too] * bool(
        sent_too
    )
    assert Algorithm.MD5 not in computed, "nothing that takes long is computed here"


async def test_a_store_that_compares_no_md5_is_not_sent_one(open_s3: Open) -> None:
    store, server = await open_s3(plain(b"body"), dialect=replace(GENERIC, verifies_md5=False))
    await store.put("k", body_told(MD5_OF_BODY), ObjectHeaders())
    assert "content-md5" not in headers_of(server)


@pytest.mark.parametrize(
    "answered",
    [
        plain(b"other"),  # the store says what it has written
        stored('"e"'),  # it does not, so the bytes are looked at
        plain(b"body", "x-amz-server-side-encryption: aws:kms"),
    ],
)
async def test_where_a_store_is_not_known_to_compare_md5s_its_answer_is(
    open_s3: Open, answered: bytes
) -> None:
    store, _ = await open_s3(answered, dialect=GENERIC)
    told = MD5_OF_BODY if answered == plain(b"other") else OTHER_MD5
    with pytest.raises(errors.BytesRefused):
        await store.put("k", body_told(told), ObjectHeaders())


async def test_nothing_is_written_unless_absent_before_its_md5_is_compared(open_s3: Open) -> None:
    store, server = await open_s3(dialect=GENERIC)
    with pytest.raises(errors.BytesRefused):
        await store.put("k", body_told(OTHER_MD5), ObjectHeaders(), if_absent=True)
    assert server.requests == []


@pytest.mark.parametrize("digits", ["", "x"])
async def test_how_long_the_first_part_is(open_s3: Open, digits: str) -> None:
    described = answer(b"", "Content-Length: 5242880", f"x-amz-mp-parts-count: 3{digits}")
    described = described.replace(b"Content-Length: 0\r\n", b"")
    store, server = await open_s3(described, error("400 Bad Request", "InvalidRequest"))
    assert await store.first_part_bytes("k") == (None if digits else (5242880, 3))
    assert line_of(server) == "HEAD /bkt/k?partNumber=1 HTTP/1.1"
    assert await store.first_part_bytes("k") is None


@pytest.mark.parametrize("asked", [True, False])
async def test_head_tells_checksums_when_asked(open_s3: Open, *, asked: bool) -> None:
    store, server = await open_s3(found(b"", "x-amz-checksum-crc32c: AAAAAA=="))
    described = await store.head("k", with_checksums=asked)
    assert ("x-amz-checksum-mode" in headers_of(server)) == asked
    assert described.told == (Algorithm.CRC32C, "AAAAAA==")


@pytest.mark.parametrize(
    "headers",
    [
        ("x-amz-checksum-crc32c: AAAAAA==-3",),
        ("x-amz-checksum-crc32c: AAAAAA==", "x-amz-checksum-type: COMPOSITE"),
    ],
)
async def test_a_checksum_of_checksums_is_not(open_s3: Open, headers: tuple[str, ...]) -> None:
    store, _ = await open_s3(found(b"body", *headers))
    assert bytes((await store.get("k")).body) == b"body"


async def test_a_right_checksum_passes(open_s3: Open) -> None:
    value = checksums.encode(Algorithm.CRC64NVME, [b"body"])
    store, _ = await open_s3(found(b"body", f"x-amz-checksum-crc64nvme: {value}"))
    assert bytes((await store.get("k")).body) == b"body"


async def test_a_range_is_asked_for_and_verified(open_s3: Open) -> None:
    part = found(b"cde", "Content-Range: bytes 2-4/10", status="206 Partial Content")
    store, server = await open_s3(part)
    download = await store.get("k", byte_range=ByteRange(2, 5))
    assert bytes(download.body) == b"cde"
    assert download.stored.meta.size == 10
    sent = headers_of(server)
    assert sent["range"] == "bytes=2-4"
    assert "x-amz-checksum-mode" not in sent


@pytest.mark.parametrize(
    "response",
    [
        found(b"abcde"),
        found(b"cde", status="206 Partial Content"),
        found(b"cde", "Content-Range: bytes 2-4/*", status="206 Partial Content"),
        found(b"cde", "Content-Range: bytes 3-5/10", status="206 Partial Content"),
        found(b"cdef", "Content-Range: bytes 2-4/10", status="206 Partial Content"),
        found(b"cd", "Content-Range: bytes 2-3/4", status="206 Partial Content"),
    ],
)
async def test_another_range_than_asked_for_is_refused(open_s3: Open, response: bytes) -> None:
    store, _ = await open_s3(response)
    with pytest.raises(errors.IntegrityError):
        await store.get("k", byte_range=ByteRange(2, 5))


async def test_a_store_that_ignores_ranges_does_not_fill_memory(open_s3: Open) -> None:
    store, _ = await open_s3(found(b"x" * (3 << 20)))
    with pytest.raises(errors.IntegrityError):
        await store.get("k", byte_range=ByteRange(0, 5))


async def test_the_whole_object_may_come_for_a_range_that_is_all_of_it(open_s3: Open) -> None:
    store, _ = await open_s3(found(b"abcde"))
    assert (await store.get("k", byte_range=ByteRange(0, 5))).stored.meta.size == 5


async def test_a_part_that_was_not_asked_for_is_refused(open_s3: Open) -> None:
    part = found(b"cde", "Content-Range: bytes 2-4/10", status="206 Partial Content")
    store, _ = await open_s3(part)
    with pytest.raises(errors.StoreError, match="part"):
        await store.get("k")


async def test_a_body_cut_short_is_read_again(open_s3: Open) -> None:
    connections = 0

    async def cut_once(peer: Peer) -> None:
        nonlocal connections
        connections += 1
        await peer.request()
        whole = found(b"x" * 1000)
        await peer.send(whole if connections > 1 else whole[:-500])

    store, server = await open_s3(script=cut_once)
    assert (await store.get("k")).body.length == 1000
    assert len(server.requests) == 2
    assert store.statistics.retries == 1


async def test_metadata_no_header_can_hold_is_not_lost_in_silence(open_s3: Open) -> None:
    store, _ = await open_s3(found(b"body", "x-amz-missing-meta: 2"))
    with pytest.raises(errors.StoreError, match="2 of its metadata"):
        await store.get("k")


async def test_stored_bytes_are_never_unpacked(open_s3: Open) -> None:
    store, _ = await open_s3(found(b"\x1f\x8bnot really gzip", "Content-Encoding: gzip"))
    download = await store.get("k")
    assert bytes(download.body) == b"\x1f\x8bnot really gzip"
    assert download.stored.headers.content == {"content-encoding": "gzip"}


async def test_a_head_without_a_size_is_refused(open_s3: Open) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 200 OK\r\nETag: "e"\r\n\r\n')

    store, _ = await open_s3(script=script)
    with pytest.raises(errors.StoreError, match="no size"):
        await store.head("k")


async def test_a_refused_head_is_explained_by_a_get(open_s3: Open) -> None:
    silent = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    store, server = await open_s3(silent, error("403 Forbidden", "ExpiredToken"))
    with pytest.raises(errors.CredentialsRejected):
        await store.head("k")
    assert headers_of(server)["range"] == "bytes=0-0"


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
async def test_a_head_that_alone_is_forbidden_is_done_without(open_s3: Open, status: str) -> None:
    silent = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    byte = found(b"x", "Content-Range: bytes 0-0/7", status="206 Partial Content")
    store, _ = await open_s3(silent, byte)
    assert (await store.head("k")).meta.size == 7


async def test_so_is_one_of_an_object_without_bytes(open_s3: Open) -> None:
    silent = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    store, _ = await open_s3(silent, error("416 Range", "InvalidRange"), found(b""))
    assert (await store.head("k")).meta.size == 0


SILENT_404 = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


async def test_absent_keys_cost_one_look_at_the_bucket(open_s3: Open) -> None:
    store, server = await open_s3(SILENT_404, listed(), SILENT_404)
    for key in ("a", "b", "c"):
        with pytest.raises(errors.NotFound):
            await store.head(key)
    assert [line_of(server, index).split()[0] for index in range(4)] == [
        "HEAD",
        "GET",
        "HEAD",
        "HEAD",
    ]


async def test_a_bucket_that_cannot_be_listed_may_still_lack_a_key(open_s3: Open) -> None:
    store, _ = await open_s3(SILENT_404, error("403 Forbidden", "AccessDenied"))
    with pytest.raises(errors.NotFound):
        await store.head("k")


async def test_a_bucket_that_is_gone_is_not_taken_for_an_absent_key(open_s3: Open) -> None:
    store, _ = await open_s3(SILENT_404, error("404 Not Found", "NoSuchBucket"))
    with pytest.raises(errors.NoSuchBucket):
        await store.head("k")


async def test_absent_keys_settle_nothing_while_the_bucket_cannot_be_asked_for(
    open_s3: Open,
) -> None:
    busy = error("503 Slow Down", "SlowDown")
    options = replace(OPTIONS, request_retries=0, retry_deadline_seconds=0.0)
    store, _ = await open_s3(SILENT_404, busy, SILENT_404, listed(), options=options)
    with pytest.raises(errors.Throttled):
        await store.head("k")
    with pytest.raises(errors.NotFound):
        await store.head("k")


# Listings


async def test_an_error_that_came_with_a_success(open_s3: Open) -> None:
    store, server = await open_s3(error("200 OK", "InternalError"), listed("a"))
    assert (await store.list_page()).objects[0].key == "a"
    assert len(server.requests) == 2


async def test_a_lasting_error_that_came_with_a_success(open_s3: Open) -> None:
    store, _ = await open_s3(error("200 OK", "AccessDenied"))
    with pytest.raises(errors.AccessDenied):
        await store.list_page()


async def test_a_listing_without_end_is_refused(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurper.objectstore.listings.MAX_DOCUMENT_BYTES", 1000)
    store, _ = await open_s3(answer(b"<ListBucketResult>" + b" " * 2000))
    with pytest.raises(errors.ListingError, match="too large"):
        await store.list_page()


async def test_a_store_without_retries_does_not_pause_before_it_lists_again(
    open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slurper.objectstore.listings.AGAIN_PAUSE_SECONDS", 3600.0)
    hasty = replace(OPTIONS, request_retries=0)
    store, server = await open_s3(listed("b", "a"), options=hasty)
    with pytest.raises(errors.ListingError, match="'a' after 'b'"):
        await store.list_page()
    assert len(server.requests) == 3


# Checksums of what was written


async def test_the_store_must_hold_what_was_sent(open_s3: Open) -> None:
    store, _ = await open_s3(
        found(b"", "x-amz-checksum-crc32c: AAAAAA=="), dialect=dialects.GENERIC
    )
    with pytest.raises(errors.IntegrityError, match="the store holds"):
        await store.put("k", Body([b"x"]), NO_HEADERS)
    with pytest.raises(errors.IntegrityError, match="the store holds"):
        await store.put_part("k", "u", 1, Body([b"x"]))


# Second chances


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("400 Bad Request", "RequestTimeout"),
        ("409 Conflict", "ConditionalRequestConflict"),
        ("409 Conflict", "OperationAborted"),
        ("503 Slow Down", "SlowDown"),
        ("500 Internal Server Error", "InternalError"),
    ],
)
async def test_what_may_pass_is_tried_again(open_s3: Open, status: str, code: str) -> None:
    store, server = await open_s3(error(status, code), found())
    assert await store.put("k", Body([b"x"]), NO_HEADERS, if_absent=True) == '"e"'
    assert [request.body for request in server.requests] == [b"x", b"x"]


async def test_what_will_not_pass_is_not(open_s3: Open) -> None:
    store, server = await open_s3(error("400 Bad Request", "EntityTooLarge"))
    with pytest.raises(errors.StoreError, match="EntityTooLarge"):
        await store.put("k", Body([b"x"]), NO_HEADERS)
    assert len(server.requests) == 1


async def test_a_refused_condition_tells_how_often_it_was_sent(open_s3: Open) -> None:
    store, _ = await open_s3(
        error("500 Oops", "InternalError"), error("412 Precondition Failed", "PreconditionFailed")
    )
    with pytest.raises(errors.PreconditionFailed) as refused:
        await store.put("k", Body([b"x"]), NO_HEADERS, if_absent=True)
    assert refused.value.retries == 1


async def test_an_objects_content_is_never_taken_for_an_error(open_s3: Open) -> None:
    body = b"<Error><Code>InternalError</Code></Error>"
    store, server = await open_s3(found(body))
    assert bytes((await store.get("k")).body) == body
    assert len(server.requests) == 1


async def test_errors_hold_no_secret(open_s3: Open) -> None:
    response = error("400 Bad Request", "InvalidToken", more="<Token0>ST-secret</Token0>")
    store, _ = await open_s3(response.replace(b"<Message>m", b"<Message>ST-secret SK-secret!"))
    with pytest.raises(errors.CredentialsRejected) as refused:
        await store.get("k")
    assert "secret" not in str(refused.value)


def http_time(seconds: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))


def amz_time(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


async def test_a_clock_that_is_off_is_corrected_by_the_stores(open_s3: Open) -> None:
    wrong, right = 1_700_000_000.0, 1_700_003_600.0
    skewed = error("403 Forbidden", "RequestTimeTooSkewed", f"Date: {http_time(right)}")
    store, server = await open_s3(skewed, found(b"body"), clock=lambda: wrong)
    await store.get("k")
    await store.get("k")
    dates = [headers_of(server, index)["x-amz-date"] for index in range(3)]
    assert dates == [amz_time(wrong), amz_time(right), amz_time(right)]


async def test_a_clock_that_is_off_is_corrected_for_a_silent_head(open_s3: Open) -> None:
    wrong, right = 1_700_000_000.0, 1_700_003_600.0
    silent = f"HTTP/1.1 403 Forbidden\r\nDate: {http_time(right)}\r\nContent-Length: 0\r\n\r\n"
    store, server = await open_s3(silent.encode(), found(b""), clock=lambda: wrong)
    assert (await store.head("k")).meta.size == 0
    assert headers_of(server)["x-amz-date"] == amz_time(right)


async def test_a_store_that_calls_a_right_clock_wrong_is_not_asked_again(open_s3: Open) -> None:
    now = 1_700_000_000.0
    skewed = error("403 Forbidden", "RequestTimeTooSkewed", f"Date: {http_time(now)}")
    store, server = await open_s3(skewed, clock=lambda: now)
    with pytest.raises(errors.CredentialsRejected):
        await store.get("k")
    assert len(server.requests) == 1


# Regions


MALFORMED = error(
    "400 Bad Request", "AuthorizationHeaderMalformed", more="<Region>eu-west-9</Region>"
)


async def test_the_region_a_store_names_signs_from_then_on(open_s3: Open) -> None:
    store, server = await open_s3(MALFORMED, found(b"body"))
    await store.get("k")
    await store.get("k")
    regions = [
        headers_of(server, index)["authorization"].split("/")[2]
        for index in range(len(server.requests))
    ]
    assert regions == ["us-east-1", "eu-west-9", "eu-west-9"]
    assert store.statistics.requests == 3


async def test_a_region_is_followed_and_once_more_at_most(open_s3: Open) -> None:
    turns = [MALFORMED.replace(b"eu-west-9", f"eu-west-{n}".encode()) for n in (9, 8, 7, 6, 5)]
    store, server = await open_s3(*turns)
    for _ in range(3):
        with pytest.raises(errors.CredentialsRejected, match="set that region"):
            await store.get("k")
    assert len(server.requests) == 5


MOVED = error("307 Moved", "TemporaryRedirect", "x-amz-bucket-region: eu-west-9")


async def test_one_object_that_leads_to_another_region_takes_no_other_there(open_s3: Open) -> None:
    home = MALFORMED.replace(b"eu-west-9", b"us-east-1")
    store, server = await open_s3(MOVED, MOVED, home, found(b"body"), MOVED, found(b"body"))
    for key in ("bad", "k", "bad", "k"):
        if key == "bad":
            with pytest.raises(errors.Misdirected):
                await store.get(key)
        else:
            await store.get(key)
    regions = [
        headers_of(server, index)["authorization"].split("/")[2]
        for index in range(len(server.requests))
    ]
    assert regions == [
        "us-east-1", "eu-west-9", "eu-west-9", "us-east-1", "us-east-1", "us-east-1"
    ]  # fmt: skip


async def test_a_redirect_elsewhere_is_not_followed(open_s3: Open) -> None:
    moved = error(
        "301 Moved Permanently",
        "PermanentRedirect",
        "Location: http://evil.example/",
        "x-amz-bucket-region: eu-west-9",
    )
    # An Amazon bucket at an address that is not one of Amazon's regions.
    store, server = await open_s3(moved, dialect=dialects.AWS)
    with pytest.raises(errors.Misdirected, match="It names the region eu-west-9"):
        await store.get("k")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://s3.us-east-1.amazonaws.com", "https://s3.eu-west-9.amazonaws.com"),
        ("https://s3.amazonaws.com", "https://s3.eu-west-9.amazonaws.com"),
        ("https://s3-fips.us-east-1.amazonaws.com", None),
        ("https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", None),
    ],
)
async def test_amazons_own_hosts_are_changed_for_a_region(
    origin: str, expected: str | None
) -> None:
    address = StoreAddress(
        origin=origin, bucket="bkt", region="us-east-1", dialect=dialects.AWS, credentials=PAIR
    )
    store = S3ObjectStore(address, OPTIONS)
    assert store._origin_in("eu-west-9") == expected
    await store.close()


async def test_a_hint_that_is_no_region_is_not_followed(open_s3: Open) -> None:
    evil = MALFORMED.replace(b"eu-west-9", b"evil.ex/x")
    store, server = await open_s3(evil)
    with pytest.raises(errors.CredentialsRejected):
        await store.get("k")
    assert len(server.requests) == 1


# Copies that the store makes itself

SOURCE = StoredObject(ObjectMeta("k", 4, '"e"', None, ""), ObjectHeaders())


def copied(etag: str = '"e"') -> bytes:
    return answer(f"<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>".encode())


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("a//b", "/from.b/a//b"),
        ("/lead", "/from.b//lead"),
        ("a/../b", "/from.b/a/../b"),
        ("..", "/from.b/.."),
        ("x y+%25&=?#", "/from.b/x%20y%2B%2525%26%3D%3F%23"),
        ("k?versionId=1", "/from.b/k%3FversionId%3D1"),
        ("😀", "/from.b/%F0%9F%98%80"),
        ("new\nline", "/from.b/new%0Aline"),
        ("odd\udcff", "/from.b/odd%FF"),
    ],
)
async def test_the_source_of_a_copy_is_named_byte_for_byte(
    open_s3: Open, key: str, named: str
) -> None:
    store, server = await open_s3(copied())
    source = replace(SOURCE, meta=SOURCE.meta._replace(key=key))
    await store.copy_object("to", "from.b", source)
    assert line_of(server) == "PUT /bkt/to HTTP/1.1"
    sent = headers_of(server)
    assert sent["x-amz-copy-source"] == named
    assert sent["x-amz-copy-source-if-match"] == '"e"'
    signed = sent["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"x-amz-copy-source", "x-amz-copy-source-if-match"} <= set(signed)


async def test_a_copy_gets_the_headers_of_its_source_and_no_transfer_coding(open_s3: Open) -> None:
    store, server = await open_s3(copied())
    headers = ObjectHeaders({"content-encoding": "aws-chunked, gzip"}, {"owner": "me"})
    await store.copy_object("to", "b", replace(SOURCE, headers=headers))
    sent = headers_of(server)
    assert sent["x-amz-metadata-directive"] == "REPLACE"
    assert (sent["content-encoding"], sent["x-amz-meta-owner"]) == ("gzip", "me")


async def test_an_error_inside_the_200_of_a_copy_is_an_error(open_s3: Open) -> None:
    late = answer(b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
    store, _ = await open_s3(late)
    with pytest.raises(errors.AccessDenied):
        await store.copy_object("to", "b", SOURCE)


async def test_a_copy_without_an_etag_is_none(open_s3: Open) -> None:
    store, _ = await open_s3(answer(b"<html>a page of a proxy</html>"))
    with pytest.raises(errors.TransportError, match="no ETag"):
        await store.copy_object("to", "b", SOURCE)


async def test_a_copy_whose_md5_is_another_is_none(open_s3: Open) -> None:
    store, _ = await open_s3(copied('"' + "a" * 32 + '"'))
    source = replace(SOURCE, meta=SOURCE.meta._replace(etag='"' + "b" * 32 + '"'))
    with pytest.raises(errors.IntegrityError, match="ETag"):
        await store.copy_object("to", "b", source)


async def test_where_etags_tell_nothing_the_size_must_be_right(open_s3: Open) -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'
    store, server = await open_s3(copied('"x"'), head)
    with pytest.raises(errors.IntegrityError, match="5 bytes"):
        await store.copy_object("to", "b", SOURCE)
    assert line_of(server).startswith("HEAD /bkt/to ")


async def test_a_condition_on_the_copy_only_where_it_is_known(open_s3: Open) -> None:
    for known in (True, False):
        dialect = replace(PLAIN, conditional_copy=known)
        store, server = await open_s3(copied(), dialect=dialect)
        await store.copy_object("to", "b", SOURCE, if_absent=True)
        assert ("if-none-match" in headers_of(server)) is known


async def test_a_part_is_copied_of_a_range(open_s3: Open) -> None:
    found = b'<CopyPartResult><ETag>"p"</ETag><ChecksumCRC32C>c2</ChecksumCRC32C></CopyPartResult>'
    store, server = await open_s3(answer(found), dialect=dialects.GENERIC)
    part = await store.copy_part("to", "u", 2, "b", SOURCE.meta, ByteRange(1, 4))
    assert part == Part(2, 3, '"p"', "c2")
    assert line_of(server) == "PUT /bkt/to?partNumber=2&uploadId=u HTTP/1.1"
    assert headers_of(server)["x-amz-copy-source-range"] == "bytes=1-3"
