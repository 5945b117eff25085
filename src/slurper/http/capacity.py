"""How many connections a process may have open, over all its pools.

A pool bounds the connections to one origin. A process has a pool for each bucket and credential, so
all of them together could use up its file descriptors. Each connection, and each one that is being
opened, therefore takes a *place*:

    places taken               what a new connection does
    fewer than `kept`          it is opened
    `kept` or more             the connection that has been idle longest, in whichever pool, is
                               closed; if none is idle, nothing is closed
    `most`                     it waits until a place is given back

A connection counts as idle after `IDLE_SECONDS`. From `kept` on, each busy pool has a *share*. A
pool that has as many lets its requests wait for one of its own connections. If it has more, and
others wait, it closes one that was given back. So pools that want more than there is do not close
each other's connections for each request.

The other descriptors are for what else a process does: its database, its clients, its workers, the
names that it looks up.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Protocol
from weakref import WeakKeyDictionary

from slurper import descriptors, errors

_FEWEST = 8
MOST_KEPT = 4096
"""Idle connections take memory too: 10 to 30 KiB each. So beyond this number none stays idle while
others are opened, however many descriptors there are."""

IDLE_SECONDS = 0.02
"""Between two requests of a busy pool less time passes."""
LOOK_SECONDS = 0.05
"""How often those who wait for a place look whether a connection is idle by now."""
PAUSE_SECONDS = 0.1
"""How long to wait, after the system has refused a descriptor, before it is asked again."""


class Keeper(Protocol):
    """What keeps idle connections: a pool."""

    @property
    def idle_since(self) -> float:
        """When its oldest idle connection was used last, in monotonic seconds; infinite: none."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether a request uses one of its connections, or waits for one."""
        ...

    def close_oldest(self) -> None:
        """Close its oldest idle connection."""
        ...


class Capacity:
    """The places of one process. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = max(_FEWEST, most)
        self.kept = min(self.most, MOST_KEPT)
        self.taken = 0
        self.keepers: set[Keeper] = set()
        """The pools that have connections, or are opening some."""
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Those who wait for a place."""

    @property
    def is_short(self) -> bool:
        """Whether another connection costs an idle one, or has to wait."""
        return self.taken >= self.kept

    @property
    def share(self) -> float:
        """How many connections each pool that is busy may have now; at least one."""
        return max(1, self.most // max(1, self._busy)) if self.is_short else math.inf

    @property
    def _busy(self) -> int:
        return sum(keeper.is_busy for keeper in self.keepers)

    def wants_back(self, count: int) -> bool:
        """Whether a pool that has `count` connections must close one. To be asked if some wait.

        If there are more pools than places, they take turns.
        """
        return count > self.share or self._busy >= self.most

    async def take(self, peer: str, give_up: float) -> None:
        """Have a place until `give_back`; wait for it until `give_up`, a time of the loop's clock.

        Raises:
            TooManyOpenFiles: none was given back in time.
        """
        if self.is_short:
            self.close_idle()
        if self.taken < self.most and not self.waiting:
            self.taken += 1
            return
        await self._wait(peer, give_up)

    def give_back(self) -> None:
        """Give a place back; the one who has waited longest gets it."""
        if self.waiting:
            self.waiting.popleft().set_result(None)
        else:
            self.taken -= 1

    def close_idle(self) -> None:
        """Close the connection that has been idle longest, if one is idle at all."""
        oldest = min(self.keepers, key=lambda keeper: keeper.idle_since, default=None)
        if oldest is not None and oldest.idle_since <= time.monotonic() - IDLE_SECONDS:
            oldest.close_oldest()

    async def outlast(self, shortage: errors.TooManyOpenFiles, give_up: float) -> None:
        """Make room and wait a moment, after the system has refused a descriptor.

        Raises:
            TooManyOpenFiles: there is no time left for another try.
        """
        self.close_idle()
        if asyncio.get_running_loop().time() + PAUSE_SECONDS >= give_up:
            raise shortage
        await asyncio.sleep(PAUSE_SECONDS)

    async def _wait(self, peer: str, give_up: float) -> None:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self.waiting.append(place)
        try:
            while not place.done():
                left = give_up - loop.time()
                if left <= 0:
                    raise descriptors.too_many(peer)
                await asyncio.wait((place,), timeout=min(left, LOOK_SECONDS))
                if not place.done():
                    self.close_idle()
        except BaseException:
            if place.done():
                self.give_back()
            else:
                self.waiting.remove(place)
            raise


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Capacity] = WeakKeyDictionary()
_share = 0.25


def claim(share: float) -> None:
    """Let connections to stores be this share of the descriptors: the process does little else.

    Without it they may be a quarter. The control plane also has clients, a database and workers.
    """
    global _share
    _share = share


def of_process() -> Capacity:
    """The capacity of this process. It has one event loop that uses connections."""
    loop = asyncio.get_running_loop()
    found = _of_loops.get(loop)
    if found is None:
        found = _of_loops[loop] = Capacity(int(descriptors.limit() * _share))
    return found
