from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from slurper.transfer.pacing import ByteBudget


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
