"""What a check asks of a bucket, and what its answers tell of the store.

A source must list (or, with explicit keys, let one be described) and let a byte of an object be
read; a target must list, begin an upload and take a part of it. What a dialect cannot know of a
store that people run themselves is found out on the way (`Capabilities`), for the job to keep.

Nothing is left behind. Uploads are aborted. Only the question whether a write obeys
`If-None-Match: *` takes an object, so it is asked

    | of a store                                          | because                              |
    |-----------------------------------------------------|--------------------------------------|
    | whose dialect only assumes it                       | the others are known                 |
    | for a job with `overwrite=false`, or for a precheck | nobody else needs to know            |
    | that keeps no versions                              | a deleted version, or a marker,      |
    |                                                     | would stay; and one that is written  |
    |                                                     | over is not lost there               |
    | that has let us delete the key before it exists     | the object could not be removed      |
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from slurper import errors
from slurper.jobs.models import Capabilities
from slurper.objectstore import failures
from slurper.objectstore.base import Body, ByteRange, ListingPage, ObjectHeaders, ObjectStore
from slurper.objectstore.dialects import KeyOrder

CLEAN_UP_SECONDS = 2.0

STALE_SECONDS = 60.0
"""What a check has left is older only if nobody is left to remove it."""

RESERVED_PREFIX = ".slurper-precheck-"
"""Begins the keys of whatever a check writes."""

_OWN_KEY = re.compile(re.escape(RESERVED_PREFIX) + "[0-9a-f]{32}")

_CONTENT = b"precheck"

_FIRST_BYTE = ByteRange(0, 1)

_SKEW_NOTED_SECONDS = 60.0

_FOLDERS_NOTED = (
    "the target keeps objects as files in folders: keys that begin with '/' or hold '//' or a "
    "backslash fail, and so do objects with bytes whose key ends with '/'"
)


@dataclass(slots=True)
class Course:
    """How a check goes: what it does now, for the text of what goes wrong, and what it noticed."""

    step: str = "reaching it"
    notes: list[str] = field(default_factory=list)
    found: Capabilities = field(default_factory=Capabilities)


class LeftError(Exception):
    """An upload of the check could not be removed from the target; the text says which."""

    def __init__(self, key: str, upload_id: str, cause: errors.SlurperError) -> None:
        super().__init__(
            f"an upload of the check is left: abort {upload_id} of the key {key}, or have a rule "
            "of the bucket do it"
        )
        self.cause = cause


# Reading


async def check_listed(store: ObjectStore, prefix: str, course: Course) -> None:
    """List a source, and read a byte of the first object."""
    page = await _list(store, prefix, course)
    for meta in page.objects:
        if meta.storage_class not in store.dialect.unreadable_storage_classes:
            await _read(store, meta.key, meta.size, course)


async def check_key(store: ObjectStore, key: str, course: Course) -> None:
    """Describe one explicit key; a missing key is fine, a missing bucket is not.

    An answer to HEAD has no body, hence no code that would tell those two apart, nor a bad
    signature from a lack of permission. Listing does; where it is not allowed, HEAD's word counts.
    """
    course.step = f"describing {key!a}"
    try:
        stored = await store.head(key)
    except errors.StoreError as seen:
        if not 400 <= seen.status < 500:
            raise
        try:
            await store.list_page(prefix=key, max_keys=1)
        except errors.AccessDenied:
            if not isinstance(seen, errors.NotFound):
                raise
            return
        if not isinstance(seen, errors.NotFound):
            raise
    else:
        await _read(store, key, stored.meta.size, course)


async def _read(store: ObjectStore, key: str, size: int, course: Course) -> None:
    """Read a byte. That the object is archived, or gone by now, is the business of its copy."""
    course.step = f"reading a byte of {key!a}"
    wanted = _FIRST_BYTE if size else None
    with contextlib.suppress(errors.NotFound, errors.RequiresRetrieval):
        await store.get(key, byte_range=wanted, max_bytes=None if size else 0)


async def _list(store: ObjectStore, prefix: str, course: Course) -> ListingPage:
    course.step = "listing it"
    page = await store.list_page(prefix=prefix, max_keys=1)
    version = page.list_version
    if store.dialect.assumed and version == 2:
        version = await _version_that_goes_on(store, prefix, page)
    course.found = replace(course.found, list_version=version, key_order=page.order.value)
    _note_clock(page, course)
    return page


async def _version_that_goes_on(store: ObjectStore, prefix: str, first: ListingPage) -> int | None:
    """List another key: a store that has not seen `list-type` begins again from the first.

    None: there is no other one to see it by.
    """
    if first.finished or not first.objects:
        return None
    key = first.objects[0].key
    return (await store.list_page(prefix=prefix, start_after=key, max_keys=1)).list_version


def _note_clock(page: ListingPage, course: Course) -> None:
    if page.served_at is None:
        return
    skew = (page.served_at - datetime.now(UTC)).total_seconds()
    course.found = replace(course.found, clock_ahead_seconds=round(skew))
    if abs(skew) > _SKEW_NOTED_SECONDS:
        course.notes.append(
            f"its clock is {abs(skew):.0f} seconds {'ahead of' if skew > 0 else 'behind'} this "
            "machine's; set the wrong one right"
        )


# Writing


async def check_target(
    stores: Sequence[ObjectStore], course: Course, *, asks_condition: bool
) -> None:
    """List a target and write to it, as far as nothing stays.

    `stores` are the same bucket in the dialects it may speak, the likeliest first; they differ in
    their checksums.
    """
    page = await _list(stores[0], "", course)
    if stores[0].dialect.assumed and page.order is KeyOrder.FOLDERS:
        course.notes.append(_FOLDERS_NOTED)
    store = await _check_writing(stores, course)
    dialect = store.dialect
    obeys: bool | None = dialect.conditional_put
    if dialect.assumed:
        obeys = await _obeys_condition(store, course) if asks_condition else None
    course.found = replace(course.found, conditional_put=obeys)
    if obeys is False:
        course.notes.append(
            "the target knows no condition for writes: with overwrite=false, what appears there "
            "between listing and writing is overwritten"
        )
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        await remove_stale(store, objects_too=dialect.assumed and obeys is not None)


async def _check_writing(stores: Sequence[ObjectStore], course: Course) -> ObjectStore:
    """Return the store in whose dialect checksums are verified, else the first that can be used."""
    usable: ObjectStore | None = None
    refusal: errors.StoreError | None = None
    for store in stores:
        try:
            verifies = await _check_upload(store, course)
        except errors.StoreError as error:
            if error.code not in failures.NOT_UNDERSTOOD:
                raise
            refusal = refusal or error
            continue
        if verifies:
            return _with_checksum(store, course, verifies=True)
        usable = usable or store
    if usable is None:
        assert refusal is not None  # noqa: S101 - there is at least one store
        raise refusal
    tried = " or ".join(
        store.dialect.checksum.upper() for store in stores if store.dialect.checksum
    )
    course.notes.append(
        f"the target took bytes with a wrong {tried}: it verifies no checksums, so bytes that "
        "change on the way to it go unnoticed"
    )
    return _with_checksum(usable, course, verifies=False)


def _with_checksum(store: ObjectStore, course: Course, *, verifies: bool) -> ObjectStore:
    checksum = store.dialect.checksum
    course.found = replace(
        course.found,
        checksum=None if checksum is None else checksum.value,
        verifies_checksum=verifies,
    )
    return store


async def _check_upload(store: ObjectStore, course: Course) -> bool:
    """Write a part, drop it again, and return whether the store compares checksums."""
    course.step = "beginning an upload"
    key = _new_key()
    upload_id = await _begin_upload(store, key)
    course.step = "writing a part"
    try:
        await store.put_part(key, upload_id, 1, Body([_CONTENT]))
        verifies = await _verifies_checksum(store, key, upload_id, course)
    except errors.SlurperError as error:
        await _clean_up(store, key, upload_id, error)
        raise
    except BaseException:
        course.step = f"removing the upload {upload_id} of the key {key}, which may be left"
        with contextlib.suppress(errors.SlurperError, TimeoutError):
            await _see_through(_abort(store, key, upload_id))
        raise
    course.step = "aborting the upload"
    await _clean_up(store, key, upload_id)
    return verifies


async def _begin_upload(store: ObjectStore, key: str) -> str:
    try:
        return await store.create_upload(key, ObjectHeaders())
    except BaseException as error:
        # Without an answer, or out of time: there may be an upload whose id is not known.
        if not isinstance(error, errors.StoreError) or error.retryable:
            with contextlib.suppress(errors.SlurperError, TimeoutError):
                await _see_through(_abort_all(store, key))
        raise


async def _verifies_checksum(store: ObjectStore, key: str, upload_id: str, course: Course) -> bool:
    """Whether the store refuses what it has just taken when it comes with a wrong checksum."""
    algorithm = store.dialect.checksum
    if algorithm is None:
        return False
    course.step = "writing a part whose checksum is wrong"
    try:
        await store.put_part(key, upload_id, 1, Body.mislabelled([_CONTENT], algorithm))
    except errors.IntegrityError:
        return True
    except errors.StoreError as error:
        if error.status != 400:
            raise
        return True
    return False


# Conditions


async def _obeys_condition(store: ObjectStore, course: Course) -> bool | None:
    """Whether writes with `If-None-Match: *` spare what is there; None: it cannot be found out."""
    key = _new_key()
    try:
        course.step = "asking whether it keeps versions"
        if await store.keeps_versions():
            return None
        course.step = "deleting a key that does not exist"
        await store.delete(key)
    except errors.SlurperError as error:
        course.notes.append(_not_found_out(error))
        return None
    try:
        course.step = "writing an object"
        await store.put(key, Body([_CONTENT]), ObjectHeaders())
        return await _spares(store, key, course)
    except errors.SlurperError as error:
        course.notes.append(_not_found_out(error))
        return None
    finally:
        course.step = f"deleting the object {key}, which may be left"
        try:
            await _see_through(_delete(store, key))
        except (errors.SlurperError, TimeoutError) as error:
            course.notes.append(f"an object of the check is left: delete {key} ({error})")


def _not_found_out(error: errors.SlurperError) -> str:
    return (
        "whether the target obeys conditions on writes could not be found out, and is assumed "
        f"({error})"
    )


async def _spares(store: ObjectStore, key: str, course: Course) -> bool:
    """Whether neither a conditional PUT nor a conditional completion replaces an object."""
    course.step = "writing an object unless it exists"
    again = store.put(key, Body([_CONTENT, _CONTENT]), ObjectHeaders(), if_absent=True)
    if not await _is_refused(again):
        return False
    course.step = "completing an upload unless the object exists"
    upload_id = await _begin_upload(store, key)
    try:
        part = await store.put_part(key, upload_id, 1, Body([_CONTENT, _CONTENT]))
        completed = store.complete_upload(key, upload_id, [part], if_absent=True)
        return await _is_refused(completed)
    finally:
        await _clean_up(store, key, upload_id)


async def _is_refused(write: Awaitable[str]) -> bool:
    """Whether a write over an existing object fails for its condition.

    One that is refused because the store does not understand the condition is none to rely on.
    """
    try:
        await write
    except errors.PreconditionFailed:
        return True
    except errors.StoreError as error:
        if error.code not in failures.NOT_UNDERSTOOD:
            raise
    return False


# Cleaning up


def _new_key() -> str:
    return RESERVED_PREFIX + secrets.token_hex(16)


async def _clean_up(
    store: ObjectStore, key: str, upload_id: str, cause: errors.SlurperError | None = None
) -> None:
    """Abort the upload. Raises LeftError: it is still there."""
    try:
        await _see_through(_abort(store, key, upload_id))
    except errors.SlurperError as error:
        raise LeftError(key, upload_id, cause or error) from error


async def _see_through(clean_up: Coroutine[Any, Any, None]) -> None:
    """Clean up to the end, although the check may run out of time just now."""
    task = asyncio.ensure_future(clean_up)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(errors.SlurperError, TimeoutError):
            await task
        raise


async def _abort(store: ObjectStore, key: str, upload_id: str) -> None:
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        await store.abort_upload(key, upload_id)


async def _delete(store: ObjectStore, key: str) -> None:
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        await store.delete(key)


async def _abort_all(store: ObjectStore, key: str) -> None:
    """Drop every upload of a key that nobody else can have thought of."""
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        for upload in await store.list_uploads(prefix=key):
            await store.abort_upload(upload.key, upload.upload_id)


async def remove_stale(store: ObjectStore, *, objects_too: bool) -> None:
    """Drop what checks have left whose process was killed in the middle of them.

    `objects_too`: such a check may have written an object, and deleting is allowed.
    """
    async with asyncio.timeout(CLEAN_UP_SECONDS):
        for upload in await store.list_uploads(prefix=RESERVED_PREFIX):
            if upload.age_seconds > STALE_SECONDS:
                await store.abort_upload(upload.key, upload.upload_id)
        if objects_too:
            await _delete_stale(store)


async def _delete_stale(store: ObjectStore) -> None:
    page = await store.list_page(prefix=RESERVED_PREFIX)
    now = page.served_at or datetime.now(UTC)
    for meta in page.objects:
        if meta.last_modified is None or not _OWN_KEY.fullmatch(meta.key):
            continue
        if (now - meta.last_modified).total_seconds() > STALE_SECONDS:
            await store.delete(meta.key)
