"""The slice of a task as a stream of planned objects, a page at a time, read one page ahead.

When a task's time is over, it may have listed keys that it has not copied. The next task lists
these again. So a task lists ahead only about as many keys as it is expected to copy.

With `overwrite=false` the target's listing is read alongside. Both come in key order. So one pass
over each tells, for every source key, whether the target has it (design rule 4).
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeVar

from slurper import errors
from slurper.objectstore import own_keys
from slurper.objectstore.base import UNKNOWN_SIZE, ObjectMeta, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.walk import PAGE_KEYS, walk

MIN_PAGE_KEYS = 100
SPARE = 1.25
"""This many times the expected keys are listed ahead. Tasks differ, and to wait for a page costs
more than to list some keys twice."""

HEADS_AT_ONCE = 32
"""Explicit keys are looked up in groups of this size, all of a group at the same time."""

HEADS_WHEN_PACED = 4
"""The same where requests are limited: a large group might come too late for the task to use."""

Answer = TypeVar("Answer")

Found = ObjectMeta | errors.SlurperError
"""An object, or why HEAD could not describe it."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the slice's keys, in `order`, and what is there under each."""

    rows: Sequence[tuple[str, Found]]
    order: KeyOrder = KeyOrder.BYTES
    requests: int = 1
    """How many requests it took."""
    written: Mapping[str, str] = field(default_factory=dict)
    """The keys that were decoded, each with the store's own spelling of it."""


Pages = AsyncGenerator[Page, None]


def page_keys(expected: int | None) -> int:
    """The length of pages for a task that is expected to settle so many keys."""
    if expected is None:
        return PAGE_KEYS
    return min(PAGE_KEYS, max(MIN_PAGE_KEYS, math.ceil(SPARE * expected)))


async def listed_pages(
    store: ObjectStore, prefix: str, part: KeyRange, *, max_keys: int = PAGE_KEYS
) -> Pages:
    """The objects of `prefix` within `part`, as LIST brings them, without Slurper's own.

    An empty page need not be the last.
    """
    steps = walk(store, part, prefix=prefix, max_keys=max_keys)
    while True:
        before = steps.requests
        page = await steps.next_page()
        objects = page.objects
        beyond = bool(objects) and part.ends_before(objects[-1].key)
        if beyond:
            objects = [meta for meta in objects if not part.ends_before(meta.key)]
        rows: list[tuple[str, Found]] = [(meta.key, meta) for meta in own_keys.without_own(objects)]
        if page.lacks_sizes:
            rows = await _with_sizes(store, rows)
        yield Page(rows, page.order, steps.requests - before, page.written)
        if page.finished or beyond:
            return


async def for_each(
    keys: Sequence[str], ask: Callable[[str], Awaitable[Answer]]
) -> dict[str, Answer]:
    """Ask about each key, `HEADS_AT_ONCE` of them at the same time; return the answers by key."""
    answers: dict[str, Answer] = {}
    for start in range(0, len(keys), HEADS_AT_ONCE):
        group = keys[start : start + HEADS_AT_ONCE]
        answers |= zip(group, await asyncio.gather(*map(ask, group)), strict=True)
    return answers


async def _with_sizes(
    store: ObjectStore, rows: Sequence[tuple[str, Found]]
) -> list[tuple[str, Found]]:
    """The same rows. HEAD tells the sizes that the listing does not tell."""
    told = dict(rows)
    unknown = [
        key for key, found in rows if isinstance(found, ObjectMeta) and found.size == UNKNOWN_SIZE
    ]
    told |= await for_each(unknown, functools.partial(_measure, store))
    return list(told.items())


async def _measure(store: ObjectStore, key: str) -> Found:
    """Describe an object. If the store still lists, an error is this object's own."""
    try:
        return (await store.head(key)).meta
    except errors.SlurperError as error:
        if error.blocks_job and not isinstance(error, errors.Refused):
            raise
        if error.retryable:
            await store.list_page(max_keys=1)
        return error


async def named_pages(
    store: ObjectStore, keys: Sequence[str], part: KeyRange, *, at_once: int = HEADS_AT_ONCE
) -> Pages:
    """The objects with these keys within `part`; HEAD tells what LIST would."""
    wanted = [key for key in keys if key in part]
    for start in range(0, len(wanted), at_once):
        group = wanted[start : start + at_once]
        found = await asyncio.gather(*(_describe(store, key) for key in group))
        yield Page(list(zip(group, found, strict=True)))


async def _describe(store: ObjectStore, key: str) -> Found:
    try:
        return (await store.head(key)).meta
    except errors.SlurperError as error:
        if isinstance(error, errors.Refused):  # one key or all: the copy finds out
            return error
        if error.blocks_job or error.retryable:
            raise
        return error


async def spellings(
    store: ObjectStore, keys: Sequence[str], written: Mapping[str, str]
) -> dict[str, str]:
    """For each key, the spelling under which an object exists: its own, or the `written` one."""
    return await for_each(keys, lambda key: _spelling(store, key, written[key]))


async def _spelling(store: ObjectStore, key: str, other: str) -> str:
    """The spelling of a key under which an object exists; the first if none is found."""
    for spelling in (key, other):
        found = await _describe(store, spelling)
        if not isinstance(found, errors.NotFound):
            return spelling
    return key


async def read_ahead(pages: Pages, expected: int | None) -> Pages:
    """The same pages. The next one is fetched while the caller works on this one.

    When somewhat more than the `expected` keys have come, no page is fetched ahead.
    """
    max_ahead = math.inf if expected is None else SPARE * expected
    listed = 0
    ahead: asyncio.Future[Page | None] | None = None
    try:
        while (page := await (ahead or anext(pages, None))) is not None:
            listed += len(page.rows)
            ahead = asyncio.ensure_future(anext(pages, None)) if listed < max_ahead else None
            yield page
    finally:
        if ahead is not None:
            ahead.cancel()
            # Its page is not used, so an error does not matter.
            await asyncio.gather(ahead, return_exceptions=True)


class Existing(Protocol):
    """Tells what the target holds already."""

    async def among(self, keys: Sequence[str], order: KeyOrder) -> dict[str, Found]:
        """Return which of these target keys exist, or may exist because HEAD failed.

        The keys ascend in `order`, also from one call to the next.
        """
        ...


class ListedTarget:
    """What the target holds, by reading its listing alongside.

    This works for keys that come in the order of that listing. Even if the source lists in another
    order, most names come so. Where they do not, keys are asked for by name.
    """

    def __init__(self, store: ObjectStore, *, prefix: str, start_after: str | None) -> None:
        self._steps = walk(store, KeyRange(start_after), prefix=prefix)
        self._named = NamedTarget(store)
        self._is_ordered = True
        self._cursor = start_after
        self._passed = start_after or ""
        """Keys up to this one are forgotten. It is empty at first: no key is empty."""
        self._order: KeyOrder | None = None
        self._finished = False
        self._known: dict[str, ObjectMeta] = {}

    async def among(self, keys: Sequence[str], order: KeyOrder) -> dict[str, Found]:
        """Return which of these target keys exist. See `Existing.among`."""
        try:
            if self._is_ordered:
                return await self._among(keys, order)
        except errors.OutOfOrder:
            self._is_ordered = False
        return await self._named.among(keys, order)

    async def _among(self, keys: Sequence[str], order: KeyOrder) -> dict[str, Found]:
        if self._order is None:
            await self._read_page()
        if self._order is not order and not self._ascend(keys):
            return await self._named.among(keys, order)
        self._passed = keys[-1]
        wanted = set(keys)
        while self._behind():
            self._forget(but=wanted)  # there may be millions between the wanted ones
            await self._read_page()
        found: dict[str, Found] = {key: self._known[key] for key in keys if key in self._known}
        self._forget()
        return found

    def _ascend(self, keys: Sequence[str]) -> bool:
        """Whether the keys come after the earlier ones in the target's own order."""
        ranks = [self._rank(key) for key in (self._passed, *keys)]
        return all(one < next_one for one, next_one in pairwise(ranks))

    def _behind(self) -> bool:
        """Whether the target's next page may hold keys up to `_passed`."""
        if self._finished:
            return False
        return self._cursor is None or self._rank(self._cursor) < self._rank(self._passed)

    def _forget(self, but: AbstractSet[str] = frozenset()) -> None:
        last = self._rank(self._passed)
        self._known = {
            key: meta for key, meta in self._known.items() if key in but or self._rank(key) > last
        }

    def _rank(self, key: str) -> str:
        return (self._order or KeyOrder.BYTES).rank(key)

    async def _read_page(self) -> None:
        page = await self._steps.next_page()
        self._order = page.order
        self._known.update((meta.key, meta) for meta in page.objects)
        self._finished = page.finished
        if page.objects:
            self._cursor = page.objects[-1].key


class NamedTarget:
    """What the target holds, by one HEAD for each key: explicit keys may be few among many."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def among(
        self,
        keys: Sequence[str],
        order: KeyOrder,  # noqa: ARG002 - protocol
    ) -> dict[str, Found]:
        """Return which of these target keys exist, or may exist because HEAD failed."""
        found = await for_each(keys, functools.partial(_describe, self._store))
        return {key: seen for key, seen in found.items() if not isinstance(seen, errors.NotFound)}


class NothingExists:
    """With `overwrite=true` it does not matter what the target holds."""

    async def among(
        self,
        keys: Sequence[str],  # noqa: ARG002 - protocol
        order: KeyOrder,  # noqa: ARG002 - protocol
    ) -> dict[str, Found]:
        """No key at all."""
        return {}
