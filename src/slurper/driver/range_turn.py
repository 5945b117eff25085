"""One turn of a range: copies its next keys, or gathers keys of a source that has no order."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from slurper.database.job_row import CommitResult
from slurper.driver import assignment, schedule
from slurper.driver.open_work import OpenRange
from slurper.driver.turn import Turn
from slurper.job.model import JobStatus
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import GatherReport, GatherTask, RangeReport, RangeTask, Task


class RangeTurn(Turn[OpenRange, RangeReport | GatherReport]):
    """One turn of a range."""

    _keys: tuple[str, ...] | None = None
    """The range's next explicit keys, one more than a task takes. None: the job has none."""
    _task: RangeTask | None = None

    @property
    def where(self) -> str:
        """The range and its cursor."""
        start = self.open_work.slice.start_after
        where = "from the first key on" if start is None else f"after the key {start!r}"
        return f"Range {self.open_work.range_id} cannot go on {where}"

    def halt(self, message: str) -> RangeReport:
        """A report that pauses the job and holds no work."""
        return replace(self._nothing(), halt=assignment.halt(message))

    async def next_task(self, sealed: bytes) -> Task[Any] | RangeReport | GatherReport:
        """Cut a range of explicit keys if others wait for work; else return its next task."""
        board, engine = self._board, self._means.engine
        wanted_pieces = schedule.wanted_pieces(board, self.open_work, engine.slots)
        self.open_work.wanted_pieces = wanted_pieces
        if boundaries := await self._key_boundaries():
            return replace(self._nothing(), boundaries=boundaries)
        if assignment.gathers(self.job):
            return self._made(lambda: self._gather_task(sealed))
        if self.job.spec.keys is not None:
            self._keys = await self._read_keys(self.open_work.slice, assignment.MAX_KEYS + 1)
            if not self._keys:
                return replace(self._nothing(), finished=True)
        return self._made(lambda: self._range_task(sealed))

    def conclude(self, report: RangeReport | GatherReport) -> RangeReport | GatherReport:
        """Turn the report of the task into a report of the range."""
        if self._task is None or isinstance(report, GatherReport):
            return report
        return assignment.conclude(report, self._task, self._keys)

    def absorb(self, report: RangeReport | GatherReport, result: CommitResult) -> None:
        """Move the range on; or drop it, so that it is read from the database again."""
        open_range, board = self.open_work, self._board
        if not result.applied:
            board.reload_later(open_range, uncounted=report.halt is not None)
            self._means.wake()
        elif _must_reload(report, result):
            # A job that begins again may find objects that it has copied itself.
            board.reload_later(open_range, uncounted=_begins_again(report, result))
            self._means.wake()
        elif result.still_open:
            board.committed(
                open_range,
                KeyRange(report.cursor, result.end_at),
                settled_keys=_settled_keys(report),
                uncounted=report.halt is not None,
                cut_off=result.cut_off,
            )
            self._hold_back_if_owing()
            if not result.cut_off:
                self._hold_back_if_fruitless(report)
        else:
            board.close(open_range)
        if result.has_most_ranges:
            board.cannot_cut(self.job.id)
        if result.applied and isinstance(report, RangeReport):
            board.count_unsettled(self.job.id, len(report.large))

    def _got_ahead(self, report: RangeReport | GatherReport) -> bool:
        return report.cursor != report.started_after

    def _range_task(self, sealed: bytes) -> RangeTask:
        self._task = assignment.make_task(
            self.job,
            self.open_work.range_id,
            self.open_work.slice,
            keys=self._keys,
            uncounted=self.open_work.uncounted,
            expected_keys=self.open_work.expected_keys,
            wanted_pieces=self.open_work.wanted_pieces,
            sides=self._means.sides(self.job, sealed),
            quota=self._quota(self._age_seconds),
        )
        return self._task

    def _gather_task(self, sealed: bytes) -> Task[Any]:
        return GatherTask(
            range_id=self.open_work.range_id,
            token=self.open_work.slice.start_after,
            **self._means.sides(self.job, sealed),
            **self._quota(self._age_seconds),
        )

    @property
    def _age_seconds(self) -> float:
        return schedule.age_seconds(self._board, self.job.id, time.monotonic())

    async def _key_boundaries(self) -> tuple[str, ...]:
        """Return where to cut a range of explicit keys. No worker is needed for that."""
        open_range, store = self.open_work, self._means.store
        if self.job.spec.keys is None or open_range.wanted_pieces == 1:
            return ()
        return await self.patiently(
            lambda: store.key_boundaries(
                self.job.id,
                open_range.slice,
                pieces=open_range.wanted_pieces,
                min_keys=assignment.MIN_KEYS,
            )
        )

    def _nothing(self) -> RangeReport:
        open_range = self.open_work
        return assignment.nothing_done(self.job.id, open_range.range_id, open_range.slice)


def _must_reload(report: RangeReport | GatherReport, result: CommitResult) -> bool:
    """Whether a commit has changed the whole job: its key order, or where its keys come from."""
    if isinstance(report, GatherReport):
        return report.finished or result.status is not JobStatus.RUNNING
    return result.still_open and bool(report.disorder)


def _begins_again(report: RangeReport | GatherReport, result: CommitResult) -> bool:
    """Whether the job lists its source again from the beginning."""
    if isinstance(report, GatherReport) or not report.disorder:
        return False
    return report.order is KeyOrder.NONE or result.status is not JobStatus.RUNNING


def _settled_keys(report: RangeReport | GatherReport) -> int | None:
    """How many keys we expect the range's next task to settle; None: unknown.

    A task that ended early to have its range cut, or halted, tells us nothing about that.
    """
    if isinstance(report, GatherReport) or report.boundaries or report.halt is not None:
        return None
    return report.counts.objects + len(report.large) or None
