"""The job store: reads and changes jobs, one transaction for each public method.

Methods that change a job lock its row first (`job_row.LockedJob`). Methods that read see one
consistent state, and never wait on SQLite. Only the driver moves jobs forward, with `work`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import ColumnElement, Connection, case, func, insert, select, update

from slurper import errors
from slurper.database import clock, idempotency, in_batches, job_row, rows
from slurper.database.connection import Database, Store, reads, serialise, writes
from slurper.database.idempotency import Asked
from slurper.database.schema import job_keys, jobs, logs, ranges
from slurper.job import lifecycle
from slurper.job.model import Job, JobOptions, JobStatus, LogEntry, Progress
from slurper.planning.keyspace import KeyRange

MAX_KEYS_READ = 10_000
"""At most so many explicit keys are read with a job: a request may name so many. A retry may have
millions."""

SAMPLE_KEYS = 20
"""How many keys are read to see whether a job's objects can be read at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What is needed to begin a retry of a job."""

    job: Job
    sealed: bytes | None
    """The sealed credentials; None: they were erased."""
    failed: int
    """How many objects failed; at least one."""
    sample: tuple[str, ...]
    """Some of the failed keys, at least one."""


class JobStore(Store):
    """Jobs, their ranges, counters and logs."""

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Open the database and bring its schema to the newest version.

        Raises:
            ConfigurationError: the database cannot be used; the message names it and the fix.
        """
        return cls(await Database.open(database_url))

    async def close(self) -> None:
        """Close the database."""
        await self.database.close()

    @reads
    def now(self, connection: Connection) -> datetime:
        """Return the time by the clock that all processes on this database share."""
        return clock.now(connection)

    @reads
    def answered(self, connection: Connection, asked: Asked) -> str | None:
        """Return the job that this request has made already, or None.

        Raises:
            KeyReused: its key came with another request.
        """
        return idempotency.find(connection, asked)

    @writes
    def create_job(
        self,
        connection: Connection,
        job: Job,
        sealed: bytes,
        *,
        max_active: int,
        entry: LogEntry,
        asked: Asked | None = None,
    ) -> str:
        """Store a new job with one range over all its keys and the first entry of its log.

        Returns its id, or that of the job which the same request has made meanwhile.

        Raises:
            KeyReused: the request's key came with another one.
            JobLimitReached: the account has `max_active` active jobs already.
        """

        def make() -> str:
            _check_limit(connection, job.account_id, max_active)
            number = _insert(connection, rows.job_values(job, sealed), entry)
            if job.spec.keys:
                keys = [{"job_number": number, "key": key} for key in job.spec.keys]
                connection.execute(insert(job_keys), keys)
            return job.id

        serialise(connection, f"account:{job.account_id}")
        return idempotency.once(connection, asked, make)

    @reads
    def failures(self, connection: Connection, account_id: str, job_id: str) -> Failures:
        """Return what is needed to begin a retry of the job.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job is active, or none of its objects failed.
        """
        query = select(*rows.JOB_COLUMNS, jobs.c.sealed, jobs.c.failed)
        row = connection.execute(query.where(*_is(account_id, job_id))).one_or_none()
        if row is None:
            raise errors.JobNotFound("no job with this id in this account")
        lifecycle.check_retry(JobStatus(row.status), row.failed)
        failed = select(logs.c.object_key).where(logs.c.job_number == row.number, in_batches.FAILED)
        sample = connection.scalars(failed.order_by(logs.c.position).limit(SAMPLE_KEYS))
        return Failures(
            job=rows.to_job(row),
            sealed=row.sealed,
            failed=row.failed,
            sample=tuple(sample),
        )

    @writes
    def create_retry(
        self,
        connection: Connection,
        job: Job,
        sealed: bytes,
        *,
        max_active: int,
        entry: LogEntry,
        asked: Asked | None = None,
    ) -> str:
        """Store a new job whose keys are those that failed in the job `retry_of`, however many.

        The keys are copied inside the database. If they are many, the driver copies the rest
        (`WorkStore.tidy`), and the job waits until it has them all.

        Returns its id, or that of the job which the same request has made meanwhile.

        Raises:
            KeyReused: the request's key came with another one.
            JobNotFound: no job `retry_of` in this account.
            JobConflict: that job is active, or none of its objects failed.
            JobLimitReached: the account has `max_active` active jobs already.
        """
        retry_of = job.retry_of
        if retry_of is None or job.spec.keys != ():
            raise ValueError("a retry names another job instead of keys")

        def make() -> str:
            retried = job_row.lock(connection, *_is(job.account_id, retry_of))
            lifecycle.check_retry(retried.status, retried.failed)
            _check_limit(connection, job.account_id, max_active)
            totals = {"retry_position": 0, "total_objects": retried.failed}
            values = rows.job_values(job, sealed) | totals
            in_batches.take_keys(connection, _insert(connection, values, entry))
            return job.id

        serialise(connection, f"account:{job.account_id}")
        return idempotency.once(connection, asked, make)

    @reads
    def get_job(self, connection: Connection, account_id: str, job_id: str) -> Job:
        """Return a job with its explicit keys, or without them if there are more than 10,000.

        Raises:
            JobNotFound: no such job in this account.
        """
        return _read_job(connection, *_is(account_id, job_id))

    @reads
    def first_keys(
        self, connection: Connection, account_id: str, job_id: str, *, limit: int = SAMPLE_KEYS
    ) -> tuple[str, ...]:
        """Return the first of a job's explicit keys, in byte order.

        Raises:
            JobNotFound: no such job in this account.
        """
        number = _number_of(connection, account_id, job_id)
        return rows.read_keys(connection, number, KeyRange(), limit=limit)

    @reads
    def list_jobs(
        self, connection: Connection, account_id: str, *, limit: int, offset: int
    ) -> list[Job]:
        """Return jobs, newest first, without their explicit keys.

        A job with explicit keys is listed with `spec.keys == ()`.
        """
        of_account = (jobs.c.account_id == account_id, jobs.c.deleted_at.is_(None))
        query = select(*rows.JOB_COLUMNS).where(*of_account)
        newest_first = query.order_by(jobs.c.number.desc()).limit(limit).offset(offset)
        return [rows.to_job(row) for row in connection.execute(newest_first)]

    @reads
    def progress(self, connection: Connection, account_id: str, job_id: str) -> Progress:
        """Return a job's counters. This reads one row, even for a large job.

        Raises:
            JobNotFound: no such job in this account.
        """
        query = select(*rows.PROGRESS_COLUMNS).where(*_is(account_id, job_id))
        row = connection.execute(query).one_or_none()
        if row is None:
            raise errors.JobNotFound("no job with this id in this account")
        return rows.to_progress(row, datetime.now(UTC))

    @reads
    def logs(
        self,
        connection: Connection,
        account_id: str,
        job_id: str,
        *,
        limit: int,
        offset: int,
    ) -> list[LogEntry]:
        """Return log entries, oldest first. An entry keeps its offset for ever.

        Raises:
            JobNotFound: no such job in this account.
        """
        number = _number_of(connection, account_id, job_id)
        page = logs.c.position.between(offset, offset + limit - 1)
        query = select(logs).where(logs.c.job_number == number, page)
        found = connection.execute(query.order_by(logs.c.position))
        return [rows.to_log_entry(row) for row in found]

    @writes
    def apply(
        self,
        connection: Connection,
        account_id: str,
        job_id: str,
        command: lifecycle.Command,
        *,
        reseal: Callable[[bytes | None], bytes] | None = None,
    ) -> Job:
        """Apply a command to a job, log it, and return the changed job.

        The last range of a job may be settled while the job is paused. Then it completes as soon as
        it is resumed. `reseal` turns the stored sealed credentials into new ones, in the same
        transaction. If `reseal` raises, the command is undone.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job's status does not allow the command.
        """
        job = job_row.lock(connection, *_is(account_id, job_id))
        if reseal is not None:
            job.reseal(reseal)
        _give(job, command)
        return _read_job(connection, jobs.c.number == job.number)

    @writes
    def apply_all(
        self, connection: Connection, account_id: str, command: lifecycle.Command
    ) -> list[Job]:
        """Apply a command to every active job of the account that allows it; return those jobs.

        They come oldest first, without their explicit keys, as in `list_jobs`.
        """
        changed = []
        for job in job_row.lock_active(connection, account_id):
            try:
                _give(job, command)
            except errors.JobConflict:
                continue
            changed.append(job.number)
        query = select(*rows.JOB_COLUMNS).where(jobs.c.number.in_(changed))
        found = connection.execute(query.order_by(jobs.c.number))
        return [rows.to_job(row) for row in found]

    @writes
    def delete_job(self, connection: Connection, account_id: str, job_id: str) -> None:
        """Delete a job that has ended, with everything that belongs to it.

        The job is gone at once for all callers. Some rows of a large job remain until the driver
        removes them (`WorkStore.tidy`). Its credentials are erased at once. There is one exception:
        an aborted job keeps its credentials and rows until its target is swept.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job is active.
        """
        job = job_row.lock(connection, *_is(account_id, job_id))
        lifecycle.check_delete(job.status)
        needed = case((jobs.c.sweeps_failed.is_not(None), jobs.c.sealed))
        gone = {"deleted_at": datetime.now(UTC), "sealed": needed}
        connection.execute(update(jobs).where(jobs.c.number == job.number).values(gone))
        in_batches.remove(connection, job.number)

    @writes
    def change_options(
        self,
        connection: Connection,
        account_id: str,
        job_id: str,
        change: Callable[[JobOptions], JobOptions],
    ) -> Job:
        """Change the options of a job that has not ended; return the changed job.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job has ended.
        """
        job = job_row.lock(connection, *_is(account_id, job_id))
        lifecycle.check_change(job.status)
        job.change_options(change(job.options))
        job.save()
        return _read_job(connection, jobs.c.number == job.number)

    @writes
    def renew_secrets(
        self, connection: Connection, account_id: str, job_id: str, sealed: bytes
    ) -> None:
        """Replace the credentials of a job that has not ended.

        Raises:
            JobNotFound: no such job in this account.
            JobConflict: the job has ended, so it needs no credentials.
        """
        job = job_row.lock(connection, *_is(account_id, job_id))
        if job.status not in lifecycle.ACTIVE:
            raise errors.JobConflict("Job has ended; it takes no new credentials")
        row = jobs.c.number == job.number
        connection.execute(update(jobs).where(row).values(sealed=sealed))


def _is(account_id: str, job_id: str) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.id == job_id, jobs.c.account_id == account_id, jobs.c.deleted_at.is_(None)


def _insert(connection: Connection, values: dict[str, object], entry: LogEntry) -> int:
    """Insert a job's row with one range over all its keys and its first log entry."""
    query = insert(jobs).returning(jobs.c.number)
    made = connection.execute(query, [values | {"log_entries": 1}])
    number: int = made.scalar_one()
    whole = {"job_number": number, "committed_at": values["created_at"]}
    connection.execute(insert(ranges), [whole])
    connection.execute(insert(logs), rows.log_values(number, 0, [entry]))
    return number


def _check_limit(connection: Connection, account_id: str, max_active: int) -> None:
    active = (jobs.c.account_id == account_id, jobs.c.finished_at.is_(None))
    count = connection.scalar(select(func.count()).select_from(jobs).where(*active))
    if count is not None and count >= max_active:
        raise errors.JobLimitReached(
            f"Maximum number of concurrent jobs has been reached ({max_active});"
            " wait for one to complete, or abort one"
        )


def _number_of(connection: Connection, account_id: str, job_id: str) -> int:
    query = select(jobs.c.number).where(*_is(account_id, job_id))
    number: int | None = connection.scalar(query)
    if number is None:
        raise errors.JobNotFound("no job with this id in this account")
    return number


def _read_job(connection: Connection, *where: ColumnElement[bool]) -> Job:
    row = connection.execute(select(*rows.JOB_COLUMNS).where(*where)).one_or_none()
    if row is None:
        raise errors.JobNotFound("no job with this id in this account")
    if not row.has_keys:
        return rows.to_job(row)
    keys = rows.read_keys(connection, row.number, KeyRange(), limit=MAX_KEYS_READ + 1)
    return rows.to_job(row, keys if len(keys) <= MAX_KEYS_READ else ())


def _give(job: job_row.LockedJob, command: lifecycle.Command) -> None:
    at = datetime.now(UTC)
    job.move(command, at)
    job.complete_if_done(at)
    job.save()
