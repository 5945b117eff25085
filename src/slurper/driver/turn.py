"""One turn of a range or large object: which task it runs, and what to do with the report.

The loop is the same for every kind of work: it asks the turn for a task, and lets the turn run it
and settle its report, or its failure. The differences are in the kinds of turn
(`driver.range_turn`, `driver.upload_turn`).
"""

from __future__ import annotations

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from slurper import errors, telemetry
from slurper.database.bounds import Bounds
from slurper.database.job_row import CommitResult
from slurper.database.work import WorkStore
from slurper.driver import assignment, schedule
from slurper.driver.board import Board
from slurper.driver.open_work import OpenRange, OpenUpload
from slurper.engine.base import Engine
from slurper.job.model import Job, JobStatus
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Sealer
from slurper.settings import Settings
from slurper.transfer.task import ProgressReport, Task

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_FRUITLESS_DELAY_SECONDS = 1.0

_FIND_THE_OBJECT = (
    "See the server's log, and whether memory is short or an object near that key is damaged"
)

Result = TypeVar("Result")
Reported = TypeVar("Reported", bound=ProgressReport)
"""The report that a kind of turn commits."""
Work = TypeVar("Work", bound=OpenRange | OpenUpload)

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every turn and chore of a driver uses."""

    store: WorkStore
    engine: Engine
    sealer: Sealer
    settings: Settings
    board: Board
    metrics: telemetry.Metrics
    wake: Callable[[], None]
    """Makes the driver look at the database and the board soon."""
    moved: Callable[[], None]
    """Tells this process that progress was committed."""
    lease_lost: Callable[[errors.LeaseLost], None]
    """Ends the driver, because another process drives now."""

    def sides(self, job: Job, sealed: bytes) -> assignment.Sides:
        """What every task of a job is told. Raises ConfigurationError."""
        return assignment.sides(job, self.sealer.open(sealed), self.settings)


class Turn(ABC, Generic[Work, Reported]):
    """One turn. The board counts it as under way until `end`."""

    def __init__(self, open_work: Work, job: Job, means: Means) -> None:
        self.open_work = open_work
        self.job = job
        self._means = means
        self._board = means.board

    @property
    @abstractmethod
    def where(self) -> str:
        """The beginning of a sentence that says which work cannot go on."""

    @abstractmethod
    def halt(self, message: str) -> Reported:
        """The report that pauses the job because the driver cannot go on with this work."""

    @abstractmethod
    async def next_task(self, sealed: bytes) -> Task[Any] | Reported:
        """Return the next task; or a report, when no task is needed."""

    @abstractmethod
    def absorb(self, report: Reported, result: CommitResult) -> None:
        """Update the board after a report was committed, or was found stale."""

    @abstractmethod
    def _got_ahead(self, report: Reported) -> bool:
        """Whether the task made any progress."""

    def conclude(self, report: Reported) -> Reported:
        """Turn the report of the task into a report of the range or large object."""
        return report

    async def run(self, task: Task[Any]) -> Reported:
        """Run a task and return what is to be committed."""
        began = time.monotonic()
        report: Reported = await self._means.engine.run(task)
        now = time.monotonic()
        self.open_work.paid_until = now + report.owed_seconds
        self._means.metrics.task_seconds.observe(now - began)
        self._means.metrics.tasks.labels("reported").inc()
        return self.conclude(report)

    async def settle(self, report: Reported) -> None:
        """Commit a report, and enter the result in the board and the metrics."""
        means, board = self._means, self._board
        bounds = Bounds.of(means.settings)
        result = await self.patiently(
            lambda: means.store.commit(report, datetime.now(UTC), bounds=bounds)
        )
        board.learn(self.job.id, result.capabilities)
        if not result.applied:
            # Another server moved the range, or the answer to an earlier commit was lost.
            _log.warning("report was stale and changed nothing", **self.open_work.log_fields)
            means.metrics.commits.labels("stale").inc()
        self.absorb(report, result)
        if board.lacks_uploads(self.job.id):
            means.wake()
        means.moved()
        if result.status is not JobStatus.RUNNING:
            means.engine.job_ended(self.job.id)
            for_good = result.status is not JobStatus.PAUSED
            if board.drop_job(self.job.id, for_good=for_good):
                self._note_end(report, result)
        if result.applied:
            self._count(report)

    def fail(self, error: Exception, max_failures: int) -> Reported | None:
        """Note a failure. Plan another try; or return the report that pauses the job.

        A job is paused when its error blocks it, or after `max_failures` tasks in a row.
        """
        open_work = self.open_work
        is_lost = isinstance(error, errors.WorkerLost)
        self._means.metrics.tasks.labels("lost" if is_lost else "failed").inc()
        if not is_lost:
            _log.error("task failed", **open_work.log_fields, exc_info=error)
        open_work.task_came_to_nothing()
        self._hold_back(time.monotonic() + _delay_seconds(open_work.failures))
        blocks = isinstance(error, errors.SlurperError) and error.blocks_job
        hopeless = blocks and not isinstance(error, errors.TooManyOpenFiles)  # that passes
        if hopeless or open_work.failures >= max_failures:
            return self.halt(self._gives_up(error))
        _log.warning(
            "task came to nothing and is run again",
            **open_work.log_fields,
            failures=open_work.failures,
            error=str(error),
        )
        return None

    def end(self) -> None:
        """Give back what the turn had."""
        self._board.end_turn(self.open_work)

    async def patiently(self, transaction: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat a transaction until the database answers. So no report is lost."""
        delay_seconds = _FIRST_DELAY_SECONDS
        while True:
            try:
                return await transaction()
            except errors.DatabaseUnavailable as error:
                self._means.metrics.commits.labels("delayed").inc()
                _log.error(
                    "database cannot be used; what is to be done in it is tried again",
                    **self.open_work.log_fields,
                    error=str(error),
                    advice=error.advice,
                    delay_seconds=delay_seconds,
                )
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)

    async def _read_keys(self, slice_: KeyRange, limit: int) -> tuple[str, ...]:
        store, job_id = self._means.store, self.job.id
        return await self.patiently(lambda: store.keys_within(job_id, slice_, limit=limit))

    def _quota(self, age_seconds: float = math.inf) -> assignment.Quota:
        """The time of the next task, and its share of the job's limits."""
        return assignment.quota(
            self.job.spec.options,
            self._means.settings.task_seconds,
            failures=self.open_work.failures,
            age_seconds=age_seconds,
            allotted=schedule.allot(self._board, self.open_work, self._means.engine.slots),
            credit_seconds=self.open_work.credit_seconds(time.monotonic()),
        )

    def _made(self, make: Callable[[], Task[Any]]) -> Task[Any] | Reported:
        """Return a task; or the report that pauses the job if its stores cannot be used."""
        try:
            return make()
        except errors.SlurperError as error:
            text = f"The job cannot go on: {error}. Correct that and resume the job."
            return self.halt(text)

    def _hold_back(self, until: float) -> None:
        self.open_work.not_before = until
        self._means.wake()  # so that the loop learns of the new time

    def _hold_back_if_owing(self) -> None:
        """Delay the next task if the last one used more than its share. No slot waits meanwhile."""
        if self.open_work.owes_at(time.monotonic()):
            self._hold_back(self.open_work.paid_until)

    def _hold_back_if_fruitless(self, report: Reported) -> None:
        """Delay the next task when this one ended without an error and without any progress."""
        if not self._got_ahead(report) and report.halt is None:
            _log.warning(
                "task settled nothing", **self.open_work.log_fields, throttled=report.throttled
            )
            self._hold_back(time.monotonic() + _FRUITLESS_DELAY_SECONDS)

    def _note_end(self, report: Reported, result: CommitResult) -> None:
        metrics = self._means.metrics
        metrics.jobs_running.set(len(self._board.jobs))
        if result.status is JobStatus.COMPLETED:
            metrics.jobs_ended.labels("completed").inc()
            _log.info("job completed", job_id=self.job.id)
        elif cause := report.halt.message if report.halt is not None else result.problem:
            metrics.jobs_ended.labels("paused").inc()
            _log.error("job paused", job_id=self.job.id, cause=cause)

    def _count(self, report: Reported) -> None:
        metrics, counts = self._means.metrics, report.counts
        metrics.commits.labels("applied").inc()
        metrics.objects.labels("transferred").inc(counts.transferred)
        metrics.objects.labels("skipped").inc(counts.skipped)
        metrics.objects.labels("failed").inc(counts.failed)
        metrics.transferred_bytes.inc(counts.transferred_bytes)
        metrics.retries.inc(report.retries)
        metrics.attempts.inc(report.attempts)
        metrics.throttled.inc(report.throttled)

    def _gives_up(self, error: Exception) -> str:
        advice = error.advice if isinstance(error, errors.SlurperError) else ""
        return (
            f"{self.where}: its task failed"
            f" {self.open_work.failures} times in a row, the last time because {_cause(error)}."
            f" {advice or _FIND_THE_OBJECT}; then resume the job."
        )


def _delay_seconds(failures: int) -> float:
    """No delay after the first failure, which may be chance. Then the delay doubles each time."""
    if failures < 2:
        return 0.0
    return min(_FIRST_DELAY_SECONDS * 2.0 ** (failures - 2), _LONGEST_DELAY_SECONDS)


def _cause(error: Exception) -> str:
    text = str(error) or "of no stated reason"
    return text if isinstance(error, errors.SlurperError) else f"{type(error).__name__}: {text}"
