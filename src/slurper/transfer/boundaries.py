"""Where the rest of a task's slice can be cut, found while the task copies.

Some keys after those that were listed are asked for, one by one (`planning.splitting`). If there
are none, the listed keys that are not begun are cut into equal numbers. An error here only costs
the cut; the task goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from slurper import errors
from slurper.objectstore.base import ObjectStore
from slurper.planning.splitting import BoundarySearch

MIN_LISTED_KEYS = 16
"""A piece must hold at least so many listed keys."""


class Boundaries:
    """Looks for `pieces - 1` keys to cut a slice at, beside the task's own work."""

    def __init__(self, store: ObjectStore, *, prefix: str, end_at: str | None, pieces: int) -> None:
        self._store = store
        self._prefix = prefix
        self._end_at = end_at
        self._pieces = pieces
        self.last_listed: str | None = None
        """The last of the slice's keys that the task has seen."""
        self._search: BoundarySearch | None = None
        self._searching: asyncio.Task[None] | None = None

    def look_behind(self, listed: Sequence[str], found: Callable[[], None]) -> None:
        """Begin the search after the slice's first listed keys. Later calls do nothing.

        `found` is called when there is a cut to report, or when no other keys exist.
        """
        if self._pieces == 1 or not listed or self._search is not None:
            return
        self._search = BoundarySearch(
            listed, prefix=self._prefix, end_at=self._end_at, pieces=self._pieces
        )
        self._searching = asyncio.create_task(self._run(self._search, found))

    def drop(self) -> None:
        """Forget what was found: the keys do not come in byte order."""
        self._search = None

    async def close(self) -> None:
        """End the search; what it has found stays."""
        if self._searching is not None:
            self._searching.cancel()
            await asyncio.gather(self._searching, return_exceptions=True)

    def among(self, listed: Sequence[str]) -> tuple[str, ...]:
        """Return cuts for what is left: the `listed` keys, which are not begun, and all later."""
        if self._search is None or self.last_listed is None:
            return ()
        begin = listed[0] if listed else self.last_listed
        ahead = tuple(sorted(cut for cut in self._search.found if cut >= begin))
        if ahead:
            return ahead
        pieces = min(self._pieces, len(listed) // MIN_LISTED_KEYS)
        return tuple(listed[piece * len(listed) // pieces - 1] for piece in range(1, pieces))

    async def _run(self, search: BoundarySearch, found: Callable[[], None]) -> None:
        try:
            await self._ask(search, found)
        except errors.SlurperError:
            return  # if the error matters, the task meets it too
        if search.nothing_behind:
            found()

    async def _ask(self, search: BoundarySearch, found: Callable[[], None]) -> None:
        questions = search.questions()  # sending None begins it
        answer: str | None = None
        try:
            while True:
                question = questions.send(answer)
                if search.found:
                    found()
                answer = await self._first_after(question)
        except StopIteration:
            return

    async def _first_after(self, key: str) -> str | None:
        page = await self._store.list_page(prefix=self._prefix, start_after=key, max_keys=1)
        return page.objects[0].key if page.objects else None
