"""The slice of a task as a stream of planned objects, a page at a time, read one page ahead.

With `overwrite=false` the target's listing is read alongside: both come in key order, so one pass
over each tells for every source key whether the target has it (design rule 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from slurper import errors
from slurper.objectstore.base import ObjectMeta, ObjectStore
from slurper.planning.keyspace import KeyRange

HEADS_AT_ONCE = 32
"""Explicit keys are looked up in groups of this size, all of a group at the same time."""

Found = ObjectMeta | errors.SlurperError
"""An object, or why it could not be described (explicit keys only)."""

Page = Sequence[tuple[str, Found]]
Pages = AsyncGenerator[Page, None]


async def listed_pages(store: ObjectStore, prefix: str, part: KeyRange) -> Pages:
    """The objects of `prefix` within `part`, as LIST brings them."""
    cursor = part.start_after
    while True:
        page = await store.list_page(prefix=prefix, start_after=cursor)
        objects = page.objects
        beyond = part.end_at is not None and bool(objects) and objects[-1].key > part.end_at
        if beyond:
            objects = [meta for meta in objects if meta.key in part]
        yield [(meta.key, meta) for meta in objects]
        if page.finished or beyond:
            return
        cursor = page.objects[-1].key


async def named_pages(store: ObjectStore, keys: Sequence[str], part: KeyRange) -> Pages:
    """The objects with these keys within `part`; HEAD tells what LIST would."""
    wanted = [key for key in keys if key in part]
    for start in range(0, len(wanted), HEADS_AT_ONCE):
        group = wanted[start : start + HEADS_AT_ONCE]
        found = await asyncio.gather(*(_describe(store, key) for key in group))
        yield list(zip(group, found, strict=True))


async def _describe(store: ObjectStore, key: str) -> Found:
    try:
        return (await store.head(key)).meta
    except errors.SlurperError as error:
        if error.blocks_job or error.retryable:
            raise
        return error


async def read_ahead(pages: Pages) -> Pages:
    """The same pages, the next one being fetched while the caller works on this one."""
    ahead = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await ahead) is not None:
            ahead = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        ahead.cancel()
        # The result, an error included, belongs to a page that nobody asked for.
        await asyncio.gather(ahead, return_exceptions=True)


class Existing(Protocol):
    """Tells what the target holds already."""

    async def among(self, keys: Sequence[str]) -> dict[str, ObjectMeta]:
        """Of these target keys, ascending from call to call, those that exist."""
        ...


class ListedTarget:
    """What the target holds, by reading its listing alongside."""

    def __init__(self, store: ObjectStore, *, prefix: str, start_after: str | None) -> None:
        self._store = store
        self._prefix = prefix
        self._cursor = start_after
        self._finished = False
        self._known: dict[str, ObjectMeta] = {}

    async def among(self, keys: Sequence[str]) -> dict[str, ObjectMeta]:
        """Of these target keys, ascending from call to call, those that exist."""
        last = keys[-1]
        while not self._finished and (self._cursor is None or self._cursor < last):
            page = await self._store.list_page(prefix=self._prefix, start_after=self._cursor)
            self._known.update((meta.key, meta) for meta in page.objects)
            self._finished = page.finished
            if page.objects:
                self._cursor = page.objects[-1].key
        found = {key: self._known[key] for key in keys if key in self._known}
        self._known = {key: meta for key, meta in self._known.items() if key > last}
        return found


class NamedTarget:
    """What the target holds, by one HEAD per key: for explicit keys, few among many."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def among(self, keys: Sequence[str]) -> dict[str, ObjectMeta]:
        """Of these target keys, those that exist."""
        found = await asyncio.gather(*(self._look(key) for key in keys))
        return {key: meta for key, meta in zip(keys, found, strict=True) if meta is not None}

    async def _look(self, key: str) -> ObjectMeta | None:
        try:
            return (await self._store.head(key)).meta
        except errors.NotFound:
            return None


class NothingExists:
    """With `overwrite=true` nobody needs to know."""

    async def among(self, keys: Sequence[str]) -> dict[str, ObjectMeta]:  # noqa: ARG002 - protocol
        """No key at all."""
        return {}
