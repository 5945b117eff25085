"""The stores that a worker has open, with their connections and their users' credentials.

    when                                          what goes
    the last job of a store has ended             its connections, at once
    no task has used a store for a while          the same; the driver does not always tell
    at the end of that while, in either case      what is left of it in memory

That while is `store_idle_seconds`. A store and its client refer to each other, so their memory is
free only after a collection. An idle process makes none by itself.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable

from slurper import telemetry
from slurper.http.client import TransportOptions
from slurper.job.model import Capabilities
from slurper.objectstore import factory
from slurper.objectstore.base import ObjectStore, StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.transfer.etags import SourceEtags
from slurper.transfer.streaming import Streams
from slurper.transfer.task import Traffic

OpenStore = Callable[[StoreAddress, TransportOptions], ObjectStore]

_log = telemetry.get_logger(__name__)


class OpenedStore:
    """A store, how many tasks use it, and what of its statistics is not reported yet."""

    __slots__ = (
        "_sent",
        "_throttled",
        "etags",
        "jobs",
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
        self.jobs: set[str] = set()
        """Those whose tasks have used it, and whose end was not told yet."""
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


class OpenStores:
    """Opens stores for tasks, and closes those that no task needs any more."""

    def __init__(
        self, open_store: OpenStore, options: TransportOptions, idle_seconds: float
    ) -> None:
        self._open_store = open_store
        self._options = options
        self._idle_seconds = idle_seconds
        self._opened: dict[StoreAddress, OpenedStore] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._left_garbage = False

    def __getitem__(self, address: StoreAddress) -> ObjectStore:
        """A store that a task uses."""
        return self._opened[address].store

    def use(self, address: StoreAddress, job_id: str) -> OpenedStore:
        """Return the store of an address, which stays open until `leave`."""
        opened = self._opened.get(address)
        if opened is None:
            opened = self._opened[address] = OpenedStore(self._open_store(address, self._options))
        opened.users += 1
        opened.jobs.add(job_id)
        return opened

    def leave(self, address: StoreAddress) -> None:
        """Take note that a task uses a store no longer."""
        opened = self._opened[address]
        opened.users -= 1
        opened.last_used = time.monotonic()
        self._close_if_done(address)
        self._look_later()

    def job_ended(self, job_id: str) -> None:
        """Close the stores that only this job has used. Its tasks under way keep theirs open."""
        for address, opened in list(self._opened.items()):
            if job_id in opened.jobs:
                opened.jobs.discard(job_id)
                self._close_if_done(address)

    async def close(self) -> None:
        """Close every connection."""
        if self._timer is not None:
            self._timer.cancel()
        for address in list(self._opened):
            self._close(address)
        tidying = () if self._tidying is None else (self._tidying,)
        await asyncio.gather(*self._closing, *tidying)

    def _close_if_done(self, address: StoreAddress) -> None:
        opened = self._opened[address]
        if not opened.users and not opened.jobs:
            self._close(address)

    def _close(self, address: StoreAddress) -> None:
        opened = self._opened.pop(address)
        for other in self._opened.values():
            other.streams.pop(address, None)
        task = asyncio.get_running_loop().create_task(opened.store.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._left_garbage = True

    def _look_later(self) -> None:
        """See to it that there is a look when the next store may have been idle for long enough."""
        if self._timer is not None or not (self._opened or self._left_garbage):
            return
        unused = [opened.last_used for opened in self._opened.values() if not opened.users]
        since = min(unused, default=time.monotonic())
        seconds = max(0.0, since + self._idle_seconds - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        before = time.monotonic() - self._idle_seconds
        for address, opened in list(self._opened.items()):
            if not opened.users and opened.last_used <= before:
                self._close(address)
        if self._left_garbage:
            self._tidying = asyncio.get_running_loop().create_task(self._tidy())
        self._look_later()

    async def _tidy(self) -> None:
        """Free the memory of closed stores, and so their credentials."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        self._left_garbage = False
        gc.collect()
        _log.debug("memory of closed stores freed", pid=os.getpid(), open_stores=len(self._opened))
