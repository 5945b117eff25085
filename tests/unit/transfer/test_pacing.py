from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurper.transfer.pacing import BURST_SECONDS, ByteBudget, Pacer
from slurper.transfer.task import Share


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 60), max_size=40), limit=st.integers(1, 50))
def test_never_more_than_the_budget_or_one_large_unit(sizes: list[int], limit: int) -> None:
    async def scenario() -> None:
        budget = ByteBudget(limit)
        admitted: list[int] = []
        under_way: list[int] = []

        async def unit(size: int) -> None:
            await budget.acquire(size)
            admitted.append(size)
            under_way.append(size)
            large = [one for one in under_way if one > 0]
            assert sum(under_way) <= limit or len(large) == 1
            await asyncio.sleep(0)
            under_way.remove(size)
            budget.release(size)

        await asyncio.gather(*(unit(size) for size in sizes))
        assert sorted(admitted) == sorted(sizes)
        assert budget.used == 0

    asyncio.run(scenario())


async def test_first_come_first_served() -> None:
    budget = ByteBudget(10)
    await budget.acquire(8)
    order: list[str] = []

    async def unit(name: str, size: int) -> None:
        await budget.acquire(size)
        order.append(name)

    large = asyncio.create_task(unit("large", 10))
    small = asyncio.create_task(unit("small", 1))
    await asyncio.sleep(0)
    assert order == []
    budget.release(8)
    await large
    budget.release(10)
    await small
    assert order == ["large", "small"]


async def test_a_cancelled_waiter_gives_its_place_to_the_next() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    first = asyncio.create_task(budget.acquire(10))
    second = asyncio.create_task(budget.acquire(5))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    budget.release(10)
    await second
    assert budget.used == 5


async def test_cancelled_in_the_moment_of_admission_the_bytes_come_back() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    waiter = asyncio.create_task(budget.acquire(10))
    await asyncio.sleep(0)
    budget.release(10)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert budget.used == 0


class Time:
    """Passes only while somebody sleeps."""

    now = 100.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def pacer(self, **rates: float) -> Pacer:
        return Pacer(Share(**rates), clock=self.clock, sleep=self.sleep)


@given(
    sizes=st.lists(st.integers(1, 5_000), min_size=50, max_size=200),
    rate=st.floats(10, 1e6),
    lanes=st.integers(1, 16),
)
@settings(max_examples=50)
def test_bytes_come_at_the_rate_of_the_share(sizes: list[int], rate: float, lanes: int) -> None:
    async def scenario() -> None:
        time = Time()
        pacer = time.pacer(bytes_per_second=rate)
        todo = iter(sizes)

        async def lane() -> None:
            for size in todo:
                await pacer.begin(size=size, requests=2)

        await asyncio.gather(*(lane() for _ in range(lanes)))
        seconds = time.now - 100 + pacer.owed_seconds
        assert math.isclose(seconds, sum(sizes) / rate, rel_tol=1e-6)

    asyncio.run(scenario())


async def test_requests_come_at_the_rate_of_the_share() -> None:
    time = Time()
    pacer = time.pacer(requests_per_second=50)
    for _ in range(100):
        await pacer.begin(size=10**9, requests=2)
    assert math.isclose(time.now - 100 + pacer.owed_seconds, 4.0)


async def test_the_slower_of_two_limits_decides() -> None:
    time = Time()
    pacer = time.pacer(requests_per_second=1, bytes_per_second=10)
    for size in (0, 100, 0, 0):
        await pacer.begin(size=size, requests=1)
    assert 112 - 2 * BURST_SECONDS <= time.now <= 112


async def test_a_large_unit_begins_at_once_and_is_owed() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=1e6)
    await pacer.begin(size=64_000_000, requests=2)
    assert time.now == 100
    assert pacer.owed_seconds == 64
    async with pacer.queue:
        await pacer.turn(until=108)
    assert time.now == 108
    assert pacer.owed_seconds == 56


async def test_listing_does_not_wait_for_bytes() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=1, requests_per_second=10)
    await pacer.begin(size=1_000, requests=2)
    await pacer.turn_to_ask()
    assert math.isclose(time.now, 100.2)


async def test_what_was_not_used_is_caught_up_with_for_a_moment_only() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=100)
    time.now += 3600
    began = time.now
    for _ in range(100):
        await pacer.begin(size=10, requests=1)
    assert math.isclose(time.now - began + pacer.owed_seconds, 10 - BURST_SECONDS)


@pytest.mark.parametrize(("credit", "used"), [(0.0, 0.0), (0.3, 0.3), (3600.0, BURST_SECONDS)])
async def test_the_time_between_two_tasks_is_made_up_for(credit: float, used: float) -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=100, credit_seconds=credit)
    for _ in range(100):
        await pacer.begin(size=10, requests=1)
    assert math.isclose(time.now - 100 + pacer.owed_seconds, 10 - used)
