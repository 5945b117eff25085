"""The target's listing beside the source's, in the same order and in different ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurper.objectstore.base import ListingPage
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.memory import MemoryStore
from slurper.transfer.listing import ListedTarget

keys = st.lists(st.text("a/-0", min_size=1, max_size=4), max_size=20, unique=True)


class FolderStore(MemoryStore):
    """Lists as a store that keeps a tree of directories."""

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        rank = KeyOrder.FOLDERS.rank
        everything = await super().list_page(prefix=prefix)
        found = sorted(everything.objects, key=lambda meta: rank(meta.key))
        if start_after is not None:
            found = [meta for meta in found if rank(meta.key) > rank(start_after)]
        return ListingPage(found[:max_keys], len(found) <= max_keys, KeyOrder.FOLDERS)


async def ask(store: MemoryStore, wanted: Sequence[str], order: KeyOrder, step: int) -> set[str]:
    target = ListedTarget(store, prefix="", start_after=None)
    ascending = sorted(wanted, key=order.rank)
    found: set[str] = set()
    for start in range(0, len(ascending), step):
        found |= (await target.among(ascending[start : start + step], order)).keys()
    return found


@settings(deadline=None, max_examples=60)
@given(
    ours=keys,
    theirs=keys,
    kind=st.sampled_from([MemoryStore, FolderStore]),
    order=st.sampled_from(KeyOrder),
    step=st.integers(1, 5),
)
def test_it_tells_exactly_what_is_there(
    ours: list[str], theirs: list[str], kind: type[MemoryStore], order: KeyOrder, step: int
) -> None:
    store = kind()
    for key in theirs:
        store.add(key)
    assert asyncio.run(ask(store, ours, order, step)) == set(ours) & set(theirs)


@pytest.mark.parametrize(("order", "heads"), [(KeyOrder.FOLDERS, 0), (KeyOrder.BYTES, 2)])
async def test_only_orders_that_differ_cost_a_request_per_key(order: KeyOrder, heads: int) -> None:
    store = FolderStore()
    store.add("a/b")
    assert await ask(store, ["a/b", "a-1"], order, 5) == {"a/b"}
    assert store.faults.requests.get("head", 0) == heads


def test_in_folder_order_a_folder_comes_before_its_longer_neighbours() -> None:
    listed = ["a/b", "a/c/x", "a/c-1", "a/z", "a-1", "a.txt", "a0"]
    assert sorted(listed, key=KeyOrder.FOLDERS.rank) == listed
