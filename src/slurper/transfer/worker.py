"""The data plane of one process. Its only state are its open connections.

What it learns about a store goes into each report, until the tasks that come know it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from slurper import errors
from slurper.http.client import TransportOptions
from slurper.http.messages import Response
from slurper.job.model import Capabilities, JobCapabilities
from slurper.objectstore import error_answers, factory
from slurper.objectstore.base import ObjectStore, StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.factory import StoreOpener
from slurper.settings import Settings
from slurper.transfer import counting, gathering, leftovers
from slurper.transfer.copy import CopyMeans
from slurper.transfer.etags import SourceEtags
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
    Traffic,
)

STORE_IDLE_SECONDS = 300.0
"""A store that no task has used for this long is closed, with its connections."""


TOLD_SECONDS = 0.25
"""A request must have been repeated for this long before `Worker.waits` tells of it."""

OpenStore = Callable[[StoreAddress, TransportOptions], ObjectStore]


class Worker:
    """Runs tasks over stores that stay open between them; all tasks share one byte budget."""

    def __init__(self, settings: Settings, *, open_store: OpenStore | None = None) -> None:
        """Prepare; no store is opened yet. Tests and measurements give another `open_store`."""
        self._settings = settings
        self._open_store = open_store or StoreOpener()
        self._options = TransportOptions.from_settings(settings)
        self._budget = ByteBudget(settings.in_flight_bytes, delay=self._delay)
        self._shortcuts = Shortcuts(allowed=settings.server_side_copy)
        self._stores: dict[StoreAddress, _OpenedStore] = {}
        self._under_way: list[Task[Any]] = []

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Work until the task is done or its time is used up. Several may run at once."""
        began = time.monotonic()
        await self._close_idle()
        source, target = self._use(task.source), self._use(task.target)
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
            for opened in (source, target):
                opened.users -= 1
                opened.last_used = time.monotonic()

    async def _report(self, task: Task[Any], opened: _OpenedStore, target: ObjectStore) -> Report:
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

    def _means(self, task: CopyTask, opened: _OpenedStore) -> CopyMeans:
        shortcut = self._shortcuts.of(task)
        return CopyMeans(
            self._settings,
            self._budget,
            opened.etags,
            shortcut,
            self._streams(task, opened),
        )

    def _streams(self, task: CopyTask, opened: _OpenedStore) -> Streams | None:
        max_seconds = self._settings.stream_seconds
        if not max_seconds:
            return None
        return opened.streams.setdefault(task.target, Streams(max_seconds))

    def _delay(self) -> float:
        """The longest time that a task under way waits for answers from both of its stores."""
        return max((self._delay_of(task) for task in self._under_way), default=0.0)

    def _delay_of(self, task: Task[Any]) -> float:
        delays = [self._stores[side].store.statistics.delay for side in (task.source, task.target)]
        return sum(delay for delay in delays if delay < math.inf)

    def waits(self) -> dict[str, dict[str, int]]:
        """For each job under way: why requests have failed that are being repeated, and how many.

        Tasks of one job, and jobs of one store, share connections. So each job that uses a store is
        told of every request that fails there.
        """
        told: dict[str, dict[str, int]] = {}
        for task in self._under_way:
            waited = {
                **_waited_for("source", self._stores[task.source].store),
                **_waited_for("target", self._stores[task.target].store),
            }
            if waited:
                told[task.job_id] = waited
        return told

    async def close(self) -> None:
        """Close every connection."""
        stores = [opened.store for opened in self._stores.values()]
        self._stores.clear()
        await asyncio.gather(*(store.close() for store in stores))

    def _use(self, address: StoreAddress) -> _OpenedStore:
        opened = self._stores.get(address)
        if opened is None:
            opened = self._stores[address] = _OpenedStore(self._open_store(address, self._options))
        opened.users += 1
        return opened

    async def _close_idle(self) -> None:
        before = time.monotonic() - STORE_IDLE_SECONDS
        for address, opened in list(self._stores.items()):
            if opened.users == 0 and opened.last_used < before:
                del self._stores[address]
                await opened.store.close()


def _waited_for(side: str, store: ObjectStore) -> Counter[str]:
    before = time.monotonic() - TOLD_SECONDS
    waiting = list(store.statistics.waiting.values())
    return Counter(_what(side, one.outcome) for one in waiting if one.since <= before)


def _what(side: str, outcome: Response | errors.TransportError) -> str:
    if isinstance(outcome, errors.MalformedAnswer):
        return f"the {side} answers against the rules of HTTP"
    if not isinstance(outcome, Response):
        return f"the {side} does not answer"
    code = error_answers.read_failure(outcome).code
    return f"the {side} answers with {f'HTTP {outcome.status} {code}'.strip()}"


class _OpenedStore:
    """A store, how many tasks use it, and what of its statistics is not reported yet."""

    __slots__ = (
        "_sent",
        "_throttled",
        "etags",
        "last_used",
        "retries",
        "store",
        "streams",
        "users",
    )

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.etags = SourceEtags(store.dialect)
        self.streams: dict[StoreAddress, Streams] = {}
        """Those that go from here to each target."""
        self.users = 0
        self.last_used = time.monotonic()
        self.retries = _Counter(lambda: store.statistics.retries)
        self._sent = _Counter(lambda: store.statistics.requests + store.statistics.retries)
        self._throttled = _Counter(lambda: store.statistics.throttled)

    def found_beyond(self, known: Dialect) -> Capabilities:
        """What was learnt about the store that a task was not told."""
        return factory.found_since(known, self.etags.noted_in(self.store.dialect))

    def fresh_traffic(self) -> Traffic:
        """What was asked of the store since the last call."""
        return Traffic(requests=self._sent.fresh(), throttled=self._throttled.fresh())


class _Counter:
    """A counter that several tasks share. The growth is told once, to the first that asks."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._told = 0

    def fresh(self) -> int:
        """The growth since the last call."""
        before, self._told = self._told, self._read()
        return self._told - before
