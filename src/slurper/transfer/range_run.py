"""One range task under way: list, select, copy, report."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore import storable
from slurper.objectstore.base import ObjectMeta, ObjectStore
from slurper.objectstore.dialects import KeyOrder
from slurper.objectstore.key_shapes import KeyShape
from slurper.planning import selection
from slurper.settings import Settings
from slurper.transfer import clocks, listing
from slurper.transfer.boundaries import Boundaries
from slurper.transfer.collisions import Folders, NormalisedTarget, Twins
from slurper.transfer.copy import BARE_FOLDER, Copier, failure_text, halt_text
from slurper.transfer.diagnosis import LEARNED_LATE, Permission, alone_text, find_outage
from slurper.transfer.etags import SourceEtags
from slurper.transfer.ledger import Entry, Failed, Large, Ledger, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget, Pacer
from slurper.transfer.server_side import Shortcut
from slurper.transfer.task import Halt, RangeReport, RangeTask
from slurper.transfer.walk import lists_in_own_order

MAX_LARGE = 1000
"""After so many large objects a task takes no other page: each of them becomes a row."""

SPLIT_SECONDS = 0.2
"""A task that can be split works at least this long. What takes no longer is not worth it."""

_PAGES_COPIED = 3
"""Objects of so many pages may be under way at once. Pages without objects do not count."""

_EXISTS = Skipped()
_NO_KEY_LEFT = "without its prefix the key is empty; copy it by a job without options.stripPrefix"


class RangeRun:
    """Runs one `RangeTask`.

    Lanes take planned objects in key order and copy them side by side. Any of them may find that
    the job cannot go on; then none takes another object, and those under way end by themselves.
    """

    def __init__(
        self,
        task: RangeTask,
        source: ObjectStore,
        target: ObjectStore,
        settings: Settings,
        budget: ByteBudget,
        *,
        shortcut: Shortcut | None = None,
        etags: SourceEtags | None = None,
    ) -> None:
        self._task = task
        self._source = source
        self._target = target
        self._lanes = settings.in_flight_requests
        self._rules = selection.Rules(
            source=source.dialect,
            target=target.dialect,
            overwrite=task.overwrite,
            options=task.options,
            replayed_since=task.replayed_since,
        )
        self._pacer = None if task.share is None else Pacer(task.share)
        self._written: deque[Mapping[str, str]] = deque(maxlen=_PAGES_COPIED)
        """How the store spells the keys of the last pages that were decoded."""
        self._copier = Copier(
            source,
            target,
            self._rules,
            prefix=task.prefix,
            settings=settings,
            budget=budget,
            pacer=self._pacer,
            shortcut=shortcut,
            other_spelling=self._other_spelling,
            etags=etags,
        )
        self._permission = Permission(
            source,
            target,
            prefix=task.prefix,
            target_prefix=self._copier.target_key(task.prefix),
            keys=task.keys,
        )
        self._twins = Twins(
            source,
            prefix=task.prefix,
            strip=len(task.prefix) if task.options.strip_prefix else 0,
            active=target.dialect.normalises_keys,
        )
        self._folders = Folders(source, prefix=task.prefix, active=_makes_folders(target))
        self._ledger = Ledger(task.slice.start_after)
        self._pages = self._open_source()
        self._existing = self._open_target()
        self._order = KeyOrder.BYTES
        self._disorder = ""
        self._exhausted = False
        self._large = 0
        self._planned: deque[tuple[Entry, ObjectMeta]] = deque()
        self._planning = asyncio.Lock()
        self._last_listed: str | None = None
        self._boundaries = Boundaries(
            source,
            prefix=task.prefix,
            end_at=task.slice.end_at,
            pieces=1 if task.keys is not None else task.wanted_pieces,
        )
        self._halt: Halt | None = None
        self._deadline = math.inf
        """Monotonic seconds. It is set when the first keys have come, so that no page is too slow
        for a task to get ahead."""

        self._no_sooner = math.inf
        """When a task whose slice can be cut has worked long enough."""

    async def report(self) -> RangeReport:
        """Work until the slice or the budget is used up, or the job cannot go on."""
        if self._task.replayed_since is not None:
            await self._prepare_replay(self._task.replayed_since)
        await self._copy_all()
        return self._report()

    async def _copy_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes):
                    group.create_task(self._lane())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._boundaries.close()
            await self._pages.aclose()

    def _report(self) -> RangeReport:
        ledger = self._ledger
        finished = self._exhausted and ledger.all_settled
        return RangeReport(
            job_id=self._task.job_id,
            range_id=self._task.range_id,
            started_after=self._task.slice.start_after,
            cursor=ledger.cursor,
            finished=finished,
            counts=ledger.counts,
            large=tuple(ledger.large),
            events=tuple(ledger.events),
            halt=self._halt,
            order=self._order,
            disorder=self._disorder,
            attempts=self._copier.attempts,
            boundaries=() if finished or self._halt is not None else self._cuts(),
            owed_seconds=0.0 if self._pacer is None else self._pacer.owed_seconds,
        )

    def _cuts(self) -> tuple[str, ...]:
        listed = [entry.key for entry, _ in self._planned]
        return self._boundaries.among(listed, self._last_listed)

    @property
    def _over(self) -> bool:
        is_full = self._large >= MAX_LARGE
        return self._halt is not None or is_full or time.monotonic() >= self._deadline

    async def _lane(self) -> None:
        planned = self._planned
        while not self._over:
            if planned:
                if self._pacer is not None and not await self._is_our_turn(self._pacer):
                    continue
                entry, meta = planned.popleft()
                await self._copy(entry, meta)
            elif not await self._plan():
                return

    async def _is_our_turn(self, pacer: Pacer) -> bool:
        """Wait until another object may begin; False when there is none or no time any more.

        One lane waits at a time, and only while there is something to wait for. The first object
        is waited for as long as it takes: a task that only lists gets nowhere, and so would the
        next.
        """
        async with pacer.queue:
            is_first = self._copier.begun == 0
            if self._planned:
                await pacer.turn(math.inf if is_first else self._deadline)
            is_over = self._halt is not None if is_first else self._over
            return bool(self._planned) and not is_over

    async def _copy(self, entry: Entry, meta: ObjectMeta, *, once_more: bool = True) -> None:
        try:
            outcome = await self._copier.copy(meta, in_doubt=entry.in_doubt)
        except errors.Refused as error:
            if not await self._is_refused_alone(entry, error, came_at=time.monotonic()):
                return
            if once_more and isinstance(error, LEARNED_LATE):
                self._copier.attempts += 1
                await self._copy(entry, meta, once_more=False)
                return
            outcome = Failed(alone_text(error))
        except errors.SlurperError as error:
            cause = error if error.blocks_job else await find_outage(self._source, self._target)
            if cause is not None:
                self._stop(LogType.MIGRATION_ERROR, cause)
                return
            outcome = Failed(failure_text(error, self._copier.max_attempts))
        if isinstance(outcome, Transferred):
            self._permission.used(meta.key, self._copier.target_key(meta.key))
        self._ledger.settle(entry, outcome)

    async def _settle_refused(
        self, entry: Entry, refusal: errors.Refused, *, came_at: float, looked: bool = False
    ) -> None:
        """Fail an object that is refused to us, unless everything is; then it stays unsettled."""
        if await self._is_refused_alone(entry, refusal, came_at=came_at, looked=looked):
            self._ledger.settle(entry, Failed(alone_text(refusal)))

    async def _settle_absent(self, entry: Entry, absence: errors.NotFound) -> None:
        """Settle a key that was asked for by name and under which the source has no object."""
        try:
            is_folder = await self._copier.is_bare_folder(entry.key)
        except errors.SlurperError as cause:
            self._stop(LogType.MIGRATION_ERROR, cause)
            return
        self._ledger.settle(entry, BARE_FOLDER if is_folder else _failed(absence))

    async def _is_refused_alone(
        self, entry: Entry, refusal: errors.Refused, *, came_at: float, looked: bool = False
    ) -> bool:
        """Whether only this object is refused; otherwise the task halts."""
        if self._halt is not None:
            return False
        try:
            await self._permission.check(entry.key, refusal, came_at=came_at, looked=looked)
        except errors.SlurperError as cause:
            self._stop(LogType.MIGRATION_ERROR, cause, key=entry.key)
            return False
        return True

    def _stop(
        self, log_type: LogType, error: errors.SlurperError, *, key: str | None = None
    ) -> None:
        if self._halt is None:
            self._halt = Halt(log_type=log_type, message=halt_text(error, key))

    async def _is_its_order(self, error: errors.OutOfOrder) -> bool:
        if self._source.dialect.own_order:  # that is known, and yet
            return False
        return await lists_in_own_order(self._source, self._task.prefix, error)

    def _stop_for_its_order(self, error: errors.ListingError, order: KeyOrder) -> None:
        """Report what is settled: the rest is listed in the store's own order, or in none.

        All that was listed so far came in that order too.
        """
        self._order = order
        self._disorder = failure_text(error, 1)
        self._deadline = -math.inf
        self._boundaries.drop()

    async def _prepare_replay(self, since: datetime) -> None:
        """Learn to recognise what lost work has done."""
        if not self._task.overwrite:
            since += await clocks.ahead_of_ours(self._target)
            self._rules = dataclasses.replace(self._rules, replayed_since=since)

    # Planning: one lane at a time turns a page into planned objects; the others wait for it.

    async def _plan(self) -> bool:
        """Plan pages until an object is to be copied; False when there will be none."""
        async with self._planning:
            while not (self._planned or self._exhausted or self._over):
                if self._pacer is not None:
                    await self._pacer.turn_to_ask(self._deadline)
                await self._plan_page()
        return bool(self._planned)

    async def _plan_page(self) -> None:
        try:
            page = await anext(self._pages, None)
        except errors.SlurperError as error:
            if isinstance(error, errors.OutOfOrder) and await self._is_its_order(error):
                self._stop_for_its_order(error, KeyOrder.OWN)
                return
            if isinstance(error, errors.NoOrder):
                self._stop_for_its_order(error, KeyOrder.NONE)
                return
            self._stop(LogType.MIGRATION_ERROR_FAILED_CONTINUATION, error)
            return
        if page is None:
            self._exhausted = True
            return
        self._order = page.order
        if self._pacer is not None:
            self._pacer.spend(requests=self._asked_for(page))
        if page.written:
            self._written.append(page.written)
        await self._plan_rows(page)

    async def _plan_rows(self, page: listing.Page) -> None:
        target_keys = [self._copier.target_key(key) for key, _ in page.rows]
        try:
            existing = await self._existing.among(target_keys, page.order) if page.rows else {}
            displaced = await self._displaced([key for key, _ in page.rows])
            rows = await self._as_they_are_spelled(page)
        except errors.SlurperError as error:
            self._stop(LogType.MIGRATION_ERROR, error)
            return
        if page.rows:
            self._last_listed = page.rows[-1][0]
            if self._deadline == math.inf:
                self._set_deadline(page)
        came_at = time.monotonic()
        for (key, found), target_key in zip(rows, target_keys, strict=True):
            entry = self._ledger.open(key)
            there = existing.get(target_key)
            if isinstance(found, errors.Refused):
                await self._settle_refused(entry, found, came_at=came_at)
            elif isinstance(there, errors.Refused):  # it may be there: nothing is written
                await self._settle_refused(entry, there, came_at=came_at, looked=True)
            elif isinstance(found, errors.NotFound):
                await self._settle_absent(entry, found)
            else:
                self._select(entry, found, target_key, there, displaced.get(key))

    def _other_spelling(self, key: str) -> str | None:
        """Another key that this key may mean; not one that was listed as it is."""
        others = [written[key] for written in self._written if key in written]
        return next((one for one in others if not any(one in w for w in self._written)), None)

    async def _as_they_are_spelled(self, page: listing.Page) -> Sequence[tuple[str, listing.Found]]:
        """The rows of a page; of large objects, which other tasks copy, by the keys they have."""
        if not page.written:
            return page.rows
        doubtful = {
            key
            for key, found in page.rows
            if key in page.written
            and isinstance(found, ObjectMeta)
            and self._copier.is_large(found.size)
        }
        asked = [(key, page.written[key]) for key in sorted(doubtful)]
        right: dict[str, str] = {}
        for start in range(0, len(asked), listing.HEADS_AT_ONCE):
            group = asked[start : start + listing.HEADS_AT_ONCE]
            told = await asyncio.gather(
                *(listing.spelled(self._source, key, other) for key, other in group)
            )
            right |= {key: text for (key, _), text in zip(group, told, strict=True)}
        return [
            (key, found._replace(key=right[key]))
            if key in right and isinstance(found, ObjectMeta)
            else (key, found)
            for key, found in page.rows
        ]

    async def _displaced(self, keys: Sequence[str]) -> dict[str, str]:
        """Of these keys, those in whose stead the target gets another, with what is said of it."""
        twins = await self._twins.among(keys)
        files = await self._folders.among(keys)
        texts = {key: _twin_text(key, twin) for key, twin in twins.items()}
        return texts | {key: _folder_text(key, file) for key, file in files.items()}

    def _set_deadline(self, page: listing.Page) -> None:
        """The first keys have come: now the task's time begins."""
        self._deadline = time.monotonic() + self._task.budget_seconds
        self._no_sooner = time.monotonic() + SPLIT_SECONDS
        # A store that lists folder by folder is not split: its slices are none of bytes.
        if page.order is KeyOrder.BYTES:
            self._boundaries.look_behind([key for key, _ in page.rows], self._end_early)

    def _end_early(self) -> None:
        """The slice can be cut: report soon, so that others get their pieces."""
        self._deadline = min(self._deadline, max(self._no_sooner, time.monotonic()))

    def _asked_for(self, page: listing.Page) -> int:
        """How many requests a page takes: one, or one for each explicit key; twice if compared."""
        sides = 1 if self._task.overwrite else 2
        return sides * (page.requests if self._task.keys is None else len(page.rows))

    def _select(
        self,
        entry: Entry,
        found: listing.Found,
        target_key: str,
        existing: listing.Found | None,
        displaced: str | None,
    ) -> None:
        if displaced is not None:
            self._ledger.settle(entry, Failed(displaced))
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
        decision = selection.from_listing(found, existing, self._rules)
        if isinstance(decision, selection.Skip) and decision is not selection.EXISTS:
            self._ledger.settle(entry, Skipped(decision.log_type, decision.message))
        elif (refusal := self._refusal(target_key, found.size)) is not None:
            self._ledger.settle(entry, _failed(refusal))
        elif decision is selection.EXISTS:  # all there is to do when there is nothing to do
            self._ledger.settle(entry, _EXISTS)
        elif decision is selection.DONE:
            self._ledger.settle(entry, Transferred(found.size))
        else:
            entry.in_doubt = decision is selection.COMPARE
            self._plan_object(entry, found)

    def _plan_object(self, entry: Entry, found: ObjectMeta) -> None:
        if self._copier.is_large(found.size) and not entry.in_doubt:  # then nothing is written
            self._large += 1
            self._ledger.settle(entry, Large(found))
        else:
            self._planned.append((entry, found))

    def _refusal(self, target_key: str, size: int) -> errors.NotStorable | None:
        """Why the target cannot keep an object under this key.

        It is asked before the target's word counts that such an object exists: a store that would
        rewrite the key describes the object under the other one.
        """
        try:
            storable.check_key(target_key, self._target.dialect, size=size)
        except errors.NotStorable as error:
            return error
        return None

    def _open_source(self) -> listing.Pages:
        task = self._task
        is_paced = self._pacer is not None
        if task.keys is None:
            max_keys = listing.page_keys(task.expected_keys)
            pages = listing.listed_pages(self._source, task.prefix, task.slice, max_keys=max_keys)
        else:
            at_once = listing.HEADS_WHEN_PACED if is_paced else listing.HEADS_AT_ONCE
            pages = listing.named_pages(self._source, task.keys, task.slice, at_once=at_once)
        # A page read ahead would be asked for before it is charged, and perhaps in vain.
        return pages if is_paced else listing.read_ahead(pages, task.expected_keys)

    def _open_target(self) -> listing.Existing:
        task = self._task
        if task.overwrite:
            return listing.NothingExists()
        either = (self._source.dialect, self._target.dialect)
        if task.keys is not None or any(dialect.own_order for dialect in either):
            return listing.NamedTarget(self._target)
        start_after = task.slice.start_after
        listed = listing.ListedTarget(
            self._target,
            prefix=self._copier.target_key(task.prefix),
            start_after=start_after and self._copier.target_key(start_after),
        )
        if self._target.dialect.normalises_keys:
            return NormalisedTarget(self._target, listed)
        return listed


def _failed(error: errors.SlurperError) -> Failed:
    return Failed(failure_text(error, 1))


def _makes_folders(target: ObjectStore) -> bool:
    """Whether the target keeps a key that ends with a slash as a folder."""
    shapes = target.dialect.unkept_keys
    return KeyShape.FOLDER_WITH_BYTES in shapes or KeyShape.FOLDER in shapes


def _folder_text(key: str, file: str) -> str:
    return (
        f"the target keeps objects as files in folders and cannot keep both {key!a} and {file!a}; "
        "only the second is copied; give one of them another name"
    )


def _twin_text(key: str, twin: str) -> str:
    return (
        f"the target keeps {key!a} and {twin!a} as one object, for they are the same "
        "text in Unicode's form NFC; only the second is copied; give one of them another name"
    )
