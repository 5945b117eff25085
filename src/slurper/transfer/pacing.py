"""How much may be under way at once, and how fast a task may go.

`ByteBudget` limits the bytes in flight of a process (design rule 9). It allows no more than make
the process faster. `Pacer` limits the bytes and requests per second of a task, if its job has
limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable

from slurper.settings import MIB
from slurper.transfer.task import Share

FIRST_ALLOWANCE_BYTES = 16 * MIB
"""What may be in flight at least: one part, or as many objects as fit. More bytes cost more memory
traffic where the stores are near."""
FULL_RATE = 500e6
"""Bytes per second that one process moves at most. Times the delay of the stores, this is what a
distant network holds on its way, so that much may be in flight from the beginning."""
TRIAL_SECONDS = 0.25
"""A rate is measured for at least this long, and over at least the bytes that are in flight."""
TRIAL_GAIN = 1.25
"""A doubled allowance is kept only if the rate grows by this factor. The rate would double if only
the network limited it. It would stay the same if the processor did."""
NEXT_TRIAL_SECONDS = 10.0
"""After a trial that failed, the next one waits this long: networks change."""

BURST_SECONDS = 0.5
"""A task that was slower than its share may catch up by this much time at most. The time between
it and the task before counts too."""


class ByteBudget:
    """Admits units of work, in the order in which they come, while their bytes fit an allowance.

    The allowance begins small where the stores are near. It grows, up to `limit`, while more bytes
    in flight make the process faster. On a distant network they do. Where the processor is the
    limit, they only fall out of its caches, and cost a third more (decision 0015).

    A unit larger than the allowance is admitted alone. Otherwise it would never begin. So memory is
    at most `limit` or the largest single unit, whichever is more.
    """

    def __init__(
        self,
        limit: int,
        *,
        delay: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the highest allowance, in bytes. Tests give a clock.

        `delay` tells how many seconds a unit waits for answers from both stores. It is asked only
        when a unit does not fit.
        """
        self.limit = limit
        self._delay = delay
        self.allowed = min(limit, FIRST_ALLOWANCE_BYTES)
        self.used = 0
        self._growth = _Growth(limit, clock)
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes are admitted. If it is cancelled, it leaves the queue."""
        if not self._waiting and (self._fits(size) or self._widened_fits(size)):
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._growth.restart()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            else:
                with contextlib.suppress(ValueError):  # `_admit` has removed it already
                    self._waiting.remove((size, turn))
                self._admit()
            raise

    def release(self, size: int, *, moved: int | None = None) -> None:
        """Give `size` admitted bytes back. `moved` bytes were copied with them, if not as many."""
        if self._waiting:
            size_moved = size if moved is None else moved
            self.allowed = self._growth.moved(size_moved, allowed=self.allowed, in_flight=self.used)
            self._widen()
        self.used -= size
        if self._waiting:
            self._admit()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.allowed or self.used == 0

    def _widened_fits(self, size: int) -> bool:
        self._widen()
        return self._fits(size)

    def _widen(self) -> None:
        """Allow what the network holds on its way, as far as its delay is known by now."""
        on_its_way = FIRST_ALLOWANCE_BYTES + int(FULL_RATE * self._delay())
        self.allowed = max(self.allowed, min(self.limit, on_its_way))

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


class _Growth:
    """Finds out by trial how many bytes in flight make the process faster.

    The allowance limits the rate only while units wait. So the rate is measured only then. The
    first trial begins at once, and each success leads to the next. So a fast line is filled within
    a few round trips of a unit.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._before: tuple[int, float] | None = None
        """The allowance before the trial under way, and the bytes per second that it gave."""
        self._next_trial = -math.inf
        self.restart()

    def restart(self) -> None:
        """Begin to measure."""
        self._moved = 0
        self._began = self._clock()

    def moved(self, size: int, *, allowed: int, in_flight: int) -> int:
        """Take note of a finished unit; return the new allowance."""
        self._moved += size
        now = self._clock()
        seconds = now - self._began
        if self._moved < max(in_flight, allowed) or seconds < TRIAL_SECONDS:
            return allowed
        rate = self._moved / seconds
        self.restart()
        if self._before is not None:
            (smaller, its_rate), self._before = self._before, None
            if rate < TRIAL_GAIN * its_rate:
                self._next_trial = now + NEXT_TRIAL_SECONDS
                return smaller
        if now < self._next_trial or allowed >= self._limit:
            return allowed
        self._before = allowed, rate
        # A unit larger than the allowance was admitted alone. Now a second one may fit.
        return min(self._limit, 2 * max(in_flight, allowed))


class Pacer:
    """Keeps a task to its share of its job's limits.

    It waits before a unit (an object, a part, a listing page) and never inside one, so that no
    connection idles. A unit begins when all units before it are paid for, at the rates of the
    share. It is charged as a whole when it begins. So a large unit is not held up itself; it holds
    up the next one. What is not paid for when the task ends is owed by the range's next task.
    """

    def __init__(
        self,
        share: Share,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Begin without debt, perhaps with a credit. Tests give a clock and a sleep."""
        self._clock = clock
        self._sleep = sleep
        self._bytes_rate = share.bytes_per_second or math.inf
        self._requests_rate = share.requests_per_second or math.inf
        self._bytes_paid_at = self._requests_paid_at = clock() - share.credit_seconds
        self.queue = asyncio.Lock()
        """Held from the wait for a turn until the unit that follows is charged."""

    @property
    def owed_seconds(self) -> float:
        """How long it takes to pay for what was begun; negative if time was left over."""
        return max(self._bytes_paid_at, self._requests_paid_at) - self._clock()

    async def turn(self, until: float = math.inf) -> None:
        """Wait for the turn of a unit, or until the clock shows `until`; `queue` must be held."""
        await self._wait(lambda: max(self._bytes_paid_at, self._requests_paid_at), until)

    async def turn_to_ask(self, until: float = math.inf) -> None:
        """Wait for the turn of a request that moves no object, or until the clock shows `until`."""
        await self._wait(lambda: self._requests_paid_at, until)

    def spend(self, *, size: int = 0, requests: int = 0) -> None:
        """Charge what begins now."""
        earliest = self._clock() - BURST_SECONDS
        self._bytes_paid_at = max(self._bytes_paid_at, earliest) + size / self._bytes_rate
        paid_at = max(self._requests_paid_at, earliest)
        self._requests_paid_at = paid_at + requests / self._requests_rate

    async def _wait(self, paid_at: Callable[[], float], until: float) -> None:
        while (seconds := min(paid_at(), until) - self._clock()) > 0:
            await self._sleep(seconds)
