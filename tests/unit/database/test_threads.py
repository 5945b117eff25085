"""A transaction in a thread: begun in order, ended whatever happens, in nobody else's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from slurper import errors
from slurper.database.threads import NoTurnError, Threads

LONG = 30.0


class Gate:
    """A transaction that has begun when the test sees it, and ends when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(LONG)
        self.ended = True
        return "done"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, LONG)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    one = Threads("test", 1)
    yield one
    one.close()


async def test_what_a_transaction_returns_or_raises_is_its_callers(threads: Threads) -> None:
    assert await threads.run(threading.get_ident, LONG) != threading.get_ident()

    def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        await threads.run(fail, LONG)
    assert await threads.run(lambda: 7, LONG) == 7


async def test_they_begin_in_order_and_one_at_a_time(threads: Threads) -> None:
    begun: list[int] = []

    def note(number: int) -> Callable[[], None]:
        return lambda: begun.append(number)

    await asyncio.gather(*(threads.run(note(number), LONG) for number in range(20)))
    assert begun == list(range(20))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_waits_for_the_end(threads: Threads, *, fails: bool) -> None:
    gate = Gate()

    def transaction() -> None:
        gate()
        if fails:
            raise RuntimeError("nobody is left to be told")

    caller = asyncio.create_task(threads.run(transaction, LONG))
    await gate.has_begun()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0.01)
    assert not caller.done()
    gate.may_end.set()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert gate.ended
    assert await threads.run(lambda: 7, LONG) == 7


async def test_one_that_has_no_turn_yet_is_cancelled_at_once_or_gives_up(threads: Threads) -> None:
    gate, begun = Gate(), []
    first = asyncio.create_task(threads.run(gate, LONG))
    await gate.has_begun()
    second = asyncio.create_task(threads.run(lambda: begun.append("second"), LONG))
    await asyncio.sleep(0)
    with pytest.raises(NoTurnError):
        await threads.run(lambda: begun.append("third"), 0.01)
    second.cancel()
    await asyncio.wait([second], timeout=1)
    assert second.cancelled()
    gate.may_end.set()
    assert await first == "done"
    assert await threads.run(lambda: 7, LONG) == 7
    assert begun == []


async def test_busy_threads_are_in_no_others_way(threads: Threads) -> None:
    other, gate = Threads("other", 2), Gate()
    first = asyncio.create_task(threads.run(gate, LONG))
    await gate.has_begun()
    async with asyncio.timeout(LONG):
        results = await asyncio.gather(*(other.run(lambda: 7, LONG) for _ in range(4)))
    assert results == [7] * 4
    gate.may_end.set()
    await first
    other.close()


async def test_closing_ends_the_threads() -> None:
    threads = Threads("closing", 2)
    await asyncio.gather(*(threads.run(lambda: None, LONG) for _ in range(4)))
    names = {thread.name for thread in threading.enumerate()}
    assert any(name.startswith("slurper-closing") for name in names)
    threads.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("slurper-closing") for name in names)
    with pytest.raises(NoTurnError, match="closed"):
        await threads.run(lambda: None, LONG)


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_system_that_allows_no_more_threads_is_not_asked_for_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = Threads("test", 3)
    all_run = threading.Barrier(3)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _refuse)
        runs = [threads.run(lambda: all_run.wait(LONG), LONG) for _ in range(3)]
        assert sorted(await asyncio.gather(*runs)) == [0, 1, 2]
    threads.close()


def test_a_system_that_allows_too_few_threads_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, left = threading.Thread.start, 2

    def start(thread: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            _refuse(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(errors.ConfigurationError, match="ulimit -u"):
        Threads("test", 3)
