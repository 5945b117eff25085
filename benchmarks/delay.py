"""A forwarder that makes the way to an endpoint longer.

Every chunk arrives a given time after it was sent, in each direction and on each connection, and
no faster or slower than that: a long line, not a thin one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.companion import HOST


class _Direction:
    """What is on its way to one side of a connection."""

    def __init__(self, delay_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay_seconds = delay_seconds
        self._under_way: deque[tuple[float, bytes | None]] = deque()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connected(self, transport: asyncio.Transport) -> None:
        """There is a receiver."""
        self._transport = transport
        self._schedule()

    def send(self, chunk: bytes | None) -> None:
        """Put a chunk on its way; None: nothing follows."""
        self._under_way.append((self._loop.time() + self._delay_seconds, chunk))
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and self._under_way and self._transport is not None:
            due = self._under_way[0][0]
            self._timer = self._loop.call_at(due, self._arrive, self._transport)

    def _arrive(self, transport: asyncio.Transport) -> None:
        self._timer = None
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now:
            _, chunk = self._under_way.popleft()
            if chunk is None:
                transport.close()
            elif not transport.is_closing():  # else there is no receiver left
                transport.write(chunk)
        self._schedule()


class _Side(asyncio.Protocol):
    """One end of a connection: what it hears goes `away`, what comes `home` it is sent."""

    def __init__(self, away: _Direction, home: _Direction) -> None:
        self._away = away
        self._home = home

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._home.connected(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._away.send(data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._away.send(None)


async def _forward(
    url: str, delay_seconds: float, listening: list[str], ready: Event, stop: asyncio.Event
) -> None:
    parts = urlsplit(url)
    host, port = parts.hostname or HOST, parts.port or 80
    loop = asyncio.get_running_loop()
    dials: set[asyncio.Task[object]] = set()

    def accept() -> _Side:
        away, home = _Direction(delay_seconds), _Direction(delay_seconds)
        dial = loop.create_connection(lambda: _Side(home, away), host, port)
        task: asyncio.Task[object] = loop.create_task(dial)
        dials.add(task)
        task.add_done_callback(dials.discard)
        return _Side(away, home)

    server = await loop.create_server(accept, HOST, 0, backlog=4096)
    listening.append(f"{parts.scheme}://{HOST}:{server.sockets[0].getsockname()[1]}")
    ready.set()
    await stop.wait()
    server.close()


@contextmanager
def delayed(url: str, round_trip_seconds: float) -> Iterator[str]:
    """Forward to an endpoint, in a thread; yields the URL from which it is that far away."""
    loop = uvloop.new_event_loop()
    stop = asyncio.Event()
    listening: list[str] = []
    ready = Event()
    forward = _forward(url, round_trip_seconds / 2, listening, ready, stop)
    thread = Thread(target=loop.run_until_complete, args=(forward,), daemon=True)
    thread.start()
    if not ready.wait(10):
        raise SystemExit("the forwarder does not listen")
    try:
        yield listening[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
