"""Multipart uploads that nobody will complete, and whose parts somebody pays for.

A worker that is killed leaves its uploads behind, and a creation whose answer is lost leaves one
whose id nobody knows. Both can only be found by listing. A listing says of an upload its key and
when it was begun, not by whom, so one is taken for ours, and aborted, only when all of this holds:

- its key is one that this very slice writes, and the object there is copied in parts;
- work on the slice may have been lost, or a creation for this key was left without an answer;
- it was begun since then, by the store's own clock, and not after the last work on the slice.

Who uploads to the same key of the same bucket at the same time by other means is mistaken for us.
Such a writer races with the copy anyway, and learns by `NoSuchUpload` that it must begin anew.

Whether uploads may be listed, and whether that works just now, does not matter to a copy. It does
matter when nothing but sweeping is left to do, which is why `sweep` tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Container
from datetime import UTC, datetime

from slurper import errors
from slurper.objectstore.base import ObjectStore, UploadMeta
from slurper.planning.keyspace import KeyRange

AGE_ALLOWANCE_SECONDS = 1.0
"""Stores tell times in whole seconds, so an age may seem that much longer than it is."""

SWEPT_AT_ONCE = 8


async def abort_lost(store: ObjectStore, key: str, *, since: datetime) -> None:
    """Abort the uploads of exactly this key that were begun since then, as far as that is possible.

    Stores drop stale uploads by themselves after a while.
    """
    with contextlib.suppress(errors.SlurperError):
        for upload in await _begun(store, key, since):
            if upload.key == key:
                await store.abort_upload(upload.key, upload.upload_id)


async def sweep(
    source: ObjectStore,
    target: ObjectStore,
    *,
    prefix: str,
    since: datetime,
    until: datetime | None = None,
    source_key: Callable[[str], str],
    keys: KeyRange | Container[str],
    is_copied_in_parts: Callable[[int], bool],
) -> None:
    """Abort what lost work on a slice has left at the target.

    Args:
        source: Is asked whether it holds an object that would be copied in parts.
        target: Where uploads are looked for.
        prefix: Of the target's keys.
        since: When the first work on the slice can have begun.
        until: When the last work on the slice had ended; None: it goes on.
        source_key: Turns a key of the target into one of the source.
        keys: The source's keys of the slice.
        is_copied_in_parts: Tells by an object's size.

    Raises:
        SlurperError: what it met first; everything else was swept all the same.
    """
    slots = asyncio.Semaphore(SWEPT_AT_ONCE)

    async def examine(upload: UploadMeta) -> None:
        async with slots:
            size = await _size(source, source_key(upload.key))
            if size is not None and is_copied_in_parts(size):
                await target.abort_upload(upload.key, upload.upload_id)

    begun = await _begun(target, prefix, since, until)
    ours = [upload for upload in begun if source_key(upload.key) in keys]
    for met in await asyncio.gather(*map(examine, ours), return_exceptions=True):
        if met is not None:
            raise met


async def _begun(
    store: ObjectStore, prefix: str, since: datetime, until: datetime | None = None
) -> list[UploadMeta]:
    """Uploads begun since then, and, where that is given, until then."""
    asked_at = datetime.now(UTC)
    uploads = await store.list_uploads(prefix=prefix)
    most = (asked_at - since).total_seconds() + AGE_ALLOWANCE_SECONDS
    least = -math.inf
    if until is not None:
        least = (asked_at - until).total_seconds() - AGE_ALLOWANCE_SECONDS
    return [upload for upload in uploads if least <= upload.age_seconds <= most]


async def _size(source: ObjectStore, key: str) -> int | None:
    """Bytes of an object; None when it is gone."""
    try:
        return (await source.head(key)).meta.size
    except errors.NotFound:
        return None
