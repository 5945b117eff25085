"""What to send a worker for an open range or upload, and what its report means for it. Pure.

**Replays (design rule 4).** With `overwrite=false` an object that is found at the target is
skipped, unless this very job put it there by work whose report was lost: then it counts as
transferred. A slice may hold such objects when

- a task for its range was lost, cancelled or ended by an error;
- a task for its range halted: objects beyond the one that stopped it may have been copied already;
- the job is older than this driver: a previous server may have died in the middle of a task.

We do not know how far such work came, so the whole rest of the range is taken for a replay. Only
for it `replayed_since` is set. Then an object of the right size that the target stored at
or after that time is taken as the job's own. The time is the job's creation: what the job copied is
younger, what it found is older. It is rounded down to a whole second and one second earlier,
because stores list whole seconds. It is noted by the database's clock, which all servers share,
read by ours (`database.work`), and translated by the worker to the target's, where those differ.
What that costs: in a replay, an object of equal size that somebody else wrote to the target while
the job ran, or in the second or two before it was made, counts as transferred. It is not
overwritten in either case, and what is at the target is the same.

Large objects follow the same rule, each for itself. The job cannot have written one before the
commit that found it. So the time of that commit is the `replayed_since` of its tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypedDict

from slurper import errors
from slurper.job.model import Capabilities, Job, JobOptions, Location, LogType
from slurper.objectstore import factory, storable
from slurper.objectstore.base import Part, StoreAddress
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Credentials, JobSecrets
from slurper.settings import Settings
from slurper.transfer.task import (
    CountTask,
    GatherTask,
    Halt,
    PartsTask,
    RangeReport,
    RangeTask,
    Share,
    SweepTask,
    Upload,
)

MAX_KEYS = 1000
"""Explicit keys per task: about a megabyte at most, and as much as a listing page."""

CLOCK_ALLOWANCE = timedelta(seconds=1)
"""How far the target's clock may be behind ours without being noticed."""

MIN_BUDGET_SECONDS = 0.5

AGE_SHARE = 1 / 8
"""Of the time for which a job was worked on, how much its next task may take. It bounds what a slot
that has run dry may miss, at a few more commits in a job's first minute."""

MIN_KEYS = 64
"""Explicit keys that a range of its own is worth."""

COUNTING = 0.05
"""Of a job's request rate, what counting its source may take; the copying has the rest."""


class Limits(TypedDict):
    """What bounds a task of a range; see `make_task`."""

    failures: int
    age_seconds: float
    allotted: float
    credit_seconds: float


def make_task(
    job: Job,
    range_id: int,
    slice_left: KeyRange,
    *,
    keys: Sequence[str] | None,
    secrets: JobSecrets,
    settings: Settings,
    uncounted: bool,
    failures: int,
    expected_keys: int | None = None,
    wanted_pieces: int = 1,
    age_seconds: float = math.inf,
    allotted: float = 1.0,
    credit_seconds: float = 0.0,
) -> RangeTask:
    """Return the next task for a range.

    It gets `allotted` (0 to 1) of the job's limits, which has been idle for `credit_seconds`.

    `keys` are the range's next explicit keys in byte order, at least one; the task takes the first
    `MAX_KEYS`. None means that the source is listed.

    After each of `failures` fruitless tasks in a row the budget is halved: whatever keeps killing
    workers, a shorter task more often lives to report, and one that dies loses less.

    Tasks of a job that was begun `age_seconds` ago are shorter too, for ranges can be cut between
    two tasks only: so the first that runs dry soon gets a part of what others have left.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    spec = job.spec
    if keys is not None:
        keys = tuple(keys[:MAX_KEYS])
        slice_left = KeyRange(slice_left.start_after, keys[-1])
    return RangeTask(
        job_id=job.id,
        range_id=range_id,
        source=_resolve_source(job, secrets, settings),
        target=_resolve_target(job, secrets, settings),
        slice=slice_left,
        prefix=spec.prefix,
        keys=keys,
        overwrite=spec.overwrite,
        options=spec.options,
        replayed_since=replayed_since(job.created_at) if uncounted else None,
        budget_seconds=_budget_seconds(settings.task_seconds, failures, age_seconds),
        expected_keys=expected_keys,
        wanted_pieces=wanted_pieces,
        share=_share_of_limits(spec.options, allotted, credit_seconds),
    )


def make_gather(
    job: Job,
    range_id: int,
    token: str | None,
    *,
    secrets: JobSecrets,
    settings: Settings,
    failures: int,
    age_seconds: float,
    allotted: float,
    credit_seconds: float,
) -> GatherTask:
    """Return the task that goes on gathering the keys of a source without an order.

    Its time and its part of the job's limits are as for a range.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    return GatherTask(
        job_id=job.id,
        range_id=range_id,
        source=_resolve_source(job, secrets, settings),
        target=_resolve_target(job, secrets, settings),
        token=token,
        prefix=job.spec.prefix,
        budget_seconds=_budget_seconds(settings.task_seconds, failures, age_seconds),
        share=_share_of_limits(job.spec.options, allotted, credit_seconds),
    )


def gathers(job: Job) -> bool:
    """Whether the keys of a job's source are still to be gathered, because it has no order."""
    return job.spec.keys is None and job.capabilities.source.key_order == KeyOrder.NONE.value


def make_parts_task(
    job: Job,
    upload: Upload,
    *,
    numbers: tuple[int, ...] | None,
    done: tuple[Part, ...] | None,
    sample: tuple[str, ...],
    secrets: JobSecrets,
    settings: Settings,
    uncounted: bool,
    failures: int,
    allotted: float = 1.0,
    credit_seconds: float = 0.0,
) -> PartsTask:
    """Return the next task for a large object; `numbers` and `done` are as in the task.

    Its part of the job's limits is as for a range.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    spec = job.spec
    return PartsTask(
        job_id=job.id,
        upload=upload,
        source=_resolve_source(job, secrets, settings),
        target=_resolve_target(job, secrets, settings),
        prefix=spec.prefix,
        sample=sample,
        overwrite=spec.overwrite,
        options=spec.options,
        numbers=numbers,
        done=done,
        replayed_since=replayed_since(upload.found_at) if uncounted else None,
        budget_seconds=_budget_seconds(settings.task_seconds, failures),
        share=_share_of_limits(spec.options, allotted, credit_seconds),
    )


def make_sweep(
    job: Job, upload: Upload, *, secrets: JobSecrets, settings: Settings, until: datetime
) -> SweepTask:
    """Return the task that cleans up after work on a large object of an aborted job.

    That work had ended by `until`.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    return SweepTask(
        job_id=job.id,
        upload=upload,
        source=_resolve_source(job, secrets, settings),
        target=_resolve_target(job, secrets, settings),
        prefix=job.spec.prefix,
        options=job.spec.options,
        since=replayed_since(upload.found_at),
        until=until,
    )


def make_count(
    job: Job, start_after: str | None, *, secrets: JobSecrets, settings: Settings
) -> CountTask:
    """Return the task that goes on counting the source after `start_after`.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    requests = job.spec.options.request_rate_limit
    return CountTask(
        job_id=job.id,
        source=_resolve_source(job, secrets, settings),
        target=_resolve_target(job, secrets, settings),
        start_after=start_after,
        prefix=job.spec.prefix,
        budget_seconds=_budget_seconds(settings.task_seconds, 0),
        share=None if requests is None else Share(requests_per_second=requests * COUNTING),
    )


def conclude(report: RangeReport, task: RangeTask, keys: Sequence[str] | None) -> RangeReport:
    """Say of the range what the worker said of its task.

    They differ for explicit keys only: a worker that finished its keys does not know whether there
    are more `keys` than the task took.
    """
    if task.keys is None or keys is None:
        return report
    cursor = task.keys[-1] if report.finished else report.cursor
    finished = cursor == task.keys[-1] and len(keys) == len(task.keys)
    return replace(report, cursor=cursor, finished=finished)


def nothing_done(job_id: str, range_id: int, slice_left: KeyRange) -> RangeReport:
    """The report of a range for which no work was done."""
    start_after = slice_left.start_after
    return RangeReport(
        job_id=job_id, range_id=range_id, started_after=start_after, cursor=start_after
    )


def halt(message: str) -> Halt:
    """Why the driver itself pauses a job."""
    return Halt(log_type=LogType.MIGRATION_ERROR, message=message)


def replayed_since(begun_at: datetime) -> datetime:
    """From when on an object at the target is the job's own, whose work began then at the earliest.

    See the module's text.
    """
    return begun_at.replace(microsecond=0) - CLOCK_ALLOWANCE


def _resolve_source(job: Job, secrets: JobSecrets, settings: Settings) -> StoreAddress:
    return _resolve(
        "source", job.spec.source, secrets.source, job.capabilities.source, job, settings
    )


def _resolve_target(job: Job, secrets: JobSecrets, settings: Settings) -> StoreAddress:
    found = job.capabilities.target
    address = _resolve("target", job.spec.target, secrets.target, found, job, settings)
    refused = storable.required(job.spec.options.require).intersection(found.unkept_headers or ())
    if not refused:
        return address
    return replace(address, dialect=replace(address.dialect, refused_headers=refused))


def _resolve(
    side: str,
    location: Location,
    credentials: Credentials,
    found: Capabilities,
    job: Job,
    settings: Settings,
) -> StoreAddress:
    try:
        return factory.resolve(
            location, credentials, account_id=job.account_id, settings=settings, found=found
        )
    except errors.InvalidField as error:
        text = f"the {side}'s {error.pointer.removeprefix('/')} {error.message}"
        raise errors.ConfigurationError(text) from error


def _budget_seconds(task_seconds: float, failures: int, age_seconds: float = math.inf) -> float:
    full = min(task_seconds, age_seconds * AGE_SHARE)
    return max(full * 0.5**failures, min(task_seconds, MIN_BUDGET_SECONDS))


def _share_of_limits(options: JobOptions, allotted: float, credit_seconds: float) -> Share | None:
    if not options.is_limited:
        return None
    bandwidth, requests = options.bandwidth_limit, options.request_rate_limit
    of_requests = allotted * (1 - COUNTING) if options.count_objects else allotted
    return Share(
        bytes_per_second=None if bandwidth is None else bandwidth * allotted,
        requests_per_second=None if requests is None else requests * of_requests,
        credit_seconds=credit_seconds,
    )
