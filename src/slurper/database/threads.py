"""Threads in which transactions run, and queues of transactions that wait for a thread.

A transaction that has begun always runs to its end, even when its caller is cancelled. Its
statement runs in SQLite or on the server. If we left it there, the transaction would stay open and
keep its locks. So a cancelled caller waits for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from slurper import errors

Result = TypeVar("Result")


class NoTurnError(Exception):
    """A transaction has not begun, and will not begin; the text says why."""


class Threads:
    """A few threads for one kind of transaction, so that the other kind does not wait for it."""

    def __init__(self, name: str, number: int) -> None:
        self._executor = ThreadPoolExecutor(number, thread_name_prefix=f"slurper-{name}")
        _start_all(self._executor, number)
        self._turns = asyncio.Semaphore(number)
        self._closed = False

    async def run(self, transaction: Callable[[], Result], patience_seconds: float) -> Result:
        """Run a transaction in a thread, after all that came before it.

        Raises:
            NoTurnError: it has not begun in time, and will not begin.
        """
        async with self._turn(patience_seconds):
            if self._closed:
                raise NoTurnError("it has been closed")
            loop = asyncio.get_running_loop()
            return await _its_end(loop.run_in_executor(self._executor, transaction))

    def close(self) -> None:
        """End the threads, after the transactions that they run have ended."""
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


def _start_all(executor: ThreadPoolExecutor, number: int) -> None:
    """Start the threads now, while nothing depends on them.

    Later the system may refuse one. Then the executor raises an error, but it keeps the transaction
    in its queue: nobody could say whether it will run.
    """
    all_run = threading.Barrier(number)
    try:
        for _ in range(number):
            executor.submit(all_run.wait)
    except RuntimeError as error:
        all_run.abort()
        executor.shutdown(wait=False)
        raise errors.ConfigurationError(
            f"the system allows too few threads ({error}): raise `ulimit -u` for this program "
            "(TasksMax= of systemd, --pids-limit of Docker)"
        ) from error


async def _its_end(transaction: asyncio.Future[Result]) -> Result:
    """Wait for a transaction. When cancelled, wait for its end first."""
    try:
        return await asyncio.shield(transaction)
    except asyncio.CancelledError:
        while not transaction.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([transaction])
        if not transaction.cancelled():
            transaction.exception()  # read it, because no caller will
        raise
