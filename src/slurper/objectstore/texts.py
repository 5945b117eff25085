"""Cleans what a store wrote, on its way into errors, logs, tables and terminals.

This is for texts, codes, request ids and numbers that people read. What goes back to the store is
never changed: keys, ETags, upload ids, versions, tokens of pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from slurper.printable import is_printable

MOST_CHARACTERS = 128
"""Longer texts are cut."""

_LOOKED_AT = 16
"""So many times the wanted length is looked at: blanks and escape sequences may be dropped."""

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])"
)
"""Commands to a terminal: colours, the title of its window, its clipboard."""


def cleaned(text: str, most: int = MOST_CHARACTERS, *, hidden: Iterable[str] = ()) -> str:
    """Return a text on one line, without commands to a terminal and characters not to be seen.

    The latter are control characters (also those of 8 bits), those that turn the direction of
    writing, and those without width. Of the `hidden` secrets nothing is left: they are hidden
    before the text is cut, and after what may stand between their characters is dropped.
    """
    begins = without(text, hidden)[: most * _LOOKED_AT]
    seen = (c for c in _ESCAPE_SEQUENCE.sub("", begins) if c.isspace() or is_printable(c))
    return cut(without(" ".join("".join(seen).split()), hidden), most)


def without(text: str, hidden: Iterable[str]) -> str:
    """Hide secrets in a text."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


def cut(text: str, most: int = MOST_CHARACTERS) -> str:
    """Return at most so many characters of a text; the last one shows that it was cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def quoted(text: str) -> str:
    """Return a key or name in quotes, with escapes for what cannot be seen, and cut."""
    return repr(cut(text))
