"""Puts metadata that a header cannot carry into RFC 2047 words, and reads such words.

AWS and R2 keep metadata as text: they read `=?UTF-8?B?Z3LDvG4=?=` as `grün`, and answer with such a
word. Other stores keep the bytes of a header as they are. So words pass from store to store
unchanged. What is put into words:

    the value                                  for stores that decode   for others
    raw bytes beyond ASCII                     words                    as it is
    blanks around it, line breaks, controls    words                    words

HTTP drops blanks around a value, and ends a header at a line break. Only a store with another
interface (Google's) can hold such values. A word keeps them: decoding it gives the value back.
"""

from __future__ import annotations

import base64
import email.errors
import email.header
import re
from collections.abc import Iterator

_MAX_RAW_BYTES = 45
"""Base64 turns them into 60 characters. A word has at most 75, with its frame."""


_CARRIED = re.compile(r"(?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?")
"""No blanks at its ends, and no control characters except tabs inside."""


def is_carried(value: str) -> bool:
    """Whether a header can carry this value as it is; it has one character per byte."""
    if value.isascii() and value.isprintable() and value == value.strip(" "):
        return True  # a quick test that nearly every value passes
    return _CARRIED.fullmatch(value) is not None


def encoded(value: str, *, ascii_only: bool = True) -> str:
    """The value as a header can carry it; `value` has one character per byte.

    `ascii_only`: the store takes no other bytes, and reads words as the text they stand for.
    """
    if is_carried(value) and (value.isascii() or not ascii_only):
        return value
    raw = value.encode("latin-1")
    try:
        text, charset = raw.decode(), "UTF-8"
    except UnicodeDecodeError:
        text, charset = value, "ISO-8859-1"
    return " ".join(
        f"=?{charset}?B?{base64.b64encode(piece).decode()}?=" for piece in _pieces(text, charset)
    )


def decoded(value: str) -> str | None:
    """The value with its words decoded; None when it has no words, or they cannot be decoded."""
    if "=?" not in value:
        return None
    try:
        return str(email.header.make_header(email.header.decode_header(value)))
    except (email.errors.HeaderParseError, LookupError, UnicodeError):
        return None


def _pieces(text: str, charset: str) -> Iterator[bytes]:
    """Cut between characters: each word must be readable by itself."""
    piece = b""
    for character in text:
        raw = character.encode(charset)
        if len(piece) + len(raw) > _MAX_RAW_BYTES:
            yield piece
            piece = b""
        piece += raw
    yield piece
