"""Places; each owner may hold a few of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.http.places import Crowded, Places


def places(most_of_one: int = 2, most: int = 3, waiting: int = 10) -> Places:
    return Places(most_of_one=most_of_one, most=most, most_waiting_of_one=waiting)


async def taken(lent: Places, owner: str) -> asyncio.Task[None]:
    """Try to take a place; the task is done if there was one."""
    task = asyncio.ensure_future(lent.take(owner))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_an_owner_that_holds_all_it_may_waits_alone() -> None:
    lent = places()
    assert all([(await taken(lent, "a")).done() for _ in range(2)])
    third = await taken(lent, "a")
    assert not third.done()
    assert (await taken(lent, "b")).done()
    lent.give_back("a")
    await third


async def test_all_owners_together_are_limited_and_served_in_order() -> None:
    lent = places()
    for owner in "abc":
        await lent.take(owner)
    waiting = [await taken(lent, owner) for owner in "dd"]
    lent.give_back("a")
    await waiting[0]
    assert not waiting[1].done()
    lent.give_back("b")
    await waiting[1]


async def test_who_goes_leaves_its_turn_to_the_next() -> None:
    lent = places(most_of_one=1)
    await lent.take("a")
    first, second = [await taken(lent, "a") for _ in range(2)]
    first.cancel()
    lent.give_back("a")
    await second
    assert first.cancelled()


async def test_a_place_that_comes_to_one_who_goes_is_not_lost() -> None:
    lent = places(most_of_one=1)
    await lent.take("a")
    leaving = await taken(lent, "a")
    lent.give_back("a")
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await taken(lent, "a")).done()


async def test_only_so_many_of_an_owner_wait() -> None:
    lent = places(most_of_one=1, most=1, waiting=2)
    await lent.take("a")
    waiting = [await taken(lent, "a") for _ in range(2)]
    with pytest.raises(Crowded):
        await lent.take("a")
    other = await taken(lent, "b")
    assert not other.done()
    for task in (*waiting, other):
        task.cancel()


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("tgc")), max_size=60))
async def test_limits_hold_whatever_is_done(steps: list[tuple[str, str]]) -> None:
    lent, held = places(), Counter[str]()
    waiting = list[tuple[str, asyncio.Task[None]]]()
    for owner, step in steps:
        mine = next((task for who, task in waiting if who == owner), None)
        if step == "t":
            waiting.append((owner, await taken(lent, owner)))
        elif step == "g" and held[owner]:
            held[owner] -= 1
            lent.give_back(owner)
        elif step == "c" and mine is not None:
            mine.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for who, task in waiting:
            if task.done() and not task.cancelled():
                held[who] += 1
        waiting = [(who, task) for who, task in waiting if not task.done()]
        assert held.total() <= 3
        assert max(held.values(), default=0) <= 2
        for who, _ in waiting:  # nobody waits while there is room
            assert held[who] == 2 or held.total() == 3
    for _, task in waiting:
        task.cancel()
