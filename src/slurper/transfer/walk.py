"""The listing of a prefix, page after page. Each page must go on where the one before ended.

A store may send a page from a later place than we asked for. Then we would miss every key before
it. A store may also say too early that a page is the last. Then we would miss every key after it
(decision 0021). So these things are checked:

    what is checked                  how                                               costs
    a page begins after the key      the answer repeats the question; if it does not,  nothing
    that was asked for               the page is asked for from one key earlier, and
                                     must begin with the last known key
    so does the first page of a      the answer repeats the question; if it does not,  a request
    task, and a page after a key     the first key after it is asked for alone
    that was deleted
    nothing comes after the last     the first key after that page is asked for        a request
    page of a slice

Some stores list in an order of their own. There we cannot tell which of two keys comes first
(decision 0022). But a key that followed another once must follow it again. `_OwnOrderWalk` checks
that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise, takewhile

from typing_extensions import override

from slurper import errors
from slurper.objectstore import listings
from slurper.objectstore.base import ListingPage, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.texts import quoted
from slurper.planning.keyspace import KeyRange, encode_key

PAGE_KEYS = 1000
"""The longest page: no store lists more keys at once."""

_FEW = 2
"""So many keys are asked for where one is wanted: some stores also list the key to start after."""


class Walk:
    """Goes through the keys of `prefix` in a slice, in the order of the store."""

    def __init__(self, store: ObjectStore, part: KeyRange, *, prefix: str, max_keys: int) -> None:
        """Begin after the start of `part`."""
        self._store = store
        self._part = part
        self._prefix = prefix
        self._max_keys = max_keys
        self._last = part.start_after
        """The next page begins after this key."""
        self._before: str | None = None
        """The key listed before `_last`. If it is set, the next page is asked for from here."""
        self.requests = 0
        """How many requests were sent."""

    async def next_page(self) -> ListingPage:
        """Return the next page. There is none after one that is finished or goes beyond the end.

        Raises:
            ListingError: the store repeated a wrong answer. OutOfOrder: the store lists in another
                order than the one we know of. NoOrder: the store does not keep to its own order.
        """
        raise NotImplementedError

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


def walk(
    store: ObjectStore, part: KeyRange, *, prefix: str = "", max_keys: int = PAGE_KEYS
) -> Walk:
    """Begin a walk after the start of a slice."""
    kind = _OwnOrderWalk if store.dialect.own_order else _OrderedWalk
    return kind(store, part, prefix=prefix, max_keys=max_keys)


async def lists_in_own_order(store: ObjectStore, prefix: str, seen: errors.OutOfOrder) -> bool:
    """Whether a store also lists out of order when it is asked for few keys.

    If it does not, the one page was wrong. Some stores list all keys that are greater than the one
    to start after, in any order. After the greater of two keys, such a store may list nothing. So
    it is also asked to start before the smaller one.
    """
    try:
        for after in (seen.after, seen.then[:-1] or None):
            await store.list_page(prefix=prefix, start_after=after, max_keys=_FEW)
    except errors.OutOfOrder:
        return True
    except errors.SlurperError:
        return False
    return False


class _OrderedWalk(Walk):
    """Knows the order, so it can tell whether a page leaves out keys."""

    def __init__(self, store: ObjectStore, part: KeyRange, *, prefix: str, max_keys: int) -> None:
        super().__init__(store, part, prefix=prefix, max_keys=max_keys)
        self._overlaps = True
        self._order = KeyOrder.BYTES
        self._is_told = False
        """The last answer showed by itself where it begins."""
        self._left_out: str | None = None
        """The key that came when the next key was asked for alone."""

    @override
    async def next_page(self) -> ListingPage:
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
        left_out = quoted(self._left_out)
        return f"the listing {place} leaves out {left_out}, which the store shows {alone}"

    async def _ask(self) -> ListingPage:
        page = await self._list(self._last if self._before is None else self._before)
        self._order = page.order
        self._is_told = page.is_placed
        if self._before is not None:
            self._join(page)
        return page

    def _join(self, page: ListingPage) -> None:
        """Drop keys that were listed before. They show that no key between was left out."""
        last = self._rank(self._last or "")
        passed = sum(1 for _ in takewhile(lambda meta: self._rank(meta.key) <= last, page.objects))
        del page.objects[:passed]
        page.is_placed |= passed > 0
        if passed and not (page.objects or page.finished):
            self._before, self._overlaps = None, False  # pages of one key would stand still

    async def _follows(self, page: ListingPage) -> bool:
        """Whether a page leaves out no key after the last one."""
        if page.is_placed or not page.objects:
            return True  # `_is_end` checks an empty last page
        first = self._left_out = await self._first_after(self._last)
        return first is not None and self._rank(page.objects[0].key) <= self._rank(first)

    async def _is_end(self, page: ListingPage) -> bool:
        """Whether a page that says it is the last really is the last of the slice."""
        if page.objects and self._part.ends_before(page.objects[-1].key):
            return True
        self._left_out = await self._first_after(self._end_of(page))
        return self._left_out is None

    def _rank(self, key: str) -> str:
        return self._order.rank(key)

    def _pass(self, page: ListingPage) -> None:
        if not page.objects:
            return
        before = page.objects[-2].key if len(page.objects) > 1 else self._last
        self._last = page.objects[-1].key
        self._before = before if self._overlaps and not self._is_told else None


def _place(last: str | None) -> str:
    return "from its beginning" if last is None else f"after {quoted(last)}"


class _OwnOrderWalk(Walk):
    """Goes through all keys in the order in which the store happens to list them."""

    def __init__(self, store: ObjectStore, part: KeyRange, *, prefix: str, max_keys: int) -> None:
        super().__init__(store, part, prefix=prefix, max_keys=max_keys)
        self._listed: frozenset[str] = frozenset()
        """The keys of the page before."""

    @override
    async def next_page(self) -> ListingPage:
        for asked in range(listings.ASKS):
            if asked:
                await asyncio.sleep(listings.AGAIN_PAUSE_SECONDS * (asked - 1))
            page = await self._list(self._before or self._last)
            if not await self._goes_on(page):
                self._before = None  # that key may have been deleted
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
        """Whether a page follows the last key. That key is dropped if the page begins with it."""
        keys = [meta.key for meta in page.objects]
        if self._before is None:
            is_next = await self._is_next(keys)
        else:
            is_next = keys[:1] == [self._last]
            del page.objects[:1]
        return is_next and self._listed.isdisjoint(keys[1:] if self._before else keys)

    async def _is_next(self, keys: Sequence[str]) -> bool:
        """Whether these keys follow the last one, and the store can go on after each of them.

        Some stores go on with all keys that are greater in byte order, wherever these are in the
        listing. Where a key is followed by a smaller one, such a store leaves out the smaller one.
        So the store is asked what follows such a key.
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
        """Check that the last key exists. After a deleted key, some stores list nothing."""
        if self._last is not None and not await self._is_there(self._last):
            raise errors.NoOrder(
                "the store lists in an order of its own, and shows nothing after "
                f"{quoted(self._last)}; that object is gone, and we cannot tell whether it was the "
                "last"
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

    def _pass(self, page: ListingPage) -> None:
        if not page.objects:
            return
        self._before = page.objects[-2].key if len(page.objects) > 1 else self._last
        self._last = page.objects[-1].key
        self._listed = frozenset(meta.key for meta in page.objects)
