"""Ranges of a job's keys: reads what is left of them, and commits what a task did for one.

All of this runs inside transactions. Those that write have locked the job's row.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from slurper.database import clock, gathering, uploads
from slurper.database.job_row import CommitResult, LockedJob, RangeWork
from slurper.database.schema import ranges
from slurper.job.model import Capabilities, JobCapabilities, JobStatus, LogType
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.transfer.task import GatherReport, Halt, RangeReport

MAX_RANGES = 100_000
"""A job with so many ranges gets no more: a store may claim to have keys wherever it is asked."""

_ANEW = (
    "the source lists in an order of its own; the job was already in pieces, each for a part of "
    "the keys, when that was found out; resume it, and it begins anew in that order, as one piece: "
    "it copies again what it has copied, and counts from zero"
)


def read(connection: Connection, numbers: Sequence[int]) -> dict[int, list[RangeWork]]:
    """Return the open ranges of each job, oldest first."""
    query = select(ranges).where(ranges.c.job_number.in_(numbers), ranges.c.done.is_(False))
    work: dict[int, list[RangeWork]] = {number: [] for number in numbers}
    for row in connection.execute(query.order_by(ranges.c.job_number, ranges.c.id)):
        rest = KeyRange(row.start_after, row.end_at).after(row.cursor)
        work[row.job_number].append(RangeWork(range_id=row.id, slice=rest))
    return work


def commit(
    connection: Connection, job: LockedJob, report: RangeReport, at: datetime
) -> CommitResult:
    """Move a range on by the work of a task. If the job runs, cut what is left as the report says.

    Raises:
        ValueError: the report contradicts itself; committing it would make the counts wrong.
    """
    _check(report)
    moved = _move_cursor(connection, job, report, at, done=report.finished)
    if moved is None:
        return _stale(connection, job, report)
    found_at = at + clock.ahead_of_ours(connection)
    uploads.insert(connection, job.number, report.large, found_at)
    job.add(report, at)
    problem = _turn_to_its_order(connection, job, report) if report.disorder else None
    job.halt(report.halt or problem, at)
    end_at = None if report.finished else moved.end_at
    cut_off: tuple[RangeWork, ...] = ()
    has_most = False
    if not report.finished and job.status is JobStatus.RUNNING:
        left = KeyRange(report.cursor, end_at)
        cut_off, has_most = _cut(connection, job.number, report, left, at)
    return CommitResult(
        applied=True,
        status=job.status,
        still_open=not report.finished,
        end_at=cut_off[0].slice.start_after if cut_off else end_at,
        cut_off=cut_off,
        has_most_ranges=has_most,
        problem="" if problem is None else problem.message,
    )


def commit_keys(
    connection: Connection, job: LockedJob, report: GatherReport, at: datetime
) -> CommitResult:
    """Store gathered keys. The range's cursor is a token until all keys are gathered."""
    if not gathering.is_under_way(connection, job.number):
        return _stale(connection, job, report)
    moved = _move_cursor(connection, job, report, at, done=False)
    if moved is None:
        return _stale(connection, job, report)
    job.add(report, at)
    problem = gathering.keep_keys(connection, job, report)
    job.halt(report.halt or problem, at)
    return CommitResult(
        applied=True,
        status=job.status,
        still_open=True,
        end_at=moved.end_at,
        problem="" if problem is None else problem.message,
    )


def _check(report: RangeReport) -> None:
    """Refuse a report that contradicts itself. Raises ValueError.

    Keys in a store's own order cannot be compared. There we check only whether the cursor moved.
    """
    began, cursor = (
        b"" if key is None else encode_key(report.order.rank(key))
        for key in (report.started_after, report.cursor)
    )
    if cursor < began and report.order is not KeyOrder.OWN:
        raise ValueError("a report moved its cursor back")
    if cursor == began and (report.counts.objects or report.large):
        raise ValueError("a report settled objects without moving its cursor")


def _move_cursor(
    connection: Connection,
    job: LockedJob,
    report: RangeReport | GatherReport,
    at: datetime,
    *,
    done: bool,
) -> Row[tuple[str | None]] | None:
    """Move the range's cursor if it is where the report began; return where the range ends.

    None: it was not there, and was not moved.
    """
    cursor = func.coalesce(ranges.c.cursor, ranges.c.start_after, type_=ranges.c.cursor.type)
    expected = (
        ranges.c.id == report.range_id,
        ranges.c.job_number == job.number,
        ranges.c.done.is_(False),
        cursor.is_not_distinct_from(report.started_after),
    )
    values = {"cursor": report.cursor, "done": done, "committed_at": at}
    query = update(ranges).where(*expected).values(values).returning(ranges.c.end_at)
    return connection.execute(query).one_or_none()


def _stale(
    connection: Connection, job: LockedJob, report: RangeReport | GatherReport
) -> CommitResult:
    same = (ranges.c.id == report.range_id, ranges.c.job_number == job.number)
    done = connection.scalar(select(ranges.c.done).where(*same))
    return CommitResult(applied=False, status=job.status, still_open=done is False)


def _turn_to_its_order(connection: Connection, job: LockedJob, report: RangeReport) -> Halt | None:
    """List the job's source in its own order from now on; return a halt if the job cannot go on.

    What was listed before came in that order too. So a job with one range keeps its cursor. A job
    with several ranges cannot go on: each range left keys beyond its end to other ranges, but those
    list another part of that order. Such a job pauses, and begins anew when it is resumed.
    If the source has no order at all, the job begins anew at once, by gathering its keys.
    """
    job.find(JobCapabilities(source=Capabilities(key_order=report.order.value)))
    if report.order is KeyOrder.NONE:
        gathering.begin(connection, job)
        return None
    if _count(connection, job.number) == 1:
        return None
    gathering.begin_anew(connection, job)
    return Halt(
        log_type=LogType.MIGRATION_ERROR_FAILED_CONTINUATION,
        message=f"{report.disorder}; {_ANEW}",
    )


def _count(connection: Connection, number: int) -> int:
    of_job = ranges.c.job_number == number
    return connection.scalar(select(func.count()).select_from(ranges).where(of_job)) or 0


def _cut(
    connection: Connection, number: int, report: RangeReport, left: KeyRange, at: datetime
) -> tuple[tuple[RangeWork, ...], bool]:
    """Shorten a range to the first piece of what is left, and make new ranges of the other pieces.

    A boundary outside the range cuts nothing. So a second cut at the same places changes nothing.
    Returns the new ranges, and whether the job has as many ranges now as it may have.
    """
    inside = {key for key in report.boundaries if key in left and key != left.end_at}
    cuts = sorted(inside, key=encode_key)
    if not cuts:
        return (), False
    room = max(0, MAX_RANGES - _count(connection, number))
    has_most = room <= len(cuts)
    cuts = cuts[:room]
    if not cuts:
        return (), has_most
    this = ranges.c.id == report.range_id
    connection.execute(update(ranges).where(this).values(end_at=cuts[0]))
    made = []
    for piece in itertools.starmap(KeyRange, itertools.pairwise((*cuts, left.end_at))):
        row: dict[str, Any] = {"job_number": number, "committed_at": at, **asdict(piece)}
        new_id = connection.scalar(insert(ranges).values(row).returning(ranges.c.id))
        made.append(RangeWork(range_id=new_id or 0, slice=piece))
    return tuple(made), has_most
