"""Runs work in threads that would keep the event loop from answering others.

There are only two. A thread that computes takes turns with the loop, 5 ms each. So with many such
threads the loop would wait for long, although it is never held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

_threads = ThreadPoolExecutor(2, thread_name_prefix="slurper-offload")


async def run(work: Callable[[], Result], *, is_long: bool) -> Result:
    """Return what `work` returns, or raise what it raises. It goes on if the caller is cancelled.

    Work that is not long is done at once. Long work must be of many short steps: a single call that
    takes long would hold the interpreter, and so the loop.
    """
    if not is_long:
        return work()
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
