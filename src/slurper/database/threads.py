"""Threads in which transactions run, and the queues of those that wait for one.

A transaction that has begun ends, even when its caller is cancelled: the statement that it waits
for runs in SQLite or on the server, and to leave it there would leave the transaction open and its
locks taken. The cancelled caller waits for that end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

Result = TypeVar("Result")


class NoTurnError(Exception):
    """A transaction has not begun, and will not; says why."""


class Threads:
    """A few threads for one kind of transactions, so that another kind does not wait for it."""

    def __init__(self, name: str, number: int) -> None:
        self._executor = ThreadPoolExecutor(number, thread_name_prefix=f"slurper-{name}")
        self._turns = asyncio.Semaphore(number)
        self._closed = False

    async def run(self, transaction: Callable[[], Result], patience_seconds: float) -> Result:
        """Run a transaction in a thread, after those that came before.

        Raises:
            NoTurnError: it has not begun in time, and will not.
        """
        async with self._turn(patience_seconds):
            if self._closed:
                raise NoTurnError("it has been closed")
            loop = asyncio.get_running_loop()
            return await _its_end(loop.run_in_executor(self._executor, transaction))

    def close(self) -> None:
        """End the threads, and wait until what they do has ended."""
        self._closed = True
        self._executor.shutdown()

    @asynccontextmanager
    async def _turn(self, patience_seconds: float) -> AsyncIterator[None]:
        """Have a free thread while the block lasts."""
        try:
            async with asyncio.timeout(patience_seconds):
                await self._turns.acquire()
        except TimeoutError as error:
            text = "database is locked or busy, and others wait for it already"
            raise NoTurnError(text) from error
        try:
            yield
        finally:
            self._turns.release()


async def _its_end(transaction: asyncio.Future[Result]) -> Result:
    """Wait for a transaction; when cancelled, wait all the same, and be cancelled then."""
    try:
        return await asyncio.shield(transaction)
    except asyncio.CancelledError:
        while not transaction.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([transaction])
        if not transaction.cancelled():
            transaction.exception()  # nobody is left to be told
        raise
