"""When an object, or a part, is begun again, and how often.

This is the object level. Below it, each HTTP request has its own retries (request level). So what
fails here has been tried for a while already.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from slurper import errors
from slurper.transfer.diagnosis import LEARNED_LATE

ATTEMPT_PAUSE_SECONDS = 0.5
"""Mean pause before the second attempt; doubles with each further one."""

Result = TypeVar("Result")


class SourceChangedError(errors.SlurperError):
    """The source no longer has the version that was listed; another attempt reads the new one."""


class TargetChangedError(errors.SlurperError):
    """An upload or object that was at the target a moment ago is gone; another attempt may pass."""

    advice = "somebody else removes objects or uploads at the target, or a rule of its bucket does"
    retryable = True


class PartsDisagreeError(errors.ChecksumDisagrees):
    """The parts that were read do not have the checksum that the source tells of the object."""


GONE = (SourceChangedError, TargetChangedError, PartsDisagreeError)
"""A large object that meets one of these is begun again, with a new upload."""


@dataclass(slots=True)
class Attempts:
    """How often a task may begin an object or part, and how often it has begun one again."""

    max: int
    again: int = 0

    async def repeat(self, request: Callable[[], Awaitable[Result]]) -> Result:
        """Make a request, and make it again while it fails for a cause that may pass.

        Raises:
            SlurperError: the last failure.
        """
        attempt = 1
        while True:
            try:
                return await request()
            except GONE:
                raise
            except errors.SlurperError as error:
                may_pass = error.retryable and not error.blocks_job
                learned_late = isinstance(error, LEARNED_LATE) and attempt == 1
                if not (may_pass or learned_late) or attempt >= self.max:
                    raise
            await pause_before(attempt + 1)
            attempt += 1
            self.again += 1


async def pause_before(attempt: int) -> None:
    """Wait before an attempt, so that the cause of the last failure may pass."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
    await asyncio.sleep(jitter * ATTEMPT_PAUSE_SECONDS * 2.0 ** (attempt - 2))


def changing_text(error: SourceChangedError, attempts: int) -> str:
    """The log entry of an object that changed during every attempt."""
    return (
        f"changed during each of {attempts} attempts: {error}; "
        "try it again by key when nobody writes to it"
    )
