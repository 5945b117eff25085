"""How much may be under way at once, and how fast a task may go.

Bytes in flight are bounded per process (`ByteBudget`, design rule 9), and are no more than help.
Bytes and requests per second are bounded per task (`Pacer`), where the job has limits.
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
"""What may be in flight at first: one part, or as many objects as fit. Every doubling costs more
memory traffic, and a distant network has them all within seconds."""
TRIAL_SECONDS = 0.25
"""A rate is taken over so long at least, and over as many bytes as are in flight."""
TRIAL_GAIN = 1.25
"""Twice the bytes in flight have to be this much faster to stay. They would be twice as fast if
only the network were waited for, and no faster if the processor were."""
NEXT_TRIAL_SECONDS = 10.0
"""After this it is tried again: networks change."""

BURST_SECONDS = 0.5
"""A task that was slower than its share may catch up by this much of it, and so with the time that
passed between it and the one before."""


class ByteBudget:
    """Admits units of work while their bytes fit into an allowance, first come first served.

    The allowance begins small and grows, up to `limit`, while more bytes in flight make the process
    faster. On a network with some way to go they do; where the processor is the limit they only
    fall out of its caches, and cost a third more (decision 0015).

    A unit larger than the allowance is admitted alone, so that it is slow instead of stuck.
    Memory is therefore at most `limit` or the largest single unit, whichever is more.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the most it may come to, in bytes. Tests give a clock."""
        self.limit = limit
        self.allowed = min(limit, FIRST_ALLOWANCE_BYTES)
        self.used = 0
        self._growth = _Growth(limit, clock)
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes are admitted. Cancelling gives the place up."""
        if not self._waiting and self._fits(size):
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
                with contextlib.suppress(ValueError):  # it was passed over already
                    self._waiting.remove((size, turn))
                self._admit()
            raise

    def release(self, size: int) -> None:
        """Give `size` admitted bytes back."""
        if self._waiting:
            self.allowed = self._growth.moved(size, allowed=self.allowed, in_flight=self.used)
        self.used -= size
        if self._waiting:
            self._admit()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.allowed or self.used == 0

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


class _Growth:
    """Finds out by trial how many bytes in flight are worth it.

    Only while units wait for their bytes does the rate say anything about the allowance. The first
    trial begins at once and each success is followed by another, so that a fast line is filled
    within a few round trips of a unit.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._before: tuple[int, float] | None = None
        """Allowance, and bytes per second with it, before the trial under way."""
        self._next_trial = -math.inf
        self.restart()

    def restart(self) -> None:
        """Begin to measure: a queue has formed."""
        self._moved = 0
        self._began = self._clock()

    def moved(self, size: int, *, allowed: int, in_flight: int) -> int:
        """Take note of a unit that was in flight and is done; return the new allowance."""
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
        # A unit larger than the allowance was alone; with this it is not.
        return min(self._limit, 2 * max(in_flight, allowed))


class Pacer:
    """Keeps a task to its share of its job's limits.

    Waiting is done before a unit (an object, a part, a listing page) and never inside one, so that
    no connection idles. A unit begins when all before it are paid for, at the rates of the share,
    and is charged as a whole at its begin: one that is large for its rate is not held up itself,
    it holds up the next. What is not paid for in the end is owed by the range's next task.
    """

    def __init__(
        self,
        share: Share,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Begin free of debt, perhaps with a credit. Tests give a clock and a sleep."""
        self._clock = clock
        self._sleep = sleep
        self._bytes_rate = share.bytes_per_second or math.inf
        self._requests_rate = share.requests_per_second or math.inf
        self._bytes_paid_at = self._requests_paid_at = clock() - share.credit_seconds
        self.queue = asyncio.Lock()
        """Held from the wait for a turn until what follows it is charged."""

    @property
    def owed_seconds(self) -> float:
        """How long it takes to pay for what was begun; negative when time was left over."""
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
