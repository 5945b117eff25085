"""Gathers the keys of a source that lists in no order, so that they can be copied by name.

Such a store cannot list from a given key on. So the listing is read from its first page to its
last. Each page is asked for with the token of the page before. If the store stops taking a token,
the listing begins anew. That does no harm, because the database keeps every key once (decision
0022).
"""

from __future__ import annotations

import time

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore import own_keys
from slurper.objectstore.base import ListingPage, ObjectStore
from slurper.transfer import listing
from slurper.transfer.diagnosis import halt_text
from slurper.transfer.pacing import Pacer
from slurper.transfer.task import GatherReport, GatherTask, Halt

MAX_ROWS = 10_000
"""After so many keys a task reports: each becomes a row of the database, and one report holds all.
"""


async def gather(task: GatherTask, source: ObjectStore) -> GatherReport:
    """Go on with the listing until the budget is used up, or as many keys have come as fit."""
    return await _Gathering(task, source).report()


class _Gathering:
    """One task under way."""

    def __init__(self, task: GatherTask, source: ObjectStore) -> None:
        self._task = task
        self._source = source
        self._pacer = None if task.share is None else Pacer(task.share)
        self._deadline = time.monotonic() + task.budget_seconds
        self._token = task.token or ""
        self._keys: dict[str, None] = {}
        self._rows = 0
        self._anew = False
        self._finished = False
        self._halt: Halt | None = None

    async def report(self) -> GatherReport:
        try:
            await self._list()
        except errors.SlurperError as error:
            log_type = LogType.MIGRATION_ERROR_FAILED_CONTINUATION
            self._halt = Halt(log_type=log_type, message=halt_text(error, None))
        return GatherReport(
            job_id=self._task.job_id,
            range_id=self._task.range_id,
            started_after=self._task.token,
            cursor=self._token or None,
            keys=tuple(self._keys),
            rows=self._rows,
            anew=self._anew,
            finished=self._finished,
            halt=self._halt,
            owed_seconds=0.0 if self._pacer is None else self._pacer.owed_seconds,
        )

    async def _list(self) -> None:
        while not self._finished:
            page = await self._next_page()
            if not page.finished and page.token in ("", self._token):
                raise errors.ListingError("the listing goes on with the same token")
            keys = await self._keys_of(page)
            if self._pacer is not None:
                self._pacer.spend(requests=1 + len(page.written))  # and for spellings
            self._keys |= dict.fromkeys(keys)
            self._rows += max(1, len(page.objects))
            self._finished = page.finished
            self._token = "" if page.finished else page.token
            if self._rows >= MAX_ROWS or time.monotonic() >= self._deadline:
                return
            if self._pacer is not None:
                await self._pacer.turn_to_ask()

    async def _next_page(self) -> ListingPage:
        try:
            return await self._source.list_on(prefix=self._task.prefix, token=self._token)
        except errors.SlurperError:
            if self._anew or not self._token:
                raise
        page = await self._source.list_on(prefix=self._task.prefix)
        self._token, self._rows, self._anew = "", 0, True
        return page

    async def _keys_of(self, page: ListingPage) -> list[str]:
        """The keys of a page except our own, as the store spells them."""
        keys = [meta.key for meta in own_keys.without_own(page.objects)]
        doubtful = [key for key in keys if key in page.written]
        right = await listing.spellings(self._source, doubtful, page.written)
        return [right.get(key, key) for key in keys]
