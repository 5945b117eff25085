"""Finds out whether the bucket or the key is absent, when an answer does not say."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from slurper import errors

SEEN_SECONDS = 30.0
"""After a bucket was found, it is not asked for again for this long."""


class BucketPresence:
    """Asks whether the bucket exists, after a request found a key absent.

    Only one task asks at a time. Tasks that come meanwhile wait, and use the same answer. Later
    tasks use it only if the bucket was there, and only for `SEEN_SECONDS`.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        """`ask` sends a request for the bucket itself, and raises its error."""
        self._ask = ask
        self._asking = asyncio.Lock()
        self._answered_at = -math.inf
        self._error: errors.SlurperError | None = None

    async def confirm(self) -> None:
        """Return if only the key is absent.

        Raises:
            NoSuchBucket: the bucket is absent.
            SlurperError, retryable: it could not be found out. The object may only be out of reach,
                so its key must not count as absent.
        """
        came_at = time.monotonic()
        async with self._asking:
            is_known = self._error is None and came_at < self._answered_at + SEEN_SECONDS
            if not is_known and self._answered_at < came_at:
                self._error = await self._find_out()
                self._answered_at = time.monotonic()
            if self._error is not None:
                raise self._error

    async def _find_out(self) -> errors.SlurperError | None:
        try:
            await self._ask()
        except errors.SlurperError as error:
            if error.retryable or isinstance(error, errors.NoSuchBucket):
                return error
            # If listing is not allowed or not possible, the key counts as absent.
        return None
