"""The data plane of one process. Its only state are its open stores.

What it learns about a store goes into each report, until the tasks that come know it.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from typing import Any, cast

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.messages import Response
from slurper.job.model import JobCapabilities
from slurper.objectstore import error_answers
from slurper.objectstore.base import ObjectStore
from slurper.objectstore.factory import StoreOpener
from slurper.settings import Settings
from slurper.transfer import counting, gathering, leftovers
from slurper.transfer.copy import CopyMeans
from slurper.transfer.open_stores import OpenedStore, OpenStore, OpenStores
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.parts_run import PartsRun
from slurper.transfer.range_run import RangeRun
from slurper.transfer.route import Route
from slurper.transfer.server_side import Shortcuts
from slurper.transfer.streaming import Streams
from slurper.transfer.task import (
    CopyTask,
    CountTask,
    GatherTask,
    PartsTask,
    RangeTask,
    Report,
    SweepTask,
    Task,
    TaskReport,
)

TOLD_SECONDS = 0.25
"""A request must have been repeated for this long before `Worker.waits` tells of it."""


class Worker:
    """Runs tasks over stores that stay open between them; all tasks share one byte budget."""

    def __init__(self, settings: Settings, *, open_store: OpenStore | None = None) -> None:
        """Prepare; no store is opened yet. Tests and measurements give another `open_store`."""
        self._settings = settings
        self._stores = OpenStores(
            open_store or StoreOpener(),
            TransportOptions.from_settings(settings),
            settings.store_idle_seconds,
        )
        self._budget = ByteBudget(settings.in_flight_bytes, delay=self._delay)
        self._shortcuts = Shortcuts(allowed=settings.server_side_copy)
        self._under_way: list[Task[Any]] = []

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Work until the task is done or its time is used up. Several may run at once."""
        began = time.monotonic()
        source = self._stores.use(task.source, task.job_id)
        try:
            target = self._stores.use(task.target, task.job_id)
        except BaseException:
            self._stores.leave(task.source)
            raise
        self._under_way.append(task)
        try:
            report = cast("TaskReport", await self._report(task, source, target.store))
            of_source, of_target = source.fresh_traffic(), target.fresh_traffic()
            return replace(
                report,
                retries=source.retries.fresh() + target.retries.fresh(),
                throttled=of_source.throttled + of_target.throttled,
                source=of_source,
                target=of_target,
                found=JobCapabilities(
                    source=source.found_beyond(task.source.dialect),
                    target=target.found_beyond(task.target.dialect),
                ),
                seconds=time.monotonic() - began,
            )
        finally:
            self._under_way.remove(task)
            for address in (task.source, task.target):
                self._stores.leave(address)

    def job_ended(self, job_id: str) -> None:
        """Close what is open only for a job that has ended, or is paused."""
        self._stores.job_ended(job_id)

    async def _report(self, task: Task[Any], opened: OpenedStore, target: ObjectStore) -> Report:
        source = opened.store
        match task:
            case RangeTask():
                return await RangeRun(task, source, target, self._means(task, opened)).report()
            case PartsTask():
                return await PartsRun(task, source, target, self._means(task, opened)).report()
            case GatherTask():
                return await gathering.gather(task, source)
            case CountTask():
                return await counting.count(task, source)
            case SweepTask():
                return await leftovers.run(task, Route.of(task, source, target))
            case _:
                raise TypeError(f"no worker runs a {type(task).__name__}")

    def _means(self, task: CopyTask, opened: OpenedStore) -> CopyMeans:
        shortcut = self._shortcuts.of(task)
        return CopyMeans(
            self._settings,
            self._budget,
            opened.etags,
            shortcut,
            self._streams(task, opened),
        )

    def _streams(self, task: CopyTask, opened: OpenedStore) -> Streams | None:
        max_seconds = self._settings.stream_seconds
        if not max_seconds:
            return None
        return opened.streams.setdefault(task.target, Streams(max_seconds))

    def _delay(self) -> float:
        """The longest time that a task under way waits for answers from both of its stores."""
        return max((self._delay_of(task) for task in self._under_way), default=0.0)

    def _delay_of(self, task: Task[Any]) -> float:
        delays = [self._stores[side].statistics.delay for side in (task.source, task.target)]
        return sum(delay for delay in delays if delay < math.inf)

    def waits(self) -> dict[str, dict[str, int]]:
        """For each job under way: why requests have failed that are being repeated, and how many.

        Tasks of one job, and jobs of one store, share connections. So each job that uses a store is
        told of every request that fails there.
        """
        told: dict[str, dict[str, int]] = {}
        for task in self._under_way:
            waited = {
                **_waited_for("source", self._stores[task.source]),
                **_waited_for("target", self._stores[task.target]),
            }
            if waited:
                told[task.job_id] = waited
        return told

    async def close(self) -> None:
        """Close every connection."""
        await self._stores.close()


def _waited_for(side: str, store: ObjectStore) -> Counter[str]:
    before = time.monotonic() - TOLD_SECONDS
    waiting = list(store.statistics.waiting.values())
    return Counter(_what(side, one.outcome) for one in waiting if one.since <= before)


def _what(side: str, outcome: Response | errors.TransportError) -> str:
    if isinstance(outcome, errors.MalformedAnswer):
        return f"the {side} answers against the rules of HTTP"
    if isinstance(outcome, errors.TooManyOpenFiles):
        return f"this program has no file descriptor to ask the {side} with"
    if not isinstance(outcome, Response):
        return f"the {side} does not answer"
    code = error_answers.read_failure(outcome).code
    return f"the {side} answers with {f'HTTP {outcome.status} {code}'.strip()}"
