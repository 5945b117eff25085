"""Does a store serve others while it fails one object?

Most failures pass, so requests wait for that. But for an object that its store cannot read, for
example, the answer always is 500 or 503, or breaks off. When everything else of a job is done, a
long wait for it is useless.
The witness is the object that was read last, or written last: it is asked for again. A store that
is down, or restarts, does not serve the witness either.

Requests for parts of large objects get more retries. There may be many parts at the target already,
which are lost with the object.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from slurper.http.messages import Request

ASKED_AGAIN_SECONDS = 1.0
"""After a store did not serve the witness, it is not asked again for so long."""

PART_RETRIES = 5
"""A request for a part is given up after so many retries that failed alike."""

SERVED = frozenset({200, 204, 206, 416})
"""Answers of a store that works. The last one says that an empty object has no first byte."""

_READS = frozenset({"GET", "HEAD"})


class Witness:
    """Answers for one store."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[bool]],
        write: Callable[[str], Awaitable[bool]] | None,
    ) -> None:
        """`read` and `write` ask once for what a target names, and leave nothing behind."""
        self._read = read
        self._write = write
        self._asking = asyncio.Lock()
        self._answers: dict[str, tuple[float, bool]] = {}
        self.read_last = ""
        """The target of the request by which an object was read last."""
        self.written_last = ""
        """The target of the request by which an object was written last."""

    async def serves_others(self, request: Request, since: float, retries: int) -> bool:
        """Whether the store serves another request than this one.

        `since` is in monotonic seconds: answers to earlier questions do not count. `retries` of
        this request have failed alike.
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
    """For its parts an object may bear witness itself: the question is for another piece of it."""
    return "range" in request.headers or "uploadId=" in request.target.partition("?")[2]


def _path(target: str) -> str:
    return target.partition("?")[0]
