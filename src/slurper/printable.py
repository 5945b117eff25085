r"""Makes text harmless that others have written, before a person sees it.

Keys, provider messages and answers of a server may hold characters that a terminal obeys: they move
the cursor, change what was printed before, or send what looks like typing. Others cannot be seen,
or turn the direction of writing, so that a text reads as another one. All of them are shown as
escapes, such as `\x1b` and `\u202e`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Python calls printable, although it takes no room or shows nothing."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def is_printable(text: str) -> bool:
    """Whether the text is one line in which each character can be seen."""
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)


def printable(text: str) -> str:
    """Return `text` as one line in which each character can be seen. Line breaks are escaped too.

    A backslash stays as it is: the text is for people, and cannot always be turned back.
    """
    return text if is_printable(text) else _each(text, _escape)


def printable_lines(text: str) -> str:
    """Return `text` the same way, but with its line breaks.

    It is for texts that we have put together. What others have written may break no line, so it
    goes through `printable` before.
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_json(value: object, **options: Any) -> str:  # noqa: ANN401 - those of json.dumps
    """Return a JSON document that means the same as `value`, and in which everything is seen."""
    # JSON has the characters that are escaped here only inside of strings, and there it fits.
    plain = json.dumps(value, **options, ensure_ascii=False)
    return "\n".join(
        line if is_printable(line) else _each(line, _escape_in_json) for line in plain.split("\n")
    )


def _each(text: str, escape: Callable[[str], str]) -> str:
    return "".join(each if is_printable(each) else escape(each) for each in text)


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return _SHORT.get(character, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _escape_in_json(character: str) -> str:
    return json.dumps(character)[1:-1]
