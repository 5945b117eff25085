"""Different keys that are the same text in Unicode. A store that normalises keeps them as one key.

`ü` is one character, or `u` and a combining mark. Names made on macOS have the second form. At a
target that normalises, such as R2, the second of two such objects would replace the first without
an error. So only one spelling of each text is copied (see `outranks`).

A text is cut into pieces. Each piece has few spellings, but a long name has very many, because the
spellings of its pieces combine freely. They are too many to ask for one by one. But few of their
beginnings exist at the source. So spellings are looked for piece by piece.
"""

from __future__ import annotations

import functools
import itertools
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

_HANGUL_VOWELS_AND_FINALS = range(0x1161, 0x11C3)
_MAX_PIECE_CHARACTERS = 6
"""Of a longer piece, a letter with more than five marks, only the usual forms are looked for."""


def stored(key: str) -> str:
    """The key under which a store that normalises keeps this one."""
    return key if key.isascii() else unicodedata.normalize("NFC", key)


def is_stored_as_it_is(key: str) -> bool:
    """Whether such a store keeps this key unchanged; nearly all keys are."""
    return key.isascii() or unicodedata.is_normalized("NFC", key)


def outranks(spelling: str, other: str) -> bool:
    """Whether `spelling` and not `other` is the one to copy. Both are spellings of one text.

    The normal form comes first. Other spellings follow in byte order. So all tasks choose the same
    one, without knowing of each other.
    """
    rank = (not is_stored_as_it_is(spelling), spelling.encode("utf-8", "surrogateescape"))
    return rank < (not is_stored_as_it_is(other), other.encode("utf-8", "surrogateescape"))


def pieces(key: str) -> Sequence[frozenset[str]]:
    """Cut a key into pieces, and give for each all its spellings.

    Every spelling of the key is made of one spelling of each piece. Neighbouring pieces that have
    only one spelling are joined to one piece.
    """
    cut: list[str] = []
    for character in unicodedata.normalize("NFD", key):
        if cut and not _can_begin(character):
            cut[-1] += character
        else:
            cut.append(character)
    found: list[frozenset[str]] = []
    for spellings in map(_spellings, cut):
        if len(spellings) == 1 and found and len(found[-1]) == 1:
            found[-1] = frozenset({next(iter(found[-1])) + next(iter(spellings))})
        else:
            found.append(spellings)
    return found


def _can_begin(character: str) -> bool:
    return not unicodedata.combining(character) and character not in _composites().followers


@functools.lru_cache(maxsize=4096)
def _spellings(piece: str) -> frozenset[str]:
    """Every text whose NFD is this one."""
    if len(piece) > _MAX_PIECE_CHARACTERS:
        return frozenset({piece, unicodedata.normalize("NFC", piece)})
    return frozenset(
        text for text in _made_of(piece) if unicodedata.normalize("NFD", text) == piece
    )


@functools.lru_cache(maxsize=4096)
def _made_of(characters: str) -> frozenset[str]:
    """Texts of these characters in any order, some of them joined to composites."""
    if not characters:
        return frozenset({""})
    made: set[str] = set()
    for first in _first_characters(characters):
        rest = characters
        for part in unicodedata.normalize("NFD", first):
            rest = rest.replace(part, "", 1)
        # A composite that holds some of the marks may stand before the other marks.
        made.update(first + after for after in _made_of(rest))
    return frozenset(made)


def _first_characters(characters: str) -> set[str]:
    table = _composites().by_beginning
    found = set(characters)
    for character in set(characters):
        for composite in table.get(character, ()):
            parts = unicodedata.normalize("NFD", composite)
            if all(characters.count(part) >= parts.count(part) for part in parts):
                found.add(composite)
    for begin, end in itertools.combinations(range(len(characters) + 1), 2):
        joined = unicodedata.normalize("NFC", characters[begin:end])
        if len(joined) == 1:  # Hangul syllables are in no table
            found.add(joined)
    return found


class _Composites:
    """The characters that Unicode decomposes, by the first character of what they decompose to."""

    def __init__(self) -> None:
        self.by_beginning: dict[str, list[str]] = defaultdict(list)
        self.followers = set(map(chr, _HANGUL_VOWELS_AND_FINALS))
        for character in map(chr, range(0x80, sys.maxunicode + 1)):
            mapping = unicodedata.decomposition(character)
            if mapping and not mapping.startswith("<"):
                parts = unicodedata.normalize("NFD", character)
                self.by_beginning[parts[0]].append(character)
                self.followers.update(parts[1:])


@functools.cache
def _composites() -> _Composites:
    """Made only when a key is not normalised, because it takes a tenth of a second."""
    return _Composites()
