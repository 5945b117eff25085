"""The driver: moves running jobs forward, and is the only writer of their progress.

    read running jobs ──▶ board ──▶ task ──▶ engine ──▶ report ──▶ one commit ──▶ board ──▶ ...

It holds no state that a restart would miss. Every range has at most one task under way. So has
every large object before its upload is begun. After that, several tasks may copy different parts of
it. A commit frees a slot for the next work, often the same range. After a pause or abort the driver
submits no more tasks of the job. It still commits the reports of tasks under way, because their
objects are settled and their parts are at the target.

A failure costs one turn of a range or large object. It never ends the loop:

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
import time
from datetime import UTC, datetime
from typing import Any

from slurper import errors, telemetry
from slurper.database.work import WorkStore
from slurper.driver import schedule
from slurper.driver.board import Board
from slurper.driver.chores import Chores
from slurper.driver.open_work import OpenRange, OpenUpload
from slurper.driver.range_turn import RangeTurn
from slurper.driver.turn import Means, Turn
from slurper.driver.upload_turn import UploadTurn
from slurper.engine.base import Engine
from slurper.job.model import Job
from slurper.secrets import Sealer
from slurper.settings import Settings
from slurper.transfer.task import Task

POLL_SECONDS = 2.0
"""How often the database is read. This finds what other processes wrote; `wake` tells of changes
made in this process."""

POLL_AGAIN_SECONDS = 0.2
"""How soon the database is read again when a commit changed a job during the read."""

MAX_FAILURES = 8
"""So many tasks for the same slice may come to nothing in a row. With the delays between them that
takes about ten seconds. So a short disturbance (processes killed at random) pauses no job."""

_log = telemetry.get_logger(__name__)


class Driver:
    """Runs the jobs of a database on an engine.

    Its store was made with a lease (`driver.leadership`), so no other process drives any more. Only
    jobs that are older than the lease may hold unreported work of another driver.
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
        """Prepare. The caller opens the store, starts the engine, and ends both.

        No other process has driven jobs that were created after `since` (default: now). Setting
        `woken` is another way to `wake`, for callers that outlive the driver. Every commit sets
        `moved`.
        """
        self._store = store
        self._engine = engine
        self._metrics = metrics or telemetry.Metrics()
        self._board = Board(since or datetime.now(UTC))
        self._means = Means(
            store=store,
            engine=engine,
            sealer=sealer,
            settings=settings,
            board=self._board,
            metrics=self._metrics,
            wake=self.wake,
            moved=(moved or asyncio.Event()).set,
            lease_lost=self._stop_without_lease,
        )
        self._chores = Chores(self._means)
        self._woken = woken or asyncio.Event()
        self._stopping = False
        self._lost: errors.LeaseLost | None = None
        self._tasks: dict[asyncio.Task[None], Turn[Any, Any]] = {}
        """The turns under way."""
        self._upload_tasks = 0
        """How many of them copy large objects."""
        self._poll_seconds = POLL_SECONDS

    def wake(self) -> None:
        """Look at the database soon: a job was created, resumed, paused or aborted."""
        self._woken.set()

    async def run(self) -> None:
        """Drive until `stop` or cancellation. Cancellation abandons the tasks under way.

        Raises:
            LeaseLost: another process drives now; the tasks under way are abandoned.
        """
        try:
            while not self._stopping:
                self._woken.clear()
                await self._refresh()
                self._fill()
                self._chores.begin(time.monotonic())
                if not self._stopping:
                    await self._chores.housekeep()
                await self._wait()
        except asyncio.CancelledError:
            await self._abandon()
            raise
        if self._lost is not None:
            await self._abandon()
            raise self._lost

    async def stop(self, grace_seconds: float) -> None:
        """Submit no more tasks, wait for those under way, and commit their reports.

        After `grace_seconds` the rest is abandoned. It is done again after the next start.
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
        await self._chores.stop()

    # Finding work

    async def _refresh(self) -> None:
        self._board.begin_update()
        try:
            # Read in this order, so that a job that is aborted meanwhile is not found twice.
            unswept = await self._store.unswept()
            works = await self._store.running_jobs()
        except errors.LeaseLost as error:
            self._stop_without_lease(error)
            return
        except errors.DatabaseUnavailable as error:
            _log.error("running jobs cannot be read; tried again soon", error=str(error))
            return
        except Exception:
            _log.exception("running jobs cannot be read; tried again soon")
            return
        complete = self._board.update(works)
        for work in unswept:  # a job that a commit has just touched may still be on the board
            self._board.drop_job(work.job.id, for_good=True)
        busy = [turn.job.id for turn in self._tasks.values()]
        self._chores.update(works, unswept, busy=busy)
        self._poll_seconds = POLL_SECONDS if complete else POLL_AGAIN_SECONDS
        self._metrics.jobs_running.set(len(self._board.jobs))

    def _fill(self) -> None:
        """Begin tasks for the next ranges and large objects, as long as there is room for them."""
        while not self._stopping:
            taken = self._take()
            if taken is None:
                break
            work, job = taken
            turn: Turn[Any, Any] = (
                RangeTurn(work, job, self._means)
                if isinstance(work, OpenRange)
                else UploadTurn(work, job, self._means)
            )
            task = asyncio.create_task(self._advance(turn))
            self._tasks[task] = turn
            self._upload_tasks += isinstance(turn, UploadTurn)
            task.add_done_callback(self._ended)
        self._metrics.tasks_under_way.set(len(self._tasks))

    def _take(self) -> tuple[OpenRange | OpenUpload, Job] | None:
        slots, tasks, uploads = self._engine.slots, len(self._tasks), self._upload_tasks
        kinds = schedule.kinds_with_room(ranges=tasks - uploads, uploads=uploads, slots=slots)
        return schedule.take(self._board, time.monotonic(), slots - tasks, kinds)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._upload_tasks -= isinstance(self._tasks.pop(task), UploadTurn)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("turn failed", exc_info=error)
        self._fill()

    async def _wait(self) -> None:
        now, seconds = time.monotonic(), self._poll_seconds
        for next_at in (schedule.next_at(self._board, now), self._chores.next_at(now)):
            if next_at is not None:
                seconds = min(seconds, next_at - now)
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    # One turn of one range or large object

    async def _advance(self, turn: Turn[Any, Any]) -> None:
        """Run the next task of a range or large object, and have its report committed."""
        try:
            sealed = await turn.patiently(lambda: self._store.open_to_work(turn.job.id))
            if sealed is None:  # paused, aborted or deleted since the board was filled
                self._board.drop_job(turn.job.id, for_good=False)
                self._engine.job_ended(turn.job.id)
                return
            found = await turn.next_task(sealed)
            self._fill()  # another task may take the remaining parts of a large object
            await turn.settle(await turn.run(found) if isinstance(found, Task) else found)
        except errors.LeaseLost as error:
            self._stop_without_lease(error)
        except asyncio.CancelledError:
            self._metrics.tasks.labels("cancelled").inc()
            raise
        except Exception as error:
            report = turn.fail(error, MAX_FAILURES)
            if report is not None:
                await turn.settle(report)
        finally:
            turn.end()

    def _stop_without_lease(self, error: errors.LeaseLost) -> None:
        """Another process drives: end `run` at once."""
        self._lost = error
        self._stopping = True
        self.wake()
