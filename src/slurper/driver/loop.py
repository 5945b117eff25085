"""The driver: moves running jobs forward, and is the only writer of their progress.

    read running jobs ──▶ board ──▶ task ──▶ engine ──▶ report ──▶ one commit ──▶ board ──▶ ...

It holds no state that a restart would miss. Every range has at most one task under way, and so has
every large object, until its upload is begun: then several may copy parts of it, each its own. A
commit frees the place for whatever is next in turn, often the same range. To pause or abort a job
is to submit nothing more for it; the report of a task under way is still committed, for its objects
are settled, and its parts are at the target.

What goes wrong costs one range or large object a turn, never the loop:

    | what                                   | then                                              |
    |----------------------------------------|---------------------------------------------------|
    | the worker died                        | same work again, as a replay, with less time      |
    | the task raised                        | likewise; the job is paused if no task could pass |
    | the same work failed `MAX_FAILURES` x  | the job is paused, the log names the slice or key |
    | secrets or addresses are unusable      | the job is paused                                 |
    | the job was aborted                    | its target is swept (`driver.sweeper`)              |
    | the database is locked, full, away     | the report is kept and committed later            |
    | another process drives now             | `run` ends with `LeaseLost`; nothing is written   |
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from slurper import errors, telemetry
from slurper.database.job_row import CommitResult
from slurper.database.work import WorkStore
from slurper.driver import assignment
from slurper.driver.board import Board, OpenRange, OpenUpload, Share
from slurper.driver.counter import Counter
from slurper.driver.sweeper import Sweeper
from slurper.engine.base import Engine
from slurper.job.model import Job, JobStatus
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Sealer
from slurper.settings import Settings
from slurper.transfer.permission import SAMPLE
from slurper.transfer.task import GatherReport, PartsReport, ProgressReport, RangeReport, RangeTask

POLL_SECONDS = 2.0
"""`wake` tells of every change made in this process; this finds what others wrote."""

POLL_AGAIN_SECONDS = 0.2
"""After a look at the database that a commit overtook."""

HOUSEKEEPING_SECONDS = 60.0

MAX_FAILURES = 8
"""Tasks for the same slice that may come to nothing in a row. With the delays between them that
takes some ten seconds, so that a passing evil (processes killed at random) does not pause a job."""

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_FRUITLESS_DELAY_SECONDS = 1.0

Result = TypeVar("Result")

_log = telemetry.get_logger(__name__)


class Driver:
    """Runs the jobs of a database on an engine.

    It is made with a store that was made with a lease (`driver.leadership`), and so when no other
    drives any more: it takes jobs created since then for its own, and only older ones for possibly
    half-done.
    """

    def __init__(
        self,
        store: WorkStore,
        engine: Engine,
        sealer: Sealer,
        settings: Settings,
        *,
        since: datetime | None = None,
        metrics: telemetry.Metrics | None = None,
        woken: asyncio.Event | None = None,
        moved: asyncio.Event | None = None,
    ) -> None:
        """Prepare; store and engine are open and started by the caller, who also ends them.

        Nobody else has driven jobs that are newer than `since`, which is now if it is not given.
        Setting `woken` is another way to `wake`, for those who outlive the driver. `moved` is set
        by every commit.
        """
        self._store = store
        self._engine = engine
        self._sealer = sealer
        self._settings = settings
        self._metrics = metrics or telemetry.Metrics()
        self._board = Board(since or datetime.now(UTC))
        self._sweeper = Sweeper(store, engine, sealer, settings, lease_lost=self._yield)
        self._counter = Counter(
            store, engine, sealer, settings, wake=self.wake, lease_lost=self._yield
        )
        self._woken = asyncio.Event() if woken is None else woken
        self._moved = asyncio.Event() if moved is None else moved
        self._stopping = False
        self._lost: errors.LeaseLost | None = None
        self._tasks: dict[asyncio.Task[None], str] = {}
        """Turns under way, each with the id of its job."""
        self._poll_seconds = POLL_SECONDS
        self._housekeeping_at = 0.0

    def wake(self) -> None:
        """Look at the database soon: a job was created, resumed, paused or aborted."""
        self._woken.set()

    async def run(self) -> None:
        """Drive until `stop` or cancellation, which abandons the tasks under way.

        Raises:
            LeaseLost: another process drives now; the tasks under way are abandoned.
        """
        try:
            while not self._stopping:
                self._woken.clear()
                await self._look()
                self._fill()
                self._sweeper.begin(time.monotonic())
                self._counter.begin(time.monotonic())
                await self._housekeep()
                await self._wait()
        except asyncio.CancelledError:
            await self._abandon()
            raise
        if self._lost is not None:
            await self._abandon()
            raise self._lost

    async def stop(self, grace_seconds: float) -> None:
        """Submit no more, wait for the tasks under way, commit their reports.

        After `grace_seconds` the rest is abandoned; it is done again after the next start.
        """
        self._stopping = True
        self.wake()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_seconds)
        await self._abandon()

    async def _abandon(self) -> None:
        self._stopping = True
        if self._tasks:
            _log.warning("tasks are abandoned and will be done again", tasks=len(self._tasks))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sweeper.stop()
        await self._counter.stop()

    # Finding work

    async def _look(self) -> None:
        self._board.begin_update()
        try:
            # In this order, so that no job is found to be both.
            unswept = await self._store.unswept()
            works = await self._store.running_jobs()
        except errors.LeaseLost as error:
            self._yield(error)
            return
        except errors.DatabaseUnavailable as error:
            _log.error("running jobs cannot be read; tried again soon", error=str(error))
            return
        except Exception:
            _log.exception("running jobs cannot be read; tried again soon")
            return
        complete = self._board.update(works)
        for work in unswept:  # one that a commit has just touched may still be on the board
            self._board.drop_job(work.job.id, for_good=True)
        self._sweeper.update(unswept, busy=self._tasks.values())
        self._counter.update(works)
        self._poll_seconds = POLL_SECONDS if complete else POLL_AGAIN_SECONDS
        self._metrics.jobs_running.set(self._board.running_jobs)

    def _fill(self) -> None:
        """Give every free slot of the engine to the range or large object whose turn it is."""
        while not self._stopping and (free := self._engine.slots - len(self._tasks)) > 0:
            turn = self._board.take(time.monotonic(), free)
            if turn is None:
                break
            task = asyncio.create_task(self._advance(*turn))
            self._tasks[task] = turn[0].job_id
            task.add_done_callback(self._ended)
        self._metrics.tasks_under_way.set(len(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("turn failed", exc_info=error)
        self._fill()

    async def _wait(self) -> None:
        now, seconds = time.monotonic(), self._poll_seconds
        for waiting in (self._board, self._sweeper, self._counter):
            next_at = waiting.next_at(now)
            if next_at is not None:
                seconds = min(seconds, next_at - now)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    # One turn of one range or large object

    async def _advance(self, open_work: OpenRange | OpenUpload, job: Job) -> None:
        """Run the next task of what is open and commit what it reports."""
        try:
            sealed = await self._patiently(lambda: self._store.open_to_work(job.id), open_work)
            if sealed is None:  # paused, aborted or deleted since the board was filled
                self._board.drop_job(job.id, for_good=False)
            elif isinstance(open_work, OpenRange):
                await self._settle(open_work, await self._work(open_work, job, sealed))
            else:
                await self._advance_upload(open_work, job, sealed)
        except errors.WorkerLost as error:
            self._metrics.tasks.labels("lost").inc()
            await self._fail(open_work, error)
        except errors.LeaseLost as error:
            self._yield(error)
        except asyncio.CancelledError:
            self._metrics.tasks.labels("cancelled").inc()
            raise
        except Exception as error:
            self._metrics.tasks.labels("failed").inc()
            _log.exception("task failed", **open_work.log_fields)
            await self._fail(open_work, error)
        finally:
            open_work.allotted *= 1 - 1 / open_work.under_way  # what this task had is free again
            open_work.under_way -= 1
            if isinstance(open_work, OpenRange):
                open_work.wanted_pieces = 1

    def _yield(self, error: errors.LeaseLost) -> None:
        """Another process drives: end `run` at once."""
        self._lost = error
        self._stopping = True
        self.wake()

    async def _work(
        self, open_range: OpenRange, job: Job, sealed: bytes
    ) -> RangeReport | GatherReport:
        """Return what is to be committed for the range next."""
        identity = (job.id, open_range.range_id, open_range.slice)
        open_range.wanted_pieces = self._board.wanted_pieces(open_range, self._engine.slots)
        if boundaries := await self._key_boundaries(open_range, job):
            return assignment.cut(*identity, boundaries)
        if assignment.gathers(job):
            return await self._gather(open_range, job, sealed)
        keys = await self._next_keys(open_range, job)
        if keys == ():
            return assignment.nothing_left(*identity)
        try:
            task = self._make_task(open_range, job, sealed, keys)
        except errors.SlurperError as error:
            return assignment.halted(*identity, _cannot_begin(error))
        began = time.monotonic()
        report = await self._engine.run(task)
        self._note_task(began, open_range, report)
        return assignment.conclude(report, task, keys)

    async def _gather(
        self, open_range: OpenRange, job: Job, sealed: bytes
    ) -> RangeReport | GatherReport:
        try:
            task = assignment.make_gather(
                job,
                open_range.range_id,
                open_range.slice.start_after,
                secrets=self._sealer.open(sealed),
                settings=self._settings,
                failures=open_range.failures,
                age_seconds=self._board.age_seconds(job.id, time.monotonic()),
                allotted=self._board.allot(open_range, self._engine.slots),
                credit_seconds=max(0.0, time.monotonic() - open_range.paid_until),
            )
        except errors.SlurperError as error:
            identity = (job.id, open_range.range_id, open_range.slice)
            return assignment.halted(*identity, _cannot_begin(error))
        began = time.monotonic()
        report = await self._engine.run(task)
        self._note_task(began, open_range, report)
        return report

    async def _advance_upload(self, open_upload: OpenUpload, job: Job, sealed: bytes) -> None:
        sample: tuple[str, ...] = ()
        if job.spec.keys is not None:
            sample = await self._read_keys(job, KeyRange(), SAMPLE, open_upload)
        if open_upload.upload.begun is None:
            open_upload.parts = {}
        elif open_upload.parts is None:
            read = functools.partial(self._store.parts, open_upload.upload)
            parts = await self._patiently(read, open_upload)
            open_upload.parts = {part.number: part for part in parts}
        with open_upload.share(self._settings.part_bytes) as share:
            self._fill()  # what is left may be another's
            report = await self._copy_parts(open_upload, share, sample, job, sealed)
            await self._settle(open_upload, report)

    async def _copy_parts(
        self,
        open_upload: OpenUpload,
        share: Share,
        sample: tuple[str, ...],
        job: Job,
        sealed: bytes,
    ) -> PartsReport:
        """Return what is to be committed for the large object next."""
        try:
            task = assignment.make_parts_task(
                job,
                open_upload.upload,
                numbers=share.numbers,
                done=share.done,
                sample=sample,
                secrets=self._sealer.open(sealed),
                settings=self._settings,
                uncounted=open_upload.uncounted,
                failures=open_upload.failures,
                allotted=self._board.allot(open_upload, self._engine.slots),
                credit_seconds=max(0.0, time.monotonic() - open_upload.paid_until),
            )
        except errors.SlurperError as error:
            return assignment.halted_parts(job.id, open_upload.upload, _cannot_begin(error))
        began = time.monotonic()
        report = await self._engine.run(task)
        self._note_task(began, open_upload, report)
        return report

    def _note_task(
        self, began: float, open_work: OpenRange | OpenUpload, report: ProgressReport
    ) -> None:
        open_work.paid_until = time.monotonic() + report.owed_seconds
        self._metrics.task_seconds.observe(time.monotonic() - began)
        self._metrics.tasks.labels("reported").inc()

    async def _key_boundaries(self, open_range: OpenRange, job: Job) -> tuple[str, ...]:
        """Return where to cut a range of explicit keys, which takes no worker to know."""
        if job.spec.keys is None or open_range.wanted_pieces == 1:
            return ()
        read = functools.partial(
            self._store.key_boundaries,
            job.id,
            open_range.slice,
            pieces=open_range.wanted_pieces,
            min_keys=assignment.MIN_KEYS,
        )
        return await self._patiently(read, open_range)

    async def _next_keys(self, open_range: OpenRange, job: Job) -> tuple[str, ...] | None:
        """Return the range's next explicit keys, one more than a task takes.

        None: the job has no explicit keys.
        """
        if job.spec.keys is None:
            return None
        return await self._read_keys(job, open_range.slice, assignment.MAX_KEYS + 1, open_range)

    async def _read_keys(
        self, job: Job, slice_: KeyRange, limit: int, open_work: OpenRange | OpenUpload
    ) -> tuple[str, ...]:
        read = functools.partial(self._store.keys_within, job.id, slice_, limit=limit)
        return await self._patiently(read, open_work)

    def _make_task(
        self, open_range: OpenRange, job: Job, sealed: bytes, keys: tuple[str, ...] | None
    ) -> RangeTask:
        return assignment.make_task(
            job,
            open_range.range_id,
            open_range.slice,
            keys=keys,
            secrets=self._sealer.open(sealed),
            settings=self._settings,
            uncounted=open_range.uncounted,
            failures=open_range.failures,
            expected_keys=open_range.expected_keys,
            wanted_pieces=open_range.wanted_pieces,
            age_seconds=self._board.age_seconds(job.id, time.monotonic()),
            allotted=self._board.allot(open_range, self._engine.slots),
            credit_seconds=max(0.0, time.monotonic() - open_range.paid_until),
        )

    async def _settle(self, open_work: OpenRange | OpenUpload, report: ProgressReport) -> None:
        outcome = await self._patiently(lambda: self._commit(report), open_work)
        if outcome.capabilities is not None:
            self._board.learn(open_work.job_id, outcome.capabilities)
        if not outcome.applied:
            # Somebody else moved the range, or the answer to an earlier commit was lost.
            _log.warning("report was stale and changed nothing", **open_work.log_fields)
            if isinstance(open_work, OpenRange):
                self._board.lose_sight(open_work, uncounted=report.halt is not None)
            else:
                self._board.close(open_work)
            self.wake()
        elif isinstance(open_work, OpenRange) and _is_to_be_read_anew(report, outcome):
            # One that begins again may find its own work.
            self._board.lose_sight(open_work, uncounted=_begins_again(report, outcome))
            self.wake()
        elif outcome.still_open:
            self._take_in(open_work, report, outcome)
        else:
            self._board.close(open_work)
        if outcome.applied:
            self._board.count_unsettled(open_work.job_id, _newly_unsettled(report))
        if self._board.lacks_uploads(open_work.job_id):
            self.wake()
        self._note(report, outcome)

    def _take_in(
        self, open_work: OpenRange | OpenUpload, report: ProgressReport, outcome: CommitResult
    ) -> None:
        """Move the board on by a report that leaves something to do."""
        if isinstance(open_work, OpenRange) and isinstance(report, RangeReport | GatherReport):
            self._board.committed(
                open_work,
                KeyRange(report.cursor, outcome.end_at),
                settled_keys=_settled_keys(report),
                uncounted=report.halt is not None,
                cut_off=outcome.cut_off,
            )
        elif isinstance(open_work, OpenUpload) and isinstance(report, PartsReport):
            if report.restarted is not None:
                self._board.close(open_work)  # the database knows the new version
                self.wake()
                return
            self._board.parts_committed(open_work, report)
        self._hold_back_if_owing(open_work)
        if not outcome.cut_off:
            self._hold_back_if_fruitless(open_work, report)

    async def _patiently(
        self, transaction: Callable[[], Awaitable[Result]], open_work: OpenRange | OpenUpload
    ) -> Result:
        """Do it however long the database takes to come back. A report is not given up."""
        delay_seconds = _FIRST_DELAY_SECONDS
        while True:
            try:
                return await transaction()
            except errors.DatabaseUnavailable as error:
                self._metrics.commits.labels("delayed").inc()
                _log.error(
                    "database cannot be used; what is to be done in it is tried again",
                    **open_work.log_fields,
                    error=str(error),
                    advice=error.advice,
                    delay_seconds=delay_seconds,
                )
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, _LONGEST_DELAY_SECONDS)

    async def _commit(self, report: ProgressReport) -> CommitResult:
        return await self._store.commit(report, datetime.now(UTC))

    def _note(self, report: ProgressReport, outcome: CommitResult) -> None:
        """Take a commit's outcome into the board and the metrics."""
        self._moved.set()
        if outcome.status is not JobStatus.RUNNING:
            for_good = outcome.status is not JobStatus.PAUSED
            if self._board.drop_job(report.job_id, for_good=for_good):
                self._note_end(report, outcome)
        if outcome.applied:
            self._count(report)
        else:
            self._metrics.commits.labels("stale").inc()

    def _note_end(self, report: ProgressReport, outcome: CommitResult) -> None:
        self._metrics.jobs_running.set(self._board.running_jobs)
        if outcome.status is JobStatus.COMPLETED:
            self._metrics.jobs_ended.labels("completed").inc()
            _log.info("job completed", job_id=report.job_id)
        elif cause := report.halt.message if report.halt is not None else outcome.problem:
            self._metrics.jobs_ended.labels("paused").inc()
            _log.error("job paused", job_id=report.job_id, cause=cause)

    def _count(self, report: ProgressReport) -> None:
        metrics, counts = self._metrics, report.counts
        metrics.commits.labels("applied").inc()
        metrics.objects.labels("transferred").inc(counts.transferred)
        metrics.objects.labels("skipped").inc(counts.skipped)
        metrics.objects.labels("failed").inc(counts.failed)
        metrics.transferred_bytes.inc(counts.transferred_bytes)
        metrics.retries.inc(report.retries)
        metrics.attempts.inc(report.attempts)
        metrics.throttled.inc(report.throttled)

    # When a turn comes to nothing

    async def _fail(self, open_work: OpenRange | OpenUpload, error: Exception) -> None:
        """Try the same again later; pause the job if that has no point any more."""
        open_work.uncounted = True
        open_work.failures += 1
        open_work.not_before = time.monotonic() + _delay_seconds(open_work.failures)
        self.wake()  # so that the loop learns of the new time
        hopeless = isinstance(error, errors.SlurperError) and error.blocks_job
        if hopeless or open_work.failures >= MAX_FAILURES:
            await self._settle(open_work, _halted(open_work, _gives_up(open_work, error)))
            return
        _log.warning(
            "task came to nothing and is run again",
            **open_work.log_fields,
            failures=open_work.failures,
            error=str(error),
        )

    def _hold_back_if_owing(self, open_work: OpenRange | OpenUpload) -> None:
        """Let it pay for what its last task was ahead of its limits; no slot waits for it."""
        if open_work.allotted and time.monotonic() < open_work.paid_until < math.inf:
            open_work.not_before = open_work.paid_until
            self.wake()

    def _hold_back_if_fruitless(
        self, open_work: OpenRange | OpenUpload, report: ProgressReport
    ) -> None:
        """Do not spin when a task ends in time, without an error and without any progress."""
        if isinstance(report, RangeReport | GatherReport):
            got_ahead = report.cursor != report.started_after
        elif isinstance(report, PartsReport):
            got_ahead = bool(report.parts) or report.begun is not None
        if not got_ahead and report.halt is None:
            _log.warning("task settled nothing", **open_work.log_fields, throttled=report.throttled)
            open_work.not_before = time.monotonic() + _FRUITLESS_DELAY_SECONDS
            self.wake()

    # Housekeeping

    async def _housekeep(self) -> None:
        """Do one piece of what commands left to be done, and what is due from time to time."""
        if self._stopping:
            return
        try:
            if await self._store.tidy():
                self.wake()  # there may be more, after a look at the jobs
            if time.monotonic() >= self._housekeeping_at:
                self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
                await self._erase_secrets()
                await self._store.forget_answers()
        except errors.LeaseLost as error:
            self._yield(error)
        except Exception as error:
            _log.error("housekeeping failed; tried again", error=str(error))

    async def _erase_secrets(self) -> None:
        """Erase the secrets of jobs that ended long enough ago (design rule 11)."""
        retention = timedelta(seconds=self._settings.secret_retention_seconds)
        erased = await self._store.erase_secrets(datetime.now(UTC) - retention)
        if erased:
            _log.info("secrets of ended jobs erased", jobs=erased)


def _disorder_of(report: ProgressReport) -> str:
    """How a source was found to list in an order of its own."""
    return report.disorder if isinstance(report, RangeReport) else ""


def _is_to_be_read_anew(report: ProgressReport, outcome: CommitResult) -> bool:
    """Whether a commit has made another job of it: it is listed otherwise, or has got its keys."""
    if isinstance(report, GatherReport):
        return report.finished or outcome.status is not JobStatus.RUNNING
    return isinstance(report, RangeReport) and outcome.still_open and bool(report.disorder)


def _begins_again(report: ProgressReport, outcome: CommitResult) -> bool:
    """Whether all that was copied of a job is to be listed once more."""
    if not _disorder_of(report):
        return False
    has_none = isinstance(report, RangeReport) and report.order is KeyOrder.NONE
    return has_none or outcome.status is not JobStatus.RUNNING


def _delay_seconds(failures: int) -> float:
    """None after the first failure, which is put down to chance; then doubling."""
    if failures < 2:
        return 0.0
    return min(_FIRST_DELAY_SECONDS * 2.0 ** (failures - 2), _LONGEST_DELAY_SECONDS)


def _cannot_begin(error: errors.SlurperError) -> str:
    return f"The job cannot go on: {error}. Correct that and resume the job."


def _newly_unsettled(report: ProgressReport) -> int:
    """By how many large objects in progress a job has more."""
    if isinstance(report, RangeReport):
        return len(report.large)
    return -1 if isinstance(report, PartsReport) and report.settled else 0


def _settled_keys(report: RangeReport | GatherReport) -> int | None:
    """How many keys the range's next task may be expected to settle; None: nobody knows.

    A task that ended early, to have its range cut or for lack of anything to do, is no measure.
    """
    if isinstance(report, GatherReport) or report.boundaries or report.halt is not None:
        return None
    return report.counts.objects + len(report.large) or None


def _halted(open_work: OpenRange | OpenUpload, message: str) -> RangeReport | PartsReport:
    if isinstance(open_work, OpenUpload):
        return assignment.halted_parts(open_work.job_id, open_work.upload, message)
    return assignment.halted(open_work.job_id, open_work.range_id, open_work.slice, message)


def _gives_up(open_work: OpenRange | OpenUpload, error: Exception) -> str:
    advice = error.advice if isinstance(error, errors.SlurperError) else ""
    return (
        f"{_where(open_work)}: its task failed"
        f" {open_work.failures} times in a row, the last time because {_cause(error)}."
        f" {advice or _FIND_THE_OBJECT}; then resume the job."
    )


def _where(open_work: OpenRange | OpenUpload) -> str:
    if isinstance(open_work, OpenUpload):
        return f"The copy of the large object {open_work.upload.meta.key!r} cannot go on"
    start = open_work.slice.start_after
    where = "from the first key on" if start is None else f"after the key {start!r}"
    return f"Range {open_work.range_id} cannot go on {where}"


_FIND_THE_OBJECT = (
    "See the server's log, and whether memory is short or an object near that key is damaged"
)


def _cause(error: Exception) -> str:
    text = str(error) or "of no stated reason"
    return text if isinstance(error, errors.SlurperError) else f"{type(error).__name__}: {text}"
