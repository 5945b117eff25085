"""A check under way: its time, what it has found out, and what it must still remove.

Questions run side by side, so each one that fails says what it was about. If one fails, the others
go on: they may be in the middle of writing. Written objects are removed in the background, so that
the next question need not wait. The check ends when everything is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

from slurper import errors
from slurper.job.model import Capabilities
from slurper.objectstore import own_keys
from slurper.objectstore.base import ProbedStore
from slurper.service.probes import clean_up

Cause = errors.SlurperError | TimeoutError

Removal = asyncio.Task[Cause | None]

One = TypeVar("One")
Other = TypeVar("Other")


class StepFailed(Exception):
    """A step of a check got no good answer; the text says which step, and why."""

    def __init__(self, step: str, cause: Cause) -> None:
        self.step = step
        self.cause = cause
        self.reason = _reason(cause)
        super().__init__(f"{step}: {self.reason}")


@dataclass(slots=True)
class Check:
    """The check of one side of a job."""

    began: float
    """A time of the event loop's clock, like `deadline`."""
    deadline: float
    """When all questions must be answered."""
    open_hasty: Callable[[ProbedStore], ProbedStore]
    """Opens the same store again, without retries: some requests are expected to fail."""
    notes: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What could not be removed, or may not have been removed."""
    found: Capabilities = field(default_factory=Capabilities)
    aborts: list[Removal] = field(default_factory=list)
    """The aborts of its uploads."""
    names: set[str] = field(default_factory=set)
    """Every key that this check writes contains one of these names."""
    _background: list[asyncio.Task[object]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def step(self, name: str, *, share: float = 1.0) -> AsyncIterator[None]:
        """Limit the block to the time that is left, or to a share of it. Raises StepFailed."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(now + (self.deadline - now) * share):
                yield
        except (errors.SlurperError, TimeoutError) as error:
            raise StepFailed(name, error) from error

    def new_key(self) -> str:
        """Return a new key to write to."""
        key = own_keys.new_key()
        self.names.add(key)
        return key

    def is_slow(self) -> bool:
        """Whether the time left is less than two thirds of the time used."""
        now = asyncio.get_running_loop().time()
        return (self.deadline - now) * 3 < (now - self.began) * 2

    def in_background(self, work: Coroutine[None, None, None]) -> None:
        """Run work in the background. The job does not need its result."""
        self._background.append(asyncio.ensure_future(_quietly(work)))

    def remove(self, removal: Awaitable[None], left: str) -> Removal:
        """Begin to remove what was written; `left` is what to say if that fails."""
        task = asyncio.ensure_future(self._removed(removal, left))
        self._background.append(task)
        return task

    async def _removed(self, removal: Awaitable[None], left: str) -> Cause | None:
        try:
            async with asyncio.timeout_at(self.deadline + clean_up.SECONDS):
                await removal
        except (errors.SlurperError, TimeoutError) as error:
            self.left.append(f"{left} ({_reason(error)})")
            return error
        return None

    async def end(self) -> None:
        """Wait for all background work, even when the check is cancelled meanwhile."""
        rest = asyncio.gather(*self._background)
        try:
            await asyncio.shield(rest)
        except asyncio.CancelledError:
            await rest
            raise


async def side_by_side(one: Awaitable[One], other: Awaitable[Other]) -> tuple[One, Other]:
    """Run both at the same time and wait for both. Then raise the error of one that failed."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    if isinstance(first, BaseException):
        raise first
    if isinstance(second, BaseException):
        raise second
    return first, second


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(errors.SlurperError, TimeoutError):
        await work


def _reason(error: Cause) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error)
