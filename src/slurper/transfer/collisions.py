"""Keys of the source that the target cannot keep beside each other.

A target may normalise keys. Then all spellings of one text become one object. One spelling is
copied. Each other one fails, and its log entry names the one that is copied. Nothing is remembered
between tasks: when a key is not in normal form, the source is asked whether a spelling exists that
takes precedence. Nearly all keys are in normal form and cost nothing.

A target may keep objects as files in folders. An empty object `dir/` is a folder there. If the
source also has a file `dir`, the later of the two is refused, or replaces the other without an
error. So the file is copied and the folder fails. The objects in the folder are copied all the
same. Only keys that end with a slash cost a request.
"""

from __future__ import annotations

import asyncio
import functools
import unicodedata
from collections.abc import Sequence
from typing import Literal

from slurper import errors
from slurper.objectstore.base import ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.key_shapes import KeyShape
from slurper.planning import spellings
from slurper.transfer.listing import Existing, Found, NamedTarget, for_each
from slurper.transfer.route import Route

MAX_KNOWN = 10_000
"""So many answers are kept, because the names of folders are asked for again and again."""

_FOLDERS = frozenset({KeyShape.FOLDER, KeyShape.FOLDER_WITH_BYTES})
"""A target that cannot keep these keys keeps objects as files in folders."""


class Collisions:
    """Finds the keys of the source that must not be copied because another one is."""

    def __init__(self, route: Route) -> None:
        dialect = route.target.dialect
        self._twins = Twins(route) if dialect.normalises_keys else None
        self._folders = Folders(route) if _FOLDERS.intersection(dialect.unkept_keys) else None

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Return which of these keys must not be copied, each with the text for its log entry.

        Raises:
            SlurperError: the source does not answer.
        """
        texts: dict[str, str] = {}
        if self._twins is not None:
            twins = await self._twins.among(keys)
            texts |= {key: _twin_text(key, twin) for key, twin in twins.items()}
        if self._folders is not None:
            files = await self._folders.among(keys)
            texts |= {key: _folder_text(key, file) for key, file in files.items()}
        return texts


def _folder_text(key: str, file: str) -> str:
    return (
        f"the target keeps objects as files in folders and cannot keep both {key!a} and {file!a}; "
        "only the second is copied; give one of them another name"
    )


def _twin_text(key: str, twin: str) -> str:
    return (
        f"the target keeps {key!a} and {twin!a} as one object, for they are the same "
        "text in Unicode's form NFC; only the second is copied; give one of them another name"
    )


class Twins:
    """Finds, for keys of the source, the spelling that is copied instead."""

    def __init__(self, route: Route) -> None:
        self._source = route.source
        self._prefix = route.prefix
        self._strip = route.strip
        self._known: dict[str, bool] = {}

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Return which of these keys must not be copied, each with the key that is."""
        asked = [key for key in keys if not spellings.is_stored_as_it_is(key[self._strip :])]
        twins = await for_each(asked, self._twin)
        return {key: twin for key, twin in twins.items() if twin is not None}

    async def _twin(self, key: str) -> str | None:
        try:
            spelled = await self._walk(key)
            exist = await asyncio.gather(*map(self._is_listed, spelled))
        except errors.Refused:
            # Without the permission to list, only the forms that programs write are looked for.
            spelled = [self._in_form(form, key) for form in ("NFC", "NFD")]
            exist = await asyncio.gather(*(_is_readable(self._source, key) for key in spelled))
        own = key[self._strip :]
        best = own
        for text, exists in zip(spelled, exist, strict=True):
            if exists and spellings.outranks(text[self._strip :], best):
                best = text[self._strip :]
        return None if best == own else key[: self._strip] + best

    async def _walk(self, key: str) -> list[str]:
        """Other spellings of a key, without those whose beginnings do not exist at the source."""
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
        """Whether a key exists. If it does, it is listed before all longer keys."""
        if self._source.dialect.own_order:
            return await _is_readable(self._source, key)
        page = await self._source.list_page(prefix=key, max_keys=1)
        return bool(page.objects) and page.objects[0].key == key


class Folders:
    """Finds, for folders of the source, the file that is copied instead."""

    def __init__(self, route: Route) -> None:
        self._source = route.source
        self._prefix = route.prefix

    async def among(self, keys: Sequence[str]) -> dict[str, str]:
        """Return which of these keys must not be copied, each with the key that is."""
        longer_than = max(len(self._prefix), 1)
        files = [key[:-1] for key in keys if key.endswith("/") and len(key) > longer_than]
        exist = await for_each(files, functools.partial(_is_readable, self._source))
        return {f"{file}/": file for file, is_there in exist.items() if is_there}


async def _is_readable(source: ObjectStore, key: str) -> bool:
    """Whether an object exists. One that we may not read is not copied, so it does not count."""
    try:
        await source.head(key)
    except (errors.NotFound, errors.Refused):
        return False
    return True


class NormalisedTarget:
    """What a target that normalises keys holds under their normal forms.

    The target lists normal forms only. A key of the source in another form is asked for by name.
    """

    def __init__(self, store: ObjectStore, existing: Existing) -> None:
        self._existing = existing
        self._named = NamedTarget(store)

    async def among(self, keys: Sequence[str], order: KeyOrder) -> dict[str, Found]:
        """Return which of these target keys exist. See `Existing.among`."""
        normal = [key for key in keys if spellings.is_stored_as_it_is(key)]
        found = await self._existing.among(normal, order) if normal else {}
        if len(normal) == len(keys):
            return found
        others = [key for key in keys if not spellings.is_stored_as_it_is(key)]
        return found | await self._named.among(others, order)
