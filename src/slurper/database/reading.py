"""Reads jobs, one transaction for each public method.

Each method sees one consistent state, and never waits on SQLite.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, select

from slurper import errors
from slurper.database import in_batches, rows
from slurper.database.connection import Store, reads
from slurper.database.schema import jobs, logs
from slurper.job import lifecycle
from slurper.job.model import Job, JobStatus, LogEntry, Progress
from slurper.planning.keyspace import KeyRange

MAX_KEYS_READ = 10_000
"""At most so many explicit keys are shown of a job: a request may name so many. A retry may have
millions."""

SAMPLE_KEYS = 20
"""How many keys are read to see whether a job's objects can be read at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetriedJob:
    """What is needed to begin a retry of a job."""

    job: Job
    sealed: bytes | None
    """The sealed credentials; None: they were erased."""
    failed: int
    """How many objects failed; at least one."""
    sample: tuple[str, ...]
    """Some of the failed keys, at least one."""


class JobReader(Store):
    """Reads jobs, their counters and their logs.

    A method that takes the id of a job raises JobNotFound if the account has no such job.
    """

    @reads
    def get_job(self, connection: Connection, account_id: str, job_id: str) -> Job:
        """Return a job without its explicit keys: `spec.keys` is empty if it has some."""
        return read_job(connection, *is_job(account_id, job_id))

    @reads
    def explicit_keys(
        self, connection: Connection, account_id: str, job_id: str
    ) -> tuple[str, ...]:
        """Return a job's explicit keys, in byte order; none if there are more than 10,000."""
        number = _number_of(connection, account_id, job_id)
        keys = rows.read_keys(connection, number, KeyRange(), limit=MAX_KEYS_READ + 1)
        return keys if len(keys) <= MAX_KEYS_READ else ()

    @reads
    def first_keys(
        self, connection: Connection, account_id: str, job_id: str, *, limit: int = SAMPLE_KEYS
    ) -> tuple[str, ...]:
        """Return the first of a job's explicit keys, in byte order."""
        number = _number_of(connection, account_id, job_id)
        return rows.read_keys(connection, number, KeyRange(), limit=limit)

    @reads
    def list_jobs(
        self, connection: Connection, account_id: str, *, limit: int, offset: int
    ) -> list[Job]:
        """Return jobs, newest first, without their explicit keys.

        A job with explicit keys is listed with `spec.keys == ()`. What lies before `offset` is
        counted in an index that holds nothing else (`ix_jobs_listed`); only rows of the page are
        read.
        """
        of_account = (jobs.c.account_id == account_id, jobs.c.deleted_at.is_(None))
        newest_first = select(jobs.c.number).where(*of_account).order_by(jobs.c.number.desc())
        page = newest_first.limit(limit).offset(offset)
        query = select(*rows.JOB_COLUMNS).where(jobs.c.number.in_(page))
        found = connection.execute(query.order_by(jobs.c.number.desc()))
        return [rows.to_job(row) for row in found]

    @reads
    def progress(self, connection: Connection, account_id: str, job_id: str) -> Progress:
        """Return a job's counters. This reads one row, even for a large job."""
        query = select(*rows.PROGRESS_COLUMNS).where(*is_job(account_id, job_id))
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
        """Return log entries, oldest first. An entry keeps its offset for ever."""
        number = _number_of(connection, account_id, job_id)
        page = logs.c.position.between(offset, offset + limit - 1)
        query = select(logs).where(logs.c.job_number == number, page)
        found = connection.execute(query.order_by(logs.c.position))
        return [rows.to_log_entry(row) for row in found]

    @reads
    def retried_job(self, connection: Connection, account_id: str, job_id: str) -> RetriedJob:
        """Return what is needed to begin a retry of the job.

        Raises:
            JobConflict: the job is active, or none of its objects failed.
        """
        query = select(*rows.JOB_COLUMNS, jobs.c.sealed, jobs.c.failed)
        row = connection.execute(query.where(*is_job(account_id, job_id))).one_or_none()
        if row is None:
            raise errors.JobNotFound("no job with this id in this account")
        lifecycle.check_retry(JobStatus(row.status), row.failed)
        failed = select(logs.c.object_key).where(logs.c.job_number == row.number, in_batches.FAILED)
        sample = connection.scalars(failed.order_by(logs.c.position).limit(SAMPLE_KEYS))
        return RetriedJob(
            job=rows.to_job(row),
            sealed=row.sealed,
            failed=row.failed,
            sample=tuple(sample),
        )


def is_job(account_id: str, job_id: str) -> tuple[ColumnElement[bool], ...]:
    """The conditions for the row of a job that is not deleted."""
    return jobs.c.id == job_id, jobs.c.account_id == account_id, jobs.c.deleted_at.is_(None)


def _number_of(connection: Connection, account_id: str, job_id: str) -> int:
    query = select(jobs.c.number).where(*is_job(account_id, job_id))
    number: int | None = connection.scalar(query)
    if number is None:
        raise errors.JobNotFound("no job with this id in this account")
    return number


def read_job(connection: Connection, *where: ColumnElement[bool]) -> Job:
    """Return a job, as `JobReader.get_job` does. Raises JobNotFound."""
    row = connection.execute(select(*rows.JOB_COLUMNS).where(*where)).one_or_none()
    if row is None:
        raise errors.JobNotFound("no job with this id in this account")
    return rows.to_job(row)
