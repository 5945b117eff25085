"""Slices of the key space, and keys between two keys.

Keys are compared in UTF-8 byte order, the order in which object stores list. Python compares `str`
by code point. For keys that are UTF-8 this is the same order, so `<` is right. It is wrong for keys
that are not UTF-8: here their odd bytes are lone surrogates, which have another place by code
point.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

MAX_KEY_BYTES = 1024
"""The longest key that all stores accept."""

_COUNT = 4
"""So many characters after the common beginning of two keys tell how far apart the keys are."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys `start_after < key <= end_at`.

    Start is exclusive and end inclusive, because a listing continues *after* a key and a cursor
    says *up to and including* a key. None leaves a side open.
    """

    start_after: str | None = None
    end_at: str | None = None

    def __contains__(self, key: str) -> bool:
        after_start = self.start_after is None or encode_key(key) > encode_key(self.start_after)
        return after_start and not self.ends_before(key)

    def ends_before(self, key: str) -> bool:
        """Whether a key lies beyond the end."""
        return self.end_at is not None and encode_key(key) > encode_key(self.end_at)

    def after(self, cursor: str | None) -> KeyRange:
        """The part of this range that lies after `cursor` (None: all of it)."""
        return self if cursor is None else KeyRange(cursor, self.end_at)


def encode_key(key: str) -> bytes:
    """A key's own bytes."""
    return key.encode("utf-8", "surrogateescape")


def is_text(key: str) -> bool:
    """Whether a key is UTF-8, as nearly all are."""
    return not any("\ud800" <= character <= "\udfff" for character in key)


def shared_length(low: str, high: str) -> int:
    """How many characters two keys share at their beginning."""
    end = min(len(low), len(high))
    return next((at for at in range(end) if low[at] != high[at]), end)


def following(character: str) -> str | None:
    """The next character that we may put into a key; None after the last."""
    return _plain_from(ord(character) + 1)


def between(low: str, high: str, alphabet: Sequence[str] = ()) -> str | None:
    """A key about half way between two keys: `low < key < high`.

    `alphabet` holds, in order, the characters that keys use where these two differ. If none of
    them lies between the two, any character may be used. No control character is added to the
    beginning that both share. So the key can be part of any document and request.

    None: there is no such key that is UTF-8 and short enough.
    """
    same = shared_length(low, high)
    for digits in (_Digits(alphabet), _EVERY) if alphabet else (_EVERY,):
        for count in (_COUNT, 2 * _COUNT):
            tail = digits.middle(low[same : same + count], high[same : same + count], count)
            key = low[:same] + tail
            if _fits(low, key, high):
                return key
    lowest = low + "!"  # half way there may be only characters that we do not add
    return lowest if _fits(low, lowest, high) else None


def _fits(low: str, key: str, high: str) -> bool:
    return low < key < high and is_text(key) and len(encode_key(key)) <= MAX_KEY_BYTES


class _Digits:
    """Reads a few characters as a number, one digit each. The digit 0 stands for the key's end."""

    def __init__(self, alphabet: Sequence[str]) -> None:
        self._alphabet = alphabet
        self._base = len(alphabet) + 1

    def middle(self, low: str, high: str, count: int) -> str:
        """The text half way between two."""
        number = (self._number(low, count) + self._number(high, count)) // 2
        text = ""
        for place in reversed(range(count)):
            digit = number // self._base**place % self._base
            if digit == 0:
                break
            text += self._character(digit)
        return text

    def _number(self, text: str, count: int) -> int:
        number = 0
        for at in range(count):
            number = number * self._base + (self._digit(text[at]) if at < len(text) else 0)
        return number

    def _digit(self, character: str) -> int:
        return min(bisect_left(self._alphabet, character) + 1, len(self._alphabet))

    def _character(self, digit: int) -> str:
        return self._alphabet[digit - 1]


class _AllDigits(_Digits):
    """The same with every character there is."""

    def __init__(self) -> None:
        super().__init__("")
        self._base = 0x110001

    def _digit(self, character: str) -> int:
        return ord(character) + 1

    def _character(self, digit: int) -> str:
        return _plain_from(digit - 1) or chr(0x10FFFD)


_EVERY = _AllDigits()


def _plain_from(code: int) -> str | None:
    """The first character from `code` on that any document may hold.

    Control characters, surrogates and non-characters are passed over: XML 1.0 does not allow them
    or advises against them.
    """
    while code < 0x110000:
        is_control = code < 0x20 or 0x7F <= code < 0xA0
        if not (is_control or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE):
            return chr(code)
        code = 0xE000 if 0xD800 <= code < 0xE000 else code + 1
    return None
