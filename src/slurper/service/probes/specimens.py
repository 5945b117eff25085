"""Finds out which keys and headers a target keeps: writes, lists, reads and removes objects.

Only a listing shows what a store has made of a key: a store that drops a slash when it writes a key
also drops it when it reads the key. Only reading shows which headers are lost.

The key of one object has everything that any store is known to change. Most stores return it as it
was written. Then no more is asked. Otherwise each shape of a key is tried by itself. At a far store
all are written at once, because there a round trip costs more than the requests do.

    | what becomes of an object                       | its shape of key is |
    |-------------------------------------------------|---------------------|
    | it is listed under its key, and read with it    | kept                |
    | it is written, but not found like that          | not kept            |
    | it is refused                                   | not kept            |
    | it fails twice with 500, and is not found       | not kept            |
    | no answer, or one that may pass                 | not found out       |

A store may rewrite our key into the key of somebody's object. We must not overwrite or delete that
object. So every segment of our keys holds a name of ours. If a store drops some, one is left.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from slurper import errors
from slurper.objectstore import encoded_words, key_shapes, storable
from slurper.objectstore.base import CONTENT_HEADERS, Body, Download, ObjectHeaders, ProbedStore
from slurper.objectstore.key_shapes import KeyShape
from slurper.service.probes import clean_up

_ZIPPED = gzip.compress(b"precheck", mtime=0)

_CONTENT = {
    "cache-control": "max-age=3600",
    "content-disposition": 'attachment; filename="a b.txt"',
    "content-encoding": "gzip",
    "content-language": "de, en",
    "content-type": "application/x-precheck; charset=utf-8",
    "expires": "Wed, 21 Oct 2037 07:28:00 GMT",
}
_METADATA = {"slurper-precheck": "kept"}
_BEYOND_ASCII = {"slurper-precheck": "grün €".encode().decode("latin-1")}
_LONG = {"slurper-precheck": "l" * 1900}
"""Amazon keeps 2,048 bytes of metadata in all."""
_UNDERSCORED = {"slurper_precheck": "kept"}
"""Some servers drop headers with an underscore, and some write a dash instead."""

_EMPTY = frozenset({KeyShape.FOLDER, KeyShape.FOLDER_WITH_HEADERS})


class _Fate(Enum):
    KEPT = auto()
    NOT_KEPT = auto()
    UNKNOWN = auto()


@dataclass(slots=True)
class _Specimen:
    """One object: what is written, and what comes back."""

    key: str
    shapes: tuple[KeyShape, ...] = ()
    """The shapes that its key has; empty for an object that is about headers."""
    body: bytes = b"precheck"
    headers: ObjectHeaders = field(default_factory=ObjectHeaders)
    refusal: errors.SlurperError | None = None
    """The error of its last write."""
    found: Download | errors.SlurperError | None = None
    is_listed: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the store has refused the object for good."""
        refusal = self.refusal
        return isinstance(refusal, errors.StoreError) and not refusal.retryable

    @property
    def is_read(self) -> bool:
        found = self.found
        return isinstance(found, Download) and bytes(found.body) == self.body

    @property
    def fate(self) -> _Fate:
        if self.is_listed and self.is_read:
            return _Fate.KEPT if self._has_its_metadata else _Fate.NOT_KEPT
        if self.refusal is None or self.is_refused:
            passing = isinstance(self.found, errors.SlurperError) and self.found.retryable
            return _Fate.UNKNOWN if passing and self.refusal is None else _Fate.NOT_KEPT
        has_failed = _is_500(self.refusal) and isinstance(self.found, errors.NotFound)
        return _Fate.NOT_KEPT if has_failed else _Fate.UNKNOWN

    @property
    def _has_its_metadata(self) -> bool:
        """Some stores make a folder for a key that ends with a slash, and drop the metadata."""
        if KeyShape.FOLDER_WITH_HEADERS not in self.shapes:
            return True
        return isinstance(self.found, Download) and bool(self.found.stored.headers.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a target does not keep."""

    keys: tuple[KeyShape, ...]
    headers: tuple[str, ...]
    """Names from `storable.HEADERS`."""
    unknown: tuple[KeyShape, ...]
    """Shapes for which the answer was not found."""


class Specimens:
    """The objects of one check. The target keeps no versions, and lets us delete objects."""

    def __init__(self, store: ProbedStore, name: str) -> None:
        """Prepare. A `store` without retries answers sooner.

        `name` comes from `own_keys`. If the store drops parts of a key, the rest begins with it.
        """
        self._store = store
        self.name = name
        self._written: list[_Specimen] = []
        self._is_faithful = False

    async def examine(self, deadline: float, *, is_far: bool) -> Findings:
        """Write, list and read objects. `is_far`: a round trip to the store takes long.

        Raises:
            SlurperError: even an ordinary object could not be written and read.
            TimeoutError: there is no time to try each shape by itself. It is raised early, so that
                the objects can still be removed.
        """
        began = asyncio.get_running_loop().time()
        whole, plain = self._with_everything(), self._plain()
        described = [
            _Specimen(self._under(letter), headers=ObjectHeaders({}, dict(metadata)))
            for letter, metadata in (("c", _BEYOND_ASCII), ("d", _LONG), ("e", _UNDERSCORED))
        ]
        single = self._of_one_shape_each()
        await self._try([whole, plain, *described, *(single if is_far else ())])
        _raise_unless_kept(plain)
        tried = [whole]
        if whole.fate is not _Fate.KEPT:
            tried = single
            if not is_far:
                now = asyncio.get_running_loop().time()
                if deadline - now < now - began:
                    raise TimeoutError
                await self._try(single)
        fates = {shape: one.fate for one in tried for shape in one.shapes}
        self._is_faithful = set(fates.values()) == {_Fate.KEPT}
        return Findings(
            keys=tuple(shape for shape in KeyShape if fates[shape] is _Fate.NOT_KEPT),
            headers=tuple(_lost(plain, *described)),
            unknown=tuple(shape for shape in KeyShape if fates[shape] is _Fate.UNKNOWN),
        )

    async def remove(self, store: ProbedStore) -> None:
        """Delete everything that was written, also under keys that the store has changed.

        `store` is the same store, with retries.

        Raises:
            SlurperError: something may be left.
        """
        if self._written:
            keys = [one.key for one in self._written if not one.is_refused]
            await clean_up.delete_below(store, self.name, keys, is_faithful=self._is_faithful)

    # What is written

    def _plain(self) -> _Specimen:
        headers = ObjectHeaders(dict(_CONTENT), dict(_METADATA))
        return _Specimen(self._under("b"), body=_ZIPPED, headers=headers)

    def _under(self, letter: str) -> str:
        """A key with its letter. With it, listings by folder and by key have the same order."""
        return f"{self.name}/{self.name}-{letter}"

    def _with_everything(self) -> _Specimen:
        """An object whose key has every shape."""
        name = self.name
        odd = "\x01\t\x7f\n\r %41+\u00fcu\u0308\U0001f600"
        key = f"/{name}//{name}/./{name}/../{name}\\{name}/{name}{odd}/ {name} /{name}./"
        key += _long_segment(name) + "/"
        return _Specimen(key, tuple(KeyShape), headers=ObjectHeaders({}, dict(_METADATA)))

    def _of_one_shape_each(self) -> list[_Specimen]:
        name, under = self.name, self._under
        keys = {
            KeyShape.LEADING_SLASH: f"/{under('f')}",
            KeyShape.EMPTY_SEGMENT: f"{under('g')}//{name}",
            KeyShape.DOT_SEGMENT: f"{under('h')}/./{name}",
            KeyShape.DOUBLE_DOT_SEGMENT: f"{under('i')}/../{name}",
            KeyShape.LONG_SEGMENT: f"{name}/{_long_segment(f'{name}-j')}",
            KeyShape.EDGE_SPACE: f"{under('k')} / {name}",
            KeyShape.TRAILING_DOT: f"{under('l')}./{name}.",
            KeyShape.BACKSLASH: f"{under('m')}\\{name}",
            KeyShape.CONTROL_CHARACTER: f"{under('n')}\x01\t\x7f",
            KeyShape.LINE_BREAK: f"{under('o')}\n\r{name}",
            KeyShape.PERCENT: f"{under('p')}%41",
            KeyShape.PLUS: f"{under('q')}+q",
            KeyShape.COMPOSED: f"{under('r')}\u00fc",
            KeyShape.DECOMPOSED: f"{under('s')}u\u0308",
            KeyShape.BEYOND_BMP: f"{under('t')}\U0001f600",
            KeyShape.FOLDER: f"{under('u')}/",
            KeyShape.FOLDER_WITH_BYTES: f"{under('v')}/",
            KeyShape.FOLDER_WITH_HEADERS: f"{under('w')}/",
        }
        return [_of_shape(shape, key) for shape, key in keys.items()]

    # What comes back

    async def _try(self, specimens: Sequence[_Specimen]) -> None:
        self._written += specimens
        await asyncio.gather(*map(self._write, specimens))
        listing = asyncio.ensure_future(self._listed(specimens))
        await asyncio.gather(listing, *map(self._read, specimens))
        listed = listing.result()
        for one in specimens:
            one.is_listed = listed.get(one.key) == len(one.body)

    async def _write(self, one: _Specimen) -> None:
        await self._put(one)
        if _is_500(one.refusal):  # by chance, or for each object like this one
            await self._put(one)

    async def _put(self, one: _Specimen) -> None:
        one.refusal = None
        try:
            await self._store.put(one.key, Body([one.body] if one.body else []), one.headers)
        except errors.SlurperError as error:
            one.refusal = error

    async def _read(self, one: _Specimen) -> None:
        try:
            one.found = await self._store.get(one.key)
        except errors.SlurperError as error:
            one.found = error

    async def _listed(self, specimens: Iterable[_Specimen]) -> dict[str, int]:
        """The keys that can be listed, with their sizes."""
        keys = [one.key for one in specimens]
        below, behind_slash = await asyncio.gather(
            self._listed_of(self.name, keys), self._listed_of(f"/{self.name}", keys)
        )
        return below | behind_slash

    async def _listed_of(self, prefix: str, keys: Sequence[str]) -> dict[str, int]:
        page = await self._page(prefix)
        if page is not None:
            return page
        # List each key by itself, so that one that cannot be listed does not hide the others.
        sought = [key for key in keys if key.startswith(prefix)]
        pages = await asyncio.gather(*map(self._page, sought))
        return {key: size for page in pages if page is not None for key, size in page.items()}

    async def _page(self, prefix: str) -> dict[str, int] | None:
        """The keys under a prefix, with sizes; None: the store refuses it, or lists other keys."""
        found: dict[str, int] = {}
        last: str | None = None
        try:
            while True:
                page = await self._store.list_page(prefix=prefix, start_after=last)
                found |= {meta.key: meta.size for meta in page.objects}
                if page.finished or not page.objects:  # a short page need not be the last
                    return found
                last = page.objects[-1].key
        except errors.SlurperError as error:
            if error.retryable:
                raise
            return None


def _long_segment(beginning: str) -> str:
    return beginning.ljust(key_shapes.LONG_SEGMENT_BYTES + 1, "j")


def _is_500(error: errors.SlurperError | None) -> bool:
    return isinstance(error, errors.StoreError) and error.status == 500


def _of_shape(shape: KeyShape, key: str) -> _Specimen:
    body = b"" if shape in _EMPTY else b"precheck"
    has_metadata = shape is KeyShape.FOLDER_WITH_HEADERS
    headers = ObjectHeaders({}, dict(_METADATA) if has_metadata else {})
    return _Specimen(key, (shape,), body, headers)


def _raise_unless_kept(plain: _Specimen) -> None:
    """Raise the error of the ordinary object, if any: then the other objects tell us nothing."""
    for error in (plain.refusal, plain.found):
        if isinstance(error, errors.SlurperError):
            raise error
    if not plain.is_listed:
        raise errors.ListingError("an object that was just written is not listed")


def _lost(
    plain: _Specimen, beyond: _Specimen, long: _Specimen, underscored: _Specimen
) -> Iterable[str]:
    """Which headers have not come back, in the order of `storable.HEADERS`."""
    kept = _kept_of(plain)
    for name in storable.HEADERS:
        if name in CONTENT_HEADERS and kept.content.get(name) != _CONTENT[name]:
            yield name
    if kept.metadata != _METADATA:
        yield "metadata"
        return
    if isinstance(beyond.found, Download) and not _is_same_text(_kept_of(beyond).metadata):
        yield "metadata-beyond-ascii"
    if isinstance(long.found, Download) and _kept_of(long).metadata != _LONG:
        yield "long-metadata"
    if isinstance(underscored.found, Download) and _kept_of(underscored).metadata != _UNDERSCORED:
        yield "underscored-metadata"


def _kept_of(one: _Specimen) -> ObjectHeaders:
    return one.found.stored.headers if isinstance(one.found, Download) else ObjectHeaders()


def _is_same_text(metadata: dict[str, str]) -> bool:
    """Whether text beyond ASCII came back, as UTF-8 bytes, Latin-1 or encoded words."""
    (name, sent), *_ = _BEYOND_ASCII.items()
    value = metadata.get(name, "")
    text = sent.encode("latin-1").decode()
    forms = {
        value,
        encoded_words.decoded(value),
        value.encode("latin-1").decode("utf-8", "replace"),
    }
    return text in forms
