"""The target's listing beside the source's, in the same order and in different ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurper.objectstore.base import ListingPage
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.listing import ListedTarget, listed_pages, page_keys, read_ahead
from tests.memory.store import MemoryStore

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


async def ask(
    store: MemoryStore,
    wanted: Sequence[str],
    order: KeyOrder,
    step: int,
    start_after: str | None = None,
) -> set[str]:
    target = ListedTarget(store, prefix="", start_after=start_after)
    ascending = sorted(wanted, key=order.rank)
    found: set[str] = set()
    for start in range(0, len(ascending), step):
        found |= (await target.among(ascending[start : start + step], order)).keys()
    return found


@settings(deadline=None, max_examples=300)
@given(
    ours=keys,
    theirs=keys,
    kind=st.sampled_from([MemoryStore, FolderStore]),
    order=st.sampled_from(KeyOrder),
    step=st.integers(1, 5),
    start_after=st.none() | st.text("a/-0", min_size=1, max_size=3),
)
def test_it_tells_exactly_what_is_there(
    ours: list[str],
    theirs: list[str],
    kind: type[MemoryStore],
    order: KeyOrder,
    step: int,
    start_after: str | None,
) -> None:
    """A task begins after a key of the source, in the source's order."""
    store = kind()
    for key in theirs:
        store.add(key)
    if start_after is not None:
        ours = [key for key in ours if order.rank(key) > order.rank(start_after)]
    told = asyncio.run(ask(store, ours, order, step, start_after))
    assert told == set(ours) & set(theirs)


@pytest.mark.parametrize(
    ("order", "wanted", "heads"),
    [
        (KeyOrder.FOLDERS, ["a/b", "a-1"], 0),
        (KeyOrder.BYTES, ["a-1", "a/b"], 2),
        (KeyOrder.BYTES, ["a/b", "b/c", "c"], 0),
    ],
)
async def test_only_keys_in_another_order_cost_a_request_each(
    order: KeyOrder, wanted: list[str], heads: int
) -> None:
    store = FolderStore()
    store.add("a/b")
    assert await ask(store, wanted, order, 5) == {"a/b"}
    assert store.faults.requests.get("head", 0) == heads


async def test_a_page_in_another_order_leaves_the_listing_where_it_is() -> None:
    """`b-1` comes after `b/x` there; what lies between them is not taken for absent later."""
    store = FolderStore()
    for key in ("a", "b/x", "b/z", "c"):
        store.add(key)
    target = ListedTarget(store, prefix="", start_after=None)
    found = [
        await target.among(keys, KeyOrder.BYTES) for keys in (["a", "b-1", "b/x"], ["b/z"], ["c"])
    ]
    assert [list(one) for one in found] == [["a", "b/x"], ["b/z"], ["c"]]
    assert store.faults.requests["head"] == 3


async def test_of_millions_of_other_keys_a_page_is_kept() -> None:
    store = MemoryStore()
    for number in range(5000):
        store.add(f"{number:04}")
    target = ListedTarget(store, prefix="", start_after=None)
    most = 0
    list_page = store.list_page

    async def watched(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        nonlocal most
        most = max(most, len(target._known))
        return await list_page(**arguments)

    store.list_page = watched  # type: ignore[method-assign]
    assert list(await target.among(["0000", "4999"], KeyOrder.BYTES)) == ["0000", "4999"]
    assert most <= 2


def test_in_folder_order_a_folder_comes_before_its_longer_neighbours() -> None:
    listed = ["a/b", "a/c/x", "a/c-1", "a/z", "a-1", "a.txt", "a0"]
    assert sorted(listed, key=KeyOrder.FOLDERS.rank) == listed


@pytest.mark.parametrize(
    ("expected", "asked_for"),
    [(None, [1000, 1000, 1000]), (1700, [1000, 1000, 1000]), (800, [1000]), (10, [100])],
)
async def test_no_more_is_listed_in_advance_than_is_expected_to_be_used(
    expected: int | None, asked_for: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    for number in range(5000):
        store.add(f"{number:04}")
    listed: list[int] = []
    list_page = store.list_page

    async def counted(
        *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        listed.append(max_keys)
        return await list_page(prefix=prefix, start_after=start_after, max_keys=max_keys)

    monkeypatch.setattr(store, "list_page", counted)
    pages = read_ahead(listed_pages(store, "", KeyRange(), max_keys=page_keys(expected)), expected)
    used = 0
    async for page in pages:
        used += len(page.rows)
        await asyncio.sleep(0)  # lets what is read ahead begin
        if used >= min(expected or 2000, 2000):
            break
    await pages.aclose()
    assert listed == asked_for


@given(count=st.integers(0, 3000), expected=st.none() | st.integers(1, 4000))
@settings(deadline=None, max_examples=40)
def test_every_key_comes_once_whatever_was_expected(count: int, expected: int | None) -> None:
    store = MemoryStore()
    for number in range(count):
        store.add(f"{number:04}")

    async def read() -> list[str]:
        plain = listed_pages(store, "", KeyRange(), max_keys=page_keys(expected))
        return [key async for page in read_ahead(plain, expected) for key, _ in page.rows]

    assert asyncio.run(read()) == [f"{number:04}" for number in range(count)]
