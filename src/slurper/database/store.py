"""The job store: everything a job is, grouped by transaction.

Each public method is exactly one transaction. Those that change something take the job's row lock
first (`locked.LockedJob`); those that read see one consistent state and never wait on SQLite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from slurper import errors
from slurper.database import locked, rows
from slurper.database.connection import Database, uninterrupted
from slurper.database.schema import encode_key, job_keys, jobs, logs, ranges
from slurper.jobs import lifecycle
from slurper.jobs.models import Job, JobStatus, LogEntry, Progress
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import RangeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeWork:
    """An open range and what is left of it."""

    range_id: int
    slice: KeyRange
    """Begins at the committed cursor, or at the range's start when nothing is committed."""
    committed_at: datetime
    """When the cursor was last committed, or the range was made. Work on `slice` that was lost
    with its process is younger, which makes this the `replayed_since` of the next task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """A running job and what is left of it."""

    job: Job
    sealed: bytes
    ranges: tuple[RangeWork, ...]
    """Never empty: a job without open ranges is not running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOutcome:
    """What became of a report."""

    applied: bool
    """False: the range's cursor had moved on, or the job is gone; nothing was changed."""
    status: JobStatus
    """The job's status after the commit; a deleted job reads as aborted."""
    range_open: bool
    """The range holds more to do."""


_GONE = CommitOutcome(applied=False, status=JobStatus.ABORTED, range_open=False)


class JobStore:
    """Jobs, their ranges, counters and logs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, database_url: str) -> JobStore:
        """Open the database and bring its schema to the newest version.

        Raises:
            ConfigurationError: the database cannot be used; the message names it and the fix.
        """
        return cls(await Database.open(database_url))

    async def close(self) -> None:
        """Close the database."""
        await self.database.close()

    @uninterrupted
    async def create_job(
        self, job: Job, sealed: bytes, *, max_active: int, entry: LogEntry
    ) -> None:
        """Store a new job with one range over all its keys and the first entry of its log.

        Raises:
            JobLimitReached: the account has `max_active` active jobs already.
        """
        async with self.database.write() as connection:
            await self.database.serialise(connection, f"account:{job.account_id}")
            await _check_limit(connection, job.account_id, max_active)
            values = rows.job_values(job, sealed) | {"log_entries": 1}
            made = await connection.execute(insert(jobs).returning(jobs.c.number), [values])
            number = made.scalar_one()
            if job.spec.keys:
                keys = [{"job_number": number, "key": key} for key in job.spec.keys]
                await connection.execute(insert(job_keys), keys)
            whole = {"job_number": number, "committed_at": job.created_at}
            await connection.execute(insert(ranges), [whole])
            await connection.execute(insert(logs), rows.log_values(number, 0, [entry]))

    @uninterrupted
    async def get_job(self, account_id: str, job_id: str) -> Job:
        """Return a job with its explicit keys.

        Raises:
            JobNotFound: no such job in this account.
        """
        async with self.database.read() as connection:
            return await _read_job(connection, *_is(account_id, job_id))

    @uninterrupted
    async def list_jobs(self, account_id: str, *, limit: int, offset: int) -> list[Job]:
        """Return jobs, newest first, without their explicit keys.

        A job that has explicit keys, thousands perhaps, is listed with `spec.keys == ()`.
        """
        query = select(*rows.JOB_COLUMNS).where(jobs.c.account_id == account_id)
        newest_first = query.order_by(jobs.c.number.desc()).limit(limit).offset(offset)
        async with self.database.read() as connection:
            return [rows.to_job(row) for row in await connection.execute(newest_first)]

    @uninterrupted
    async def progress(self, account_id: str, job_id: str) -> Progress:
        """Return a job's counters: one row, whatever the size of the job.

        Raises:
            JobNotFound: no such job in this account.
        """
        query = select(*rows.PROGRESS_COLUMNS).where(*_is(account_id, job_id))
        async with self.database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise errors.JobNotFound("no job with this id in this account")
        return rows.to_progress(row)

    @uninterrupted
    async def logs(
        self, account_id: str, job_id: str, *, limit: int, offset: int
    ) -> list[LogEntry]:
        """Return log entries, oldest first. An entry keeps its offset for ever.

        Raises:
            JobNotFound: no such job in this account.
        """
        async with self.database.read() as connection:
            number = await connection.scalar(select(jobs.c.number).where(*_is(account_id, job_id)))
            if number is None:
                raise errors.JobNotFound("no job with this id in this account")
            page = logs.c.position.between(offset, offset + limit - 1)
            query = select(logs).where(logs.c.job_number == number, page)
            found = await connection.execute(query.order_by(logs.c.position))
            return [rows.to_log_entry(row) for row in found]

    @uninterrupted
    async def apply(self, account_id: str, job_id: str, command: lifecycle.Command) -> Job:
        """Give a job a command, log it, and return the job as it is then.

        A resumed job whose last range was settled while it was paused completes at once.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job's status does not allow the command.
        """
        async with self.database.write() as connection:
            job = await locked.lock(connection, *_is(account_id, job_id))
            await _give(job, command)
            return await _read_job(connection, jobs.c.number == job.number)

    @uninterrupted
    async def apply_all(self, account_id: str, command: lifecycle.Command) -> list[Job]:
        """Give every active job of the account that allows it a command; return those jobs.

        They come oldest first, and without their explicit keys as in `list_jobs`.
        """
        async with self.database.write() as connection:
            changed = []
            for job in await locked.lock_active(connection, account_id):
                try:
                    await _give(job, command)
                except errors.JobConflict:
                    continue
                changed.append(job.number)
            query = select(*rows.JOB_COLUMNS).where(jobs.c.number.in_(changed))
            found = await connection.execute(query.order_by(jobs.c.number))
            return [rows.to_job(row) for row in found]

    @uninterrupted
    async def delete_job(self, account_id: str, job_id: str) -> None:
        """Delete a job that has ended, with everything that belongs to it.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job is active.
        """
        async with self.database.write() as connection:
            job = await locked.lock(connection, *_is(account_id, job_id))
            lifecycle.check_delete(job.status)
            await connection.execute(delete(jobs).where(jobs.c.number == job.number))

    @uninterrupted
    async def running_jobs(self) -> list[JobWork]:
        """Return every running job with its sealed credentials and open ranges, oldest first."""
        running = (jobs.c.status == JobStatus.RUNNING.value, jobs.c.finished_at.is_(None))
        query = select(*rows.JOB_COLUMNS, jobs.c.sealed).where(*running).order_by(jobs.c.number)
        async with self.database.read() as connection:
            found = (await connection.execute(query)).all()
            numbers = [row.number for row in found]
            keys = await rows.read_keys(connection, [row.number for row in found if row.has_keys])
            work = await _read_open_ranges(connection, numbers)
        return [
            JobWork(
                job=rows.to_job(row, keys.get(row.number, ())),
                sealed=bytes(row.sealed),
                ranges=tuple(work[row.number]),
            )
            for row in found
            if work[row.number]
        ]

    @uninterrupted
    async def commit(self, report: RangeReport, at: datetime) -> CommitOutcome:
        """Make a report's results the job's: cursor, counters, log and status in one transaction.

        A report counts once. It applies only while the range's cursor is where the task began; a
        second commit of the same report finds the cursor moved on and changes nothing. A report
        of a job that was paused or aborted meanwhile is counted (its objects are settled) and
        leaves the status alone.

        Raises:
            ValueError: the report contradicts itself; committing it would make the counts wrong.
        """
        _check_report(report)
        async with self.database.write() as connection:
            try:
                job = await locked.lock(connection, jobs.c.id == report.job_id)
            except errors.JobNotFound:
                return _GONE
            if not await _advance(connection, job.number, report, at):
                still_open = await _is_open(connection, job.number, report.range_id)
                return CommitOutcome(applied=False, status=job.status, range_open=still_open)
            job.count(report)
            job.log(*_entries(report, at))
            if report.halt is not None and job.status is JobStatus.RUNNING:
                job.move(lifecycle.Command.HALT, at, halt=report.halt)
            await job.complete_if_done(at)
            await job.save()
            return CommitOutcome(applied=True, status=job.status, range_open=not report.finished)

    @uninterrupted
    async def renew_secrets(self, account_id: str, job_id: str, sealed: bytes) -> None:
        """Replace the credentials of a job that has not ended.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job has ended, and credentials would do nothing but lie there.
        """
        async with self.database.write() as connection:
            job = await locked.lock(connection, *_is(account_id, job_id))
            if job.status not in lifecycle.ACTIVE:
                raise errors.JobConflict("Job has ended; it takes no new credentials")
            row = jobs.c.number == job.number
            await connection.execute(update(jobs).where(row).values(sealed=sealed))

    async def erase_secrets(self, finished_before: datetime) -> int:
        """Erase the credentials of jobs that ended before then; return of how many jobs."""
        due = (jobs.c.finished_at < finished_before, jobs.c.sealed.is_not(None))
        async with self.database.write() as connection:
            erased = await connection.execute(update(jobs).where(*due).values(sealed=None))
            return erased.rowcount


def _is(account_id: str, job_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return jobs.c.id == job_id, jobs.c.account_id == account_id


async def _check_limit(connection: AsyncConnection, account_id: str, max_active: int) -> None:
    active = (jobs.c.account_id == account_id, jobs.c.finished_at.is_(None))
    count = await connection.scalar(select(func.count()).select_from(jobs).where(*active))
    if count is not None and count >= max_active:
        raise errors.JobLimitReached(
            f"Maximum number of concurrent jobs has been reached ({max_active});"
            " wait for one to complete, or abort one"
        )


async def _read_job(connection: AsyncConnection, *where: ColumnElement[bool]) -> Job:
    row = (await connection.execute(select(*rows.JOB_COLUMNS).where(*where))).one_or_none()
    if row is None:
        raise errors.JobNotFound("no job with this id in this account")
    keys = await rows.read_keys(connection, [row.number]) if row.has_keys else {}
    return rows.to_job(row, keys.get(row.number, ()))


async def _give(job: locked.LockedJob, command: lifecycle.Command) -> None:
    at = datetime.now(UTC)
    job.move(command, at)
    await job.complete_if_done(at)
    await job.save()


async def _read_open_ranges(
    connection: AsyncConnection, numbers: Sequence[int]
) -> dict[int, list[RangeWork]]:
    query = select(ranges).where(ranges.c.job_number.in_(numbers), ranges.c.done.is_(False))
    work: dict[int, list[RangeWork]] = {number: [] for number in numbers}
    for row in await connection.execute(query.order_by(ranges.c.job_number, ranges.c.id)):
        rest = KeyRange(row.start_after, row.end_at).after(row.cursor)
        work[row.job_number].append(
            RangeWork(range_id=row.id, slice=rest, committed_at=row.committed_at)
        )
    return work


def _check_report(report: RangeReport) -> None:
    began, cursor = (
        b"" if key is None else encode_key(key) for key in (report.started_after, report.cursor)
    )
    if cursor < began:
        raise ValueError("a report moved its cursor back")
    if cursor == began and report.counts.objects:
        raise ValueError("a report settled objects without moving its cursor")


async def _advance(
    connection: AsyncConnection, number: int, report: RangeReport, at: datetime
) -> bool:
    """Compare and set the range's cursor; False when it is not where the report began."""
    cursor = func.coalesce(ranges.c.cursor, ranges.c.start_after, type_=ranges.c.cursor.type)
    expected = (
        ranges.c.id == report.range_id,
        ranges.c.job_number == number,
        ranges.c.done.is_(False),
        cursor.is_not_distinct_from(report.started_after),
    )
    values = {"cursor": report.cursor, "done": report.finished, "committed_at": at}
    changed = await connection.execute(update(ranges).where(*expected).values(values))
    return changed.rowcount == 1


async def _is_open(connection: AsyncConnection, number: int, range_id: int) -> bool:
    same = (ranges.c.id == range_id, ranges.c.job_number == number)
    done = await connection.scalar(select(ranges.c.done).where(*same))
    return done is False


def _entries(report: RangeReport, at: datetime) -> list[LogEntry]:
    in_order = sorted(report.events, key=lambda event: encode_key(event.key))
    return [
        LogEntry(
            log_type=event.log_type, created_at=at, message=event.message, object_key=event.key
        )
        for event in in_order
    ]
