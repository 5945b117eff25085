"""Every page of a walk goes on where the one before ended, whatever a store repeats or mixes up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from slurper import errors
from slurper.objectstore import listings
from slurper.objectstore.base import ListingPage
from slurper.objectstore.dialects import GENERIC, KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.walk import walk
from tests.memory.store import MemoryStore

KEYS = [f"k{number:03}" for number in range(100)]


class Store(MemoryStore):
    """Shows 30 keys a page, perhaps what each begins after, and at times the page of another."""

    def __init__(self, keys: Sequence[str] = KEYS, *, tells: bool, most: int = 30) -> None:
        super().__init__()
        for key in keys:
            self.add(key)
        self.tells = tells
        self.most = most
        self.asked: list[tuple[str | None, int]] = []
        self.mixed_up: dict[tuple[str | None, bool], list[str | None]] = {}
        """After which key the next pages begin, by what is asked for and whether for few keys."""
        self.cut: dict[str | None, int] = {}
        """How often a page says that it is the last, by after which key it is asked for."""

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        self.asked.append((start_after, max_keys))
        instead = self.mixed_up.get((start_after, max_keys <= 2))
        begin = instead.pop(0) if instead else start_after
        page = await super().list_page(
            prefix=prefix, start_after=begin, max_keys=min(max_keys, self.most)
        )
        page.is_placed = self.tells and begin == start_after
        if max_keys > 2 and self.cut.get(start_after, 0) > 0:
            self.cut[start_after] -= 1
            page.finished = True
        return page


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listings, "AGAIN_PAUSE_SECONDS", 0.0)


async def walked(store: MemoryStore, part: KeyRange | None = None) -> list[str]:
    keys: list[str] = []
    part = part or KeyRange()
    steps = walk(store, part)
    while True:
        page = await steps.next_page()
        keys += [meta.key for meta in page.objects]
        if page.finished or (keys and part.ends_before(keys[-1])):
            return keys


@pytest.mark.parametrize("most", [1, 2, 3, 30, 99, 100])
@pytest.mark.parametrize("tells", [True, False])
async def test_every_key_comes_once(tells: bool, most: int) -> None:
    assert await walked(Store(tells=tells, most=most)) == KEYS
    assert await walked(Store([], tells=tells, most=most)) == []


@pytest.mark.parametrize(
    ("tells", "requests"),
    [
        (True, [(None, 1000), ("k029", 1000), ("k059", 1000), ("k089", 1000), ("k099", 2)]),
        (
            False,
            [
                (None, 1000),
                (None, 2),
                ("k028", 1000),
                ("k057", 1000),
                ("k086", 1000),
                ("k099", 2),
            ],
        ),
    ],
)
async def test_a_walk_costs_a_small_request_at_its_ends_and_none_per_page(
    tells: bool, requests: list[tuple[str | None, int]]
) -> None:
    store = Store(tells=tells)
    await walked(store)
    assert store.asked == requests


async def test_a_slice_that_is_left_by_its_last_page_costs_no_request() -> None:
    store = Store(tells=True)
    assert (await walked(store, KeyRange("k009", "k035")))[:26] == KEYS[10:36]
    assert store.asked == [("k009", 1000)]


@pytest.mark.parametrize("after", ["k010", "k050", "k098", "k099"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    "place",
    [
        (None, False),  # the first page
        (None, True),  # the question for its first key
        ("k028", False),  # the second page
        ("k099", True),  # the question whether there is more
    ],
)
async def test_a_page_of_a_later_place_is_asked_for_again(
    place: tuple[str | None, bool], times: int, after: str
) -> None:
    store = Store(tells=False)
    store.mixed_up[place] = [after] * times
    assert await walked(store) == KEYS
    assert len(store.mixed_up[place]) < times


@pytest.mark.parametrize("tells", [True, False])
async def test_what_lasts_ends_the_walk(tells: bool) -> None:
    store = Store(tells=tells)
    store.mixed_up[(None, False)] = ["k050"] * 9
    with pytest.raises(
        errors.ListingError, match=r"listing from its beginning leaves out 'k000'.*3 times in a row"
    ):
        await walked(store)


async def test_a_page_with_keys_where_there_are_none_is_told_so() -> None:
    store = Store(tells=False)
    store.mixed_up[(None, True)] = ["k099"] * 9
    says = "the listing from its beginning goes on, but the store shows no key when it is asked"
    with pytest.raises(errors.ListingError, match=says):
        await walked(store)


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("part", [KeyRange(), KeyRange(None, "k090"), KeyRange("k009")])
async def test_a_page_that_says_too_early_that_it_is_the_last_is_gone_on_from(
    part: KeyRange, tells: bool
) -> None:
    store = Store(tells=tells)
    await walked(store, part)
    for after, max_keys in list(store.asked):
        if max_keys > 2:
            store.cut[after] = 1
    expected = [key for key in KEYS if key in part]
    assert [key for key in await walked(store, part) if key in part] == expected
    assert 0 in store.cut.values()


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("gone", ["k000", "k028", "k029", "k030", "k099"])
async def test_what_is_deleted_meanwhile_is_no_obstacle(tells: bool, gone: str) -> None:
    store = Store(tells=tells)
    steps = walk(store, KeyRange())
    first = [meta.key for meta in (await steps.next_page()).objects]
    await store.delete(gone)
    second = [meta.key for meta in (await steps.next_page()).objects]
    both = first + second
    assert both == [key for key in KEYS if key in first or key != gone][: len(both)]
    assert len(second) >= 28


@pytest.mark.parametrize("new", ["k0285", "k0295", "k0300", "k000a"])
async def test_what_is_stored_meanwhile_is_listed_if_it_comes_later(new: str) -> None:
    store = Store(tells=False)
    steps = walk(store, KeyRange())
    first = [meta.key for meta in (await steps.next_page()).objects]
    store.add(new)
    second = [meta.key for meta in (await steps.next_page()).objects]
    missed = {new} if new < "k029" else set()
    assert second == sorted({*KEYS, new} - set(first) - missed)[: len(second)]


async def test_folder_order_is_walked_by_its_own_rank() -> None:
    class ByFolder(Store):
        async def list_page(
            self,
            *,
            prefix: str = "",
            start_after: str | None = None,
            max_keys: int = 1000,  # noqa: ARG002 - protocol
        ) -> ListingPage:
            rank = KeyOrder.FOLDERS.rank
            everything = (await MemoryStore.list_page(self, prefix=prefix)).objects
            found = sorted(everything, key=lambda meta: rank(meta.key))
            if start_after is not None:
                found = [meta for meta in found if rank(meta.key) > rank(start_after)]
            return ListingPage(found[:2], len(found) <= 2, KeyOrder.FOLDERS)

    names = ["a/b", "a/c/x", "a/c-1", "a/z", "a-1", "a.txt", "a0"]
    assert await walked(ByFolder(names, tells=False)) == names


# A store that lists in an order of its own


def hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Hashed(MemoryStore):
    """Lists by a hash of its keys; how it goes on after one is `goes_on`."""

    def __init__(self, keys: Sequence[str] = KEYS, *, most: int = 30, goes_on: str = "own") -> None:
        super().__init__(dialect=replace(GENERIC, own_order=True))
        for key in keys:
            self.add(key)
        self.most = most
        self.goes_on = goes_on
        self.asked: list[tuple[str | None, int]] = []
        self.mixed_up: dict[tuple[str | None, bool], list[str | None]] = {}

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        self.asked.append((start_after, max_keys))
        instead = self.mixed_up.get((start_after, max_keys <= 2))
        begin = instead.pop(0) if instead else start_after
        everything = (await super().list_page(prefix=prefix)).objects
        found = sorted(everything, key=lambda meta: hashed(meta.key))
        if begin is not None and self.goes_on == "bytes":
            found = [meta for meta in found if meta.key > begin]
        elif begin is not None:
            known = self.goes_on == "own" or any(meta.key == begin for meta in found)
            found = [meta for meta in found if known and hashed(meta.key) > hashed(begin)]
        most = min(max_keys, self.most)
        return ListingPage(found[:most], len(found) <= most, KeyOrder.OWN)


IN_ORDER = sorted(KEYS, key=hashed)


@pytest.mark.parametrize("most", [1, 2, 3, 30, 100])
@pytest.mark.parametrize("after", [None, 0, 50, 98, 99])
async def test_in_its_own_order_every_key_comes_once(most: int, after: int | None) -> None:
    store = Hashed(most=most)
    part = KeyRange(None if after is None else IN_ORDER[after])
    assert await walked(store, part) == (IN_ORDER if after is None else IN_ORDER[after + 1 :])


async def test_in_its_own_order_a_walk_costs_three_small_requests() -> None:
    store = Hashed()
    await walked(store)
    assert [max_keys for _, max_keys in store.asked].count(1000) == 4
    assert [max_keys for _, max_keys in store.asked].count(2) == 3


async def test_a_store_that_goes_on_with_greater_keys_is_told_by_its_first_page() -> None:
    store = Hashed(goes_on="bytes")
    with pytest.raises(errors.ListingError, match="does not go on in it from its beginning"):
        await walked(store)


@pytest.mark.parametrize("goes_on", ["own", "marker"])
@pytest.mark.parametrize("gone", [0, 28, 29, 30, 99])
async def test_in_its_own_order_what_is_deleted_meanwhile_hides_nothing(
    goes_on: str, gone: int
) -> None:
    """Some stores show nothing after a key that is gone: then it is not called the end."""
    store = Hashed(goes_on=goes_on)
    steps = walk(store, KeyRange())
    keys = [meta.key for meta in (await steps.next_page()).objects]
    await store.delete(IN_ORDER[gone])
    if goes_on == "marker" and gone == 29:
        with pytest.raises(errors.ListingError, match="we cannot tell whether it was the last"):
            await steps.next_page()
        return
    finished = False
    while not finished:
        page = await steps.next_page()
        finished = page.finished
        keys += [meta.key for meta in page.objects]
    assert keys == [key for at, key in enumerate(IN_ORDER) if at != gone or at < 30]


@pytest.mark.parametrize("is_gone", [False, True])
async def test_in_its_own_order_a_last_key_that_is_refused_is_looked_for_by_name(
    *, is_gone: bool
) -> None:
    store = Hashed()
    if is_gone:
        await store.delete(IN_ORDER[-1])
    store.faults.fail(errors.Misdirected("HeadObject", status=307), operation="head", times=3)
    steps = walk(store, KeyRange(IN_ORDER[-1]))
    if not is_gone:
        assert (await steps.next_page()).finished
        return
    with pytest.raises(errors.NoOrder, match="we cannot tell whether it was the last"):
        await steps.next_page()


@pytest.mark.parametrize("after", [5, 50, 98])
@pytest.mark.parametrize("place", [(None, False), (None, True), (28, False), (99, True)])
async def test_in_its_own_order_a_page_of_another_place_is_asked_for_again(
    place: tuple[int | None, bool], after: int
) -> None:
    store = Hashed()
    at, few = place
    asked = (None if at is None else IN_ORDER[at], few)
    store.mixed_up[asked] = [IN_ORDER[after]]
    assert await walked(store) == IN_ORDER
    assert store.mixed_up[asked] == []
