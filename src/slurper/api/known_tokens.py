"""Tells which tokens exist, with ten queries a second at most.

It is for addresses that have failed too often. Guesses from there cost no query each, and they do
not wait. A right token works there as well, at the latest a tenth of a second after it was made.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from slurper.database.tokens import TokenStore, sha256_of

READ_SECONDS = 0.1
"""The hashes of all tokens are not read more often than this."""


class KnownTokens:
    """The hashes of all tokens, as of the last reading. Some may have been revoked since."""

    def __init__(self, tokens: TokenStore, now: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._now = now
        self._hashes: frozenset[bytes] = frozenset()
        self._read_at = -math.inf
        self._reading = asyncio.Lock()

    async def has(self, token: str) -> bool:
        """Whether a token is known. Raises DatabaseUnavailable."""
        wanted = sha256_of(token)
        if wanted not in self._hashes:
            async with self._reading:
                await self._read_again()
        return wanted in self._hashes

    async def _read_again(self) -> None:
        now = self._now()
        if now - self._read_at >= READ_SECONDS:
            self._read_at = now
            self._hashes = await self._tokens.hashes()
