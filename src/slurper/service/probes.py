"""What a check asks of a bucket, and what its answers tell of the store.

A source must list (or, with explicit keys, describe one). It must let a byte of an object be read:
of the first, or of one of the next if the first cannot be read. A target must list, begin an upload
and take a part of it. No dialect can know everything of a store that people run themselves: the
check finds out the rest (`Capabilities`), and the job keeps it.

Some questions the job can do without: about a second checksum when one can be used, those that
write objects, and what earlier checks have left. They use the time that is left, and never refuse a
target.

Nothing is left behind. Uploads are aborted. Two questions write objects: which keys and headers
come back as they were written (`specimens`), and whether a write obeys `If-None-Match: *`. So they
are asked only

    | of a store                                          | because                              |
    |-----------------------------------------------------|--------------------------------------|
    | whose dialect only assumes it                       | the others are known                 |
    | for a new job, or for a precheck; the condition     | nobody else needs to know            |
    | only for one with `overwrite=false`                 |                                      |
    | that keeps no versions                              | a deleted version, or a marker,      |
    |                                                     | would stay; and one that is written  |
    |                                                     | over is not lost there               |
    | that has let us delete the key before it exists     | the object could not be removed      |
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeGuard, TypeVar

from slurper import errors
from slurper.job.model import Capabilities
from slurper.objectstore import failures, key_shapes, own_keys
from slurper.objectstore.base import (
    Body,
    ByteRange,
    ListingPage,
    ObjectHeaders,
    ObjectMeta,
    ObjectStore,
)
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.dialects import KeyOrder
from slurper.service import clean_up
from slurper.service.specimens import Findings, Specimens
from slurper.transfer.walk import lists_in_own_order

_CONTENT = b"precheck"

_FIRST_BYTE = ByteRange(0, 1)

MOST_READ = 20
"""So many objects are tried before all are taken to be unreadable."""

_FIRST_SHARE = 0.5
"""Of the time of a check, how much the first of them may take."""

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
    open_hasty: Callable[[ObjectStore], ObjectStore]
    """Opens the same store once more, to send each request once: some are expected to fail."""
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
    """List a source, and read a byte of an object. Raises TimeoutError."""
    async with course.limit():
        page = await _list(store, prefix, course)

    async def read(meta: ObjectMeta) -> bool:
        if meta.storage_class in store.dialect.unreadable_storage_classes:
            return False
        return await _read(store, meta.key, meta.size)

    async def others() -> Sequence[ObjectMeta]:
        first = page.objects[0].key
        if page.finished:
            return ()
        more = await store.list_page(prefix=prefix, start_after=first, max_keys=MOST_READ - 1)
        return own_keys.without_own(more.objects)

    if page.objects:
        first = page.objects[0]
        await _read_one_of(first, others, read, course, key_of=lambda meta: meta.key)


async def check_keys(store: ObjectStore, keys: Sequence[str], course: Course) -> None:
    """Describe one of the explicit keys; a missing key is fine, a missing bucket is not.

    Raises TimeoutError.
    """

    async def others() -> Sequence[str]:
        return keys[1:MOST_READ]

    async def describe(key: str) -> bool:
        return await _describe(store, key)

    was_noted = len(course.notes)
    await _read_one_of(keys[0], others, describe, course, key_of=str)
    if len(course.notes) > was_noted:  # nothing has shown yet that the store answers
        async with course.limit():
            with contextlib.suppress(errors.AccessDenied):
                await store.list_page(max_keys=1)


Item = TypeVar("Item")


async def _read_one_of(
    first: Item,
    others: Callable[[], Awaitable[Sequence[Item]]],
    read: Callable[[Item], Awaitable[bool]],
    course: Course,
    *,
    key_of: Callable[[Item], str],
) -> None:
    """Read the first; if that fails, the others side by side: one object proves nothing.

    If all are refused, or none is answered, the fault is not that of single objects.
    `read` says whether it has read anything; an object that is gone tells nothing.
    """
    key = key_of(first)
    course.step = f"reading a byte of {key!a}"
    cause = await _tried(read, first, course, share=_FIRST_SHARE)
    if isinstance(cause, bool):
        return
    if _is_of_all(cause):
        raise cause
    more: Sequence[Item] = ()
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        async with course.limit():
            more = await others()
    answers = await asyncio.gather(*(_tried(read, one, course) for one in more))
    if True not in answers:
        _raise_common([cause, *(one for one in answers if not isinstance(one, bool))])
    course.notes.append(
        f"{key!a} could not be read, and its copy will fail if that lasts: {_reason(cause)}"
    )


async def _tried(
    read: Callable[[Item], Awaitable[bool]], item: Item, course: Course, *, share: float = 1.0
) -> bool | errors.SlurperError | TimeoutError:
    """Read one; return what `read` says, or the error. `share`: how much of the time left."""
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(now + (course.deadline - now) * share):
            return await read(item)
    except (errors.SlurperError, TimeoutError) as error:
        return error


def _is_of_all(cause: Exception) -> bool:
    """Whether the error is one of all objects. What is refused may be one key alone."""
    may_be_alone = isinstance(cause, errors.Refused)
    return isinstance(cause, errors.SlurperError) and cause.blocks_job and not may_be_alone


def _raise_common(causes: Sequence[Exception]) -> None:
    """Raise the first of these, if all are of a kind that does not depend on the object."""
    for kind in (errors.Refused, TimeoutError):
        if all(isinstance(cause, kind) for cause in causes):
            raise causes[0]


async def _describe(store: ObjectStore, key: str) -> bool:
    """Describe a key, and read a byte of its object.

    An answer to HEAD has no body, hence no code that would tell those two apart, nor a bad
    signature from a lack of permission. Listing does; where it is not allowed, HEAD's word counts.
    """
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
            return False
        if not isinstance(seen, errors.NotFound):
            raise
        return False
    return await _read(store, key, stored.meta.size)


async def _read(store: ObjectStore, key: str, size: int) -> bool:
    """Read a byte; False: the object is archived or gone, and its copy will see that."""
    wanted = _FIRST_BYTE if size else None
    with contextlib.suppress(errors.NotFound, errors.RequiresRetrieval):
        await store.get(key, byte_range=wanted, max_bytes=None if size else 0)
        return True
    return False


async def _list(store: ObjectStore, prefix: str, course: Course) -> ListingPage:
    course.step = "listing it"
    page = await store.list_page(prefix=prefix, max_keys=1)
    version = asyncio.ensure_future(_version_that_goes_on(store, prefix, page))
    try:
        order = await _order_of(store, prefix, page, course)
        # In an order of its own it goes on otherwise, which says nothing of the version.
        found = page.list_version if order is KeyOrder.OWN else await version
    finally:
        version.cancel()
        await asyncio.gather(version, return_exceptions=True)
    course.found = replace(course.found, list_version=found, key_order=order.value)
    _note_clock(page, course)
    return page


async def _order_of(
    store: ObjectStore, prefix: str, first: ListingPage, course: Course
) -> KeyOrder:
    """List a long page: it shows, most likely, whether a store lists in an order of its own.

    A store that is too slow for that, or fails, is not refused: the copy will see the order.
    """
    if first.finished or not (store.dialect.assumed or store.dialect.may_encrypt_keys):
        return first.order
    left = course.deadline - asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(left / 4):  # what the job needs is asked after this
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
    if not (store.dialect.assumed and first.list_version == 2):
        return first.list_version
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
    stores: Sequence[ObjectStore],
    course: Course,
    *,
    asks_condition: bool,
    asks_what_is_kept: bool = True,
) -> None:
    """List a target and write to it, as far as nothing stays.

    `stores` are the same bucket in the dialects it may speak, the likeliest first; they differ in
    their checksums. Raises TimeoutError: what the job needs was not found out in time.
    """
    async with course.limit():
        await _list(stores[0], "", course)
    store = await _check_writing(stores, course)
    writes = False
    if store.dialect.assumed:
        questions = _Questions(condition=asks_condition, what_is_kept=asks_what_is_kept)
        writes = await _ask_by_objects(store, course, questions)
        _note_folders(course)
    else:
        course.found = replace(
            course.found,
            conditional_put=store.dialect.conditional_put,
            conditional_completion=store.dialect.conditional_completion,
        )
    _note_conditions(course)
    course.step = "removing what earlier checks have left"
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        async with course.limit():
            await clean_up.remove_stale(store, objects_too=writes)


def _note_conditions(course: Course) -> None:
    found = course.found
    if found.conditional_put is False:
        course.notes.append(
            "the target knows no condition for writes: with overwrite=false, what appears there "
            "between listing and writing is overwritten"
        )
    elif found.conditional_completion is False:
        course.notes.append(
            "the target knows no condition for the completion of uploads: with overwrite=false, "
            "what appears there in the moment before a large object is completed is overwritten"
        )


async def _check_writing(stores: Sequence[ObjectStore], course: Course) -> ObjectStore:
    """Return the store in whose dialect checksums are verified, else the first that can be used."""
    unverified: list[ObjectStore] = []
    refusal: errors.StoreError | None = None
    for store in stores:
        try:
            async with course.limit():
                verifies = await _check_upload(store, course)
        except (errors.SlurperError, LeftError, TimeoutError) as error:
            if _is_not_understood(error):
                refusal = refusal or error
            elif unverified:  # one that can be used is known, and that is enough
                course.notes.append(_untried(store, error, course.step))
            else:
                raise
            continue
        if verifies:
            return _with_checksum(store, course, verifies=True)
        unverified.append(store)
    if not unverified and refusal is not None and failures.lacks_uploads(refusal):
        course.notes.append(_without_uploads(refusal))
        # Such a store most likely knows the oldest checksum.
        return _with_checksum(stores[-1], course, verifies=None)
    if not unverified:
        assert refusal is not None  # noqa: S101 - there is at least one store
        raise refusal
    tried = " or ".join(map(_checksum_name, unverified))
    course.notes.append(
        f"the target took bytes with a wrong {tried}: it verifies no checksums, so bytes that "
        "change on the way to it go unnoticed"
    )
    return _with_checksum(unverified[0], course, verifies=False)


def _is_not_understood(error: BaseException) -> TypeGuard[errors.StoreError]:
    return isinstance(error, errors.StoreError) and (
        error.code in failures.NOT_UNDERSTOOD or failures.lacks_uploads(error)
    )


def _without_uploads(refusal: errors.StoreError) -> str:
    return (
        f"the target knows no uploads in parts ({refusal}): objects over "
        "SLURPER_MULTIPART_THRESHOLD_BYTES are written in one request, and fail if they do not fit "
        "into SLURPER_IN_FLIGHT_BYTES; whether it verifies checksums could not be found out"
    )


def _untried(store: ObjectStore, error: Exception, step: str) -> str:
    return (
        f"whether the target verifies {_checksum_name(store)} could not be found out "
        f"({step}: {_reason(error)})"
    )


def _checksum_name(store: ObjectStore) -> str:
    return "checksum" if store.dialect.checksum is None else store.dialect.checksum.upper()


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)


def _with_checksum(store: ObjectStore, course: Course, *, verifies: bool | None) -> ObjectStore:
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
        await _ask_md5(store, key, upload_id, course, verifies=verifies)
    except errors.SlurperError as error:
        await _clean_up(store, key, upload_id, error)
        raise
    except BaseException:
        course.step = f"removing the upload {upload_id} of the key {key}, which may be left"
        with contextlib.suppress(errors.SlurperError, TimeoutError):
            await clean_up.see_through(clean_up.abort(store, key, upload_id))
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
                await clean_up.see_through(clean_up.abort_all(store, key))
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


async def _ask_md5(
    store: ObjectStore, key: str, upload_id: str, course: Course, *, verifies: bool
) -> None:
    """Find out whether the store refuses a part with a right checksum and a wrong Content-MD5.

    The job can do without it: without an answer it stays open, and most of the time is kept.
    """
    dialect = store.dialect
    if not (dialect.assumed and verifies):
        return
    is_so: bool | None = dialect.checksum is Algorithm.MD5
    if not is_so:
        course.step = "writing a part whose Content-MD5 is wrong"
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout((course.deadline - now) / 4):
                await store.put_part(key, upload_id, 1, Body.with_wrong_md5([_CONTENT]))
        except errors.BytesRefused:
            is_so = True
        except (errors.SlurperError, TimeoutError) as error:
            refused = isinstance(error, errors.StoreError) and error.status == 400
            is_so = False if refused else None
    course.found = replace(course.found, verifies_md5=is_so)


# Questions that write objects


@dataclass(frozen=True, slots=True)
class _Questions:
    """What has to be found out by writing objects."""

    condition: bool
    what_is_kept: bool

    def __str__(self) -> str:
        kept = "which keys and headers the target keeps"
        condition = "whether it obeys conditions on writes"
        asked = [
            text
            for text, is_asked in ((kept, self.what_is_kept), (condition, self.condition))
            if is_asked
        ]
        return ", and ".join(asked)


async def _ask_by_objects(store: ObjectStore, course: Course, questions: _Questions) -> bool:
    """Ask by writing objects, all at once; return whether objects may be written."""
    if not (questions.condition or questions.what_is_kept):
        return False
    try:
        async with course.limit():
            reason = await _reason_not_to_write(store, course)
    except (errors.SlurperError, TimeoutError) as error:
        reason = _reason(error)
    if reason is not None:
        course.notes.append(f"{questions} could not be found out, and is assumed ({reason})")
        return False
    asked: list[Coroutine[None, None, None]] = []
    if questions.what_is_kept:
        asked.append(_ask_what_is_kept(store, course))
    if questions.condition:
        asked.append(_ask_condition(store, course))
    await asyncio.gather(*asked)
    return True


async def _reason_not_to_write(store: ObjectStore, course: Course) -> str | None:
    """Why something of an object could stay; None: nothing would. Raises SlurperError."""
    course.step = "asking whether it keeps versions"
    if await store.keeps_versions():
        return "its bucket keeps versions, so a version of every object would stay"
    course.step = "deleting a key that does not exist"
    await store.delete(own_keys.new_key())
    return None


# Keys and headers


async def _ask_what_is_kept(store: ObjectStore, course: Course) -> None:
    """Which keys and headers come back as they were written."""
    hasty = course.open_hasty(store)
    try:
        await _examine(store, Specimens(hasty), course)
    finally:
        await hasty.close()


async def _examine(store: ObjectStore, specimens: Specimens, course: Course) -> None:
    course.step = "writing objects, and reading them"
    try:
        async with course.limit():
            kept = await specimens.examine()
    except (errors.SlurperError, TimeoutError) as error:
        course.notes.append(
            "which keys and headers the target keeps could not be found out, and is assumed "
            f"({_reason(error)})"
        )
    else:
        course.found = replace(course.found, unkept_keys=kept.keys, unkept_headers=kept.headers)
        course.notes += _texts_of(kept)
    finally:
        name = specimens.name
        left = f"objects of the check may be left: delete what begins with {name}, also after '/'"
        await clean_up.see_through(_or_note(specimens.remove(store), left, course))


def _texts_of(kept: Findings) -> Iterator[str]:
    if kept.keys:
        texts = "; ".join(map(key_shapes.text_of, kept.keys))
        yield f"the target does not keep every key; these fail, each by itself: {texts}"
    if kept.headers:
        yield (
            f"the target does not keep {', '.join(kept.headers)}: objects arrive without them, or "
            "fail where options.require (--require) names them"
        )
    if kept.unknown:
        texts = "; ".join(map(key_shapes.text_of, kept.unknown))
        yield f"whether the target keeps these could not be found out, and is assumed: {texts}"


def _note_folders(course: Course) -> None:
    """Note what is known of a store that lists folder by folder, if nothing was found out."""
    found = course.found
    if found.unkept_keys is None and found.key_order == KeyOrder.FOLDERS.value:
        course.notes.append(_FOLDERS_NOTED)


# Conditions


@dataclass(slots=True)
class _Trial:
    """What the question of conditions may have written, for one key; all of it is removed."""

    key: str = field(default_factory=own_keys.new_key)
    has_object: bool = False
    has_upload: bool = False
    upload_id: str | None = None
    """None also for an upload whose beginning got no answer."""


async def _ask_condition(store: ObjectStore, course: Course) -> None:
    """Whether writes with `If-None-Match: *` leave an existing object alone."""
    trial = _Trial()
    try:
        async with course.limit():
            await _find_condition(store, trial, course)
    except (errors.SlurperError, TimeoutError) as error:
        course.notes.append(
            "whether the target obeys conditions on writes could not be found out, and is assumed "
            f"({_reason(error)})"
        )
    finally:
        course.step = f"removing what was written under {trial.key}, which may be left"
        await clean_up.see_through(_remove(store, trial, course))


async def _find_condition(store: ObjectStore, trial: _Trial, course: Course) -> None:
    """Try it with a PUT and with the completion of an upload, over an object that is there."""
    key, other = trial.key, Body([_CONTENT, _CONTENT])
    course.step = "writing an object"
    trial.has_object = True
    await store.put(key, Body([_CONTENT]), ObjectHeaders())
    course.step = "writing an object unless it exists"
    obeys = await _is_refused(store.put(key, other, ObjectHeaders(), if_absent=True))
    course.found = replace(course.found, conditional_put=obeys)
    course.step = "completing an upload unless the object exists"
    trial.has_upload = True
    try:
        trial.upload_id = upload_id = await store.create_upload(key, ObjectHeaders())
    except errors.StoreError as error:
        trial.has_upload = error.retryable
        if failures.lacks_uploads(error):
            return
        raise
    part = await store.put_part(key, upload_id, 1, other)
    obeys = await _is_refused(store.complete_upload(key, upload_id, [part], if_absent=True))
    course.found = replace(course.found, conditional_completion=obeys)


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
        removals.append(_or_note(clean_up.abort(store, key, upload_id), left, course))
    elif trial.has_upload:
        left = f"an upload of the check may be left: abort those of the key {key}"
        removals.append(_or_note(clean_up.abort_all(store, key), left, course))
    if trial.has_object:
        left = f"an object of the check is left: delete {key}"
        removals.append(_or_note(clean_up.delete(store, key), left, course))
    await asyncio.gather(*removals)


async def _or_note(removal: Awaitable[None], left: str, course: Course) -> None:
    try:
        await removal
    except (errors.SlurperError, TimeoutError) as error:
        course.notes.append(f"{left} ({_reason(error)})")


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
        await clean_up.see_through(clean_up.abort(store, key, upload_id))
    except errors.SlurperError as error:
        raise LeftError(key, upload_id, cause or error) from error
    except TimeoutError as error:
        silence = errors.TransportError(f"no answer within {clean_up.SECONDS:g} seconds")
        raise LeftError(key, upload_id, cause or silence) from error
