"""Turns pages of a slice into objects to copy. All other keys are settled at once."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore import storable
from slurper.objectstore.base import ObjectMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.planning import selection
from slurper.transfer import listing
from slurper.transfer.boundaries import Boundaries
from slurper.transfer.collisions import Collisions, NormalisedTarget
from slurper.transfer.copy import BARE_FOLDER, Copier
from slurper.transfer.deadline import Deadline
from slurper.transfer.decoded_keys import DecodedKeys
from slurper.transfer.diagnosis import Diagnosis, failure_text, own_failure_text
from slurper.transfer.ledger import Entry, Failed, Large, Ledger, Skipped, Transferred
from slurper.transfer.pacing import Pacer
from slurper.transfer.route import Route
from slurper.transfer.task import RangeTask
from slurper.transfer.walk import lists_in_own_order

MAX_LARGE = 1000
"""After so many large objects a task begins nothing more: each becomes a row of the database."""

SPLIT_SECONDS = 0.2
"""A task works at least this long before its slice is split. Shorter work is not worth it."""

_EXISTS = Skipped()
_NO_KEY_LEFT = "without its prefix the key is empty; copy it by a job without options.stripPrefix"


class Selector:
    """Settles the keys that are not copied, and puts the others into `planned`, in key order."""

    def __init__(
        self,
        route: Route,
        rules: selection.Rules,
        *,
        copier: Copier,
        diagnosis: Diagnosis,
        ledger: Ledger,
        deadline: Deadline,
    ) -> None:
        self.rules = rules
        self._route = route
        self._copier = copier
        self._diagnosis = diagnosis
        self._ledger = ledger
        self._deadline = deadline
        self._large = 0
        self.is_large = copier.is_large
        self.planned: deque[tuple[Entry, ObjectMeta]] = deque()

    async def take(
        self,
        rows: Sequence[tuple[str, listing.Found]],
        target_keys: Sequence[str],
        existing: Mapping[str, listing.Found],
        collisions: Mapping[str, str],
    ) -> None:
        """Decide about the keys of a page.

        Args:
            rows: The keys, each with what the source has.
            target_keys: The same keys at the target.
            existing: Those target keys that exist, each with what the target has.
            collisions: The keys that must not be copied because another one is, each with the text
                for its log entry.
        """
        came_at = time.monotonic()
        for (key, found), target_key in zip(rows, target_keys, strict=True):
            if self._ledger.is_full:  # the rest of the page is for the next task
                return
            entry = self._ledger.open(key)
            there = existing.get(target_key)
            if isinstance(found, errors.Refused):
                await self._settle_refused(entry, found, came_at=came_at)
            elif isinstance(there, errors.Refused):  # it may be there: nothing is written
                await self._settle_refused(entry, there, came_at=came_at, looked=True)
            elif isinstance(found, errors.NotFound):
                await self._settle_absent(entry, found)
            else:
                self._select(entry, found, target_key, there, collisions.get(key))

    def _select(
        self,
        entry: Entry,
        found: listing.Found,
        target_key: str,
        existing: listing.Found | None,
        collision: str | None,
    ) -> None:
        if collision is not None:
            self._ledger.settle(entry, Failed(collision))
            return
        if not isinstance(found, ObjectMeta):
            self._ledger.settle(entry, _failed(found))
            return
        if isinstance(existing, errors.SlurperError):  # it may be there: nothing is written
            self._ledger.settle(entry, _failed(self._refusal(target_key, found.size) or existing))
            return
        if not target_key:
            self._ledger.settle(entry, Failed(_NO_KEY_LEFT))
            return
        decision = selection.from_listing(found, existing, self.rules)
        if isinstance(decision, selection.Skip) and decision is not selection.EXISTS:
            self._ledger.settle(entry, Skipped(decision.log_type, decision.message))
        elif (refusal := self._refusal(target_key, found.size)) is not None:
            self._ledger.settle(entry, _failed(refusal))
        elif decision is selection.EXISTS:
            self._ledger.settle(entry, _EXISTS)
        elif decision is selection.DONE:
            self._ledger.settle(entry, Transferred(found.size))
        else:
            entry.in_doubt = decision is selection.COMPARE
            self._plan_object(entry, found)

    def _plan_object(self, entry: Entry, found: ObjectMeta) -> None:
        if self.is_large(found) and not entry.in_doubt:  # one in doubt is compared
            self._ledger.settle(entry, Large(found))
            self._large += 1
            if self._large >= MAX_LARGE:
                self._deadline.end_now()
        else:
            self.planned.append((entry, found))

    def _refusal(self, target_key: str, size: int) -> errors.NotStorable | None:
        """Why the target cannot keep an object under this key.

        This is checked before the target's answer is used: a store that rewrites keys describes the
        object under the rewritten key.
        """
        try:
            storable.check_key(target_key, self._route.target.dialect, size=size)
        except errors.NotStorable as error:
            return error
        return None

    async def _settle_refused(
        self, entry: Entry, refusal: errors.Refused, *, came_at: float, looked: bool = False
    ) -> None:
        """Fail an object that was refused. If everything is refused, it stays unsettled."""
        is_alone = await self._diagnosis.is_of_object(
            entry.key, refusal, came_at=came_at, looked=looked
        )
        if is_alone:
            self._ledger.settle(entry, Failed(own_failure_text(refusal, 1)))

    async def _settle_absent(self, entry: Entry, absence: errors.NotFound) -> None:
        """Settle a key that was asked for by name, if the source has no such object."""
        try:
            is_folder = await self._copier.is_bare_folder(entry.key)
        except errors.SlurperError as cause:
            self._diagnosis.stop(LogType.MIGRATION_ERROR, cause)
            return
        self._ledger.settle(entry, BARE_FOLDER if is_folder else _failed(absence))


class Planner:
    """Plans the pages of one task. One lane at a time plans a page; the others wait for it."""

    def __init__(
        self,
        task: RangeTask,
        route: Route,
        selector: Selector,
        *,
        decoded: DecodedKeys,
        boundaries: Boundaries,
        deadline: Deadline,
        diagnosis: Diagnosis,
        pacer: Pacer | None,
    ) -> None:
        self._task = task
        self._route = route
        self._selector = selector
        self._decoded = decoded
        self._boundaries = boundaries
        self._deadline = deadline
        self._diagnosis = diagnosis
        self._pacer = pacer
        self._collisions = Collisions(route)
        self._pages = _source_pages(task, route, is_paced=pacer is not None)
        self._existing = _existing(task, route)
        self._planning = asyncio.Lock()
        self.order = KeyOrder.BYTES
        self.disorder = ""
        """What showed that the source lists in another order than the one we know of."""
        self.exhausted = False
        """The slice has no more pages."""

    def replay(self, since: datetime) -> None:
        """Recognise objects that lost work has written after `since`, by the target's clock."""
        selector = self._selector
        selector.rules = dataclasses.replace(selector.rules, replayed_since=since)

    async def plan(self) -> bool:
        """Plan pages until there is an object to copy; False: there will be none."""
        planned = self._selector.planned
        async with self._planning:
            while not (planned or self.exhausted or self._is_over):
                if self._pacer is not None:
                    await self._pacer.turn_to_ask(self._deadline.at)
                await self._plan_page()
        return bool(planned)

    async def close(self) -> None:
        """End the listing of the source."""
        await self._pages.aclose()

    @property
    def _is_over(self) -> bool:
        return self._diagnosis.halt is not None or self._deadline.is_over

    async def _plan_page(self) -> None:
        try:
            page = await anext(self._pages, None)
        except errors.SlurperError as error:
            if isinstance(error, errors.OutOfOrder) and await self._is_its_order(error):
                self._stop_for_its_order(error, KeyOrder.OWN)
            elif isinstance(error, errors.NoOrder):
                self._stop_for_its_order(error, KeyOrder.NONE)
            else:
                self._diagnosis.stop(LogType.MIGRATION_ERROR_FAILED_CONTINUATION, error)
            return
        if page is None:
            self.exhausted = True
            return
        self.order = page.order
        if self._pacer is not None:
            self._pacer.spend(requests=self._asked_for(page))
        self._decoded.note(page)
        await self._plan_rows(page)

    async def _plan_rows(self, page: listing.Page) -> None:
        target_keys = [self._route.target_key(key) for key, _ in page.rows]
        try:
            existing = await self._existing.among(target_keys, page.order) if page.rows else {}
            collisions = await self._collisions.among([key for key, _ in page.rows])
            rows = await self._decoded.as_spelled(page, self._selector.is_large)
        except errors.SlurperError as error:
            self._diagnosis.stop(LogType.MIGRATION_ERROR, error)
            return
        if page.rows:
            self._note_listed(page)
        await self._selector.take(rows, target_keys, existing, collisions)

    def _note_listed(self, page: listing.Page) -> None:
        """When the first keys come, start the task's time and the search for cuts."""
        self._boundaries.last_listed = page.rows[-1][0]
        if self._deadline.has_started:
            return
        self._deadline.start(min_seconds=SPLIT_SECONDS)
        # A store that lists folder by folder is not split: its slices are not in byte order.
        if page.order is KeyOrder.BYTES:
            listed = [key for key, _ in page.rows]
            # When the slice can be cut, the task reports soon, so that others get their pieces.
            self._boundaries.look_behind(listed, self._deadline.end_early)

    def _asked_for(self, page: listing.Page) -> int:
        """How many requests a page takes, at the source, and at the target too if it is asked."""
        sides = 1 if self._task.overwrite else 2
        return sides * (page.requests if self._task.keys is None else len(page.rows))

    async def _is_its_order(self, error: errors.OutOfOrder) -> bool:
        if self._route.source.dialect.own_order:  # known already: the page is wrong
            return False
        return await lists_in_own_order(self._route.source, self._task.prefix, error)

    def _stop_for_its_order(self, error: errors.ListingError, order: KeyOrder) -> None:
        """End the task early: later tasks list the rest in the store's own order, or in none.

        All keys that were listed so far came in that order too.
        """
        self.order = order
        self.disorder = failure_text(error, 1)
        self._deadline.end_now()
        self._boundaries.drop()


def _source_pages(task: RangeTask, route: Route, *, is_paced: bool) -> listing.Pages:
    if task.keys is None:
        max_keys = listing.page_keys(task.expected_keys)
        pages = listing.listed_pages(route.source, task.prefix, task.slice, max_keys=max_keys)
    else:
        at_once = listing.HEADS_WHEN_PACED if is_paced else listing.HEADS_AT_ONCE
        pages = listing.named_pages(route.source, task.keys, task.slice, at_once=at_once)
    # A paced task does not read ahead: the page would be requested before it is charged.
    return pages if is_paced else listing.read_ahead(pages, task.expected_keys)


def _existing(task: RangeTask, route: Route) -> listing.Existing:
    if task.overwrite:
        return listing.NothingExists()
    either = (route.source.dialect, route.target.dialect)
    if task.keys is not None or any(dialect.own_order for dialect in either):
        return listing.NamedTarget(route.target)
    start_after = task.slice.start_after
    listed = listing.ListedTarget(
        route.target,
        prefix=route.target_key(task.prefix),
        start_after=start_after and route.target_key(start_after),
    )
    if route.target.dialect.normalises_keys:
        return NormalisedTarget(route.target, listed)
    return listed


def _failed(error: errors.SlurperError) -> Failed:
    return Failed(failure_text(error, 1))
