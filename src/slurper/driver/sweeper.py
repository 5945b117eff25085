"""Removes multipart uploads that lost work of aborted jobs has left at their targets.

A job that goes on completes its uploads. If lost work began an upload and did not report it, that
upload is aborted when its object is begun again. An aborted job does neither. So the transaction
that aborts a job marks it as unswept, and the driver sweeps it:

    | when                                  | then                                             |
    |---------------------------------------|--------------------------------------------------|
    | a task of the job is under way        | it is waited for; it cleans up behind itself     |
    | none is, `SETTLE_SECONDS` later       | one sweep for each large object in progress      |
    | a sweep failed                        | another one, later, `MAX_SWEEPS` at most         |
    | this process dies                     | the next driver finds the mark                   |
    | the job is deleted                    | its row and secrets stay until it is swept       |

A sweep removes only uploads that were begun before the last work on the job ended. Later ones may
belong to a new job that writes the same keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from slurper import errors, telemetry
from slurper.database.work import JobWork
from slurper.driver import assignment
from slurper.driver.turn import Means
from slurper.job.model import LogEntry, LogType
from slurper.transfer.task import SweepTask

SETTLE_SECONDS = 1.0
"""A request of a killed process may still reach the store a moment after its end."""

MAX_SWEEPS = 10
"""So many sweeps take half an hour with the delays between them: a store may come back by then."""

_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 600.0

_log = telemetry.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Due:
    """An aborted job that nobody works on any more."""

    work: JobWork
    not_before: float
    """Monotonic seconds; no sweep begins earlier."""
    until: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the last work on it ended, at the latest."""
    failures: int = 0
    swept: bool = False
    """It needs no more sweeps. It stays here until the database no longer names it."""


class Sweeper:
    """Sweeps one job after the other, beside the driver's other work: there is no hurry."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._due: dict[str, _Due] = {}
        self._sweeping: asyncio.Task[None] | None = None

    def update(self, works: Iterable[JobWork], *, busy: Collection[str]) -> None:
        """Take in what the database said about unswept jobs; those in `busy` have tasks."""
        found = {work.job.id: work for work in works if work.job.id not in busy}
        for job_id in self._due.keys() - found.keys():
            del self._due[job_id]
        for job_id, work in found.items():
            if job_id in self._due:
                self._due[job_id].work = work
            else:
                self._due[job_id] = _Due(work, time.monotonic() + SETTLE_SECONDS)

    def begin(self, now: float) -> None:
        """Begin the next sweep that is due at the monotonic time `now`, if none is under way."""
        if self._sweeping is not None and not self._sweeping.done():
            return
        next_due = min(self._waiting(), key=lambda due: due.not_before, default=None)
        if next_due is not None and next_due.not_before <= now:
            self._sweeping = asyncio.create_task(self._attempt(next_due))

    def next_at(self, now: float) -> float | None:
        """The monotonic time after `now` when the next waiting sweep may begin, if any."""
        times = (due.not_before for due in self._waiting() if due.not_before > now)
        return min(times, default=None)

    async def stop(self) -> None:
        """Abandon the sweep under way; the job stays unswept."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def _waiting(self) -> Iterable[_Due]:
        return (due for due in self._due.values() if not due.swept)

    async def _attempt(self, due: _Due) -> None:
        job_id = due.work.job.id
        try:
            error = await self._sweep(due)
            if error is None:
                await self._means.store.swept(job_id)
                due.swept = True
                _log.info("target of an aborted job swept", job_id=job_id)
            else:
                due.swept = await self._note_failure(job_id, error)
        except errors.LeaseLost as lost:
            self._means.lease_lost(lost)
        except Exception as error:
            _log.error("outcome of a sweep cannot be stored", job_id=job_id, error=str(error))
        if not due.swept:
            due.failures += 1
            due.not_before = time.monotonic() + _delay_seconds(due.failures)

    async def _sweep(self, due: _Due) -> Exception | None:
        """Sweep for every object in progress; return the error that stopped it, if any."""
        try:
            for upload in due.work.uploads:
                task = SweepTask(
                    upload=upload,
                    options=due.work.job.spec.options,
                    since=assignment.replayed_since(upload.found_at),
                    until=due.until,
                    **self._means.sides(due.work.job, due.work.sealed),
                )
                await self._means.engine.run(task)
        except Exception as error:
            return error
        return None

    async def _note_failure(self, job_id: str, error: Exception) -> bool:
        """Count a failed sweep; return whether it was the last try."""
        entry = LogEntry(
            log_type=LogType.MIGRATION_ERROR, created_at=datetime.now(UTC), message=_gives_up(error)
        )
        given_up = await self._means.store.sweep_failed(
            job_id, max_failures=MAX_SWEEPS, entry=entry
        )
        _log.warning(
            "target of an aborted job could not be swept",
            job_id=job_id,
            given_up=given_up,
            error=str(error),
        )
        return given_up


def _delay_seconds(failures: int) -> float:
    return min(_FIRST_DELAY_SECONDS * 2.0 ** (failures - 1), _LONGEST_DELAY_SECONDS)


def _gives_up(error: Exception) -> str:
    return (
        "Multipart uploads that the job had under way may be left at the target; they could not be"
        f" removed: {error}. List them there, and abort those that are not wanted."
    )
