"""A worker that notes what its lanes wait for; in a module of its own, which only it loads."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from benchmarks import traced
from slurper.http.client import TransportOptions
from slurper.http.streams import Pieces
from slurper.objectstore.base import Body, ObjectStore, Part, StoreAddress
from slurper.objectstore.factory import StoreOpener
from slurper.objectstore.streamed import (
    StreamedBody,
    StreamedDownload,
    StreamedPart,
    StreamedRange,
)
from slurper.settings import Settings
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.task import Task, TaskReport
from slurper.transfer.worker import Worker

TICK_SECONDS = 0.005

_READS = frozenset(("get", "get_stream", "get_range_stream", "copy_object", "copy_part"))
_WRITES = frozenset(
    ("put", "put_stream", "put_part", "put_part_stream", "complete_upload", "copy_object")
)
"""Requests with which the copying of an object begins and ends."""

_waiting_for: ContextVar[str | None] = ContextVar("waiting_for", default=None)

Result = TypeVar("Result")


class Meter:
    """What was waited for in this process since its first read, or since the last note."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Of all lanes together, by what they waited for."""
        self.late_seconds = 0.0
        self.latest_seconds = 0.0
        """How late the event loop was, in all and at most."""
        self.first_read: float | None = None
        self.last_written: float | None = None

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Count the time of a block. What a wait within it counts is not counted twice."""
        around = _waiting_for.get()
        token = _waiting_for.set(what)
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            _waiting_for.reset(token)
            self.seconds[what] += seconds
            if around is not None:
                self.seconds[around] -= seconds

    @contextmanager
    def request(self, side: str, name: str) -> Iterator[None]:
        """Count a request to a side."""
        if name in _READS and self.first_read is None:
            self.first_read = time.monotonic()
            self._clear()
        with self.waiting(side):
            yield
        if name in _WRITES:
            self.last_written = time.monotonic()

    async def watch_loop(self) -> None:
        """Count how late the event loop is."""
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            late = time.monotonic() - due
            self.late_seconds += late
            self.latest_seconds = max(self.latest_seconds, late)

    def note(self) -> None:
        """Note what was counted, and begin anew. Before the first read there is nothing to note."""
        if self.first_read is not None:
            late = {"late": self.late_seconds, "latest": self.latest_seconds}
            traced.note(traced.WAITS, seconds=dict(self.seconds), **late)
            self._clear()
        if self.first_read is not None and self.last_written is not None:
            traced.note(traced.COPY, began=self.first_read, ended=self.last_written)

    def _clear(self) -> None:
        self.seconds.clear()
        self.late_seconds = self.latest_seconds = 0.0


class TracedStore:
    """A store whose requests are counted."""

    def __init__(self, store: ObjectStore, side: str, meter: Meter) -> None:
        self._store = store
        self._side = side
        self._meter = meter

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any member of a store
        found = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def counted(*args: Any, **named: Any) -> Any:  # noqa: ANN401 - passed through
            with self._meter.request(self._side, name):
                return await found(*args, **named)

        return counted

    # Named, because a protocol of methods does not see what `__getattr__` gives.

    async def get_stream(self, *args: Any, **named: Any) -> StreamedDownload:  # noqa: ANN401
        """Begin to read an object."""
        return cast("StreamedDownload", await self._asked("get_stream", *args, **named))

    async def get_range_stream(self, *args: Any, **named: Any) -> StreamedRange:  # noqa: ANN401
        """Begin to read a part."""
        return cast("StreamedRange", await self._asked("get_range_stream", *args, **named))

    async def put_stream(self, key: str, body: StreamedBody, *args: Any, **named: Any) -> str:  # noqa: ANN401
        """Write; the waits for pieces of the body are those for the source."""
        self._time_pieces(body)
        return cast("str", await self._asked("put_stream", key, body, *args, **named))

    async def put_part_stream(
        self, key: str, upload_id: str, number: int, part: StreamedPart
    ) -> Part:
        """Write a part in the same way."""
        self._time_pieces(part)
        return cast("Part", await self._asked("put_part_stream", key, upload_id, number, part))

    async def _asked(self, name: str, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        with self._meter.request(self._side, name):
            return await getattr(self._store, name)(*args, **named)

    def _time_pieces(self, body: StreamedBody | StreamedPart) -> None:
        begin = body.open

        async def opened() -> Pieces:
            with self._meter.waiting("source"):
                pieces = await begin()
            pieces.read = _counted(self._meter, "source", pieces.read)  # type: ignore[method-assign, assignment]
            return pieces

        body.open = opened  # type: ignore[method-assign]


class TracedWorker(Worker):
    """A worker that writes a note after each task. Tasks that overlap share their notes."""

    def __init__(self, settings: Settings) -> None:
        self._meter = Meter()
        self._sources: set[StoreAddress] = set()
        self._opener = StoreOpener()
        super().__init__(settings, open_store=self._open_traced)
        self._watch = asyncio.create_task(self._meter.watch_loop())
        for kind, name, what in (
            (ByteBudget, "acquire", "window"),
            (Body, "computed", "checksum"),
            (Body, "computed_sums", "checksum"),
        ):
            setattr(kind, name, _counted(self._meter, what, getattr(kind, name)))

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Run a task, and note what was waited for until now."""
        self._sources.add(task.source)
        try:
            return await super().run(task)
        finally:
            self._meter.note()

    def _open_traced(self, address: StoreAddress, options: TransportOptions) -> ObjectStore:
        side = "source" if address in self._sources else "target"
        return cast("ObjectStore", TracedStore(self._opener(address, options), side, self._meter))


def _counted(
    meter: Meter, what: str, call: Callable[..., Awaitable[Result]]
) -> Callable[..., Awaitable[Result]]:
    async def counted(*args: Any, **named: Any) -> Result:  # noqa: ANN401 - passed through
        with meter.waiting(what):
            return await call(*args, **named)

    return counted


def make_worker(settings: Settings) -> Worker:
    """What the worker process runs. It is called in an event loop."""
    return TracedWorker(settings)
