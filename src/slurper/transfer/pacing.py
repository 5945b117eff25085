"""How much may be under way at once: bytes in flight per process (design rule 9)."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Admits units of work while their bytes fit into the budget, first come first served.

    A unit larger than the whole budget is admitted alone, so that it is slow instead of stuck.
    Memory is therefore at most `limit` or the largest single unit, whichever is more.
    """

    def __init__(self, limit: int) -> None:
        """Take the budget in bytes."""
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes are admitted. Cancelling gives the place up."""
        if not self._waiting and self._fits(size):
            self.used += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            else:
                self._waiting.remove((size, turn))
                self._admit()
            raise

    def release(self, size: int) -> None:
        """Give `size` admitted bytes back."""
        self.used -= size
        if self._waiting:
            self._admit()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self.limit or self.used == 0

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)
