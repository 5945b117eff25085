"""What a check asks of a bucket, and what its answers tell of the store.

A source must list (or, with explicit keys, let one be described) and let a byte of an object be
read; a target must list, begin an upload and take a part of it. What a dialect cannot know of a
store that people run themselves is found out on the way (`Capabilities`), for the job to keep.

What the job can do without (another checksum when one can be used, the question of conditions,
what earlier checks have left) is asked in the time that is left, and never refuses a target.

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
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from slurper import errors
from slurper.jobs.models import Capabilities
from slurper.objectstore import failures
from slurper.objectstore.base import Body, ByteRange, ListingPage, ObjectHeaders, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.planning import own_keys
from slurper.transfer.walk import lists_in_own_order

CLEAN_UP_SECONDS = 2.0
"""Whatever a check has under way when its time is up is removed within this time."""

STALE_SECONDS = 60.0
"""What a check has left is older only if nobody is left to remove it."""

_CONTENT = b"precheck"

_FIRST_BYTE = ByteRange(0, 1)

_SKEW_NOTED_SECONDS = 60.0

_FOLDERS_NOTED = (
    "the target keeps objects as files in folders: keys that begin with '/' or hold '//' or a "
    "backslash fail, and so do objects with bytes whose key ends with '/'"
)


_OWN_ORDER_NOTED = (
    "it lists its keys in an order of its own: a source is copied by one worker then, and what a "
    "target holds is asked for key by key"
)


@dataclass(slots=True)
class Course:
    """How a check goes: what it does now, for the text of what goes wrong, and what it noticed."""

    deadline: float
    """When it must have asked everything, by the clock of the event loop."""
    step: str = "reaching it"
    notes: list[str] = field(default_factory=list)
    found: Capabilities = field(default_factory=Capabilities)

    def limit(self) -> asyncio.Timeout:
        """Raise TimeoutError from what is not done by the deadline."""
        return asyncio.timeout_at(self.deadline)


class LeftError(Exception):
    """An upload of the check could not be removed from the target; the text says which."""

    def __init__(self, key: str, upload_id: str, cause: errors.SlurperError) -> None:
        super().__init__(_left_upload(key, upload_id))
        self.cause = cause


# Reading


async def check_listed(store: ObjectStore, prefix: str, course: Course) -> None:
    """List a source, and read a byte of the first object. Raises TimeoutError."""
    async with course.limit():
        page = await _list(store, prefix, course)
        for meta in page.objects:
            if meta.storage_class not in store.dialect.unreadable_storage_classes:
                await _read(store, meta.key, meta.size, course)


async def check_key(store: ObjectStore, key: str, course: Course) -> None:
    """Describe one explicit key; a missing key is fine, a missing bucket is not.

    Raises TimeoutError.
    """
    async with course.limit():
        await _describe(store, key, course)


async def _describe(store: ObjectStore, key: str, course: Course) -> None:
    """Describe a key, and read a byte of its object.

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
    order, version = await _order_of(store, prefix, page, course), page.list_version
    if store.dialect.assumed and version == 2 and order is not KeyOrder.OWN:
        version = await _version_that_goes_on(store, prefix, page)
    course.found = replace(course.found, list_version=version, key_order=order.value)
    _note_clock(page, course)
    return page


async def _order_of(
    store: ObjectStore, prefix: str, first: ListingPage, course: Course
) -> KeyOrder:
    """List a long page: a store that lists in an order of its own shows that by it, most likely.

    A store that is too slow for that, or fails, is not refused: the copy sees it, too.
    """
    if first.finished or not (store.dialect.assumed or store.dialect.may_encrypt_keys):
        return first.order
    left = course.deadline - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(left / 2):
            return (await store.list_page(prefix=prefix)).order
    except errors.OutOfOrder as error:
        if not await lists_in_own_order(store, prefix, error):
            return first.order
        course.notes.append(_OWN_ORDER_NOTED)
        return KeyOrder.OWN
    except (errors.SlurperError, TimeoutError):
        return first.order


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
    their checksums. Raises TimeoutError: what the job needs was not found out in time.
    """
    async with course.limit():
        page = await _list(stores[0], "", course)
    if stores[0].dialect.assumed and page.order is KeyOrder.FOLDERS:
        course.notes.append(_FOLDERS_NOTED)
    store = await _check_writing(stores, course)
    dialect = store.dialect
    obeys: bool | None = dialect.conditional_put
    if dialect.assumed:
        obeys = await _ask_condition(store, course) if asks_condition else None
    course.found = replace(course.found, conditional_put=obeys)
    if obeys is False:
        course.notes.append(
            "the target knows no condition for writes: with overwrite=false, what appears there "
            "between listing and writing is overwritten"
        )
    course.step = "removing what earlier checks have left"
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        async with course.limit():
            await remove_stale(store, objects_too=dialect.assumed and obeys is not None)


async def _check_writing(stores: Sequence[ObjectStore], course: Course) -> ObjectStore:
    """Return the store in whose dialect checksums are verified, else the first that can be used."""
    unverified: list[ObjectStore] = []
    refusal: errors.StoreError | None = None
    for store in stores:
        try:
            async with course.limit():
                verifies = await _check_upload(store, course)
        except (errors.SlurperError, LeftError, TimeoutError) as error:
            if isinstance(error, errors.StoreError) and error.code in failures.NOT_UNDERSTOOD:
                refusal = refusal or error
            elif unverified:  # one that can be used is known, and that is enough
                course.notes.append(_untried(store, error, course.step))
            else:
                raise
            continue
        if verifies:
            return _with_checksum(store, course, verifies=True)
        unverified.append(store)
    if not unverified:
        assert refusal is not None  # noqa: S101 - there is at least one store
        raise refusal
    tried = " or ".join(map(_checksum_name, unverified))
    course.notes.append(
        f"the target took bytes with a wrong {tried}: it verifies no checksums, so bytes that "
        "change on the way to it go unnoticed"
    )
    return _with_checksum(unverified[0], course, verifies=False)


def _untried(store: ObjectStore, error: Exception, step: str) -> str:
    return (
        f"whether the target verifies {_checksum_name(store)} could not be found out "
        f"({step}: {_reason(error)})"
    )


def _checksum_name(store: ObjectStore) -> str:
    return "checksum" if store.dialect.checksum is None else store.dialect.checksum.upper()


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)


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
    key = own_keys.new_key()
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


@dataclass(slots=True)
class _Trial:
    """What the question of conditions may have written, for one key; all of it is removed."""

    key: str = field(default_factory=own_keys.new_key)
    has_object: bool = False
    has_upload: bool = False
    upload_id: str | None = None
    """None also for an upload whose beginning got no answer."""


async def _ask_condition(store: ObjectStore, course: Course) -> bool | None:
    """Whether writes with `If-None-Match: *` spare what is there; None: it cannot be found out."""
    trial = _Trial()
    try:
        async with course.limit():
            return await _obeys_condition(store, trial, course)
    except (errors.SlurperError, TimeoutError) as error:
        course.notes.append(
            "whether the target obeys conditions on writes could not be found out, and is assumed "
            f"({_reason(error)})"
        )
        return None
    finally:
        course.step = f"removing what was written under {trial.key}, which may be left"
        await _see_through(_remove(store, trial, course))


async def _obeys_condition(store: ObjectStore, trial: _Trial, course: Course) -> bool | None:
    course.step = "asking whether it keeps versions"
    if await store.keeps_versions():
        return None
    course.step = "deleting a key that does not exist"
    await store.delete(trial.key)
    course.step = "writing an object"
    trial.has_object = True
    await store.put(trial.key, Body([_CONTENT]), ObjectHeaders())
    return await _spares(store, trial, course)


async def _spares(store: ObjectStore, trial: _Trial, course: Course) -> bool:
    """Whether neither a conditional PUT nor a conditional completion replaces an object."""
    key, other = trial.key, Body([_CONTENT, _CONTENT])
    course.step = "writing an object unless it exists"
    if not await _is_refused(store.put(key, other, ObjectHeaders(), if_absent=True)):
        return False
    course.step = "completing an upload unless the object exists"
    trial.has_upload = True
    try:
        trial.upload_id = upload_id = await store.create_upload(key, ObjectHeaders())
    except errors.StoreError as error:
        trial.has_upload = error.retryable
        raise
    part = await store.put_part(key, upload_id, 1, other)
    return await _is_refused(store.complete_upload(key, upload_id, [part], if_absent=True))


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


async def _remove(store: ObjectStore, trial: _Trial, course: Course) -> None:
    """Remove what a trial has written, its object and its upload at the same time."""
    key, upload_id = trial.key, trial.upload_id
    removals: list[Awaitable[None]] = []
    if upload_id is not None:
        left = _left_upload(key, upload_id)
        removals.append(_or_note(_abort(store, key, upload_id), left, course))
    elif trial.has_upload:
        left = f"an upload of the check may be left: abort those of the key {key}"
        removals.append(_or_note(_abort_all(store, key), left, course))
    if trial.has_object:
        left = f"an object of the check is left: delete {key}"
        removals.append(_or_note(_delete(store, key), left, course))
    await asyncio.gather(*removals)


async def _or_note(removal: Awaitable[None], left: str, course: Course) -> None:
    try:
        await removal
    except (errors.SlurperError, TimeoutError) as error:
        course.notes.append(f"{left} ({_reason(error)})")


# Cleaning up


def _left_upload(key: str, upload_id: str) -> str:
    return (
        f"an upload of the check is left: abort {upload_id} of the key {key}, or have a rule of "
        "the bucket do it"
    )


async def _clean_up(
    store: ObjectStore, key: str, upload_id: str, cause: errors.SlurperError | None = None
) -> None:
    """Abort the upload. Raises LeftError: it is still there."""
    try:
        await _see_through(_abort(store, key, upload_id))
    except errors.SlurperError as error:
        raise LeftError(key, upload_id, cause or error) from error
    except TimeoutError as error:
        silence = errors.TransportError(f"no answer within {CLEAN_UP_SECONDS:g} seconds")
        raise LeftError(key, upload_id, cause or silence) from error


async def _see_through(clean_up: Awaitable[None]) -> None:
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
        for upload in await store.list_uploads(prefix=own_keys.PREFIX):
            if upload.age_seconds > STALE_SECONDS:
                await store.abort_upload(upload.key, upload.upload_id)
        if objects_too:
            await _delete_stale(store)


async def _delete_stale(store: ObjectStore) -> None:
    page = await store.list_page(prefix=own_keys.PREFIX)
    now = page.served_at or datetime.now(UTC)
    for meta in page.objects:
        if meta.last_modified is None or not own_keys.is_own(meta.key):
            continue
        if (now - meta.last_modified).total_seconds() > STALE_SECONDS:
            await store.delete(meta.key)
