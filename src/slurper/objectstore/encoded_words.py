"""Text beyond ASCII in metadata headers, as RFC 2047 words.

AWS and R2 keep metadata as text: they read `=?UTF-8?B?Z3LDvG4=?=` as `grün`, and write it so when
they are asked for it. Other stores keep the bytes of a header as they are. So words pass from store
to store unchanged, and only raw bytes beyond ASCII are put into words, for stores that decode.
"""

from __future__ import annotations

import base64
import email.errors
import email.header
from collections.abc import Iterator

_MAX_RAW_BYTES = 45
"""Base64 makes 60 characters of them; a word has at most 75, its frame included."""


def encoded(value: str) -> str:
    """The value of a header in ASCII; `value` has one character per byte."""
    if value.isascii():
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
    """The text that words stand for, with what stands between them; None when there are none."""
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
