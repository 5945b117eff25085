"""Keeps the connections of one origin. The connection used last is lent first.

A connection is either *idle* here or *lent* to exactly one caller. Every connection, and every
connection being opened, holds one of `max_connections` slots. The `window` says how many may be
lent at once; it narrows when the provider throttles. Callers that have to wait are served in order.
How many connections all pools of the process may have is bounded too, see `capacity`.

One timer sweeps all connections about once a second, see `stall`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

from slurper import descriptors, errors
from slurper.endpoints import EndpointPolicy
from slurper.http import capacity
from slurper.http.capacity import Capacity
from slurper.http.connection import Connection
from slurper.http.dialer import Dialer, NotSent, Origin
from slurper.http.places import Owner
from slurper.http.stall import StallLimits, StallWatch
from slurper.http.window import AdaptiveWindow

KEEP_SECONDS = 45.0
"""A connection unused for longer is closed. Many servers and routers drop idle ones soon after."""
_CLOSE_SECONDS = 2.0


class PoolClosed(errors.TransportError):
    """The client was closed before, or while, a request was under way."""

    retryable = False


class Pools:
    """The pools of several clients. Clients of one origin share its connections."""

    def __init__(self) -> None:
        self._pools: dict[tuple[Origin, EndpointPolicy, Owner], Pool] = {}

    def get(self, dialer: Dialer, make: Callable[[], Pool]) -> Pool:
        """The pool of a dialer's origin, policy and owner; `make` makes it if it is missing."""
        key = dialer.origin, dialer.policy, dialer.owner
        if key not in self._pools:
            self._pools[key] = make()
        return self._pools[key]

    async def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.close()


class Pool:
    """Lends connections to one origin. Belongs to the event loop that first uses it."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        max_connections: int,
        stall_limits: StallLimits,
        patience_seconds: float,
    ) -> None:
        """Prepare; nothing is opened yet.

        A connection waits for `patience_seconds` for a file descriptor, if none is left.
        """
        self.window = AdaptiveWindow(max_connections)
        """How many connections may be lent. The client tells it about throttled answers."""
        self._dialer = dialer
        self._lent = 0
        self._free_slots = max_connections
        self._stall_limits = stall_limits
        self._patience_seconds = patience_seconds
        self._capacity: Capacity
        """Set before the first connection."""
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._open: dict[Connection, StallWatch] = {}
        self._ahead: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._all_lost: asyncio.Future[None] | None = None

    def take(self) -> Connection | None:
        """Borrow the idle connection used last, if there is one and the window allows it."""
        while self._idle and self._lent < self.window.size:
            connection = self._idle.pop()
            if connection.reusable:
                self._lent += 1
                return connection
            connection.abort()
            self._free_slots += 1
        return None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Borrow a connection; open one if necessary. With `fresh` it was never used before.

        Raises:
            NotSent, EndpointRefused, TlsRefused: as `Dialer.dial`.
            TooManyOpenFiles: no file descriptor was left for as long as the pool is patient.
            PoolClosed: `close` was called.
        """
        if self._closed:
            raise self._closed_error()
        self._capacity = capacity.of_process()
        held = await self._slot(fresh=fresh)
        if held is not None:
            if held.reusable and not fresh:
                return held
            held.abort()
        return await self._dial()

    def open_ahead(self, count: int) -> None:
        """Begin to open connections that nobody waits for yet, until `count` are open.

        They are opened in the background. If one cannot be opened, nobody is told: the requests
        that need it will see.
        """
        if self._closed:
            return
        for _ in range(min(count, self.window.size) - self._open_count):
            if not self._free_slots or self._capacity.is_short:
                break
            self._lent += 1
            self._free_slots -= 1
            task = asyncio.get_running_loop().create_task(self._open_one())
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)

    async def _open_one(self) -> None:
        with contextlib.suppress(errors.TransportError):
            connection = await self._dial()
            connection.was_opened_ahead = True
            self._lent -= 1
            # The last one is lent first: one that has carried a request. A server may serve as few
            # connections at a time as it has threads.
            self._idle.insert(0, connection)
            self._serve_waiting()

    def release(self, connection: Connection) -> None:
        """Give back a connection after a complete response."""
        if not connection.reusable or self._closed:
            self.discard(connection)
            return
        if self._capacity.waiting and self._capacity.wants_back(self._open_count):
            self.discard(connection)
            return
        self._lent -= 1
        self._idle.append(connection)
        if self._waiting:
            self._serve_waiting()

    def discard(self, connection: Connection) -> None:
        """Give back a connection that must not be used again."""
        connection.abort()
        self._give_back(None)

    async def close(self) -> None:
        """Close every connection; requests under way fail. Returns when all sockets are gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(self._closed_error())
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)
        for connection in tuple(self._open):
            if connection.exchange.answer is not None:
                connection.fail(self._closed_error())
            else:
                connection.close()
        if self._open:
            self._all_lost = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._all_lost,), timeout=_CLOSE_SECONDS)
            for connection in tuple(self._open):
                connection.abort()
            await self._all_lost

    # What `capacity` asks for

    @property
    def idle_since(self) -> float:
        """When the oldest idle connection was used last, in monotonic seconds; infinite: none."""
        return self._idle[0].used_at if self._idle else math.inf

    @property
    def is_busy(self) -> bool:
        """Whether a request uses a connection, or waits for one."""
        return self._lent > 0

    def close_oldest(self) -> None:
        """Close the idle connection that was used longest ago. There must be one."""
        self._free_slots += 1
        self._idle.pop(0).close()
        self._leave_if_empty()

    # Slots

    async def _slot(self, *, fresh: bool) -> Connection | None:
        """Take a slot. If an idle connection holds it, return that connection."""
        if not fresh:
            connection = self.take()
            if connection is not None:
                return connection
        if self._lent < self.window.size and (self._may_open or self._idle):
            self._lent += 1
            return self._take_slot()
        return await self._wait()

    @property
    def _open_count(self) -> int:
        """How many connections are open or being opened."""
        return self._lent + len(self._idle)

    @property
    def _may_open(self) -> bool:
        """Whether this pool may have another connection, as far as other pools are concerned."""
        return self._open_count < self._capacity.share

    def _take_slot(self) -> Connection | None:
        """Take a free slot, or else that of the idle connection that was used longest ago."""
        if self._free_slots and (self._may_open or not self._idle):
            self._free_slots -= 1
            return None
        return self._idle.pop(0)

    async def _wait(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())  # the slot came in the turn of the cancellation
            raise

    def _give_back(self, connection: Connection | None) -> None:
        """Take back a lent slot, and the connection in it."""
        self._lent -= 1
        if connection is None:
            self._free_slots += 1
        else:
            self._idle.append(connection)
        self._serve_waiting()
        self._leave_if_empty()

    def _leave_if_empty(self) -> None:
        if not self._open_count:
            self._capacity.keepers.discard(self)

    def _serve_waiting(self) -> None:
        """Lend to the callers that have waited longest, as far as the window allows."""
        while self._waiting and self._lent < self.window.size and (self._idle or self._may_open):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._lent += 1
                waiter.set_result(self._idle.pop() if self._idle else self._take_slot())

    async def _dial(self) -> Connection:
        self._capacity.keepers.add(self)
        try:
            connection = await self._placed()
        except BaseException:
            self._give_back(None)
            raise
        if self._closed or not connection.reusable:
            self._capacity.give_back()
            self.discard(connection)
            if self._closed:
                raise self._closed_error()
            raise NotSent(f"{connection.peer}: closed by the server as soon as it was open")
        self._open[connection] = StallWatch(connection, self._stall_limits)
        if self._timer is None:
            self._schedule_sweep()
        return connection

    async def _placed(self) -> Connection:
        """Open a connection in a place of its own, and wait while there is no descriptor for it."""
        peer = self._dialer.origin.peer
        give_up = asyncio.get_running_loop().time() + self._patience_seconds
        while True:
            await self._capacity.take(peer, give_up)
            try:
                return await self._dialer.dial(self._lost)
            except BaseException as error:
                self._capacity.give_back()
                shortage = _shortage(error, peer)
                if shortage is None:
                    raise
            await self._capacity.outlast(shortage, give_up)

    def _lost(self, connection: Connection) -> None:
        if self._open.pop(connection, None) is not None:
            self._capacity.give_back()
        if connection in self._idle:
            self._idle.remove(connection)
            self._free_slots += 1
            self._leave_if_empty()
        if self._all_lost is not None and not self._open and not self._all_lost.done():
            self._all_lost.set_result(None)

    def _closed_error(self) -> PoolClosed:
        return PoolClosed(f"{self._dialer.origin.peer}: the client was closed")

    # The sweep

    def _schedule_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stall_limits.look_seconds, self._sweep)

    def _sweep(self) -> None:
        """End exchanges that are too slow, and close connections that are not needed."""
        self._timer = None
        for connection, watch in tuple(self._open.items()):
            stall = watch.look()
            exchange = connection.exchange
            if exchange.answer is None:
                if watch.quiet_seconds >= KEEP_SECONDS:
                    connection.close()
            elif stall is not None:
                connection.end(errors.TransportError, f"{stall} while {exchange.phase}")
        if self._open and not self._closed:
            self._schedule_sweep()


def _shortage(error: BaseException, peer: str) -> errors.TooManyOpenFiles | None:
    """What a connection that did not come about lacked, if it was a file descriptor."""
    if isinstance(error, errors.TooManyOpenFiles):
        return error
    # Where names are looked up, the error does not tell.
    is_short = isinstance(error, NotSent) and descriptors.none_left()
    return descriptors.too_many(peer) if is_short else None
