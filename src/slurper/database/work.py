"""The driver's side of the database: running jobs, what is left of them, and what was done.

Every write in here checks the driver's lease in its own transaction, so a process that no longer
drives, whether it knows or not, changes nothing. So does the look for work, so that it begins none.
Each public method is exactly one transaction, `tidy` two.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Concatenate

from sqlalchemy import ColumnElement, Connection, Row, case, func, insert, select, update

from slurper import errors
from slurper.database import (
    clock,
    gathering,
    idempotency,
    in_batches,
    job_row,
    leases,
    rows,
    uploads,
)
from slurper.database.connection import Arguments, Database, Result, Store, reads, writes
from slurper.database.leases import Lease
from slurper.database.schema import jobs, ranges
from slurper.job import lifecycle
from slurper.job.model import (
    Capabilities,
    Job,
    JobCapabilities,
    JobStatus,
    LogEntry,
    LogType,
    Whole,
)
from slurper.objectstore.base import Part
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.transfer.task import Halt, PartsReport, RangeReport, Report, Upload

_ANEW = (
    "the source lists in an order of its own; the job was already in pieces, each for a part of "
    "the keys, when that was found out; resume it, and it begins anew in that order, as one piece: "
    "it copies again what it has copied, and counts from zero"
)


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
    """A job and what is left of it."""

    job: Job
    """Without its explicit keys: `spec.keys` is empty, and `keys_within` reads the next ones.
    `created_at` is told by this process's clock, not by the database's."""
    sealed: bytes
    ranges: tuple[RangeWork, ...]
    uploads: tuple[Upload, ...] = ()
    """Large objects that are not settled, those found first; of a running job not all, when they
    are many."""
    unsettled: int = 0
    """How many they are."""
    is_counted: bool = True
    """It is known how many objects the job has to copy in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOutcome:
    """What became of a report."""

    applied: bool
    """False: the range's cursor had moved on, the upload had been begun again or was over, or the
    job is gone; nothing was changed."""
    status: JobStatus
    """The job's status after the commit; a deleted job reads as aborted."""
    still_open: bool
    """The range, or the large object, holds more to do."""
    end_at: str | None = None
    """Where an open range ends now."""
    cut_off: tuple[RangeWork, ...] = ()
    """New ranges, in order, of what was the range's end: it now ends where the first begins."""
    problem: str = ""
    """Why the commit has paused the job, where the report did not ask for it."""
    capabilities: JobCapabilities | None = None
    """What the job's stores were found to do, where the report has added to it."""


_GONE = CommitOutcome(applied=False, status=JobStatus.ABORTED, still_open=False)

UPLOADS_READ = 100
"""So many unsettled large objects of each running job are read at a time: more than there are slots
for, and few enough to be read again and again."""


def _writes(
    method: Callable[Concatenate[WorkStore, Connection, Arguments], Result],
) -> Callable[Concatenate[WorkStore, Arguments], Coroutine[Any, Any, Result]]:
    """Run the whole method as one transaction, in which the lease is checked first."""

    @functools.wraps(method)
    def checked(
        store: WorkStore,
        connection: Connection,
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        leases.check(connection, store.lease)
        return method(store, connection, *args, **kwargs)

    return writes(checked)


class WorkStore(Store):
    """What the holder of the driver's lease reads and writes."""

    def __init__(self, database: Database, lease: Lease) -> None:
        super().__init__(database)
        self.lease = lease

    @reads
    def running_jobs(self, connection: Connection) -> list[JobWork]:
        """Return every running job with its sealed credentials and open work, oldest first.

        A retry is left out until it has all its keys.

        Raises:
            LeaseLost: another process drives the jobs now. It takes jobs that are younger than its
                lease for untouched, so nobody else may begin one of them.
        """
        running = (
            jobs.c.status == JobStatus.RUNNING.value,
            jobs.c.finished_at.is_(None),
            jobs.c.retry_position.is_(None),
        )
        leases.check(connection, self.lease)
        works = _read_work(connection, *running, most_uploads=UPLOADS_READ)
        return [work for work in works if work.ranges or work.uploads]

    @reads
    def open_to_work(self, connection: Connection, job_id: str) -> bytes | None:
        """Return a job's sealed credentials of this moment if it is running; else None.

        It is asked before each task, so that nothing begins after a pause was acknowledged, and so
        that a task gets the secrets given last.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        running = (jobs.c.id == job_id, jobs.c.status == JobStatus.RUNNING.value)
        leases.check(connection, self.lease)
        sealed: bytes | None = connection.scalar(select(jobs.c.sealed).where(*running))
        return None if sealed is None else bytes(sealed)

    @reads
    def unswept(self, connection: Connection) -> list[JobWork]:
        """Return every aborted job whose target is still to be swept, deleted ones too.

        It has its sealed credentials and all that was open; oldest first.
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
        least: int,
    ) -> tuple[str, ...]:
        """Return explicit keys that cut a slice into at most `pieces` of about as many keys.

        No piece has fewer than `least` keys; none at all when there are too few to cut.
        """
        number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
        if number is None:
            return ()
        return rows.key_boundaries(connection, number, slice_, pieces=pieces, least=least)

    @reads
    def parts(self, connection: Connection, upload: Upload) -> tuple[Part, ...]:
        """Return the finished parts of a large object, in order."""
        return uploads.read_parts(connection, upload)

    @_writes
    def commit(self, connection: Connection, report: Report, at: datetime) -> CommitOutcome:
        """Make a report's results the job's: what is done, counters, log and status together.

        What it has found out of the stores is kept with the job too.

        A report counts once. That of a range applies only while the range's cursor is where the
        task began; a second commit of the same report finds the cursor moved on and changes
        nothing. So it is with a large object that was begun again, or settled, meanwhile. A report
        of a job that was paused or aborted meanwhile is counted (its objects are settled) and
        leaves the status alone. What is left of a running job's range is cut where the report
        says.

        Raises:
            LeaseLost: another process drives the jobs now.
            ValueError: the report contradicts itself; committing it would make the counts wrong.
        """
        if isinstance(report, RangeReport):
            _check_report(report)
        try:
            job = job_row.lock(connection, jobs.c.id == report.job_id)
        except errors.JobNotFound:
            return _GONE
        taken_in = _take_in(connection, job.number, report, at)
        if taken_in is None:
            still_open = _is_open(connection, job.number, report)
            return CommitOutcome(applied=False, status=job.status, still_open=still_open)
        still_open, end_at = taken_in
        job.count(report, at)
        job.log(*_entries(report, at))
        job.find(report.found)
        own_halt = _follow_the_listing(connection, job, report)
        halt = report.halt or own_halt
        if halt is not None and job.status is JobStatus.RUNNING:
            job.move(lifecycle.Command.HALT, at, halt=halt)
        cut_off: tuple[RangeWork, ...] = ()
        if isinstance(report, RangeReport) and still_open and job.status is JobStatus.RUNNING:
            left = KeyRange(report.cursor, end_at)
            cut_off = _cut(connection, job.number, report, left, at)
        job.complete_if_done(at)
        job.save()
        return CommitOutcome(
            applied=True,
            status=job.status,
            still_open=still_open,
            end_at=cut_off[0].slice.start_after if cut_off else end_at,
            cut_off=cut_off,
            problem="" if own_halt is None else own_halt.message,
            capabilities=job.capabilities,
        )

    @_writes
    def counted(self, connection: Connection, job_id: str, whole: Whole) -> None:
        """Note how much a job has to copy in all.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        values = {"total_objects": whole.objects, "total_bytes": whole.size}
        this = (jobs.c.id == job_id, jobs.c.gathered.is_(None))  # else its keys tell
        connection.execute(update(jobs).where(*this).values(values))

    @_writes
    def swept(self, connection: Connection, job_id: str) -> None:
        """Note that nothing of an aborted job is left at its target.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        _end_sweeps(connection, job_id)

    @_writes
    def sweep_failed(
        self, connection: Connection, job_id: str, *, most: int, entry: LogEntry
    ) -> bool:
        """Count a sweep that failed; return whether it was the last.

        After `most` of them it is given up, and `entry` says so in the job's log.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        failed = jobs.c.sweeps_failed + 1
        query = update(jobs).where(jobs.c.id == job_id).values(sweeps_failed=failed)
        count = connection.scalar(query.returning(jobs.c.sweeps_failed))
        if count is not None and count < most:
            return False
        _end_sweeps(connection, job_id)
        with contextlib.suppress(errors.JobNotFound):  # deleted
            job = job_row.lock(connection, jobs.c.id == job_id)
            job.log(entry)
            job.save()
        return True

    @_writes
    def erase_secrets(self, connection: Connection, finished_before: datetime) -> int:
        """Erase the credentials of jobs that ended before then; return of how many jobs.

        Those that a sweep needs are left, for as long as it does.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        unneeded = (jobs.c.sealed.is_not(None), jobs.c.sweeps_failed.is_(None))
        due = (jobs.c.finished_at < finished_before, *unneeded)
        erased = connection.execute(update(jobs).where(*due).values(sealed=None))
        return erased.rowcount

    @_writes
    def forget_answers(self, connection: Connection) -> int:
        """Delete the answers whose time is over; return how many.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        return idempotency.forget(connection)

    async def tidy(self) -> bool:
        """Do one piece of what commands have left to be done; False when nothing is left.

        That is: give a retry its keys, remove the rows of a deleted job.

        Raises:
            LeaseLost: another process drives the jobs now.
        """
        # Most often there is nothing to lock for.
        return await self._is_untidy() and await self._tidy_piece()

    @reads
    def _is_untidy(self, connection: Connection) -> bool:
        return _find(connection) != (None, None)

    @_writes
    def _tidy_piece(self, connection: Connection) -> bool:
        unready, removable = _find(connection)
        if unready is not None:
            in_batches.take_keys(connection, unready)
        elif removable is not None:
            in_batches.remove(connection, removable)
        return unready is not None or removable is not None


def _find(connection: Connection) -> tuple[int | None, int | None]:
    unready = connection.scalar(in_batches.unready())
    return unready, connection.scalar(in_batches.removable())


def _end_sweeps(connection: Connection, job_id: str) -> None:
    """From now on the job's credentials are kept no longer than those of others."""
    kept = case((jobs.c.deleted_at.is_(None), jobs.c.sealed))
    ended = {"sweeps_failed": None, "sealed": kept}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(ended))


def _read_work(
    connection: Connection, *where: ColumnElement[bool], most_uploads: int | None = None
) -> list[JobWork]:
    query = (
        select(*rows.JOB_COLUMNS, jobs.c.sealed, jobs.c.total_objects, jobs.c.gathered)
        .where(*where)
        .order_by(jobs.c.number)
    )
    ahead = clock.ahead_of_ours(connection)
    found = connection.execute(query).all()
    numbers = [row.number for row in found]
    work = _read_open_ranges(connection, numbers)
    large = uploads.read(connection, numbers, most=most_uploads)
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
    """The job; once its keys are gathered, as one that was asked to copy these."""
    job, gathered = rows.to_job(row), rows.to_gathered(row.gathered)
    if gathered is None or not gathered.done:
        return job
    return replace(job, spec=replace(job.spec, keys=()))


def _by_our_clock(job: Job, ahead: timedelta) -> Job:
    return replace(job, created_at=job.created_at - ahead)


def _read_open_ranges(connection: Connection, numbers: Sequence[int]) -> dict[int, list[RangeWork]]:
    query = select(ranges).where(ranges.c.job_number.in_(numbers), ranges.c.done.is_(False))
    work: dict[int, list[RangeWork]] = {number: [] for number in numbers}
    for row in connection.execute(query.order_by(ranges.c.job_number, ranges.c.id)):
        rest = KeyRange(row.start_after, row.end_at).after(row.cursor)
        work[row.job_number].append(
            RangeWork(range_id=row.id, slice=rest, committed_at=row.committed_at)
        )
    return work


def _check_report(report: RangeReport) -> None:
    """Refuse a report that contradicts itself. Raises ValueError.

    In a store's own order nobody can say whether a cursor moved on, only whether it moved; nor of
    tokens.
    """
    began, cursor = (
        b"" if key is None else encode_key(report.order.rank(key))
        for key in (report.started_after, report.cursor)
    )
    is_known = report.order is not KeyOrder.OWN and report.gathered is None
    if cursor < began and is_known:
        raise ValueError("a report moved its cursor back")
    if cursor == began and (report.counts.objects or report.large):
        raise ValueError("a report settled objects without moving its cursor")


def _take_in(
    connection: Connection, number: int, report: Report, at: datetime
) -> tuple[bool, str | None] | None:
    """Make what was done the range's or the upload's.

    Return whether more is to be done, and where an open range ends. None: the report is stale.
    """
    if isinstance(report, PartsReport):
        is_current = uploads.take_in(connection, number, report)
        return (not report.settled, None) if is_current else None
    if report.gathered and not gathering.is_under_way(connection, number):
        return None
    end_at, is_applied = _advance(connection, number, report, at)
    if not is_applied:
        return None
    found_at = at + clock.ahead_of_ours(connection)
    uploads.insert(connection, number, report.large, found_at)
    return not report.finished, None if report.finished else end_at


def _advance(
    connection: Connection, number: int, report: RangeReport, at: datetime
) -> tuple[str | None, bool]:
    """Compare and set the range's cursor; return where the range ends.

    And whether it was set: False when it was not where the report began.
    """
    cursor = func.coalesce(ranges.c.cursor, ranges.c.start_after, type_=ranges.c.cursor.type)
    expected = (
        ranges.c.id == report.range_id,
        ranges.c.job_number == number,
        ranges.c.done.is_(False),
        cursor.is_not_distinct_from(report.started_after),
    )
    values = {"cursor": report.cursor, "done": report.finished, "committed_at": at}
    query = update(ranges).where(*expected).values(values).returning(ranges.c.end_at)
    changed = connection.execute(query).one_or_none()
    return (None, False) if changed is None else (changed.end_at, True)


def _follow_the_listing(
    connection: Connection, job: job_row.LockedJob, report: Report
) -> Halt | None:
    """Take in how the source was found to list; return why the job cannot go on, if so."""
    if isinstance(report, PartsReport):
        return None
    if report.disorder:
        return _turn_to_its_order(connection, job, report)
    return gathering.take_in(connection, job, report)


def _turn_to_its_order(
    connection: Connection, job: job_row.LockedJob, report: RangeReport
) -> Halt | None:
    """From now on the job's source is listed in the order of its own that it was found to have.

    What was listed before came in that order too. So the cursor stays, if the job has one range.
    A job in pieces cannot go on: each piece left the keys beyond its end to other pieces, which
    list another part of that order. Such a job pauses, and begins anew when it is resumed.
    If the source has no order at all, the job begins anew at once, by gathering its keys.
    """
    job.find(JobCapabilities(source=Capabilities(key_order=report.order.value)))
    if report.order is KeyOrder.NONE:
        gathering.begin(connection, job)
        return None
    pieces = select(func.count()).select_from(ranges).where(ranges.c.job_number == job.number)
    if connection.scalar(pieces) == 1:
        return None
    gathering.begin_anew(connection, job)
    return Halt(
        log_type=LogType.MIGRATION_ERROR_FAILED_CONTINUATION,
        message=f"{report.disorder}; {_ANEW}",
    )


def _cut(
    connection: Connection, number: int, report: RangeReport, left: KeyRange, at: datetime
) -> tuple[RangeWork, ...]:
    """Narrow a range to the first piece of what is left of it, and make ranges of the others.

    A boundary outside cuts nothing, so that to do it again changes nothing.
    """
    inside = {key for key in report.boundaries if key in left and key != left.end_at}
    cuts = sorted(inside, key=encode_key)
    if not cuts:
        return ()
    this = ranges.c.id == report.range_id
    connection.execute(update(ranges).where(this).values(end_at=cuts[0]))
    made = []
    for piece in itertools.starmap(KeyRange, itertools.pairwise((*cuts, left.end_at))):
        row = {"job_number": number, "committed_at": at, **asdict(piece)}
        new_id = connection.scalar(insert(ranges).values(row).returning(ranges.c.id))
        made.append(RangeWork(range_id=new_id or 0, slice=piece, committed_at=at))
    return tuple(made)


def _is_open(connection: Connection, number: int, report: Report) -> bool:
    if isinstance(report, PartsReport):
        return uploads.find(connection, number, report.upload.id) is not None
    same = (ranges.c.id == report.range_id, ranges.c.job_number == number)
    done = connection.scalar(select(ranges.c.done).where(*same))
    return done is False


def _entries(report: Report, at: datetime) -> list[LogEntry]:
    in_order = sorted(report.events, key=lambda event: encode_key(event.key))
    return [
        LogEntry(
            log_type=event.log_type, created_at=at, message=event.message, object_key=event.key
        )
        for event in in_order
    ]
