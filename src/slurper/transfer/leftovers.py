"""Multipart uploads that will not be completed, and whose parts cost money.

The id of an upload is in the database once a task has reported it. Then the upload goes on, or is
aborted by that id. The ids of some uploads were never reported: the store's answer was lost, or the
worker was. These can only be found by listing. A listing tells the key of an upload and when it was
begun, but not by whom. So one is taken for ours, and aborted, only when all of this holds:

- its key is exactly that of a large object that this job has not settled;
- a creation for this key was left without an answer, or a task for it may have been lost;
- it was begun since then, by the store's own clock, and not after the last work on the object;
- it is not the one upload for this key that is known.

Another program may upload to the same key of the same bucket at the same time. Its upload is taken
for ours. Such a program races with the copy anyway, and `NoSuchUpload` tells it to begin anew.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime

from slurper import errors
from slurper.objectstore.base import ObjectStore, UploadMeta
from slurper.transfer.route import Route
from slurper.transfer.task import Report, SweepTask

AGE_ALLOWANCE_SECONDS = 1.0
"""Stores tell times in whole seconds, so an age may seem that much longer than it is."""


async def abort_lost(
    store: ObjectStore, key: str, *, since: datetime, known: str | None = None
) -> None:
    """Sweep as far as that is possible: whether uploads may be listed does not matter to a copy.

    Stores drop stale uploads by themselves after a while.
    """
    with contextlib.suppress(errors.SlurperError):
        await sweep(store, key, since=since, known=known)


async def run(task: SweepTask, route: Route) -> Report:
    """Remove what work on a large object of an aborted job has left at the target.

    Raises:
        SlurperError: something may be left.
    """
    key = route.target_key(task.upload.meta.key)
    if task.upload.begun is not None:
        await route.target.abort_upload(key, task.upload.begun.upload_id)
    await sweep(route.target, key, since=task.since, until=task.until)
    return Report(job_id=task.job_id)


async def sweep(
    store: ObjectStore,
    key: str,
    *,
    since: datetime,
    until: datetime | None = None,
    known: str | None = None,
) -> None:
    """Abort the uploads of exactly this key that lost work has left.

    Args:
        store: Where they are looked for.
        key: The target's.
        since: When the first work on the object can have begun.
        until: When the last work on it had ended; None: it goes on.
        known: The id of an upload that stays.

    Raises:
        SlurperError: what it met first; everything else was swept all the same.
    """
    met: errors.SlurperError | None = None
    for upload in await _begun(store, key, since, until):
        if upload.key == key and upload.upload_id != known:
            try:
                await store.abort_upload(upload.key, upload.upload_id)
            except errors.SlurperError as error:
                met = met or error
    if met is not None:
        raise met


async def _begun(
    store: ObjectStore, key: str, since: datetime, until: datetime | None
) -> list[UploadMeta]:
    """Uploads begun since then, and, where that is given, until then."""
    asked_at = datetime.now(UTC)
    uploads = await store.list_uploads(prefix=key)
    max_age = (asked_at - since).total_seconds() + AGE_ALLOWANCE_SECONDS
    min_age = -math.inf
    if until is not None:
        min_age = (asked_at - until).total_seconds() - AGE_ALLOWANCE_SECONDS
    return [upload for upload in uploads if min_age <= upload.age_seconds <= max_age]
