"""Counts the source of jobs that ask for it (`options.countObjects`), beside the copying.

There is no hurry. One job is counted at a time, in short tasks. After each task the counter rests
as long as the task took. How far it came is kept in memory only, so a restart begins again. Only
the result is stored. A source that cannot be listed is left uncounted: the copy says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from slurper import errors, telemetry
from slurper.database.work import JobWork
from slurper.driver import assignment
from slurper.driver.turn import Means
from slurper.job.model import Whole
from slurper.transfer.task import CountTask, Share

MAX_FAILURES = 5
"""After this many failures in a row this server no longer counts the job."""

_log = telemetry.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Count:
    """A job to be counted, and how far the count has come."""

    work: JobWork
    cursor: str | None = None
    objects: int = 0
    size: int = 0
    failures: int = 0
    done: bool = False


class Counter:
    """Counts one job after the other."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._counts: dict[str, _Count] = {}
        self._counting: asyncio.Task[None] | None = None
        self._not_before = 0.0
        """Monotonic seconds; no task begins earlier."""

    def update(self, works: Iterable[JobWork]) -> None:
        """Take in what the database said about running jobs."""
        found = {work.job.id: work for work in works if _is_wanted(work)}
        for job_id in self._counts.keys() - found.keys():
            del self._counts[job_id]
        for job_id, work in found.items():
            if job_id in self._counts:
                self._counts[job_id].work = work
            else:
                self._counts[job_id] = _Count(work)

    def begin(self, now: float) -> None:
        """Begin the next task if none is under way and it is due at the monotonic time `now`."""
        is_busy = self._counting is not None and not self._counting.done()
        if is_busy or now < self._not_before:
            return
        count = next((one for one in self._counts.values() if not one.done), None)
        if count is not None:
            self._counting = asyncio.create_task(self._attempt(count))

    def next_at(self, now: float) -> float | None:
        """The monotonic time after `now` when the next task may begin, if one waits."""
        waits = any(not one.done for one in self._counts.values())
        return self._not_before if waits and self._not_before > now else None

    async def stop(self) -> None:
        """Abandon the task under way."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _attempt(self, count: _Count) -> None:
        began = time.monotonic()
        try:
            await self._go_on(count)
            count.failures = 0
        except errors.LeaseLost as lost:
            self._means.lease_lost(lost)
        except Exception as error:
            count.failures += 1
            count.done = count.failures >= MAX_FAILURES
            _log.warning("source not counted", job_id=count.work.job.id, error=str(error))
        ended = time.monotonic()
        self._not_before = ended + (ended - began)
        self._means.wake()

    async def _go_on(self, count: _Count) -> None:
        """Run one task of the count; store the result if it was the last one."""
        job = count.work.job
        rate = job.spec.options.request_rate_limit
        share = None if rate is None else Share(requests_per_second=rate * assignment.COUNTING)
        task = CountTask(
            start_after=count.cursor,
            budget_seconds=self._means.settings.task_seconds,
            share=share,
            **self._means.sides(job, count.work.sealed),
        )
        report = await self._means.engine.run(task)
        count.objects += report.whole.objects or 0
        count.size += report.whole.size or 0
        count.cursor = report.cursor
        if report.finished:
            await self._means.store.counted(job.id, Whole(objects=count.objects, size=count.size))
            count.done = True


def _is_wanted(work: JobWork) -> bool:
    is_asked = work.job.spec.options.count_objects and not work.is_counted
    return is_asked and not assignment.gathers(work.job)  # gathering counts too
