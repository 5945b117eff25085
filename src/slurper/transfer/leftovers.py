"""Multipart uploads that will not be completed. Their parts cost money.

The id of an upload is in the database once a task has reported it. Then the upload goes on, or is
aborted by that id. The ids of some uploads were never reported, because the store's answer or the
worker was lost. These uploads can only be found by listing. A listing tells the key of an upload
and when it was begun, but not by whom. So an upload is taken for ours, and aborted, only when all
of this holds:

- its key is exactly that of a large object that this job has not settled;
- a creation for this key was left without an answer, or a task for it may have been lost;
- it was begun after that, by the store's own clock, and not after the last work on the object;
- it is not the one upload for this key that is known.

Another program may upload to the same key of the same bucket at the same time. Its upload is taken
for ours and aborted. Such a program and the copy overwrite each other anyway. The error
`NoSuchUpload` tells it to begin anew.
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
"""Stores tell times in whole seconds, so an age may be wrong by this much."""


async def abort_lost(
    store: ObjectStore, key: str, *, since: datetime, known: str | None = None
) -> None:
    """Sweep and ignore errors: a copy does not need the permission to list uploads.

    Stores drop old uploads by themselves after a while.
    """
    with contextlib.suppress(errors.SlurperError):
        await sweep(store, key, since=since, known=known)


async def run(task: SweepTask, route: Route) -> Report:
    """Remove the uploads that an aborted job has left at the target for one large object.

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
        key: The target's key of the object.
        since: The earliest time at which work on the object can have begun.
        until: A time by which all work on it had ended; None: it goes on.
        known: The id of an upload that stays.

    Raises:
        SlurperError: the first error. The other uploads were still swept.
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
    """Uploads begun after `since` and, if it is given, before `until`."""
    asked_at = datetime.now(UTC)
    uploads = await store.list_uploads(prefix=key)
    max_age = (asked_at - since).total_seconds() + AGE_ALLOWANCE_SECONDS
    min_age = -math.inf
    if until is not None:
        min_age = (asked_at - until).total_seconds() - AGE_ALLOWANCE_SECONDS
    return [upload for upload in uploads if min_age <= upload.age_seconds <= max_age]
