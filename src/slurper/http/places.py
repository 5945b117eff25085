"""Lends places. Each owner may hold a few, and all owners together may hold some more.

So what one owner holds for ever is lost to that owner alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter


class Crowded(Exception):
    """So many wait for a place that nobody else may."""


class Places:
    """Lends places; those who wait get theirs in the order in which they came."""

    def __init__(self, *, most_of_one: int, most: int, most_waiting_of_one: int) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._most_waiting_of_one = most_waiting_of_one
        self._held: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}
        """Who waits, in order, and for which owner."""

    async def take(self, owner: str) -> None:
        """Take a place of an owner, or wait for one. It is held until `give_back`.

        Raises:
            Crowded: as many as may wait for the owner wait already.
        """
        if self._is_free(owner):
            self._held[owner] += 1
            return
        if sum(each == owner for each in self._waiting.values()) >= self._most_waiting_of_one:
            raise Crowded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = owner
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same turn of the loop
                self.give_back(owner)
            raise
        finally:
            self._waiting.pop(turn, None)

    def give_back(self, owner: str) -> None:
        """Give back a place, and lend it to one who waits."""
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        for turn, waits in list(self._waiting.items()):
            if not turn.done() and self._is_free(waits):
                self._held[waits] += 1
                del self._waiting[turn]
                turn.set_result(None)

    def _is_free(self, owner: str) -> bool:
        return self._held[owner] < self._most_of_one and self._held.total() < self._most
