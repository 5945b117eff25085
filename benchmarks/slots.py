"""A driver with many slots: how long its event loop stands still, and how long commits take.

    python -m benchmarks.slots [--slots 1000] [--task-seconds 8] [--seconds 30] [--database URL]

The driver and the database are real. The tasks only sleep, and then report some keys. So the
figures show what the control plane costs when a job runs on many machines.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

from benchmarks.memory import create
from slurper.database.bounds import UNBOUNDED, Bounds
from slurper.database.job_row import CommitResult
from slurper.database.work import WorkStore
from slurper.driver.loop import Driver
from slurper.job.model import Counts
from slurper.node import assembled
from slurper.settings import Settings
from slurper.transfer.task import ProgressReport, RangeReport, RangeTask, Task, TaskReport

_DIGITS = 12
_STEP_SECONDS = 0.001


class SleepingEngine:
    """Takes as many tasks as it has slots. Each sleeps, and then reports the next keys."""

    def __init__(self, slots: int, task_seconds: float) -> None:
        self.slots = slots
        self._task_seconds = task_seconds
        self.under_way = 0
        self.all_run = asyncio.Event()

    async def start(self) -> None:
        """Part of the protocol."""

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Part of the protocol."""
        if not isinstance(task, RangeTask):
            raise TypeError(f"{type(task).__name__} is no task of this job")
        self.under_way += 1
        if self.under_way == self.slots:
            self.all_run.set()
        try:
            spread = task.range_id * 0.618 % 1  # so that they do not end together
            share = 0.1 if task.wanted_pieces > 1 else 0.75 + 0.5 * spread
            await asyncio.sleep(share * self._task_seconds)
        finally:
            self.under_way -= 1
        return cast("TaskReport", _report(task))

    def job_ended(self, job_id: str) -> None:
        """Part of the protocol."""

    async def stop(self, grace_seconds: float) -> None:
        """Part of the protocol."""


def _report(task: RangeTask) -> RangeReport:
    start = int(task.slice.start_after or 0)
    end = int(task.slice.end_at or 10**_DIGITS)
    cursor = min(start + 100, end - 1)
    wanted = task.wanted_pieces
    cuts = [cursor + (end - cursor) * number // wanted for number in range(1, wanted)]
    done = cursor - start
    return RangeReport(
        job_id=task.job_id,
        range_id=task.range_id,
        started_after=task.slice.start_after,
        cursor=f"{cursor:0{_DIGITS}}",
        finished=False,
        counts=Counts(objects=done, transferred=done, transferred_bytes=done),
        boundaries=tuple(f"{cut:0{_DIGITS}}" for cut in cuts),
    )


@dataclass
class Seen:
    """What was measured since the last `clear`."""

    stalls: list[float] = field(default_factory=list)
    """How late the event loop was, in seconds, each time that it was asked to be in time."""
    commits: list[float] = field(default_factory=list)
    """Seconds from a report to the end of its commit."""

    def clear(self) -> None:
        """Begin anew."""
        self.stalls.clear()
        self.commits.clear()


class TimedWork(WorkStore):
    """A store of work that notes how long each commit takes."""

    seen: Seen

    async def commit(
        self, report: ProgressReport, at: datetime, *, bounds: Bounds = UNBOUNDED
    ) -> CommitResult:
        """Commit as usual."""
        began = time.monotonic()
        try:
            return await super().commit(report, at, bounds=bounds)
        finally:
            self.seen.commits.append(time.monotonic() - began)


async def _watch(seen: Seen) -> None:
    while True:
        due = time.monotonic() + _STEP_SECONDS
        await asyncio.sleep(_STEP_SECONDS)
        seen.stalls.append(time.monotonic() - due)


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Run the job for a while, and print what was seen."""
    settings = Settings(
        data_dir=folder, database_url=arguments.database, allow_http=True, task_seconds=8
    )
    async with assembled(settings) as node, node.leadership.hold() as tenure:
        engine = SleepingEngine(arguments.slots, arguments.task_seconds)
        work = TimedWork(node.store.database, tenure.lease)
        seen = work.seen = Seen()
        await create(node, 1)
        driver = Driver(work, engine, node.sealer, settings)
        watching = asyncio.create_task(_watch(seen))
        began = time.monotonic()
        driving = asyncio.create_task(driver.run())
        await engine.all_run.wait()
        _print(f"until {arguments.slots} tasks ran", seen, time.monotonic() - began)
        seen.clear()
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        await asyncio.sleep(arguments.seconds)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - began
        _print("after that", seen, seconds)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"CPU of the control plane: {cpu / seconds:.2f} cores")
        driving.cancel()
        watching.cancel()
        await asyncio.gather(driving, watching, return_exceptions=True)


def _print(when: str, seen: Seen, seconds: float) -> None:
    commits = sorted(seen.commits) or [0.0]
    median, late = statistics.median(commits), commits[int(0.99 * (len(commits) - 1))]
    print(
        f"{when}: {seconds:.1f} s, {len(seen.commits) / seconds:.0f} commits a second; longest"
        f" stall of the loop {1e3 * max(seen.stalls):.0f} ms; a commit took {1e3 * median:.0f} ms"
        f" (median), {1e3 * late:.0f} ms (99 %)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--task-seconds", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--database", help="else SQLite in a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
