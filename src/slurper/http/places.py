"""Lends places. Each account and each token may hold some, and all together may hold some more.

So what one account holds for ever is lost to that account alone. A token may be good for every
account, and name as many as it likes: so it has a share of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple


class Crowded(Exception):
    """So many wait for a place that nobody else may."""


class Owner(NamedTuple):
    """Who holds places."""

    account: str = ""
    token: str | None = None
    """The name of the token by which the account acts; None: by none, as the command line does."""


NOBODY = Owner()


class Share(NamedTuple):
    """What one account, or one token, may have."""

    places: int
    waiting: int
    """So many may wait."""


_Holder = tuple[str, str]
"""What has a share, and its name."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    owner: Owner
    size: int


class Places:
    """Lends places. Those who wait get theirs in the order in which they came.

    Who waits for others of its own account or token holds up nobody else.
    """

    def __init__(self, *, of_account: Share, of_token: Share, most: int) -> None:
        self._of_account = of_account
        self._of_token = of_token
        self._most = most
        self._total = 0
        self._held: Counter[_Holder] = Counter()
        self._waiting: dict[asyncio.Future[None], _Waiting] = {}
        """Who waits, in order."""

    async def take(self, owner: Owner, size: int = 1) -> None:
        """Take places of an owner, or wait for them. They are held until `give_back`.

        Raises:
            Crowded: as many as may wait for the owner wait already.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = _Waiting(owner, size)
        self._lend()
        if turn.done():
            return
        try:
            self._refuse_crowd(owner)
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came in the same turn of the loop
                self.give_back(owner, size)
            raise
        finally:
            if self._waiting.pop(turn, None) is not None:
                self._lend()  # it may have been in the way of others

    def give_back(self, owner: Owner, size: int = 1) -> None:
        """Give back places, and lend them to those who wait."""
        self._add(owner, -size)
        self._lend()

    def _add(self, owner: Owner, size: int) -> None:
        self._total += size
        for holder, _ in self._shares(owner):
            self._held[holder] += size
            if not self._held[holder]:
                del self._held[holder]

    def _lend(self) -> None:
        """Serve those who wait, in order, as far as there is room."""
        full = set[_Holder]()
        for turn, wanted in list(self._waiting.items()):
            if turn.done():
                continue
            shares = self._shares(wanted.owner)
            short = {
                holder
                for holder, share in shares
                if holder in full or self._held[holder] + wanted.size > share.places
            }
            if short:
                full |= short
            elif self._total + wanted.size > self._most:
                return
            else:
                self._add(wanted.owner, wanted.size)
                del self._waiting[turn]
                turn.set_result(None)

    def _refuse_crowd(self, owner: Owner) -> None:
        waiting = Counter(
            holder
            for turn, each in self._waiting.items()
            if not turn.done()
            for holder, _ in self._shares(each.owner)
        )
        if any(waiting[holder] > share.waiting for holder, share in self._shares(owner)):
            raise Crowded

    def _shares(self, owner: Owner) -> list[tuple[_Holder, Share]]:
        """Whose shares an owner's places count towards."""
        shares: list[tuple[_Holder, Share]] = [(("account", owner.account), self._of_account)]
        if owner.token is not None:
            shares.append((("token", owner.token), self._of_token))
        return shares
