"""Work on any number of rows, in short pieces, so that other writers do not wait long.

A command does the first piece in its own transaction. For most jobs that is all. The job's row says
what is left, and the driver does it piece by piece. So the work survives any crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    case,
    delete,
    exists,
    literal,
    select,
    tuple_,
    update,
)

from slurper.database.connection import insert_missing
from slurper.database.schema import answers, job_keys, jobs, logs, ranges, upload_parts, uploads
from slurper.job.model import LogType

PIECE_ROWS = 2_000
"""One transaction deletes or copies so many rows at most. A row of a log may have several KiB, and
keys may come in random order, so each row may cost a page of the file."""

PIECE_JOBS = 200
"""One transaction changes so many jobs at most."""

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


def clearable(ended_by: datetime) -> Select[int]:
    """Ended jobs that have rows which only their work has needed.

    While a target is not swept, its job may have tasks under way, and its uploads are needed.
    """
    needless = (jobs.c.cleared_at.is_(None), jobs.c.sweeps_failed.is_(None))
    return select(jobs.c.number).where(jobs.c.finished_at <= ended_by, *needless)


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


def remove(connection: Connection, number: int) -> int:
    """Delete some rows of a deleted job, and its own row with the last of them; return how many.

    Nothing is deleted while a sweep needs the job, or a retry needs its log.
    """
    this = jobs.c.number == number
    query = select(_IS_NEEDED.label("needed")).where(this).with_for_update()
    job = connection.execute(query).one_or_none()
    if job is None or job.needed:
        return 0
    of_job = logs.c.job_number == number
    deleted = _delete_first(connection, [(logs, of_job), *_work_of([number])])
    if deleted < PIECE_ROWS:
        connection.execute(delete(jobs).where(this))
    return deleted + 1


def clear(connection: Connection, ended_by: datetime) -> bool:
    """Delete some rows of ended jobs that only their work has needed; False when none is left.

    The log stays: a retry reads it. So do the keys that a request has named: the API shows them.
    """
    ended = clearable(ended_by).limit(PIECE_JOBS).with_for_update()
    numbers = connection.scalars(ended).all()
    if not numbers:
        return False
    if _delete_first(connection, _work_of(numbers, named_keys=False)) < PIECE_ROWS:
        these = update(jobs).where(jobs.c.number.in_(numbers))
        connection.execute(these.values(cleared_at=ended_by))
    return True


def retire(connection: Connection, finished_before: datetime, at: datetime) -> int:
    """Delete some jobs that ended before `finished_before`; return how many.

    They are gone at once for all callers, like jobs that a user deletes. `remove` does the rest.
    """
    due = (jobs.c.finished_at < finished_before, jobs.c.deleted_at.is_(None))
    first = select(jobs.c.number).where(*due).order_by(jobs.c.finished_at).limit(PIECE_JOBS)
    these = update(jobs).where(jobs.c.number.in_(first))
    return connection.execute(these.values(gone(at))).rowcount


def gone(at: datetime) -> dict[str, object]:
    """What marks a job as deleted. Its credentials stay only while its target is not swept."""
    needed = case((jobs.c.sweeps_failed.is_not(None), jobs.c.sealed))
    return {"deleted_at": at, "sealed": needed}


def erase_secrets(connection: Connection, finished_before: datetime) -> int:
    """Erase the credentials of some jobs that ended before `finished_before`; return how many."""
    unneeded = (jobs.c.sealed.is_not(None), jobs.c.sweeps_failed.is_(None))
    due = select(jobs.c.number).where(jobs.c.finished_at < finished_before, *unneeded)
    these = update(jobs).where(jobs.c.number.in_(due.limit(PIECE_JOBS)))
    return connection.execute(these.values(sealed=None)).rowcount


def forget_answers(connection: Connection, kept_until: datetime) -> int:
    """Delete some answers to requests that were kept until `kept_until`; return how many."""
    return _delete_first(connection, [(answers, answers.c.kept_until <= kept_until)])


Rows = tuple[Table, ColumnElement[bool]]
"""The rows of a table that meet a condition."""


def _work_of(numbers: Sequence[int], *, named_keys: bool = True) -> Iterator[Rows]:
    """The rows of jobs that are needed only while they work."""
    of_jobs = select(uploads.c.id).where(uploads.c.job_number.in_(numbers))
    yield upload_parts, upload_parts.c.upload.in_(of_jobs)
    yield uploads, uploads.c.job_number.in_(numbers)
    yield ranges, ranges.c.job_number.in_(numbers)
    if named_keys:
        yield job_keys, job_keys.c.job_number.in_(numbers)
    else:
        shows_keys = jobs.c.has_keys & jobs.c.retry_of.is_(None)
        others = select(jobs.c.number).where(jobs.c.number.in_(numbers), ~shows_keys)
        yield job_keys, job_keys.c.job_number.in_(others)


def _delete_first(connection: Connection, which: Iterable[Rows]) -> int:
    """Delete rows, `PIECE_ROWS` at most; return how many."""
    deleted = 0
    for table, condition in which:
        if deleted < PIECE_ROWS:
            place = tuple_(*table.primary_key)
            first = select(*table.primary_key).where(condition).limit(PIECE_ROWS - deleted)
            deleted += connection.execute(delete(table).where(place.in_(first))).rowcount
    return deleted
