"""Keys of the source that would become one object at a target which normalises them.

Of all spellings of one text one is copied; each other fails and names it. Nothing is remembered
between tasks: whoever meets a key that is not in normal form asks the source whether the spelling
that goes before it exists. Keys in normal form, nearly all there are, cost nothing.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Sequence
from typing import Literal

from slurper import errors
from slurper.objectstore.base import ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.planning import spellings
from slurper.transfer.listing import HEADS_AT_ONCE, Existing, Found, NamedTarget

MAX_KNOWN = 10_000
"""Answers that are kept: the names of folders are asked for again and again."""


class Twins:
    """Finds for keys of the source the spelling that is copied in their stead."""

    def __init__(self, source: ObjectStore, *, prefix: str, strip: int, active: bool) -> None:
        """Prepare for keys of `prefix`, of which `strip` characters are not part of target keys.

        Not `active`: the target keeps every key as it is.
        """
        self._source = source
        self._prefix = prefix
        self._strip = strip
        self._active = active
        self._known: dict[str, bool] = {}

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Of these keys, those that must not be copied, with the key that is.

        Raises:
            SlurperError: the source does not tell.
        """
        if not self._active:
            return {}
        asked = [key for key in keys if not spellings.is_stored_as_it_is(key[self._strip :])]
        twins: list[str | None] = []
        for start in range(0, len(asked), HEADS_AT_ONCE):
            twins += await asyncio.gather(*map(self._twin, asked[start : start + HEADS_AT_ONCE]))
        return {key: twin for key, twin in zip(asked, twins, strict=True) if twin is not None}

    async def _twin(self, key: str) -> str | None:
        try:
            spelled = await self._walk(key)
            exist = await asyncio.gather(*map(self._is_listed, spelled))
        except errors.Refused:
            # Who may read named keys only asks for the forms that programs write.
            spelled = [self._in_form(form, key) for form in ("NFC", "NFD")]
            exist = await asyncio.gather(*map(self._is_described, spelled))
        own = key[self._strip :]
        best = own
        for text, exists in zip(spelled, exist, strict=True):
            if exists and spellings.outranks(text[self._strip :], best):
                best = text[self._strip :]
        return None if best == own else key[: self._strip] + best

    async def _walk(self, key: str) -> list[str]:
        """Other spellings of a key that begin, up to their last piece, like some key."""
        texts = [key[: self._strip]]
        pieces = spellings.pieces(key[self._strip :])
        for number, piece in enumerate(pieces, 1):
            texts = [text + spelling for text in texts for spelling in sorted(piece)]
            if len(piece) > 1 and number < len(pieces):
                there = await asyncio.gather(*(self._begins(text, key) for text in texts))
                texts = [text for text, exists in zip(texts, there, strict=True) if exists]
        return [text for text in texts if text != key and text.startswith(self._prefix)]

    def _in_form(self, form: Literal["NFC", "NFD"], key: str) -> str:
        return key[: self._strip] + unicodedata.normalize(form, key[self._strip :])

    async def _begins(self, text: str, key: str) -> bool:
        """Whether any key of the source begins with `text`."""
        if key.startswith(text):
            return True
        known = self._known.get(text)
        if known is None:
            page = await self._source.list_page(prefix=text, max_keys=1)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[text] = bool(page.objects)
        return known

    async def _is_listed(self, key: str) -> bool:
        """Of the keys that begin with another key, that key is the first, where any is."""
        if self._source.dialect.own_order:
            return await self._is_described(key)
        page = await self._source.list_page(prefix=key, max_keys=1)
        return bool(page.objects) and page.objects[0].key == key

    async def _is_described(self, key: str) -> bool:
        try:
            await self._source.head(key)
        except (errors.NotFound, errors.Refused):
            return False
        return True


class Folders:
    """Finds for folders of the source the file that is copied in their stead."""

    def __init__(self, source: ObjectStore, *, prefix: str, active: bool) -> None:
        """Prepare for keys of `prefix`. Not `active`: the target keeps both."""
        self._source = source
        self._prefix = prefix
        self._active = active

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Of these keys, those that must not be copied, with the key that is.

        Raises:
            SlurperError: the source does not tell.
        """
        if not self._active:
            return {}
        least = max(len(self._prefix), 1)
        asked = [key for key in keys if key.endswith("/") and len(key) > least]
        found: dict[str, str] = {}
        for start in range(0, len(asked), HEADS_AT_ONCE):
            group = asked[start : start + HEADS_AT_ONCE]
            exist = await asyncio.gather(*(self._exists(key[:-1]) for key in group))
            found |= {key: key[:-1] for key, there in zip(group, exist, strict=True) if there}
        return found

    async def _exists(self, key: str) -> bool:
        try:
            await self._source.head(key)
        except (errors.NotFound, errors.Refused):  # what may not be read is not copied either
            return False
        return True


class NormalisedTarget:
    """What a target that normalises keys holds under their normal forms.

    It lists those in their own order, where no other spelling has its place: such a key of the
    source is asked for by name.
    """

    def __init__(self, store: ObjectStore, existing: Existing) -> None:
        self._existing = existing
        self._named = NamedTarget(store)

    async def among(self, keys: Sequence[str], order: KeyOrder) -> dict[str, Found]:
        """Of these target keys, those that exist. They ascend in `order` from call to call."""
        normal = [key for key in keys if spellings.is_stored_as_it_is(key)]
        found = await self._existing.among(normal, order) if normal else {}
        if len(normal) == len(keys):
            return found
        others = [key for key in keys if not spellings.is_stored_as_it_is(key)]
        return found | await self._named.among(others, order)
