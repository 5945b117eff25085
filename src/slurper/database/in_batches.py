"""Work on any number of rows, in short pieces, so that other writers do not wait long.

A command does the first piece in its own transaction. For most jobs that is all. The job's row says
what is left, and the driver does it piece by piece. So the work survives any crash.
"""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    exists,
    literal,
    select,
    tuple_,
    update,
)

from slurper.database.connection import insert_missing
from slurper.database.schema import job_keys, jobs, logs, upload_parts, uploads
from slurper.job.model import LogType

PIECE_ROWS = 20_000
"""One transaction reads and writes so many rows of a table. That took 10 to 60 ms on SQLite with
two million rows, and up to half a second for keys in random order."""

FAILED = logs.c.log_type == LogType.IMPORT_ERROR_RETRY_EXHAUSTION.value
"""The log entries of failed objects."""

_retry = jobs.alias("retry")
_IS_NEEDED = jobs.c.sweeps_failed.is_not(None) | (
    exists()
    .where(
        _retry.c.retry_of == jobs.c.id,
        _retry.c.retry_position.is_not(None),
        _retry.c.finished_at.is_(None),
    )
    .correlate(jobs)
)
"""The job's target must still be swept, or an unfinished retry takes keys from the job's log."""


def unready() -> Select[int]:
    """The oldest retry that does not have all its keys yet."""
    waiting = (jobs.c.retry_position.is_not(None), jobs.c.finished_at.is_(None))
    return select(jobs.c.number).where(*waiting).order_by(jobs.c.number).limit(1)


def removable() -> Select[int]:
    """A deleted job whose rows may be removed."""
    return select(jobs.c.number).where(jobs.c.deleted_at.is_not(None), ~_IS_NEEDED).limit(1)


def take_keys(connection: Connection, number: int) -> None:
    """Give a retry its next keys: failed keys from the log of the job that it retries."""
    this = jobs.c.number == number
    query = select(jobs.c.retry_of, jobs.c.retry_position).where(this).with_for_update()
    retry = connection.execute(query).one_or_none()
    if retry is None or retry.retry_position is None:
        return
    origin = select(jobs.c.number, jobs.c.log_entries).where(jobs.c.id == retry.retry_of)
    retried = connection.execute(origin).one()
    end = retry.retry_position + PIECE_ROWS
    piece = (
        logs.c.job_number == retried.number,
        logs.c.position >= retry.retry_position,
        logs.c.position < end,
    )
    keys = select(literal(number), logs.c.object_key).where(*piece, FAILED)
    copy = insert_missing(connection, job_keys).from_select(["job_number", "key"], keys)
    connection.execute(copy)
    position = end if end < retried.log_entries else None
    connection.execute(update(jobs).where(this).values(retry_position=position))


def remove(connection: Connection, number: int) -> None:
    """Delete some rows of a deleted job, and its own row with the last of them.

    Nothing is deleted while a sweep needs the job, or a retry needs its log.
    """
    this = jobs.c.number == number
    query = select(jobs.c.log_entries, _IS_NEEDED.label("needed")).where(this).with_for_update()
    job = connection.execute(query).one_or_none()
    if job is None or job.needed:
        return
    kept = job.log_entries - PIECE_ROWS
    if kept > 0:
        newest = (logs.c.job_number == number, logs.c.position >= kept)
        connection.execute(delete(logs).where(*newest))
        connection.execute(update(jobs).where(this).values(log_entries=kept))
    elif (first_keys := _too_many_keys(connection, number)) is not None:
        connection.execute(delete(job_keys).where(first_keys))
    elif (first_parts := _too_many_parts(connection, number)) is not None:
        connection.execute(delete(upload_parts).where(first_parts))
    else:
        connection.execute(delete(jobs).where(this))


def _too_many_keys(connection: Connection, number: int) -> ColumnElement[bool] | None:
    """One piece of the job's keys; None when no more than one piece is left."""
    of_job = job_keys.c.job_number == number
    ordered = select(job_keys.c.key).where(of_job).order_by(job_keys.c.key)
    last = connection.scalar(ordered.limit(1).offset(PIECE_ROWS))
    return None if last is None else of_job & (job_keys.c.key <= last)


def _too_many_parts(connection: Connection, number: int) -> ColumnElement[bool] | None:
    """One piece of the parts of the job's uploads; None when no more than one piece is left."""
    of_job = upload_parts.c.upload.in_(select(uploads.c.id).where(uploads.c.job_number == number))
    place = tuple_(upload_parts.c.upload, upload_parts.c.number)
    ordered = select(upload_parts.c.upload, upload_parts.c.number).where(of_job)
    in_order = ordered.order_by(upload_parts.c.upload, upload_parts.c.number)
    last = connection.execute(in_order.limit(1).offset(PIECE_ROWS)).one_or_none()
    return None if last is None else of_job & (place <= tuple_(last.upload, last.number))
