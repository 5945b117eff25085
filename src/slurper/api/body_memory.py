"""How much memory large bodies may take: requests until they are answered, answers until sent.

A list of ten thousand keys takes tens of megabytes, and a create holds it until its stores are
checked. So large bodies claim memory first:

- What takes up to `FREE_BYTES` needs no claim. There can be one such body for each connection.
- A larger body claims once, before it goes on: what it may take at most, by its length. If there is
  no room, it waits for its turn. A body that waits holds nothing, so no two wait for each other.
- When it has been read, it keeps what it takes, and gives back the rest.
- An answer that shows a job with many keys claims in the same way, before the keys are read.
- A quarter of all is the most for one account, and half of all for one token.

What counts is the memory that the values take, not their bytes: see `JsonReader.held_bytes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from slurper.api.envelope import Code, Problem, Refusal, malformed
from slurper.http.places import Crowded, Owner, Places, Share
from slurper.settings import KIB, MIB

FREE_BYTES = 64 * KIB
"""So much is free for every body. All usual requests take less."""

MOST_BYTES = 48 * MIB
"""No valid body takes more. That is ten thousand keys of 1,024 bytes in UTF-8, each with a
character that makes Python keep all of its characters in four bytes."""

BYTES_FOR_A_BYTE = 4
"""A text of ASCII with a single emoji takes so many times its bytes."""

VALUES_BYTES = 4 * MIB
"""The most that values and names take besides their characters: there are few enough of them."""

WAIT_SECONDS = 5.0
RETRY_SECONDS = 5
"""When to try again if there was no room."""

_WAITING = 64
"""So many bodies of an account, or of a token, wait for room."""


class BodyMemory:
    """What the bodies of one process take."""

    def __init__(self, most_bytes: int) -> None:
        self._places = Places(
            of_account=Share(max(most_bytes // 4, MOST_BYTES), _WAITING),
            of_token=Share(max(most_bytes // 2, MOST_BYTES), _WAITING),
            most=most_bytes,
        )

    @contextmanager
    def claim(self, owner: Owner) -> Iterator[Claim]:
        """Have a claim for the body of one request. In the end, all of it is given back."""
        claim = Claim(self._places, owner)
        try:
            yield claim
        finally:
            claim.keep(0)


class Claim:
    """What one body may take."""

    def __init__(self, places: Places, owner: Owner) -> None:
        self._places = places
        self._owner = owner
        self._claimed = 0

    async def grow(self, held_bytes: int, *, length: int) -> None:
        """Take care that the body may take `held_bytes`. It is at most `length` bytes long.

        Raises:
            Refusal: 429 if there is no room; 400 if no valid body takes so much.
        """
        if held_bytes <= max(FREE_BYTES, self._claimed):
            return
        if self._claimed:
            raise malformed("the body takes more memory than any valid request")
        size = min(BYTES_FOR_A_BYTE * length + VALUES_BYTES, MOST_BYTES)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._places.take(self._owner, size)
        except (Crowded, TimeoutError):
            raise _no_room() from None
        self._claimed = size

    def keep(self, held_bytes: int) -> None:
        """Give back what the body does not take."""
        kept = min(self._claimed, held_bytes if held_bytes > FREE_BYTES else 0)
        if kept < self._claimed:
            self._places.give_back(self._owner, self._claimed - kept)
            self._claimed = kept


def _no_room() -> Refusal:
    text = (
        "the large bodies of this account, of this token or of all requests take all the memory "
        "that they may; try again when some have been answered"
    )
    problem = Problem(Code.TOO_MANY_REQUESTS, text)
    headers = {"retry-after": str(RETRY_SECONDS)}
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, problem, headers)
