"""The job store: makes, changes and deletes jobs, one transaction for each public method.

Methods that change a job lock its row first (`job_row.LockedJob`). Only the driver moves jobs
forward, with `work`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from sqlalchemy import Connection, func, insert, select, update

from slurper import errors
from slurper.database import clock, idempotency, in_batches, job_row, rows, tokens
from slurper.database.bounds import UNBOUNDED, Bounds
from slurper.database.connection import Database, reads, serialise, writes
from slurper.database.idempotency import Asked
from slurper.database.reading import JobReader, is_job, read_job
from slurper.database.schema import job_keys, jobs, logs, ranges
from slurper.database.sealing import Sealed, sealed_now
from slurper.job import lifecycle
from slurper.job.model import Job, JobOptions, LogEntry


class JobStore(JobReader):
    """Reads and changes jobs, their ranges and logs.

    A method that takes the id of a job raises JobNotFound if the account has no such job.
    """

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
        sealed: Sealed,
        *,
        max_active: int,
        max_total: int | None = None,
        entry: LogEntry,
        asked: Asked | None = None,
    ) -> str:
        """Store a new job with one range over all its keys and the first entry of its log.

        Returns its id, or that of the job which the same request has made meanwhile.

        Raises:
            KeyReused: the request's key came with another one.
            TokenRevoked: the token that makes the job was revoked meanwhile.
            JobLimitReached: the account has `max_active` active jobs already, or all accounts
                together have `max_total` (None: any number).
        """

        def make() -> str:
            tokens.check_creator(connection, job)
            _check_limit(connection, job.account_id, max_active)
            values = rows.job_values(job, sealed_now(connection, sealed))
            number = _insert(connection, values, entry)
            if job.spec.keys:
                keys = [{"job_number": number, "key": key} for key in job.spec.keys]
                connection.execute(insert(job_keys), keys)
            _check_total(connection, max_total)
            return job.id

        serialise(connection, f"account:{job.account_id}")
        return idempotency.once(connection, asked, make)

    @writes
    def create_retry(
        self,
        connection: Connection,
        job: Job,
        sealed: Sealed,
        *,
        max_active: int,
        max_total: int | None = None,
        entry: LogEntry,
        asked: Asked | None = None,
    ) -> str:
        """Store a new job whose keys are those that failed in the job `retry_of`, however many.

        The keys are copied inside the database. If they are many, the driver copies the rest
        (`Housekeeping.tidy`), and the job waits until it has them all.

        Returns its id, or that of the job which the same request has made meanwhile.

        Raises:
            KeyReused: the request's key came with another one.
            JobNotFound: no job `retry_of` in this account.
            JobConflict: that job is active, or none of its objects failed.
            TokenRevoked: the token that makes the job was revoked meanwhile.
            JobLimitReached: the account has `max_active` active jobs already, or all accounts
                together have `max_total` (None: any number).
        """
        retry_of = job.retry_of
        if retry_of is None or job.spec.keys != ():
            raise ValueError("a retry names another job instead of keys")

        def make() -> str:
            tokens.check_creator(connection, job)  # first, as `revoke` locks in this order too
            retried = job_row.lock(connection, *is_job(job.account_id, retry_of))
            lifecycle.check_retry(retried.status, retried.failed)
            _check_limit(connection, job.account_id, max_active)
            totals = {"retry_position": 0, "total_objects": retried.failed}
            values = rows.job_values(job, sealed_now(connection, sealed)) | totals
            in_batches.take_keys(connection, _insert(connection, values, entry))
            _check_total(connection, max_total)
            return job.id

        serialise(connection, f"account:{job.account_id}")
        return idempotency.once(connection, asked, make)

    @writes
    def apply(
        self,
        connection: Connection,
        account_id: str,
        job_id: str,
        command: lifecycle.Command,
        *,
        reseal: Callable[[bytes | None], bytes] | None = None,
        bounds: Bounds = UNBOUNDED,
    ) -> Job:
        """Apply a command to a job, log it, and return the changed job.

        The last range of a job may be settled while the job is paused. Then it completes as soon as
        it is resumed. `reseal` turns the stored sealed credentials into new ones, in the same
        transaction. If `reseal` raises, the command is undone.

        Raises:
            JobConflict: the job's status does not allow the command; or it was to be resumed, has
                as many rows as `bounds` allow, and is not done.
        """
        job = job_row.lock(connection, *is_job(account_id, job_id))
        full = bounds.problem(job) if command is lifecycle.Command.RESUME else None
        if full is not None and job.has_work():
            lifecycle.decide(job.status, command)
            raise errors.JobConflict(full.message)
        if reseal is not None:
            job.reseal(reseal)
        _give(job, command)
        return read_job(connection, jobs.c.number == job.number)

    @writes
    def apply_all(
        self, connection: Connection, account_id: str, command: lifecycle.Command
    ) -> list[Job]:
        """Apply a command to every active job of the account that allows it; return those jobs.

        They come oldest first, without their explicit keys, as in `list_jobs`.
        """
        changed = []
        for job in job_row.lock_active(connection, jobs.c.account_id == account_id):
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
        removes them (`Housekeeping.tidy`). Its credentials are erased at once. There is one
        exception: an aborted job keeps its credentials and rows until its target is swept.

        Raises:
            JobConflict: the job is active.
        """
        job = job_row.lock(connection, *is_job(account_id, job_id))
        lifecycle.check_delete(job.status)
        gone = in_batches.gone(datetime.now(UTC))
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
            JobConflict: the job has ended.
        """
        job = job_row.lock(connection, *is_job(account_id, job_id))
        lifecycle.check_change(job.status)
        job.change_options(change(job.options))
        job.save()
        return read_job(connection, jobs.c.number == job.number)

    @writes
    def renew_secrets(
        self, connection: Connection, account_id: str, job_id: str, sealed: Sealed
    ) -> None:
        """Replace the credentials of a job that has not ended.

        Raises:
            JobConflict: the job has ended, so it needs no credentials.
        """
        job = job_row.lock(connection, *is_job(account_id, job_id))
        if job.status not in lifecycle.ACTIVE:
            raise errors.JobConflict("Job has ended; it takes no new credentials")
        row = jobs.c.number == job.number
        values = {"sealed": sealed_now(connection, sealed)}
        connection.execute(update(jobs).where(row).values(values))


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


def _check_total(connection: Connection, max_total: int | None) -> None:
    """Raise JobLimitReached if the job just inserted is one too many, over all accounts.

    This comes last. So creates of different accounts wait for each other only from here to the end
    of the transaction, which undoes the job.
    """
    if max_total is None:
        return
    serialise(connection, "every account")
    active = select(func.count()).select_from(jobs).where(jobs.c.finished_at.is_(None))
    count = connection.scalar(active)
    if count is not None and count > max_total:
        raise errors.JobLimitReached(
            f"Maximum number of concurrent jobs of all accounts has been reached ({max_total});"
            " wait for some to complete, or ask for a larger SLURPER_MAX_CONCURRENT_JOBS_TOTAL"
        )


def _give(job: job_row.LockedJob, command: lifecycle.Command) -> None:
    at = datetime.now(UTC)
    job.move(command, at)
    job.complete_if_done(at)
    job.save()
