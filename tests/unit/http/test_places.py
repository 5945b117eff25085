"""Places. Each account and each token may hold a few of them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.http.places import Crowded, Owner, Places, Share

OF_ACCOUNT, OF_TOKEN, MOST = 4, 6, 9


def places(account: int = 2, most: int = 3, waiting: int = 10) -> Places:
    return Places(of_account=Share(account, waiting), of_token=Share(most, waiting), most=most)


async def taken(lent: Places, account: str, size: int = 1, token: str | None = None) -> Taking:
    """Try to take places; the task is done if there were some."""
    task = asyncio.ensure_future(lent.take(Owner(account, token), size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


Taking = asyncio.Task[None]


async def test_an_account_that_holds_all_it_may_waits_alone() -> None:
    lent = places()
    assert all([(await taken(lent, "a")).done() for _ in range(2)])
    third = await taken(lent, "a")
    assert not third.done()
    assert (await taken(lent, "b")).done()
    lent.give_back(Owner("a"))
    await third


async def test_a_token_has_its_share_whatever_accounts_it_names() -> None:
    lent = Places(of_account=Share(2, 10), of_token=Share(3, 1), most=9)
    held = [await taken(lent, account, token="all") for account in "abc"]
    assert all(task.done() for task in held)
    fourth = await taken(lent, "d", token="all")
    assert not fourth.done()
    with pytest.raises(Crowded):
        await lent.take(Owner("e", "all"))
    assert (await taken(lent, "d", token="own")).done()
    lent.give_back(Owner("a", "all"))
    await fourth


async def test_all_together_are_limited_and_served_in_order() -> None:
    lent = places()
    for account in "abc":
        await lent.take(Owner(account))
    waiting = [await taken(lent, account) for account in "dd"]
    lent.give_back(Owner("a"))
    await waiting[0]
    assert not waiting[1].done()
    lent.give_back(Owner("b"))
    await waiting[1]


async def test_who_wants_much_is_not_passed_for_ever_by_those_who_want_little() -> None:
    lent = places(account=3)
    await lent.take(Owner("a"))
    much = await taken(lent, "b", 3)
    little = await taken(lent, "c")
    assert not little.done(), "there is room for it, but it came later"
    lent.give_back(Owner("a"))
    await much
    lent.give_back(Owner("b"), 3)
    await little


async def test_who_goes_leaves_its_turn_to_the_next() -> None:
    lent = places(account=1)
    await lent.take(Owner("a"))
    first, second = [await taken(lent, "a") for _ in range(2)]
    first.cancel()
    lent.give_back(Owner("a"))
    await second
    assert first.cancelled()


async def test_who_goes_is_no_longer_in_the_way() -> None:
    lent = places(account=3)
    await lent.take(Owner("a"))
    much = await taken(lent, "b", 3)
    little = await taken(lent, "c")
    much.cancel()
    await little


async def test_a_place_that_comes_to_one_who_goes_is_not_lost() -> None:
    lent = places(account=1)
    await lent.take(Owner("a"))
    leaving = await taken(lent, "a")
    lent.give_back(Owner("a"))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await taken(lent, "a")).done()


async def test_only_so_many_of_an_account_wait() -> None:
    lent = places(account=1, most=1, waiting=2)
    await lent.take(Owner("a"))
    waiting = [await taken(lent, "a") for _ in range(2)]
    with pytest.raises(Crowded):
        await lent.take(Owner("a"))
    other = await taken(lent, "b")
    assert not other.done()
    for task in (*waiting, other):
        task.cancel()


OWNERS = st.builds(Owner, st.sampled_from("abc"), st.sampled_from(["t", "u", None]))
STEPS = st.tuples(OWNERS, st.integers(1, OF_ACCOUNT), st.sampled_from("tgc"))


@given(st.lists(STEPS, max_size=60))
async def test_limits_hold_whatever_is_done(steps: list[tuple[Owner, int, str]]) -> None:
    lent = Places(of_account=Share(OF_ACCOUNT, 60), of_token=Share(OF_TOKEN, 60), most=MOST)
    held = list[tuple[Owner, int]]()
    waiting = list[tuple[Owner, int, Taking]]()
    for owner, size, step in steps:
        if step == "t":
            waiting.append((owner, size, await taken(lent, owner.account, size, owner.token)))
        elif step == "g" and held:
            lent.give_back(*held.pop(size % len(held)))
        elif step == "c" and waiting:
            waiting[size % len(waiting)][2].cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held += [(who, much) for who, much, task in waiting if ended(task)]
        waiting = [one for one in waiting if not one[2].done()]
        by_account, by_token = Counter[str](), Counter[str]()
        for who, much in held:
            by_account[who.account] += much
            if who.token is not None:
                by_token[who.token] += much
        assert by_account.total() <= MOST
        assert max(by_account.values(), default=0) <= OF_ACCOUNT
        assert max(by_token.values(), default=0) <= OF_TOKEN
        if waiting:  # the first waits only if there is no room for it
            who, much, _ = waiting[0]
            assert (
                by_account.total() + much > MOST
                or by_account[who.account] + much > OF_ACCOUNT
                or by_token[who.token or ""] + much > OF_TOKEN
            )
    for *_, task in waiting:
        task.cancel()


def ended(task: Taking) -> bool:
    return task.done() and not task.cancelled()
