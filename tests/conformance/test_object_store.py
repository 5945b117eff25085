"""What every object store behind the protocol does, asked of real servers and of the one in memory.

A server that does otherwise is listed in `differences`, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from slurper import errors
from slurper.demo.servers import S3Server
from slurper.objectstore import checksums
from slurper.objectstore.base import Body, ByteRange, ObjectHeaders, ProbedStore, SourceMd5
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import PartCopy
from slurper.objectstore.gcs.store import GcsObjectStore
from slurper.objectstore.s3.store import S3ObjectStore
from tests.conformance.conftest import DIALECTS, Open, Subject, wrong_credentials
from tests.conformance.differences import DIFFERENCES
from tests.memory.store import MemoryStore

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NO_HEADERS = ObjectHeaders()
EVERYTHING = ObjectHeaders(
    {
        "cache-control": "max-age=60, public",
        "content-disposition": 'attachment; filename="a  b.txt"',
        "content-encoding": "gzip",
        "content-language": "de, en",
        "content-type": "text/x-odd; charset=utf-8",
        "expires": "Thu, 01 Jan 2099 00:00:00 GMT",
    },
    {
        "plain": "value",
        "with-spaces": "a   b",
        "under_score": "1",
        "punctuation": "a=b;c:d,%41",
    },
)
KIB, MIB = 1 << 10, 1 << 20

over_tls_too = pytest.mark.parametrize("subject", tuple(DIALECTS), indirect=True)

KEYS = {
    "empty-segment": "a//b",
    "leading-slash": "/lead",
    "marker": "marker/",
    "parent-segment": "a/../b",
    "own-segment": "a/./b",
    "parent": "..",
    "own": ".",
    "url": "x y+%25&=?#",
    "encoded-slash": "a%2Fb",
    "punctuation": "q&=;:@$,!*'()~<>\"",
    "backslash": "b\\c",
    "spaces": " both ends ",
    "nfc": "ü",
    "nfd": "u\u0308",
    "emoji": "😀",
    "control": "\x01",
    "newline": "new\nline",
    "tab": "tab\tx",
    "longest": "k" * 1024,
    "longest-in-segments": "/".join(["s" * 127] * 8) + "x",
}


async def keys_of(store: ProbedStore, prefix: str = "", *, max_keys: int = 1000) -> list[str]:
    """Every key, page by page."""
    keys: list[str] = []
    while True:
        page = await store.list_page(
            prefix=prefix, start_after=keys[-1] if keys else None, max_keys=max_keys
        )
        assert len(page.objects) <= max_keys
        keys += [meta.key for meta in page.objects]
        if page.finished:
            return keys


async def fill(store: ProbedStore, keys: list[str]) -> None:
    await asyncio.gather(*(store.put(key, Body([key.encode()]), NO_HEADERS) for key in keys))


# Objects


@over_tls_too
async def test_bytes_come_back_as_they_were(store: ProbedStore, prefix: str) -> None:
    chunks = [bytes(range(256)) * 1000, b"", b"\r\n--\0", b"x" * 300_000]
    etag = await store.put(f"{prefix}k", Body(chunks), NO_HEADERS)
    download = await store.get(f"{prefix}k")
    assert bytes(download.body) == b"".join(chunks)
    assert download.stored.meta.etag == etag
    assert download.stored.meta.size == len(b"".join(chunks))


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_is_kept(empty_store: ProbedStore, name: str) -> None:
    key = KEYS[name]
    await empty_store.put(key, Body([key.encode()]), NO_HEADERS)
    assert await keys_of(empty_store) == [key]
    assert bytes((await empty_store.get(key)).body) == key.encode()
    assert (await empty_store.head(key)).meta.key == key


async def test_a_marker_stands_beside_an_object(empty_store: ProbedStore) -> None:
    await fill(empty_store, ["dir", "dir/", "dir/x"])
    assert await keys_of(empty_store) == ["dir", "dir/", "dir/x"]
    for key in ("dir", "dir/", "dir/x"):
        assert bytes((await empty_store.get(key)).body) == key.encode()


@over_tls_too
async def test_everything_kept_beside_the_bytes(store: ProbedStore, prefix: str) -> None:
    await store.put(f"{prefix}k", Body([b"not gzip at all"]), EVERYTHING)
    download = await store.get(f"{prefix}k")
    assert download.stored.headers == EVERYTHING
    assert (await store.head(f"{prefix}k")).headers == EVERYTHING
    assert bytes(download.body) == b"not gzip at all"


async def test_metadata_may_hold_any_bytes(store: ProbedStore, prefix: str) -> None:
    text = "grün 😀".encode().decode("latin-1")
    await store.put(f"{prefix}k", Body([]), ObjectHeaders({}, {"text": text}))
    assert (await store.head(f"{prefix}k")).headers.metadata == {"text": text}


async def test_metadata_of_western_letters(store: ProbedStore, prefix: str) -> None:
    text = "grün".encode().decode("latin-1")
    await store.put(f"{prefix}k", Body([]), ObjectHeaders({}, {"text": text}))
    assert (await store.head(f"{prefix}k")).headers.metadata == {"text": text}


async def test_nothing_is_an_object_too(store: ProbedStore, prefix: str) -> None:
    headers = ObjectHeaders({"content-type": "a/b"}, {"m": "1"})
    await store.put(f"{prefix}k", Body([]), headers)
    download = await store.get(f"{prefix}k")
    assert (bytes(download.body), download.stored.meta.size) == (b"", 0)
    assert download.stored.headers == headers


async def test_listing_head_and_get_describe_the_same(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    etag = await store.put(key, Body([b"12345"]), NO_HEADERS)
    (listed,) = (await store.list_page(prefix=prefix)).objects
    for meta in (listed, (await store.head(key)).meta, (await store.get(key)).stored.meta):
        assert (meta.key, meta.size, meta.etag) == (key, 5, etag)
        assert meta.last_modified is not None
        assert abs(datetime.now(UTC) - meta.last_modified) < timedelta(minutes=5)
    assert listed.storage_class == "STANDARD"


async def test_a_later_put_replaces(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    first = await store.put(key, Body([b"1"]), ObjectHeaders({}, {"old": "1"}))
    second = await store.put(key, Body([b"22"]), ObjectHeaders({}, {"new": "2"}))
    assert first != second
    download = await store.get(key)
    assert (bytes(download.body), download.stored.headers.metadata) == (b"22", {"new": "2"})


async def test_a_key_too_long_is_refused(store: ProbedStore) -> None:
    for key in ("k" * 1025, "ü" * 513):
        with pytest.raises(errors.NotStorable, match="bytes"):
            await store.put(key, Body([b"x"]), NO_HEADERS)
        with pytest.raises(errors.NotStorable, match="bytes"):
            await store.create_upload(key, NO_HEADERS)


# Conditions and ranges


@over_tls_too
async def test_a_version_can_be_insisted_on(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    etag = await store.put(key, Body([b"12345"]), NO_HEADERS)
    assert bytes((await store.get(key, if_match=etag)).body) == b"12345"
    await store.put(key, Body([b"changed"]), NO_HEADERS)
    with pytest.raises(errors.PreconditionFailed):
        await store.get(key, if_match=etag)
    with pytest.raises(errors.PreconditionFailed):
        await store.get(key, if_match=etag, byte_range=ByteRange(0, 2))


@over_tls_too
async def test_a_range_is_exactly_that(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    etag = await store.put(key, Body([b"0123456789"]), NO_HEADERS)
    for begin, end in ((0, 1), (2, 5), (9, 10), (0, 10)):
        part = await store.get(key, if_match=etag, byte_range=ByteRange(begin, end))
        assert bytes(part.body) == b"0123456789"[begin:end]
        assert (part.stored.meta.size, part.stored.meta.etag) == (10, etag)


async def test_a_range_beyond_the_end_is_an_error(store: ProbedStore, prefix: str) -> None:
    await store.put(f"{prefix}k", Body([b"0123456789"]), NO_HEADERS)
    for begin, end in ((10, 12), (8, 12)):
        with pytest.raises((errors.StoreError, errors.IntegrityError)):
            await store.get(f"{prefix}k", byte_range=ByteRange(begin, end))


@over_tls_too
async def test_what_exists_is_not_replaced_unasked(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    await store.put(key, Body([b"first"]), NO_HEADERS, if_absent=True)
    with pytest.raises(errors.PreconditionFailed) as refused:
        await store.put(key, Body([b"second"]), NO_HEADERS, if_absent=True)
    assert refused.value.retries == 0
    assert bytes((await store.get(key)).body) == b"first"


@over_tls_too
async def test_what_is_absent_is_not_found(store: ProbedStore, prefix: str) -> None:
    for ask in (store.get, store.head):
        with pytest.raises(errors.NotFound) as missing:
            await ask(f"{prefix}absent")
        assert missing.value.key == f"{prefix}absent"


async def test_a_deleted_object_is_gone_and_may_be_deleted_again(
    store: ProbedStore, prefix: str
) -> None:
    for key in (f"{prefix}k", f"{prefix}k2"):
        await store.put(key, Body([b"x"]), NO_HEADERS)
    await store.delete(f"{prefix}k")
    await store.delete(f"{prefix}k")
    assert await keys_of(store, prefix) == [f"{prefix}k2"]


async def test_a_bucket_that_keeps_versions_says_so(
    subject: Subject,
    empty_store: ProbedStore,
    boto: Callable[[S3Server], S3Client],
) -> None:
    if not isinstance(subject.server, S3Server):
        kept = subject.server is not None  # at Google by soft delete
        assert await empty_store.keeps_versions() is kept
        return
    assert not await empty_store.keeps_versions()
    bucket = empty_store._bucket  # type: ignore[attr-defined]
    boto(subject.server).put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
    )
    assert await empty_store.keeps_versions()


async def test_archived_objects_say_so(
    subject: Subject,
    empty_store: ProbedStore,
    boto: Callable[[S3Server], S3Client],
) -> None:
    await empty_store.put("probe", Body([]), NO_HEADERS)
    if isinstance(empty_store, MemoryStore):
        empty_store._dialect = replace(
            subject.dialect, unreadable_storage_classes=frozenset({"GLACIER"})
        )
        empty_store.add("k", b"x", storage_class="GLACIER")
    else:
        if not isinstance(subject.server, S3Server):
            pytest.skip("at Google every storage class can be read")
        bucket = empty_store._bucket  # type: ignore[attr-defined]
        boto(subject.server).put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    (listed,) = (await empty_store.list_page(prefix="k")).objects
    assert listed.storage_class == "GLACIER"
    with pytest.raises(errors.RequiresRetrieval):
        await empty_store.get("k")


async def test_a_restored_object_can_be_read_and_says_so(
    subject: Subject,
    empty_store: ProbedStore,
    boto: Callable[[S3Server], S3Client],
) -> None:
    if not isinstance(subject.server, S3Server):
        pytest.skip("nothing is archived there")
    client = boto(subject.server)
    bucket = empty_store._bucket  # type: ignore[attr-defined]
    client.put_object(Bucket=bucket, Key="k", Body=b"x", StorageClass="GLACIER")
    assert (await empty_store.head("k")).meta.storage_class == "GLACIER"
    client.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Days": 1})
    for _ in range(200):
        if (await empty_store.head("k")).meta.storage_class == "":
            break
        await asyncio.sleep(0.05)
    assert bytes((await empty_store.get("k")).body) == b"x"
    assert (await empty_store.head("k")).meta.storage_class == ""


# Listings


@over_tls_too
async def test_pages_continue_after_a_key(store: ProbedStore, prefix: str) -> None:
    keys = [f"{prefix}{number:03d}" for number in range(20)]
    await fill(store, keys)
    for max_keys in (1, 7, 19, 20, 21):
        assert await keys_of(store, prefix, max_keys=max_keys) == keys


async def test_a_page_begins_after_a_key_that_need_not_exist(
    store: ProbedStore, prefix: str
) -> None:
    await fill(store, [f"{prefix}{name}" for name in ("a", "c", "e")])
    for start_after, expected in (("a", "ce"), ("b", "ce"), ("e", ""), ("d~", "e"), ("", "ace")):
        page = await store.list_page(prefix=prefix, start_after=f"{prefix}{start_after}")
        assert [meta.key for meta in page.objects] == [f"{prefix}{name}" for name in expected]
        assert page.finished


async def test_a_start_before_or_behind_the_prefix(store: ProbedStore, prefix: str) -> None:
    await fill(store, [f"{prefix}m/1", f"{prefix}m/2"])
    early = await store.list_page(prefix=f"{prefix}m/", start_after=f"{prefix}a")
    late = await store.list_page(prefix=f"{prefix}m/", start_after=f"{prefix}z")
    assert len(early.objects) == 2
    assert (late.objects, late.finished) == ([], True)


async def test_a_prefix_is_letters_not_a_folder(store: ProbedStore, prefix: str) -> None:
    await fill(store, [f"{prefix}{name}" for name in ("ab", "abc", "b", "ab/c")])
    assert sorted(await keys_of(store, f"{prefix}ab")) == [
        f"{prefix}ab",
        f"{prefix}ab/c",
        f"{prefix}abc",
    ]


async def test_keys_come_in_the_order_that_the_page_tells(empty_store: ProbedStore) -> None:
    keys = [
        "a!",
        "a-1",
        "a.txt",
        "a/b",
        "a/c",
        "a/c-1",
        "a/c0/x",
        "aa",
        "B",
        "é",
        "ü",
        "😀",
        "\uff5e",
    ]
    await fill(empty_store, keys)
    order = (await empty_store.list_page()).order
    assert await keys_of(empty_store, max_keys=3) == sorted(keys, key=order.rank)


async def test_an_empty_bucket_is_finished(empty_store: ProbedStore) -> None:
    page = await empty_store.list_page()
    assert (page.objects, page.finished) == ([], True)


async def test_more_than_a_page_of_a_thousand(subject: Subject, empty_store: ProbedStore) -> None:
    if subject.name not in ("memory", "ministack", "gcs"):
        pytest.skip("one real server shows it; the others are slow to fill")
    keys = [f"{number:04d}" for number in range(1003)]
    await fill(empty_store, keys)
    page = await empty_store.list_page()
    assert (len(page.objects), page.finished) == (1000, False)
    assert await keys_of(empty_store) == keys


# Multipart uploads


@over_tls_too
async def test_parts_become_an_object(store: ProbedStore, prefix: str) -> None:
    key, headers = f"{prefix}k", ObjectHeaders({"content-type": "a/b"}, {"m": "1"})
    bodies = [bytes([number]) * size for number, size in enumerate((5 * MIB, 5 * MIB, 7))]
    upload = (await store.create_upload(key, headers)).upload_id
    parts = [
        await store.put_part(key, upload, number, Body([body]))
        for number, body in reversed(list(enumerate(bodies, 1)))
    ]
    etag = await store.complete_upload(key, upload, parts[::-1])
    download = await store.get(key)
    assert bytes(download.body) == b"".join(bodies)
    assert download.stored.headers == headers
    assert download.stored.meta.etag == etag
    (listed,) = (await store.list_page(prefix=prefix)).objects
    assert (listed.size, listed.etag) == (10 * MIB + 7, etag)


async def test_a_part_may_be_written_again(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    await store.put_part(key, upload, 1, Body([b"first"]))
    part = await store.put_part(key, upload, 1, Body([b"second"]))
    await store.complete_upload(key, upload, [part])
    assert bytes((await store.get(key)).body) == b"second"


@over_tls_too
async def test_an_aborted_upload_leaves_nothing(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    part = await store.put_part(key, upload, 1, Body([b"x"]))
    await store.abort_upload(key, upload)
    await store.abort_upload(key, upload)
    with pytest.raises(errors.NotFound):
        await store.put_part(key, upload, 2, Body([b"x"]))
    with pytest.raises(errors.NotFound):
        await store.complete_upload(key, upload, [part])
    assert await keys_of(store, prefix) == []


async def test_uploads_under_way_are_listed(store: ProbedStore, prefix: str) -> None:
    keys = [f"{prefix}a", f"{prefix}a", f"{prefix}b+ %41ü", f"{prefix[:-1]}other"]
    begun = [(key, (await store.create_upload(key, NO_HEADERS)).upload_id) for key in keys]
    try:
        listed = await store.list_uploads(prefix=prefix)
        assert {(found.key, found.upload_id) for found in listed} == set(begun[:3])
        assert all(-2 < found.age_seconds < 60 for found in listed)
        await store.abort_upload(*begun[1])
        listed = await store.list_uploads(prefix=prefix)
        assert {found.upload_id for found in listed} == {begun[0][1], begun[2][1]}
    finally:
        for key, upload_id in begun:
            await store.abort_upload(key, upload_id)
    assert await store.list_uploads(prefix=prefix) == []


async def test_an_upload_does_not_replace_unasked(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    part = await store.put_part(key, upload, 1, Body([b"new"]))
    await store.put(key, Body([b"old"]), NO_HEADERS)
    with pytest.raises(errors.PreconditionFailed):
        await store.complete_upload(key, upload, [part], if_absent=True)
    assert bytes((await store.get(key)).body) == b"old"
    await store.abort_upload(key, upload)


async def test_a_part_that_is_missing_is_an_error(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    part = await store.put_part(key, upload, 1, Body([b"x"]))
    with pytest.raises(errors.StoreError, match="InvalidPart"):
        await store.complete_upload(key, upload, [replace(part, number=2)])
    await store.abort_upload(key, upload)


async def test_a_small_part_must_be_the_last(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    parts = [await store.put_part(key, upload, number, Body([b"x"])) for number in (1, 2)]
    with pytest.raises(errors.StoreError, match="EntityTooSmall"):
        await store.complete_upload(key, upload, parts)
    await store.abort_upload(key, upload)


# Copies that the store makes itself


def bucket_of(store: ProbedStore) -> str:
    if not store.dialect.server_side_copy:
        pytest.skip("this store does not copy by itself, and says so")
    assert isinstance(store, S3ObjectStore | GcsObjectStore | MemoryStore)
    return store._bucket


def skip_without_copied_parts(store: ProbedStore) -> None:
    if store.dialect.part_copy is PartCopy.NONE:
        pytest.skip("this store copies whole objects only, and says so")


async def copy(store: ProbedStore, key: str, to: str) -> str:
    return await store.copy_object(to, bucket_of(store), await store.head(key))


@over_tls_too
async def test_a_copy_has_everything_its_source_has(store: ProbedStore, prefix: str) -> None:
    body = bytes(range(256)) * 5000
    await store.put(f"{prefix}from", Body([body]), EVERYTHING)
    etag = await copy(store, f"{prefix}from", f"{prefix}to")
    download = await store.get(f"{prefix}to")
    assert download.stored.meta.etag.strip('"') == etag.strip('"')
    assert bytes(download.body) == body
    assert download.stored.headers == EVERYTHING


async def test_a_copy_has_nothing_else(store: ProbedStore, prefix: str) -> None:
    await store.put(f"{prefix}from", Body([]), ObjectHeaders({"content-type": "a/b"}, {"m": "1"}))
    await store.put(
        f"{prefix}to", Body([b"old"]), ObjectHeaders({"content-language": "de"}, {"o": "2"})
    )
    await copy(store, f"{prefix}from", f"{prefix}to")
    download = await store.get(f"{prefix}to")
    assert bytes(download.body) == b""
    assert download.stored.headers == ObjectHeaders({"content-type": "a/b"}, {"m": "1"})


@pytest.mark.parametrize("name", KEYS)
async def test_any_key_is_copied_from_and_to(empty_store: ProbedStore, name: str) -> None:
    key = KEYS[name]
    await empty_store.put(key, Body([key.encode()]), NO_HEADERS)
    await copy(empty_store, key, "plain")
    assert bytes((await empty_store.get("plain")).body) == key.encode()
    await empty_store.put("other", Body([b"other"]), NO_HEADERS)
    await copy(empty_store, "other", key)
    assert bytes((await empty_store.get(key)).body) == b"other"
    assert sorted(await keys_of(empty_store)) == sorted([key, "other", "plain"])


async def test_a_copy_insists_on_a_version(store: ProbedStore, prefix: str) -> None:
    await store.put(f"{prefix}from", Body([b"1"]), NO_HEADERS)
    first = await store.head(f"{prefix}from")
    await store.put(f"{prefix}from", Body([b"2"]), NO_HEADERS)
    with pytest.raises(errors.PreconditionFailed):
        await store.copy_object(f"{prefix}to", bucket_of(store), first)
    with pytest.raises(errors.NotFound):
        await store.head(f"{prefix}to")


async def test_a_copy_does_not_replace_unasked(store: ProbedStore, prefix: str) -> None:
    bucket = bucket_of(store)
    if not store.dialect.conditional_copy:
        pytest.skip("this store knows no such condition, and says so")
    await store.put(f"{prefix}from", Body([b"1"]), NO_HEADERS)
    await store.put(f"{prefix}to", Body([b"other"]), NO_HEADERS)
    source = await store.head(f"{prefix}from")
    with pytest.raises(errors.PreconditionFailed):
        await store.copy_object(f"{prefix}to", bucket, source, if_absent=True)
    assert bytes((await store.get(f"{prefix}to")).body) == b"other"
    await store.copy_object(f"{prefix}new", bucket, source, if_absent=True)
    assert bytes((await store.get(f"{prefix}new")).body) == b"1"


async def test_a_copy_of_what_is_not_there(store: ProbedStore, prefix: str) -> None:
    await store.put(f"{prefix}from", Body([b"1"]), NO_HEADERS)
    source = await store.head(f"{prefix}from")
    gone = replace(source, meta=source.meta._replace(key=f"{prefix}gone"))
    with pytest.raises(errors.StoreError):
        await store.copy_object(f"{prefix}to", bucket_of(store), gone)
    with pytest.raises(errors.StoreError):
        await store.copy_object(f"{prefix}to", "no-such-bucket-anywhere", source)


@over_tls_too
async def test_parts_are_copied_too(store: ProbedStore, prefix: str) -> None:
    skip_without_copied_parts(store)
    bucket = bucket_of(store)
    body = bytes(range(256)) * 4 * KIB * 11
    key = f"{prefix}from?+%41/ü"
    await store.put(key, Body([body]), NO_HEADERS)
    source = (await store.head(key)).meta
    to = f"{prefix}to"
    upload_id = (await store.create_upload(to, ObjectHeaders({"content-type": "a/b"}))).upload_id
    ranges = [ByteRange(start, min(start + 5 * MIB, len(body))) for start in (0, 5 * MIB, 10 * MIB)]
    parts = [
        await store.copy_part(to, upload_id, number, bucket, source, byte_range)
        for number, byte_range in enumerate(ranges, 1)
    ]
    assert [part.size for part in parts] == [5 * MIB, 5 * MIB, len(body) - 10 * MIB]
    await store.complete_upload(to, upload_id, parts)
    download = await store.get(to)
    assert bytes(download.body) == body
    assert download.stored.headers.content == {"content-type": "a/b"}


async def test_a_part_is_copied_of_one_version_only(store: ProbedStore, prefix: str) -> None:
    if store.dialect.part_copy is not PartCopy.CONDITIONAL:
        pytest.skip("this store knows no such condition, and says so")
    bucket = bucket_of(store)
    await store.put(f"{prefix}from", Body([b"1"]), NO_HEADERS)
    first = (await store.head(f"{prefix}from")).meta
    await store.put(f"{prefix}from", Body([b"2"]), NO_HEADERS)
    upload_id = (await store.create_upload(f"{prefix}to", NO_HEADERS)).upload_id
    whole = ByteRange(0, 1)
    with pytest.raises(errors.PreconditionFailed):
        await store.copy_part(f"{prefix}to", upload_id, 1, bucket, first, whole)
    await store.abort_upload(f"{prefix}to", upload_id)


# Checksums


def damaged(data: bytes, algorithm: Algorithm | None) -> Body:
    """A body whose bytes were changed after its checksum was computed."""
    assert algorithm is not None
    return Body.mislabelled([data], algorithm)


@over_tls_too
async def test_damaged_bytes_are_refused(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    with pytest.raises(errors.IntegrityError):
        await store.put(key, damaged(b"12345", store.dialect.checksum), NO_HEADERS)
    with pytest.raises(errors.NotFound):
        await store.head(key)


@over_tls_too
@pytest.mark.parametrize("if_absent", [True, False])
async def test_bytes_without_the_md5_that_their_source_tells_are_refused(
    store: ProbedStore, prefix: str, *, if_absent: bool
) -> None:
    right, wrong = Body([b"12345"]), Body.with_wrong_md5([b"12345"])
    right.source_md5 = checksums.encode(Algorithm.MD5, [b"12345"])
    with pytest.raises(errors.BytesRefused):
        await store.put(f"{prefix}wrong", wrong, NO_HEADERS, if_absent=if_absent)
    await store.put(f"{prefix}right", right, NO_HEADERS, if_absent=if_absent)
    assert bytes((await store.get(f"{prefix}right")).body) == b"12345"


@over_tls_too
async def test_what_is_told_of_an_object_is_right(store: ProbedStore, prefix: str) -> None:
    body = bytes(range(256)) * 2_000
    await store.put(f"{prefix}k", Body([body]), NO_HEADERS)
    download = await store.get(f"{prefix}k", md5=SourceMd5.BESIDE, compares=False)
    for described in (await store.head(f"{prefix}k", with_checksums=True), download.stored):
        if described.told is not None:
            algorithm, value = described.told
            assert value == checksums.encode(algorithm, [body])
    md5 = checksums.encode(Algorithm.MD5, [body])
    # At Google the CRC32C is enough; every other store makes the ETag from the MD5.
    assert download.body.source_md5 == md5 or isinstance(store, GcsObjectStore)


async def test_damaged_parts_are_refused(store: ProbedStore, prefix: str) -> None:
    key = f"{prefix}k"
    upload = (await store.create_upload(key, NO_HEADERS)).upload_id
    with pytest.raises(errors.IntegrityError):
        await store.put_part(key, upload, 1, damaged(b"12345", store.dialect.checksum))
    await store.abort_upload(key, upload)


# Being refused


@over_tls_too
@pytest.mark.parametrize("wrong", ["secret", "key-id"])
async def test_wrong_credentials_are_told_from_missing_rights(
    subject: Subject, open_bucket: Open, wrong: str
) -> None:
    assert subject.server is not None, "this store has no credentials"
    credentials = wrong_credentials(subject.server, wrong)
    store = open_bucket(subject.make_bucket(), credentials=credentials)
    for attempt in (
        lambda: store.list_page(),
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.put("k", Body([b"x"]), NO_HEADERS),
        lambda: store.create_upload("k", NO_HEADERS),
    ):
        with pytest.raises(errors.CredentialsRejected):
            await attempt()


@over_tls_too
async def test_an_absent_bucket_is_told_from_an_absent_key(open_bucket: Open) -> None:
    store = open_bucket("no-such-bucket-0b6e")
    with pytest.raises(errors.NoSuchBucket):
        await store.list_page()
    for attempt in (
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.put("k", Body([b"x"]), NO_HEADERS),
        lambda: store.create_upload("k", NO_HEADERS),
    ):
        with pytest.raises((errors.NoSuchBucket, errors.Misdirected)):
            await attempt()


def test_the_differences_are_of_tests_that_exist() -> None:
    for name in DIFFERENCES:
        function, _, parameters = name.rstrip("]").partition("[")
        assert function in globals()
        assert set(parameters.split("-")) & set(DIALECTS)
