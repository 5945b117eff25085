"""The listing of a prefix, page after page, each proved to go on where the one before ended.

A page of a later place, taken for the one that was asked for, would hide every key before it. A
page that says too early that it is the last hides every key behind it (decision 0021). So

    what has to be shown             is shown by                                       costs
    a page begins after the key      what the page repeats of the question; else by    nothing
    it was asked to                  asking from one key further back: the last known
                                     key has to come first
    so does the first page of a      the same; else by asking for the first key        a request
    task, or one after a key that    that comes after it
    is gone by now
    nothing comes after the last     asking for what comes after its last key          a request
    page of a slice

In a store's own order we cannot tell which of two keys comes first (decision 0022). But the key
that followed another before must follow it again. Such a store is walked by that rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Protocol

from slurper import errors
from slurper.objectstore import listings
from slurper.objectstore.base import ListingPage, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange, encode_key

PAGE_KEYS = 1000
"""The longest page: no store lists more keys at once."""

_FEW = 2
"""How many keys are asked for to see one: some stores also show the key they begin after."""


class Walk(Protocol):
    """Goes through the keys of a prefix in a slice, in the order of the store."""

    requests: int
    """How many were sent."""

    async def next_page(self) -> ListingPage:
        """Return the next page. After one that is finished, or reaches beyond the end, none is.

        Raises:
            ListingError: a store repeats a wrong answer. OutOfOrder: it lists in another order
                than it is known to. NoOrder: it does not go on in its own.
        """
        ...


def walk(
    store: ObjectStore, part: KeyRange, *, prefix: str = "", max_keys: int = PAGE_KEYS
) -> Walk:
    """Begin a walk after the start of a slice."""
    kind = _OwnOrderWalk if store.dialect.own_order else _OrderedWalk
    return kind(store, part, prefix=prefix, max_keys=max_keys)


async def lists_in_own_order(store: ObjectStore, prefix: str, seen: errors.OutOfOrder) -> bool:
    """Whether a store also goes on out of order when it is asked for few keys.

    If it does not, the page was wrong. A store that goes on with the greater keys, in whatever
    order, may show none after the greater one of two. So it is also asked from before the other.
    """
    try:
        for after in (seen.after, seen.then[:-1] or None):
            await store.list_page(prefix=prefix, start_after=after, max_keys=_FEW)
    except errors.OutOfOrder:
        return True
    except errors.SlurperError:
        return False
    return False


class _OrderedWalk:
    """Goes through the keys of `prefix` in a slice, in the order of the store."""

    def __init__(
        self, store: ObjectStore, part: KeyRange, *, prefix: str = "", max_keys: int = PAGE_KEYS
    ) -> None:
        """Begin after the start of `part`. The page that reaches beyond its end is the last."""
        self._store = store
        self._part = part
        self._prefix = prefix
        self._max_keys = max_keys
        self._last = part.start_after
        """What comes next comes after this key."""
        self._before: str | None = None
        """The key that was listed before that one, while pages are asked for from there."""
        self._overlaps = True
        self._order = KeyOrder.BYTES
        self._is_told = False
        """The last answer showed by itself where it begins."""
        self._left_out: str | None = None
        """What came when a key was asked for alone."""
        self.requests = 0

    async def next_page(self) -> ListingPage:
        """Return the next page."""
        for asked in range(listings.ASKS):
            if asked:
                await asyncio.sleep(listings.AGAIN_PAUSE_SECONDS * (asked - 1))
            self._left_out = None
            page = await self._ask()
            if not await self._follows(page):
                continue
            page.finished = page.finished and await self._is_end(page)
            if page.objects or page.finished:
                self._pass(page)
                return page
        raise errors.ListingError(self._contradiction())

    def _contradiction(self) -> str:
        place = _place(self._last)
        alone = f"when it is asked for the next key alone ({listings.ASKS} times in a row)"
        if self._left_out is None:
            return f"the listing {place} goes on, but the store shows no key {alone}"
        return f"the listing {place} leaves out {self._left_out!r}, which the store shows {alone}"

    async def _ask(self) -> ListingPage:
        page = await self._list(self._last if self._before is None else self._before)
        self._order = page.order
        self._is_told = page.is_placed
        if self._before is not None:
            self._join(page)
        return page

    def _join(self, page: ListingPage) -> None:
        """Drop the keys that were listed before: they show that no key is between."""
        last = self._rank(self._last or "")
        passed = sum(1 for _ in takewhile(lambda meta: self._rank(meta.key) <= last, page.objects))
        del page.objects[:passed]
        page.is_placed |= passed > 0
        if passed and not (page.objects or page.finished):
            self._before, self._overlaps = None, False  # pages of one key would never end

    async def _follows(self, page: ListingPage) -> bool:
        """Whether no key comes between the last one and a page."""
        if page.is_placed or not page.objects:
            return True  # a page without keys is checked at its end
        first = self._left_out = await self._first_after(self._last)
        return first is not None and self._rank(page.objects[0].key) <= self._rank(first)

    async def _is_end(self, page: ListingPage) -> bool:
        """Whether no key comes after the last page, if it is to be the last of the slice."""
        last = page.objects[-1].key if page.objects else self._last
        if page.objects and self._part.ends_before(page.objects[-1].key):
            return True
        self._left_out = await self._first_after(last)
        return self._left_out is None

    async def _first_after(self, key: str | None) -> str | None:
        page = await self._list(key, _FEW)
        return page.objects[0].key if page.objects else None

    async def _list(self, start_after: str | None, max_keys: int | None = None) -> ListingPage:
        self.requests += 1
        return await self._store.list_page(
            prefix=self._prefix, start_after=start_after, max_keys=max_keys or self._max_keys
        )

    def _rank(self, key: str) -> str:
        return self._order.rank(key)

    def _pass(self, page: ListingPage) -> None:
        if not page.objects:
            return
        before = page.objects[-2].key if len(page.objects) > 1 else self._last
        self._last = page.objects[-1].key
        self._before = before if self._overlaps and not self._is_told else None


def _place(last: str | None) -> str:
    return "from its beginning" if last is None else f"after {last!r}"


class _OwnOrderWalk:
    """Goes through all keys of `prefix` in the order in which the store happens to list them."""

    def __init__(self, store: ObjectStore, part: KeyRange, *, prefix: str, max_keys: int) -> None:
        self._store = store
        self._prefix = prefix
        self._max_keys = max_keys
        self._last = part.start_after
        self._before: str | None = None
        """The key that was listed before the last one; None: the last one itself is asked after."""
        self._listed: frozenset[str] = frozenset()
        """The keys of the page before."""
        self.requests = 0

    async def next_page(self) -> ListingPage:
        """Return the next page."""
        for asked in range(listings.ASKS):
            if asked:
                await asyncio.sleep(listings.AGAIN_PAUSE_SECONDS * (asked - 1))
            page = await self._list(self._before or self._last)
            if not await self._goes_on(page):
                self._before = None  # that key may be gone by now
                continue
            page.finished = page.finished and await self._first_after(self._end_of(page)) is None
            if page.objects or page.finished:
                self._pass(page)
                return page
            self._before = None
        raise errors.NoOrder(
            "the store lists in an order of its own, and does not go on in it "
            f"{_place(self._last)} ({listings.ASKS} times in a row)"
        )

    async def _goes_on(self, page: ListingPage) -> bool:
        """Whether a page is what follows the last key; what was listed before is left out."""
        keys = [meta.key for meta in page.objects]
        if self._before is None:
            is_next = await self._is_next(keys)
        else:
            is_next = keys[:1] == [self._last]
            del page.objects[:1]
        return is_next and self._listed.isdisjoint(keys[1:] if self._before else keys)

    async def _is_next(self, keys: Sequence[str]) -> bool:
        """Whether keys follow the last one, and the store goes on in the order of these.

        Two neighbours show that, if the first is the greater: a store that goes on with the greater
        keys, in any order, passes over the second.
        """
        if not keys:
            await self._see_the_last()
            return True
        if await self._first_after(self._last) != keys[0]:
            return False
        pairs = pairwise(keys)
        descent = next((two for two in pairs if encode_key(two[0]) > encode_key(two[1])), None)
        return descent is None or await self._first_after(descent[0]) == descent[1]

    async def _see_the_last(self) -> None:
        """Nothing follows the last key. Some stores also say so after a key that is gone."""
        if self._last is not None and not await self._is_there(self._last):
            raise errors.NoOrder(
                f"the store lists in an order of its own, and shows nothing after {self._last!r}; "
                "that object is gone, and nobody knows whether it was the last"
            )

    async def _is_there(self, key: str) -> bool:
        try:
            await self._store.head(key)
        except errors.NotFound:
            return False
        except errors.Refused:  # this key alone may be refused
            page = await self._store.list_page(prefix=key)
            return any(meta.key == key for meta in page.objects)
        return True

    async def _first_after(self, key: str | None) -> str | None:
        page = await self._list(key, _FEW)
        return page.objects[0].key if page.objects else None

    async def _list(self, start_after: str | None, max_keys: int | None = None) -> ListingPage:
        self.requests += 1
        return await self._store.list_page(
            prefix=self._prefix, start_after=start_after, max_keys=max_keys or self._max_keys
        )

    def _end_of(self, page: ListingPage) -> str | None:
        return page.objects[-1].key if page.objects else self._last

    def _pass(self, page: ListingPage) -> None:
        if not page.objects:
            return
        self._before = page.objects[-2].key if len(page.objects) > 1 else self._last
        self._last = page.objects[-1].key
        self._listed = frozenset(meta.key for meta in page.objects)
