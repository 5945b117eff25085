"""Tells an absent bucket from an absent key, where the answer to a request does not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from slurper import errors

SEEN_SECONDS = 30.0
"""For so long a bucket that was there is not asked for again."""


class BucketPresence:
    """Whether a bucket is there: asked by who meets an absent key, and by one of them at a time.

    Whoever comes while the question is under way waits for its answer. It counts for all of them,
    whatever it is; afterwards only that the bucket was there counts, and that for a while.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        """`ask` sends a request for the bucket itself, and raises what it comes to."""
        self._ask = ask
        self._asking = asyncio.Lock()
        self._answered_at = -math.inf
        self._error: errors.SlurperError | None = None

    async def confirm(self) -> None:
        """Return when it is the key that is absent.

        Raises:
            NoSuchBucket: it is the bucket.
            SlurperError, retryable: that could not be found out. Taking the key for absent would
                settle an object that may only be out of reach.
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
            # Whoever may not list, or cannot, learns nothing of the key from that.
        return None
