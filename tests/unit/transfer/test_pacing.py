from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurper.settings import MIB
from slurper.transfer.pacing import (
    BURST_SECONDS,
    FIRST_ALLOWANCE_BYTES,
    FULL_RATE,
    NEXT_TRIAL_SECONDS,
    ByteBudget,
    Pacer,
)
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


async def test_all_who_wait_may_be_cancelled_at_once() -> None:
    budget = ByteBudget(100)
    await budget.acquire(100)
    waiting = [asyncio.create_task(budget.acquire(60)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    budget.release(100)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert all(task.cancelled() for task in waiting)
    assert budget.used == 0


async def test_what_a_distant_network_holds_may_be_in_flight_at_once() -> None:
    delays = [0.0]
    budget = ByteBudget(256 * MIB, delay=lambda: delays[0])
    await budget.acquire(16 * MIB)
    waiting = [asyncio.create_task(budget.acquire(16 * MIB)) for _ in range(20)]
    await asyncio.sleep(0)
    assert budget.used == 16 * MIB
    delays[0] = 0.1  # known from the first answers
    budget.release(16 * MIB)
    await asyncio.sleep(0)
    expected = FIRST_ALLOWANCE_BYTES + int(0.1 * FULL_RATE)
    assert budget.allowed == expected
    assert budget.used == expected // (16 * MIB) * 16 * MIB
    delays[0] = 9.0
    budget.release(16 * MIB)
    assert budget.allowed == 256 * MIB
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_first_unit_that_does_not_fit_is_admitted_if_the_network_holds_it() -> None:
    budget = ByteBudget(256 * MIB, delay=lambda: 32 * MIB / FULL_RATE)
    async with asyncio.timeout(5):
        for _ in range(3):
            await budget.acquire(16 * MIB)
    assert budget.used == 48 * MIB


class Line:
    """Moves units through a budget, in a time of its own that passes from unit to unit.

    Each unit takes as long as it would alone; all together move at most `most` bytes per second.
    """

    def __init__(self, limit: int, *, each: float, most: float) -> None:
        self.now = 0.0
        self.each = each
        self.most = most
        self.budget = ByteBudget(limit, clock=lambda: self.now)
        self._under_way: list[tuple[float, int]] = []
        self._last_end = 0.0

    async def _begin(self, size: int) -> None:
        await self.budget.acquire(size)
        end = max(self.now + size / self.each, self._last_end + size / self.most)
        self._last_end = end
        self._under_way.append((end, size))

    async def move(self, size: int, *, seconds: float) -> None:
        """Move units of one size for so long; there are always more that wait."""
        until = self.now + seconds
        lanes = [asyncio.create_task(self._begin(size)) for _ in range(300)]
        await asyncio.sleep(0)
        while self.now < until:
            first = min(self._under_way)
            self._under_way.remove(first)
            self.now = first[0]
            lanes.append(asyncio.create_task(self._begin(size)))
            self.budget.release(size)
            for _ in range(3):
                await asyncio.sleep(0)
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        for _, one in self._under_way:
            self.budget.release(one)
        self._under_way.clear()


@pytest.mark.parametrize("size", [MIB, 5 * MIB, 16 * MIB, 64 * MIB])
async def test_more_is_in_flight_where_the_network_is_waited_for(size: int) -> None:
    line = Line(256 * MIB, each=50.0 * MIB, most=math.inf)
    await line.move(size, seconds=8 * (0.25 + size / line.each))
    assert line.budget.allowed == 256 * MIB


@pytest.mark.parametrize("size", [MIB, 5 * MIB, 16 * MIB])
async def test_no_more_is_in_flight_than_makes_it_faster(size: int) -> None:
    line = Line(256 * MIB, each=2000.0 * MIB, most=500.0 * MIB)
    await line.move(size, seconds=NEXT_TRIAL_SECONDS / 2)
    assert line.budget.allowed == FIRST_ALLOWANCE_BYTES


async def test_half_way_is_enough_where_that_fills_the_line() -> None:
    line = Line(512 * MIB, each=50.0 * MIB, most=400.0 * MIB)
    await line.move(16 * MIB, seconds=NEXT_TRIAL_SECONDS / 2)
    filled = 8 * 16 * MIB
    assert filled <= line.budget.allowed <= 2 * filled


async def test_a_network_that_changes_is_tried_again() -> None:
    line = Line(256 * MIB, each=2000.0 * MIB, most=500.0 * MIB)
    await line.move(16 * MIB, seconds=NEXT_TRIAL_SECONDS / 2)
    line.each, line.most = 50.0 * MIB, math.inf
    await line.move(16 * MIB, seconds=2 * NEXT_TRIAL_SECONDS)
    assert line.budget.allowed == 256 * MIB


async def test_nothing_is_concluded_while_nobody_waits() -> None:
    line = Line(256 * MIB, each=50.0 * MIB, most=math.inf)
    for _ in range(1000):
        await line.budget.acquire(MIB)
        line.now += 1.0
        line.budget.release(MIB)
    assert line.budget.allowed == FIRST_ALLOWANCE_BYTES


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 80 * MIB), min_size=1, max_size=6),
    limit=st.integers(FIRST_ALLOWANCE_BYTES, 300 * MIB),
    each=st.floats(MIB, 1000.0 * MIB),
    most=st.floats(MIB, 1000.0 * MIB),
)
def test_the_allowance_stays_within_its_bounds(
    sizes: list[int], limit: int, each: float, most: float
) -> None:
    async def scenario() -> None:
        line = Line(limit, each=each, most=most)
        for size in sizes:
            await line.move(size, seconds=20 * size / min(each, most))
            assert FIRST_ALLOWANCE_BYTES <= line.budget.allowed <= limit
        assert line.budget.used == 0

    asyncio.run(scenario())


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


async def begin(pacer: Pacer, *, size: int, requests: int) -> None:
    async with pacer.queue:
        await pacer.turn()
        pacer.spend(size=size, requests=requests)


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
                await begin(pacer, size=size, requests=2)

        await asyncio.gather(*(lane() for _ in range(lanes)))
        seconds = time.now - 100 + pacer.owed_seconds
        assert math.isclose(seconds, sum(sizes) / rate, rel_tol=1e-6)

    asyncio.run(scenario())


async def test_requests_come_at_the_rate_of_the_share() -> None:
    time = Time()
    pacer = time.pacer(requests_per_second=50)
    for _ in range(100):
        await begin(pacer, size=10**9, requests=2)
    assert math.isclose(time.now - 100 + pacer.owed_seconds, 4.0)


async def test_the_slower_of_two_limits_decides() -> None:
    time = Time()
    pacer = time.pacer(requests_per_second=1, bytes_per_second=10)
    for size in (0, 100, 0, 0):
        await begin(pacer, size=size, requests=1)
    assert 112 - 2 * BURST_SECONDS <= time.now <= 112


async def test_a_large_unit_begins_at_once_and_is_owed() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=1e6)
    await begin(pacer, size=64_000_000, requests=2)
    assert time.now == 100
    assert pacer.owed_seconds == 64
    async with pacer.queue:
        await pacer.turn(until=108)
    assert time.now == 108
    assert pacer.owed_seconds == 56


async def test_listing_does_not_wait_for_bytes() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=1, requests_per_second=10)
    await begin(pacer, size=1_000, requests=2)
    await pacer.turn_to_ask()
    assert math.isclose(time.now, 100.2)


async def test_what_was_not_used_is_caught_up_with_for_a_moment_only() -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=100)
    time.now += 3600
    began = time.now
    for _ in range(100):
        await begin(pacer, size=10, requests=1)
    assert math.isclose(time.now - began + pacer.owed_seconds, 10 - BURST_SECONDS)


@pytest.mark.parametrize(("credit", "used"), [(0.0, 0.0), (0.3, 0.3), (3600.0, BURST_SECONDS)])
async def test_the_time_between_two_tasks_is_made_up_for(credit: float, used: float) -> None:
    time = Time()
    pacer = time.pacer(bytes_per_second=100, credit_seconds=credit)
    for _ in range(100):
        await begin(pacer, size=10, requests=1)
    assert math.isclose(time.now - 100 + pacer.owed_seconds, 10 - used)
