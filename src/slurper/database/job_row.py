"""A job's row, locked for the rest of a transaction: the one place that changes a job.

Every change of a job (a command, a report) locks its row first. So commands and commits of one job
come one after the other: on SQLite because there is one writer, on PostgreSQL by `SELECT ... FOR
UPDATE`. The changes are collected here. `save` writes them as one UPDATE and one bulk INSERT of log
entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, insert, or_, select, update

from slurper import errors
from slurper.database import rows
from slurper.database.pace import Recent
from slurper.database.schema import jobs, logs, ranges, uploads
from slurper.database.sealing import sealed_now
from slurper.job import lifecycle
from slurper.job.model import JobCapabilities, JobOptions, JobStatus, LogEntry
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.transfer.task import Halt, ProgressReport

_COLUMNS = (
    jobs.c.number,
    jobs.c.id,
    jobs.c.status,
    jobs.c.created_at,
    jobs.c.failed,
    jobs.c.log_entries,
    jobs.c.options,
    jobs.c.recent,
    jobs.c.gathered,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeWork:
    """An open range and what is left of it."""

    range_id: int
    slice: KeyRange
    """It begins at the committed cursor, or at the range's start if nothing is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What became of a report."""

    applied: bool
    """False: nothing was changed. The range's cursor had moved on, the upload was settled or begun
    again, or the job is gone."""
    status: JobStatus
    """The job's status after the commit; a deleted job reads as aborted."""
    still_open: bool
    """The range, or the large object, is not finished."""
    end_at: str | None = None
    """Where an open range ends now."""
    cut_off: tuple[RangeWork, ...] = ()
    """New ranges, in order, cut off the end of the range. It ends where the first one begins."""
    has_most_ranges: bool = False
    """The job has as many ranges as it may have, so no range of it can be cut any more."""
    problem: str = ""
    """Why the commit has paused the job, if the report did not ask for it."""
    capabilities: JobCapabilities | None = None
    """What is known of the job's stores, if the report has added to it."""


class LockedJob:
    """One job, locked. Made by `lock` and `lock_active`."""

    def __init__(self, connection: Connection, row: Row[*tuple[Any, ...]]) -> None:
        self.number: int = row.number
        self.id: str = row.id
        self.status = JobStatus(row.status)
        self.failed: int = row.failed
        self._connection = connection
        self.options = rows.to_options(row.options)
        self.capabilities: JobCapabilities | None = None
        """What is known of its stores, if this transaction has added to it."""
        self.created_at: datetime = row.created_at
        self._recent: dict[str, Any] | None = row.recent
        self._log_entries: int = row.log_entries
        self._gathered: dict[str, Any] | None = row.gathered
        self._changes: dict[str, object] = {}
        self._entries: list[LogEntry] = []

    def add(self, report: ProgressReport, at: datetime) -> None:
        """Add a report's counts, events and findings to the job's."""
        self._count(report, at)
        in_order = sorted(report.events, key=lambda event: encode_key(event.key))
        self.log(
            *(
                LogEntry(
                    log_type=event.log_type,
                    created_at=at,
                    message=event.message,
                    object_key=event.key,
                )
                for event in in_order
            )
        )
        self.find(report.found)

    def _count(self, report: ProgressReport, at: datetime) -> None:
        added = {
            "objects": report.counts.objects,
            "transferred": report.counts.transferred,
            "skipped": report.counts.skipped,
            "failed": report.counts.failed,
            "transferred_bytes": report.counts.transferred_bytes,
            "retries": report.retries,
            "attempts": report.attempts,
            "throttled": report.throttled,
        }
        self._changes |= {name: jobs.c[name] + more for name, more in added.items() if more}
        began = self.created_at.timestamp()
        recent = Recent(**self._recent) if self._recent else Recent(since=began, at=began)
        self._changes["recent"] = asdict(recent.after(report, at))

    def count_anew(self) -> None:
        """Set all counts to zero."""
        nothing = ("objects", "transferred", "skipped", "failed", "transferred_bytes")
        self._changes |= dict.fromkeys(nothing, 0)

    def change(self, **values: object) -> None:
        """Set columns of the job's row that no other method sets."""
        self._changes |= values

    def change_options(self, options: JobOptions) -> None:
        """Replace the job's options."""
        self.options = options
        self._changes["options"] = asdict(options)

    def find(self, found: JobCapabilities) -> None:
        """Add `found` to what is known of the job's stores."""
        if found == JobCapabilities():  # so it is in nearly every report
            return
        known = self.capabilities or self._read_capabilities()
        now = known.with_found(found)
        if now != known:
            self.capabilities = now
            self._changes["capabilities"] = asdict(now)

    def _read_capabilities(self) -> JobCapabilities:
        row = jobs.c.number == self.number
        return rows.to_capabilities(self._connection.scalar(select(jobs.c.capabilities).where(row)))

    def log(self, *entries: LogEntry) -> None:
        """Append to the job's log."""
        self._entries.extend(entries)

    @property
    def log_entries(self) -> int:
        """How many entries its log has."""
        return self._log_entries + len(self._entries)

    @property
    def gathered_keys(self) -> int:
        """How many keys were gathered, if its keys are being gathered; else 0."""
        found = rows.to_gathered(self._gathered)
        return 0 if found is None or found.done else found.keys

    def gather(self, so_far: rows.GatheredSoFar) -> None:
        """Note how far its keys are gathered."""
        self._gathered = self._changes["gathered"] = asdict(so_far)

    def move(self, command: lifecycle.Command, at: datetime, *, halt: Halt | None = None) -> None:
        """Apply a command to the job and log it; a halt has its own log type and message.

        Raises:
            JobConflict: the job's status does not allow it.
        """
        transition = lifecycle.decide(self.status, command)
        self.status = transition.status
        self._changes["status"] = transition.status.value
        if transition.status not in lifecycle.ACTIVE:
            self._changes["finished_at"] = at
        if transition.status is JobStatus.ABORTED:
            self._changes["sweeps_failed"] = 0  # marks the job as unswept
        if halt is None:
            self.log(LogEntry(log_type=transition.log_type, created_at=at))
        else:
            self.log(LogEntry(log_type=halt.log_type, created_at=at, message=halt.message))

    def halt(self, halt: Halt | None, at: datetime) -> None:
        """Pause the job if `halt` is given and the job is running."""
        if halt is not None and self.status is JobStatus.RUNNING:
            self.move(lifecycle.Command.HALT, at, halt=halt)

    def reseal(self, change: Callable[[bytes | None], bytes]) -> None:
        """Replace the job's sealed credentials by what `change` returns for them."""
        row = jobs.c.number == self.number
        sealed = self._connection.scalar(select(jobs.c.sealed).where(row))
        self._changes["sealed"] = sealed_now(self._connection, lambda: change(sealed))

    def complete_if_done(self, at: datetime) -> None:
        """Complete the job if it is running and nothing is left to do."""
        if self.status is JobStatus.RUNNING and not self.has_work():
            self.move(lifecycle.Command.COMPLETE, at)

    def save(self) -> None:
        """Write the collected changes."""
        if self._entries:
            values = rows.log_values(self.number, self._log_entries, self._entries)
            self._connection.execute(insert(logs), values)
            self._log_entries += len(values)
            self._changes["log_entries"] = self._log_entries
            self._entries = []
        if self._changes:
            row = jobs.c.number == self.number
            self._connection.execute(update(jobs).where(row).values(self._changes))
            self._changes = {}

    def has_work(self) -> bool:
        """Whether a range is open, or a large object is not settled."""
        open_ranges = (ranges.c.job_number == self.number) & ranges.c.done.is_(False)
        unsettled = uploads.c.job_number == self.number
        work = or_(exists().where(open_ranges), exists().where(unsettled))
        return bool(self._connection.scalar(select(work)))


def lock(connection: Connection, *where: ColumnElement[bool]) -> LockedJob:
    """Lock one job for the rest of the transaction.

    Raises:
        JobNotFound: no job matches, or it is deleted.
    """
    present = jobs.c.deleted_at.is_(None)
    found = connection.execute(select(*_COLUMNS).where(*where, present).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise errors.JobNotFound("no job with this id in this account")
    return LockedJob(connection, row)


def lock_active(connection: Connection, *where: ColumnElement[bool]) -> list[LockedJob]:
    """Lock the active jobs that match, oldest first."""
    active = select(*_COLUMNS).where(*where, jobs.c.finished_at.is_(None))
    found = connection.execute(active.order_by(jobs.c.number).with_for_update())
    return [LockedJob(connection, row) for row in found]
