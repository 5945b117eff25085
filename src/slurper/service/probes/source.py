"""What a check asks a source: can we list it, and read a byte of an object?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from slurper import errors
from slurper.objectstore import own_keys
from slurper.objectstore.base import ByteRange, ObjectMeta, ObjectStore
from slurper.service.probes import listing
from slurper.service.probes.check import Check, StepFailed, side_by_side

_FIRST_BYTE = ByteRange(0, 1)

MOST_READ = 20
"""If none of so many objects can be read, we assume that none can."""

_FIRST_SHARE = 0.5
"""The share of the check's time that the first object may take."""


async def check_listed(store: ObjectStore, prefix: str, check: Check) -> None:
    """List a source, and read a byte of an object. Raises StepFailed."""
    page = await listing.first_page(store, prefix, check)

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

    async def read_one() -> None:
        if page.objects:
            first = page.objects[0]
            await _read_one_of(first, others, read, check, key_of=lambda meta: meta.key)

    await side_by_side(listing.find_order(store, prefix, page, check), read_one())


async def check_keys(store: ObjectStore, keys: Sequence[str], check: Check) -> None:
    """Describe one of the explicit keys; a missing key is fine, a missing bucket is not.

    Raises StepFailed.
    """

    async def others() -> Sequence[str]:
        return keys[1:MOST_READ]

    async def describe(key: str) -> bool:
        return await _describe(store, key)

    was_noted = len(check.notes)
    await _read_one_of(keys[0], others, describe, check, key_of=str)
    if len(check.notes) > was_noted:  # no answer has shown yet that the source can be used
        async with check.step("listing it"):
            with contextlib.suppress(errors.AccessDenied):
                await store.list_page(max_keys=1)


Item = TypeVar("Item")


async def _read_one_of(
    first: Item,
    others: Callable[[], Awaitable[Sequence[Item]]],
    read: Callable[[Item], Awaitable[bool]],
    check: Check,
    *,
    key_of: Callable[[Item], str],
) -> None:
    """Read the first; if that fails, read the others side by side: one object proves nothing.

    If all are refused, or none is answered, the cause is not a single object. `read` returns
    whether it has read anything. It returns False for an object that is gone.
    """

    async def tried(item: Item, *, share: float = 1.0) -> bool | StepFailed:
        try:
            async with check.step(f"reading a byte of {key_of(item)!a}", share=share):
                return await read(item)
        except StepFailed as failed:
            return failed

    failed = await tried(first, share=_FIRST_SHARE)
    if isinstance(failed, bool):
        return
    if _is_of_all(failed.cause):
        raise failed
    more: Sequence[Item] = ()
    with contextlib.suppress(StepFailed):
        async with check.step("looking for more to read"):
            more = await others()
    answers = await asyncio.gather(*map(tried, more))
    if True not in answers:
        _raise_common([failed, *(one for one in answers if not isinstance(one, bool))])
    check.notes.append(
        f"{key_of(first)!a} could not be read, and its copy will fail if that lasts: "
        f"{failed.reason}"
    )


def _is_of_all(cause: Exception) -> bool:
    """Whether all objects would have this error. A refusal may concern one key alone."""
    may_be_alone = isinstance(cause, errors.Refused)
    return isinstance(cause, errors.SlurperError) and cause.blocks_job and not may_be_alone


def _raise_common(failed_steps: Sequence[StepFailed]) -> None:
    """Raise the first failure if all were refused, or all ran out of time."""
    for kind in (errors.Refused, TimeoutError):
        if all(isinstance(failed.cause, kind) for failed in failed_steps):
            raise failed_steps[0]


async def _describe(store: ObjectStore, key: str) -> bool:
    """Describe a key, and read a byte of its object.

    An answer to HEAD has no body, and so no error code. It does not show whether the key or the
    bucket is missing, or whether the signature or the permission is wrong. A listing shows that. If
    we may not list, the answer to HEAD counts.
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
    """Read a byte; False: the object is archived or gone. Its copy will report that."""
    wanted = _FIRST_BYTE if size else None
    with contextlib.suppress(errors.NotFound, errors.RequiresRetrieval):
        await store.get(key, byte_range=wanted, max_bytes=None if size else 0)
        return True
    return False
