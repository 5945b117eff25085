"""The driver's side of the database: reads what is left of jobs, and commits what was done.

Every write checks the driver's lease in its own transaction. So a process that no longer drives
changes nothing, even if it does not know that. The methods that look for work check the lease too,
so such a process begins no work. Each public method is one transaction.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, select, update

from slurper import errors
from slurper.database import (
    clock,
    job_row,
    leases,
    ranges,
    rows,
    uploads,
)
from slurper.database.bounds import UNBOUNDED, Bounds
from slurper.database.connection import reads
from slurper.database.job_row import CommitResult, LockedJob, RangeWork
from slurper.database.leases import LeasedStore, leased_writes
from slurper.database.schema import jobs
from slurper.job.model import Job, JobStatus, LogEntry, Whole
from slurper.objectstore.base import Part
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import GatherReport, PartsReport, ProgressReport, RangeReport, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """A job and what is left of it."""

    job: Job
    """Without its explicit keys: `spec.keys` is empty, and `keys_within` reads the next ones.
    `created_at` is a time of this process's clock, not of the database's."""
    sealed: bytes
    ranges: tuple[RangeWork, ...]
    uploads: tuple[Upload, ...] = ()
    """Large objects that are not settled, oldest first; at most `UPLOADS_READ` of a running job."""
    unsettled: int = 0
    """How many large objects are not settled, in all."""
    is_counted: bool = True
    """Whether we know how many objects the job has to copy in all."""


_GONE = CommitResult(applied=False, status=JobStatus.ABORTED, still_open=False)

UPLOADS_READ = 100
"""At most so many unsettled large objects of each running job are read at a time. There are fewer
slots than that, and so few can be read often."""


class WorkStore(LeasedStore):
    """The reads and writes of the process that holds the driver's lease.

    A method that checks the lease raises LeaseLost if another process drives the jobs now.
    """

    @reads
    def running_jobs(self, connection: Connection) -> list[JobWork]:
        """Return every running job with its sealed credentials and open work, oldest first.

        A retry is left out until it has all its keys.

        Raises:
            LeaseLost: another process drives the jobs now. It assumes that nobody has worked on
                jobs that are younger than its lease. So no other process may begin one of them.
        """
        running = (
            jobs.c.status == JobStatus.RUNNING.value,
            jobs.c.finished_at.is_(None),
            jobs.c.retry_position.is_(None),
        )
        leases.check(connection, self.lease)
        works = _read_work(connection, *running, max_uploads=UPLOADS_READ)
        return [work for work in works if work.ranges or work.uploads]

    @reads
    def open_to_work(self, connection: Connection, job_id: str) -> bytes | None:
        """Return a job's current sealed credentials if it is running; else None.

        The driver asks before each task. So no task begins after a pause was acknowledged, and each
        task gets the newest secrets.
        """
        running = (jobs.c.id == job_id, jobs.c.status == JobStatus.RUNNING.value)
        leases.check(connection, self.lease)
        sealed: bytes | None = connection.scalar(select(jobs.c.sealed).where(*running))
        return None if sealed is None else bytes(sealed)

    @reads
    def unswept(self, connection: Connection) -> list[JobWork]:
        """Return every aborted job whose target must still be swept, deleted jobs too.

        Each has its sealed credentials and all its open work. They come oldest first.
        """
        return _read_work(connection, jobs.c.sweeps_failed.is_not(None))

    @reads
    def keys_within(
        self, connection: Connection, job_id: str, slice_: KeyRange, *, limit: int
    ) -> tuple[str, ...]:
        """Return a job's first explicit keys in a slice, in byte order; none for a deleted job."""
        number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
        if number is None:
            return ()
        return rows.read_keys(connection, number, slice_, limit=limit)

    @reads
    def key_boundaries(
        self,
        connection: Connection,
        job_id: str,
        slice_: KeyRange,
        *,
        pieces: int,
        min_keys: int,
    ) -> tuple[str, ...]:
        """Return explicit keys that cut a slice into at most `pieces` of about equal length.

        No piece has fewer than `min_keys` keys. If there are too few keys to cut, none is returned.
        """
        number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
        if number is None:
            return ()
        return rows.key_boundaries(connection, number, slice_, pieces=pieces, min_keys=min_keys)

    @reads
    def parts(self, connection: Connection, upload: Upload) -> tuple[Part, ...]:
        """Return the finished parts of a large object, in order."""
        return uploads.read_parts(connection, upload)

    @leased_writes
    def commit(
        self,
        connection: Connection,
        report: ProgressReport,
        at: datetime,
        *,
        bounds: Bounds = UNBOUNDED,
    ) -> CommitResult:
        """Commit a report: cursor or parts, counters, log, status and findings about the stores.

        A report counts once. The report of a range applies only if the range's cursor is still
        where the task began. A second commit of the same report finds that the cursor has moved,
        and changes nothing. A report of a large object changes nothing if the object was settled or
        begun again meanwhile. If the job was paused or aborted meanwhile, the report is counted
        (its objects are settled), and the status stays. What is left of a running job's range is
        cut where the report says. If the job then has more rows than `bounds` allow, and is not
        done, it is paused.

        Raises:
            ValueError: the report contradicts itself; committing it would make the counts wrong.
        """
        try:
            job = job_row.lock(connection, jobs.c.id == report.job_id)
        except errors.JobNotFound:
            return _GONE
        result = _commit(connection, job, report, at)
        if not result.applied:
            return result
        job.complete_if_done(at)
        if (full := bounds.problem(job)) is not None and job.status is JobStatus.RUNNING:
            job.halt(full, at)
            result = replace(result, problem=full.message)
        job.save()
        return replace(result, status=job.status, capabilities=job.capabilities)

    @leased_writes
    def counted(self, connection: Connection, job_id: str, whole: Whole) -> None:
        """Note how much a job has to copy in all."""
        values = {"total_objects": whole.objects, "total_bytes": whole.size}
        this = (jobs.c.id == job_id, jobs.c.gathered.is_(None))  # else its keys tell
        connection.execute(update(jobs).where(*this).values(values))

    @leased_writes
    def swept(self, connection: Connection, job_id: str) -> None:
        """Note that the target of an aborted job is swept."""
        _end_sweeps(connection, job_id)

    @leased_writes
    def sweep_failed(
        self, connection: Connection, job_id: str, *, max_failures: int, entry: LogEntry
    ) -> bool:
        """Count a sweep that failed; return whether it was the last.

        After `max_failures` failures there are no more sweeps. `entry` in the job's log says so.
        """
        failed = jobs.c.sweeps_failed + 1
        query = update(jobs).where(jobs.c.id == job_id).values(sweeps_failed=failed)
        count = connection.scalar(query.returning(jobs.c.sweeps_failed))
        if count is not None and count < max_failures:
            return False
        _end_sweeps(connection, job_id)
        with contextlib.suppress(errors.JobNotFound):  # deleted
            job = job_row.lock(connection, jobs.c.id == job_id)
            job.log(entry)
            job.save()
        return True


def _commit(
    connection: Connection, job: LockedJob, report: ProgressReport, at: datetime
) -> CommitResult:
    match report:
        case RangeReport():
            return ranges.commit(connection, job, report, at)
        case PartsReport():
            return uploads.commit(connection, job, report, at)
        case GatherReport():
            return ranges.commit_keys(connection, job, report, at)
        case _:
            raise TypeError(f"a {type(report).__name__} cannot be committed")


def _end_sweeps(connection: Connection, job_id: str) -> None:
    """Mark the job as swept. Its credentials may then be erased like those of other jobs."""
    kept = case((jobs.c.deleted_at.is_(None), jobs.c.sealed))
    ended = {"sweeps_failed": None, "sealed": kept}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(ended))


def _read_work(
    connection: Connection, *where: ColumnElement[bool], max_uploads: int | None = None
) -> list[JobWork]:
    query = (
        select(*rows.JOB_COLUMNS, jobs.c.sealed, jobs.c.gathered)
        .where(*where)
        .order_by(jobs.c.number)
    )
    ahead = clock.ahead_of_ours(connection)
    found = connection.execute(query).all()
    numbers = [row.number for row in found]
    work = ranges.read(connection, numbers)
    large = uploads.read(connection, numbers, max_each=max_uploads)
    counts = uploads.count(connection, numbers)
    return [
        JobWork(
            job=_by_our_clock(_with_gathered_keys(row), ahead),
            sealed=bytes(row.sealed),
            ranges=tuple(work[row.number]),
            uploads=tuple(replace(one, found_at=one.found_at - ahead) for one in large[row.number]),
            unsettled=counts.get(row.number, 0),
            is_counted=row.total_objects is not None,
        )
        for row in found
    ]


def _with_gathered_keys(row: Row[*tuple[Any, ...]]) -> Job:
    """The job. Once its keys are gathered, it is treated as a job with explicit keys."""
    job, gathered = rows.to_job(row), rows.to_gathered(row.gathered)
    if gathered is None or not gathered.done:
        return job
    return replace(job, spec=replace(job.spec, keys=()))


def _by_our_clock(job: Job, ahead: timedelta) -> Job:
    return replace(job, created_at=job.created_at - ahead)
