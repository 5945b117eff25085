"""Keys that a listing decodes although the store may have meant them as they are written.

A store that was asked to encode keys may not have done so. A key that looks encoded then has two
spellings, and only a request tells which one exists.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from slurper.objectstore.base import ObjectMeta
from slurper.transfer import listing
from slurper.transfer.route import Route

_PAGES_COPIED = 3
"""Objects of this many pages may be under way at once. Pages without objects do not count."""


class DecodedKeys:
    """The keys of the last pages that were decoded."""

    def __init__(self, route: Route) -> None:
        self._source = route.source
        self._written: deque[Mapping[str, str]] = deque(maxlen=_PAGES_COPIED)
        """For each page: its decoded keys, each with the store's own spelling."""

    def note(self, page: listing.Page) -> None:
        """Take note of the decoded keys of a page."""
        if page.written:
            self._written.append(page.written)

    def other_spelling(self, key: str) -> str | None:
        """Another key that this key may stand for, unless that one was listed itself."""
        others = [written[key] for written in self._written if key in written]
        return next((one for one in others if not any(one in w for w in self._written)), None)

    async def as_spelled(
        self, page: listing.Page, is_large: Callable[[ObjectMeta], bool]
    ) -> Sequence[tuple[str, listing.Found]]:
        """The rows of a page. A large object gets the key that exists: other tasks copy it."""
        if not page.written:
            return page.rows
        doubtful = {
            key
            for key, found in page.rows
            if key in page.written and isinstance(found, ObjectMeta) and is_large(found)
        }
        right = await listing.spellings(self._source, sorted(doubtful), page.written)
        return [
            (key, found._replace(key=right[key]))
            if key in right and isinstance(found, ObjectMeta)
            else (key, found)
            for key, found in page.rows
        ]
