"""A reverse proxy that misbehaves on request: the network and the provider on a bad day.

It streams, passes heads through byte for byte (so signatures hold and hostile keys survive), and
applies to each request the first rule that matches it. Rules can be added and dropped at any time,
each limited by count and by chance; chance comes from a seeded generator, so a schedule of faults
can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.chaos.faults import Fault, delayed, passed_on, status
from tests.chaos.wire import Exchange, Head, Streams, read_head

__all__ = ["FaultProxy", "Rule", "delayed", "status"]

HOST = "127.0.0.1"

KEPT_SECONDS = 1.0
"""A connection to the store is not used again after this time. Stores close theirs much later."""


@dataclass(slots=True)
class Rule:
    """Which requests meet a fault. `match` is searched for in the request line."""

    fault: Fault
    match: str = ""
    times: int | None = None
    probability: float = 1.0
    skip: int = 0
    """So many matching requests are spared first."""
    hits: int = field(default=0, init=False)
    _spared: int = field(default=0, init=False)

    def applies(self, line: str, chance: random.Random) -> bool:
        """Whether a request meets the fault; counts it."""
        spent = self.times is not None and self.hits >= self.times
        if spent or not re.search(self.match, line) or chance.random() >= self.probability:
            return False
        if self._spared < self.skip:
            self._spared += 1
            return False
        self.hits += 1
        return True


class FaultProxy:
    """The proxy, running in a thread of its own while the `with` block lasts."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        """Stand before `upstream`, an `http://host:port`."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)
        self._port = 0
        self.requests: list[str] = []
        """Request lines as they came in."""

    @property
    def endpoint(self) -> str:
        """Where to send requests instead of the upstream."""
        return f"http://{HOST}:{self._port}"

    def add(
        self,
        fault: Fault,
        match: str = "",
        *,
        times: int | None = None,
        chance: float = 1.0,
        skip: int = 0,
        first: bool = False,
    ) -> Rule:
        """Apply `fault` from now on to requests whose first line holds the pattern `match`.

        Of several rules that match, the oldest applies, unless a later one is to go `first`.
        """
        rule = Rule(fault, match, times, chance, skip)
        with self._lock:
            self._rules.insert(0 if first else len(self._rules), rule)
        return rule

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._rules.clear()

    def count(self, pattern: str) -> int:
        """How many requests so far match the pattern."""
        with self._lock:
            return sum(re.search(pattern, line) is not None for line in self.requests)

    def _choose(self, line: str) -> Fault:
        with self._lock:
            self.requests.append(line)
            for rule in self._rules:
                if rule.applies(line, self._random):
                    return rule.fault
        return passed_on

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Serve while the block lasts."""
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the proxy did not start")
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._kept: list[tuple[float, Streams]] = []
        server = await asyncio.start_server(self._accept, HOST, 0, limit=1 << 20)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for _, (_, writer) in self._kept:
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (head := await read_head(reader)) is not None:
                if not await self._handle(head, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()  # the proxy stops; nobody waits for this task's result
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._connections.discard(task)

    async def _handle(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Let a request meet its fault; whether the client's connection may carry another one.

        After a fault, bytes may be left on the connection to the store. Then it carries no other
        request.
        """
        opened: list[Streams] = []

        async def connect() -> Streams:
            opened.append(self._take() or await self._open())
            return opened[-1]

        exchange = Exchange(head, reader, writer, connect)
        try:
            return await self._choose(head.first_line)(exchange)
        finally:
            clean = exchange.clean
            for streams in opened:
                if streams in clean:
                    self._kept.append((self._loop.time(), streams))
                else:
                    streams[1].close()

    async def _open(self) -> Streams:
        return await asyncio.open_connection(*self._upstream, limit=1 << 20)

    def _take(self) -> Streams | None:
        """A kept connection. Those that the store may be about to close are closed instead."""
        while self._kept:
            since, streams = self._kept.pop()
            if self._loop.time() - since < KEPT_SECONDS and not streams[0].at_eof():
                return streams
            streams[1].close()
        return None
