"""Parts that are passed on while they come in, asked of real servers."""

from __future__ import annotations

import hashlib

import pytest

from slurper import errors
from slurper.http.streams import StreamBroken, StreamDeclined
from slurper.objectstore import entity_tags
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders, ObjectStore, Part
from slurper.objectstore.checksums import Algorithm, encode
from slurper.objectstore.s3.store import S3ObjectStore
from slurper.objectstore.streamed import StreamedPart
from tests.conformance.conftest import Subject

MIB = 1 << 20
BODY = hashlib.shake_128(b"parts").digest(11 * MIB + 5)
RANGES = (ByteRange(0, 6 * MIB), ByteRange(6 * MIB, len(BODY)))
PIECES = (3 * MIB + 7, 3 * MIB - 7)
HEADERS = ObjectHeaders({"content-type": "video/x", "content-encoding": "gzip"}, {"a": "b c"})

pytestmark = pytest.mark.parametrize(
    "subject", ["moto", "ministack", "seaweedfs", "r2_server", "ministack_tls"], indirect=True
)


@pytest.fixture
def trails(subject: Subject) -> bool:
    """Whether the checksum can come behind the bytes. The check of a target finds that out."""
    return subject.name not in ("moto", "r2_server")


@pytest.fixture
def s3(store: ObjectStore) -> S3ObjectStore:
    assert isinstance(store, S3ObjectStore)
    return store


async def passed(
    s3: S3ObjectStore, key: str, etag: str, upload_id: str, number: int, *, trails: bool
) -> Part:
    """Pass a part of an object on to an upload of the same key, with "-copy" behind it."""
    byte_range = RANGES[number - 1]
    answer = await s3.get_range_stream(key, byte_range, if_match=etag, size=len(BODY))
    assert answer.stored.meta.size == len(BODY)
    assert entity_tags.same(answer.stored.meta.etag, etag)
    sizes = PIECES if number == 1 else (len(byte_range),)
    trailing = s3.dialect.checksum if trails else None
    part = StreamedPart(answer.body, trailing, also=Algorithm.CRC32, sizes=sizes)
    return await s3.put_part_stream(f"{key}-copy", upload_id, number, part)


async def test_an_object_arrives_in_parts(
    s3: S3ObjectStore, prefix: str, subject: Subject, trails: bool
) -> None:
    if subject.name == "r2_server":
        pytest.skip("it wants a checksum with each part, and takes none behind the bytes")
    key = f"{prefix}a b"
    etag = await s3.put(key, Body([BODY]), HEADERS)
    created = await s3.create_upload(f"{key}-copy", HEADERS)
    upload_id = created.upload_id
    parts = [await passed(s3, key, etag, upload_id, n, trails=trails) for n in (1, 2)]
    await s3.complete_upload(f"{key}-copy", upload_id, parts, whole_checked=created.whole_checked)
    copied = await s3.get(f"{key}-copy")
    assert bytes(copied.body) == BODY
    assert copied.stored.headers == HEADERS, "no coding of the way stays with the object"


async def test_the_checksums_of_a_part_are_told(
    s3: S3ObjectStore, prefix: str, trails: bool
) -> None:
    key = f"{prefix}a"
    etag = await s3.put(key, Body([BODY]), HEADERS)
    created = await s3.create_upload(f"{key}-copy", HEADERS)
    part = await passed(s3, key, etag, created.upload_id, 1, trails=trails)
    await s3.abort_upload(f"{key}-copy", created.upload_id)
    first = BODY[: 6 * MIB]
    if trails:
        assert s3.dialect.checksum is not None
        assert part.checksum == encode(s3.dialect.checksum, [first])
    assert part.source_sums == (
        encode(Algorithm.CRC32, [first[: PIECES[0]]]),
        encode(Algorithm.CRC32, [first[PIECES[0] :]]),
    )
    assert (part.number, part.size) == (1, len(first))


@pytest.mark.parametrize("size", [8, MIB - 1, MIB, MIB + 1, 2 * MIB])
async def test_a_checksum_behind_the_bytes_is_verified(
    s3: S3ObjectStore, prefix: str, trails: bool, size: int
) -> None:
    if not trails:
        pytest.skip("this store verifies no checksum behind the bytes")
    key, chunk, algorithm = f"{prefix}a", BODY[:size], s3.dialect.checksum
    assert algorithm is not None
    created = await s3.create_upload(key, HEADERS)
    right = StreamedPart.held(chunk, algorithm)
    part = await s3.put_part_stream(key, created.upload_id, 1, right)
    wrong = StreamedPart.held(chunk, algorithm, mislabels=True)
    with pytest.raises(errors.BytesRefused):
        await s3.put_part_stream(key, created.upload_id, 2, wrong)
    await s3.complete_upload(key, created.upload_id, [part], whole_checked=created.whole_checked)
    assert bytes((await s3.get(key)).body) == chunk


async def test_a_store_that_knows_no_such_body_refuses_it(
    s3: S3ObjectStore, prefix: str, subject: Subject
) -> None:
    if subject.name != "r2_server":
        pytest.skip("the others take it")
    created = await s3.create_upload(f"{prefix}a", HEADERS)
    part = StreamedPart.held(b"a", Algorithm.CRC64NVME)
    with pytest.raises(errors.StoreError) as caught:
        await s3.put_part_stream(f"{prefix}a", created.upload_id, 1, part)
    assert caught.value.code == "NotImplemented"


async def test_another_version_is_not_read(s3: S3ObjectStore, prefix: str) -> None:
    await s3.put(f"{prefix}a", Body([BODY]), HEADERS)
    with pytest.raises(errors.PreconditionFailed):
        await s3.get_range_stream(f"{prefix}a", RANGES[0], if_match='"no"', size=len(BODY))


async def test_a_range_of_another_object_is_declined(s3: S3ObjectStore, prefix: str) -> None:
    etag = await s3.put(f"{prefix}a", Body([BODY]), HEADERS)
    with pytest.raises(StreamDeclined):
        await s3.get_range_stream(f"{prefix}a", RANGES[0], if_match=etag, size=len(BODY) + 1)


async def test_a_version_that_is_replaced_ends_the_part(
    s3: S3ObjectStore, prefix: str, trails: bool
) -> None:
    key = f"{prefix}a"
    etag = await s3.put(key, Body([BODY]), HEADERS)
    created = await s3.create_upload(f"{key}-copy", HEADERS)
    answer = await s3.get_range_stream(key, RANGES[0], if_match=etag, size=len(BODY))
    part = StreamedPart(answer.body, s3.dialect.checksum if trails else None)
    await s3.put_part_stream(f"{key}-copy", created.upload_id, 1, part)
    await s3.put(key, Body([BODY[:-1], b"!"]), HEADERS)
    with pytest.raises(StreamBroken) as caught:
        await s3.put_part_stream(f"{key}-copy", created.upload_id, 1, part)
    assert isinstance(caught.value.cause, errors.PreconditionFailed)
    await s3.abort_upload(f"{key}-copy", created.upload_id)
