"""Slices of the key space.

Keys are compared in UTF-8 byte order, the order in which object stores list. Python compares `str`
by code point, which is the same order, so plain `<` is right for keys throughout.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys `start_after < key <= end_at`.

    Start is exclusive and end inclusive, because a listing continues *after* a key and a cursor
    says *up to and including* a key. None leaves a side open.
    """

    start_after: str | None = None
    end_at: str | None = None

    def __contains__(self, key: str) -> bool:
        after_start = self.start_after is None or key > self.start_after
        return after_start and (self.end_at is None or key <= self.end_at)

    def after(self, cursor: str | None) -> KeyRange:
        """The part of this range that lies after `cursor` (None: all of it)."""
        return self if cursor is None else KeyRange(cursor, self.end_at)
