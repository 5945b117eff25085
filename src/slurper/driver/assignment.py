"""What to send a worker for an open range or upload, and what its report means for it. Pure.

**Replays (design rule 4).** With `overwrite=false`, an object that is already at the target is
skipped. There is one exception: this job may have copied the object itself, and lost the report.
Such an object counts as transferred. A slice may hold such objects when

- a task for its range was lost, cancelled or ended by an error;
- a task for its range halted: objects beyond the one that stopped it may have been copied already;
- the job is older than this driver: a previous server may have died in the middle of a task.

We do not know how far such work came. So the whole rest of the range is treated as a replay, and
its tasks get a time, `replayed_since`. An object of the right size counts as the job's own if the
target stored it at or after that time. The time is the job's creation: the job's own copies are
younger, and objects from before the job are older. It is rounded down to a whole second, minus one
more second, because stores list whole seconds. The database's clock gives the time. `database.work`
translates it to our clock, and the worker translates it to the target's clock.

This rule has a cost. Somebody else may write an object of the same size to the target while the
job runs, or up to two seconds before. In a replay that object counts as transferred, not as
skipped. It is not overwritten in either case.

The same rule holds for each large object. The job cannot have written one before the commit that
found it. So the time of that commit is the `replayed_since` of its tasks.
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
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Credentials, JobSecrets
from slurper.settings import Settings
from slurper.transfer.task import Halt, RangeReport, RangeTask, Share

MAX_KEYS = 1000
"""A task gets at most so many explicit keys: as many as a listing page has, about a megabyte."""

CLOCK_ALLOWANCE = timedelta(seconds=1)
"""The target's clock may be behind ours by up to this much, and we would not notice it."""

MIN_BUDGET_SECONDS = 0.5

AGE_SHARE = 1 / 8
"""A task may take this share of the time for which its job has been worked on. So a slot without
work soon gets some. This costs a few more commits in a job's first minute."""

MIN_KEYS = 64
"""Least number of explicit keys for which a new range is made."""

COUNTING = 0.05
"""Counting the source may take this share of a job's request rate. Copying has the rest."""


class Sides(TypedDict):
    """What every task of a job is told; see `Task`."""

    job_id: str
    source: StoreAddress
    target: StoreAddress
    prefix: str


class Quota(TypedDict):
    """The time of a task, and its share of the job's limits; see `TimedTask`."""

    budget_seconds: float
    share: Share | None


def make_task(
    job: Job,
    range_id: int,
    slice_left: KeyRange,
    *,
    keys: Sequence[str] | None,
    uncounted: bool,
    sides: Sides,
    quota: Quota,
    expected_keys: int | None = None,
    wanted_pieces: int = 1,
) -> RangeTask:
    """Return the next task for a range.

    `keys` are the range's next explicit keys in byte order, at least one; the task takes the first
    `MAX_KEYS`. None means that the source is listed.
    """
    if keys is not None:
        keys = tuple(keys[:MAX_KEYS])
        slice_left = KeyRange(slice_left.start_after, keys[-1])
    return RangeTask(
        range_id=range_id,
        slice=slice_left,
        keys=keys,
        overwrite=job.spec.overwrite,
        options=job.spec.options,
        replayed_since=replayed_since(job.created_at) if uncounted else None,
        expected_keys=expected_keys,
        wanted_pieces=wanted_pieces,
        **sides,
        **quota,
    )


def sides(job: Job, secrets: JobSecrets, settings: Settings) -> Sides:
    """Return what every task of a job is told.

    Raises:
        ConfigurationError: a side of the job cannot be used with these settings; says which.
    """
    spec, found = job.spec, job.capabilities
    source = _resolve("source", spec.source, secrets.source, found.source, job, settings)
    target = _resolve("target", spec.target, secrets.target, found.target, job, settings)
    unkept_headers = found.target.unkept_headers or ()
    if refused := storable.required(spec.options.require).intersection(unkept_headers):
        target = replace(target, dialect=replace(target.dialect, refused_headers=refused))
    return {"job_id": job.id, "source": source, "target": target, "prefix": spec.prefix}


def quota(
    options: JobOptions,
    task_seconds: float,
    *,
    failures: int,
    age_seconds: float = math.inf,
    allotted: float = 1.0,
    credit_seconds: float = 0.0,
) -> Quota:
    """Return the time of the next task for some work, and its share of the job's limits.

    The share is `allotted` (0 to 1). The work has not used its share for `credit_seconds`.

    `failures` tasks in a row have come to nothing. Each of them halves the time budget: a shorter
    task is more likely to live until it reports, and loses less work if it dies.

    Tasks of a young job (begun `age_seconds` ago) are short too. A range can only be cut between
    two of its tasks. So a slot without work soon gets a part of what other ranges have left.
    """
    return {
        "budget_seconds": _budget_seconds(task_seconds, failures, age_seconds),
        "share": _share_of_limits(options, allotted, credit_seconds),
    }


def gathers(job: Job) -> bool:
    """Whether keys of a job's source must still be gathered, because it lists in no order."""
    return job.spec.keys is None and job.capabilities.source.key_order == KeyOrder.NONE.value


def conclude(report: RangeReport, task: RangeTask, keys: Sequence[str] | None) -> RangeReport:
    """Turn the report of a task into a report of its range.

    They differ only for explicit keys. A worker that has finished its keys does not know whether
    the range has more `keys`.
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
    """The halt with which the driver itself pauses a job."""
    return Halt(log_type=LogType.MIGRATION_ERROR, message=message)


def replayed_since(begun_at: datetime) -> datetime:
    """The time from which on an object at the target counts as the job's own.

    The job's work began at `begun_at` or later. See the module's text.
    """
    return begun_at.replace(microsecond=0) - CLOCK_ALLOWANCE


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
            location,
            credentials,
            account_id=job.account_id,
            token=job.created_by,
            settings=settings,
            found=found,
        )
    except errors.InvalidField as error:
        text = f"the {side}'s {error.pointer.removeprefix('/')} {error.message}"
        raise errors.ConfigurationError(text) from error


def _budget_seconds(task_seconds: float, failures: int, age_seconds: float) -> float:
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
