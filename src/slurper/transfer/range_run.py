"""One range task under way: list, select, copy, report."""

from __future__ import annotations

import asyncio
import math
import time

from slurper import errors
from slurper.objectstore.base import ObjectMeta, ObjectStore
from slurper.transfer import clocks
from slurper.transfer.boundaries import Boundaries
from slurper.transfer.copy import Copier, CopyMeans
from slurper.transfer.deadline import Deadline
from slurper.transfer.decoded_keys import DecodedKeys
from slurper.transfer.diagnosis import LEARNED_LATE, Diagnosis, own_failure_text
from slurper.transfer.ledger import Entry, Failed, Ledger, Transferred
from slurper.transfer.pacing import Pacer
from slurper.transfer.planner import Planner, Selector
from slurper.transfer.route import Route
from slurper.transfer.task import RangeReport, RangeTask


class RangeRun:
    """Runs one `RangeTask`.

    Lanes take planned objects in key order and copy them side by side. If one finds that the job
    cannot go on, no lane takes another object. The copies under way are finished.
    """

    def __init__(
        self, task: RangeTask, source: ObjectStore, target: ObjectStore, means: CopyMeans
    ) -> None:
        self._task = task
        self._target = target
        self._lanes = means.settings.in_flight_requests
        self._pacer = None if task.share is None else Pacer(task.share)
        self._deadline = Deadline(task.budget_seconds)
        self._ledger = Ledger(task.slice.start_after, self._deadline.end_now)
        route = Route.of(task, source, target)
        self._diagnosis = Diagnosis(route, keys=task.keys)
        self._boundaries = Boundaries(
            source,
            prefix=task.prefix,
            end_at=task.slice.end_at,
            pieces=1 if task.keys is not None else task.wanted_pieces,
        )
        rules = route.rules(task)
        decoded = DecodedKeys(route)
        self._copier = Copier(
            route, rules, means, self._pacer, other_spelling=decoded.other_spelling
        )
        selector = Selector(
            route,
            rules,
            copier=self._copier,
            diagnosis=self._diagnosis,
            ledger=self._ledger,
            deadline=self._deadline,
        )
        self._planned = selector.planned
        self._planner = Planner(
            task,
            route,
            selector,
            decoded=decoded,
            boundaries=self._boundaries,
            deadline=self._deadline,
            diagnosis=self._diagnosis,
            pacer=self._pacer,
        )

    async def report(self) -> RangeReport:
        """Work until the slice or the budget is used up, or the job cannot go on."""
        since = self._task.replayed_since
        if since is not None and not self._task.overwrite:
            self._planner.replay(since + await clocks.ahead_of_ours(self._target))
        await self._copy_all()
        return self._report()

    async def _copy_all(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._lanes):
                    group.create_task(self._lane())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self._boundaries.close()
            await self._planner.close()

    def _report(self) -> RangeReport:
        ledger, planner, halt = self._ledger, self._planner, self._diagnosis.halt
        finished = planner.exhausted and ledger.all_settled
        return RangeReport(
            job_id=self._task.job_id,
            range_id=self._task.range_id,
            started_after=self._task.slice.start_after,
            cursor=ledger.cursor,
            finished=finished,
            counts=ledger.counts,
            large=tuple(ledger.large),
            events=tuple(ledger.events),
            halt=halt,
            order=planner.order,
            disorder=planner.disorder,
            attempts=self._copier.attempts.again,
            boundaries=() if finished or halt is not None else self._cuts(),
            owed_seconds=0.0 if self._pacer is None else self._pacer.owed_seconds,
        )

    def _cuts(self) -> tuple[str, ...]:
        return self._boundaries.among([entry.key for entry, _ in self._planned])

    @property
    def _is_over(self) -> bool:
        if self._diagnosis.halt is not None:
            return True
        # However slow its page was, a task begins one object. Else the next would do no better.
        has_begun = self._copier.begun > 0 or not self._planned
        return has_begun and time.monotonic() >= self._deadline.at

    async def _lane(self) -> None:
        planned = self._planned
        while not self._is_over:
            if planned:
                if self._pacer is not None and not await self._is_our_turn(self._pacer):
                    continue
                entry, meta = planned.popleft()
                await self._copy(entry, meta)
            elif not await self._planner.plan():
                return

    async def _is_our_turn(self, pacer: Pacer) -> bool:
        """Wait until another object may begin. False: there is no object or no time left.

        One lane waits at a time, and only while there is an object to copy. The wait for the first
        object has no deadline. Otherwise a slow task, and each one after it, would only list.
        """
        async with pacer.queue:
            is_first = self._copier.begun == 0
            if self._planned:
                await pacer.turn(math.inf if is_first else self._deadline.at)
            is_over = self._diagnosis.halt is not None if is_first else self._is_over
            return bool(self._planned) and not is_over

    async def _copy(self, entry: Entry, meta: ObjectMeta, *, once_more: bool = True) -> None:
        try:
            outcome = await self._copier.copy(meta, in_doubt=entry.in_doubt)
        except errors.SlurperError as error:
            came_at = time.monotonic()
            if not await self._diagnosis.is_of_object(entry.key, error, came_at=came_at):
                return
            if once_more and isinstance(error, LEARNED_LATE):
                self._copier.attempts.again += 1
                await self._copy(entry, meta, once_more=False)
                return
            outcome = Failed(own_failure_text(error, self._copier.attempts.max))
        if isinstance(outcome, Transferred):
            self._diagnosis.used(meta.key)
        self._ledger.settle(entry, outcome)
