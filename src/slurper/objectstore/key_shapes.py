"""Shapes of keys that some stores do not keep: they rewrite such a key, or refuse it.

A store that keeps objects as files drops empty segments. A store behind a proxy may decode a key
twice. Another converts keys to one of Unicode's normal forms. For an unknown store this is found
out before a job begins (`service.probes.specimens`). An object whose key has such a shape fails.
The other objects are copied.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from enum import StrEnum

LONG_SEGMENT_BYTES = 255
"""A file name has at most this many bytes."""


class KeyShape(StrEnum):
    """A shape of a key. The values are shown, and kept with a job."""

    LEADING_SLASH = "leading-slash"
    EMPTY_SEGMENT = "empty-segment"
    DOT_SEGMENT = "dot-segment"
    DOUBLE_DOT_SEGMENT = "double-dot-segment"
    LONG_SEGMENT = "long-segment"
    EDGE_SPACE = "edge-space"
    TRAILING_DOT = "trailing-dot"
    BACKSLASH = "backslash"
    CONTROL_CHARACTER = "control-character"
    LINE_BREAK = "line-break"
    PERCENT = "percent"
    PLUS = "plus"
    COMPOSED = "composed"
    DECOMPOSED = "decomposed"
    BEYOND_BMP = "beyond-bmp"
    FOLDER = "folder"
    FOLDER_WITH_BYTES = "folder-with-bytes"
    FOLDER_WITH_HEADERS = "folder-with-headers"


KEPT_IN_FOLDERS = (
    KeyShape.LEADING_SLASH,
    KeyShape.EMPTY_SEGMENT,
    KeyShape.BACKSLASH,
    KeyShape.FOLDER_WITH_BYTES,
    KeyShape.FOLDER_WITH_HEADERS,
)
"""Keys that SeaweedFS rewrites, or keeps as a folder."""

_TEXTS = {
    KeyShape.LEADING_SLASH: "keys that begin with '/'",
    KeyShape.EMPTY_SEGMENT: "keys that hold '//'",
    KeyShape.DOT_SEGMENT: "keys with a segment '.'",
    KeyShape.DOUBLE_DOT_SEGMENT: "keys with a segment '..'",
    KeyShape.LONG_SEGMENT: f"keys with more than {LONG_SEGMENT_BYTES} bytes between two slashes",
    KeyShape.EDGE_SPACE: "keys with a space at the start or end of a segment",
    KeyShape.TRAILING_DOT: "keys with a dot at the end of a segment",
    KeyShape.BACKSLASH: "keys that hold a backslash",
    KeyShape.CONTROL_CHARACTER: "keys that hold control characters",
    KeyShape.LINE_BREAK: "keys that hold line breaks",
    KeyShape.PERCENT: "keys that hold '%'",
    KeyShape.PLUS: "keys that hold '+'",
    KeyShape.COMPOSED: "keys with composed letters (not in Unicode's form NFD)",
    KeyShape.DECOMPOSED: "keys with letters in pieces (not in Unicode's form NFC)",
    KeyShape.BEYOND_BMP: "keys with characters beyond U+FFFF",
    KeyShape.FOLDER: "keys that end with '/'",
    KeyShape.FOLDER_WITH_BYTES: "keys that end with '/', of objects with bytes",
    KeyShape.FOLDER_WITH_HEADERS: "keys that end with '/', of objects with metadata or headers "
    "other than their type",
}

_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]")
_LINE_BREAK = re.compile(r"[\n\r]")
_EDGE_SPACE = re.compile(r"(?:^|/) | (?:/|$)")
_TRAILING_DOT = re.compile(r"[^./]\.+(?:/|$)")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.(?:/|$)")
_DOUBLE_DOT_SEGMENT = re.compile(r"(?:^|/)\.\.(?:/|$)")


def _has_long_segment(key: str) -> bool:
    if len(key) * 4 <= LONG_SEGMENT_BYTES:
        return False
    segments = key.encode("utf-8", "surrogateescape").split(b"/")
    return max(map(len, segments)) > LONG_SEGMENT_BYTES


_BY_KEY: dict[KeyShape, Callable[[str], object]] = {
    KeyShape.LEADING_SLASH: lambda key: key.startswith("/"),
    KeyShape.EMPTY_SEGMENT: lambda key: "//" in key,
    KeyShape.DOT_SEGMENT: _DOT_SEGMENT.search,
    KeyShape.DOUBLE_DOT_SEGMENT: _DOUBLE_DOT_SEGMENT.search,
    KeyShape.LONG_SEGMENT: _has_long_segment,
    KeyShape.EDGE_SPACE: _EDGE_SPACE.search,
    KeyShape.TRAILING_DOT: _TRAILING_DOT.search,
    KeyShape.BACKSLASH: lambda key: "\\" in key,
    KeyShape.CONTROL_CHARACTER: _CONTROL.search,
    KeyShape.LINE_BREAK: _LINE_BREAK.search,
    KeyShape.PERCENT: lambda key: "%" in key,
    KeyShape.PLUS: lambda key: "+" in key,
    KeyShape.COMPOSED: lambda key: not unicodedata.is_normalized("NFD", key),
    KeyShape.DECOMPOSED: lambda key: not unicodedata.is_normalized("NFC", key),
    KeyShape.BEYOND_BMP: lambda key: max(key, default="") > "\uffff",
    KeyShape.FOLDER: lambda key: key.endswith("/"),
}
"""The shapes that the key alone shows."""


_PLAIN = re.compile(r"[!-$&-*,\-0-\[\]-~]++(?:[/.][!-$&-*,\-0-\[\]-~]++)*+")
"""Printable ASCII without `%`, `+`, backslash and space, where `/` and `.` stand singly inside."""


def is_plain(key: str) -> bool:
    """Whether a key has none of the shapes, for sure. False: `found_in` must tell.

    Most keys are plain. One match then stands for a search for each shape.
    """
    return len(key) <= LONG_SEGMENT_BYTES and _PLAIN.fullmatch(key) is not None


def found_in(
    key: str, shapes: Iterable[KeyShape], *, size: int | None, has_headers: bool
) -> KeyShape | None:
    """The first of these shapes that the key of an object has; None: it has none.

    `size` None: the object has bytes. `has_headers`: it has metadata, or a header other than its
    type.
    """
    for shape in shapes:
        if shape is KeyShape.FOLDER_WITH_BYTES:
            has_it: object = size != 0 and key.endswith("/")
        elif shape is KeyShape.FOLDER_WITH_HEADERS:
            has_it = has_headers and key.endswith("/")
        else:
            has_it = _BY_KEY[shape](key)
        if has_it:
            return shape
    return None


def text_of(shape: KeyShape) -> str:
    """The words for a shape in a sentence, in the plural."""
    return _TEXTS[shape]
