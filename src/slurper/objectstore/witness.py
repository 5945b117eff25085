"""Finds out whether a store still serves other objects while it fails one.

Most failures pass, so requests wait and try again. But some objects fail every time. For example,
if a store cannot read an object, its answer is always 500 or 503, or breaks off. When the rest of
a job is done, a long wait for such an object is useless.

The witness is the object that was read or written last. It is asked for again. A store that is
down, or restarts, does not serve the witness either.

Requests for parts of large objects get more retries. If the object fails, all its parts that are
already at the target are lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from slurper.http.messages import Request

ASKED_AGAIN_SECONDS = 1.0
"""If a store did not serve the witness, it is not asked again for this long."""

PART_RETRIES = 5
"""A request for a part is given up only after this many retries that failed in the same way."""

SERVED = frozenset({200, 204, 206, 416})
"""Statuses of a store that works. An empty object gets 416, because it has no first byte."""

_READS = frozenset({"GET", "HEAD"})


class Witness:
    """Asks one store for the witness, and keeps the answers."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[bool]],
        write: Callable[[str], Awaitable[bool]] | None,
    ) -> None:
        """`read` and `write` try a target once, and leave nothing behind in the store."""
        self._read = read
        self._write = write
        self._asking = asyncio.Lock()
        self._answers: dict[str, tuple[float, bool]] = {}
        self.read_last = ""
        """The target of the last request that read an object."""
        self.written_last = ""
        """The target of the last request that wrote an object."""

    async def serves_others(self, request: Request, since: float, retries: int) -> bool:
        """Whether the store serves another request than this one.

        `since` is in monotonic seconds. Answers to earlier questions do not count. `retries` is how
        many retries of this request failed in the same way.
        """
        is_read = request.method in _READS
        other = self.read_last if is_read else self.written_last
        ask = self._read if is_read else self._write
        is_of_parts = _is_of_parts(request)
        if not other or ask is None or (is_of_parts and retries < PART_RETRIES):
            return False
        if not is_of_parts and _path(request.target) == _path(other):
            return False
        async with self._asking:  # a task that waited here uses the answer of the first
            asked_at, answer = self._answers.get(request.method, (-math.inf, False))
            now = time.monotonic()
            was_no_just_now = not answer and now - asked_at < ASKED_AGAIN_SECONDS
            if asked_at < since and not was_no_just_now:
                answer = await ask(other)
                self._answers[request.method] = now, answer
            return answer


def _is_of_parts(request: Request) -> bool:
    """Whether a request is for a part. Then another part of the same object may be the witness."""
    return "range" in request.headers or "uploadId=" in request.target.partition("?")[2]


def _path(target: str) -> str:
    return target.partition("?")[0]
