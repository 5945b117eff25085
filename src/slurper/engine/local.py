"""The local engine: worker processes on this machine.

There is at most one process per core. Each has one event loop that runs
`slurper.transfer.worker.Worker`. The first process starts with the engine, each further one when
there is work for it. A process that is lost, for any reason, is replaced at once. The tasks that it
ran raise `WorkerLost`.

The system may lack what a start needs (`engine.shortage`). Then tasks wait for a process. That is
no failure of a job or of the engine, however long it lasts. The log names the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections import deque
from dataclasses import replace

from slurper import errors, telemetry
from slurper.engine import pipe, shortage
from slurper.engine.process import Call, Exit, WorkerProcess
from slurper.engine.template import Child, Template
from slurper.engine.waits import Waits
from slurper.settings import NOT_FOR_WORKERS, Settings
from slurper.transfer.task import Task, TaskReport

SLOTS_PER_WORKER = 2
"""Near its end a task begins no new objects, and waits for its last ones. A second task on the same
process keeps the core and the connections busy during that time, and during the commit."""

TASKS_PER_WORKER = 2 * SLOTS_PER_WORKER
"""How many tasks a process takes. The driver lets large objects have as many tasks as ranges."""

WORKER_FACTORY = "slurper.transfer.worker:Worker"

SILENCE_LIMIT_SECONDS = 60.0
"""A worker process whose event loop stands still for so long is taken to hang. No unit of work
blocks the loop for nearly as long."""

START_ATTEMPTS = 3
"""If so many processes in a row end before they can take tasks, the cause is not chance."""

_TELL_SECONDS = 60.0
"""How often the log tells of a shortage that lasts."""

_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 10.0
_EXIT_SECONDS = 3.0
"""How long a process may take to close its connections and exit before it is killed."""

_log = telemetry.get_logger(__name__)


class LocalEngine:
    """Runs tasks in worker processes on this machine. Implements `engine.base.Engine`."""

    def __init__(
        self,
        settings: Settings,
        *,
        template: Template | None = None,
        metrics: telemetry.Metrics | None = None,
        waits: Waits | None = None,
        worker_factory: str = WORKER_FACTORY,
        silence_limit_seconds: float = SILENCE_LIMIT_SECONDS,
    ) -> None:
        """Prepare. Without a `template`, the engine starts one. A template ends with the engine.

        `waits` is told what the tasks wait for.

        `worker_factory` is a `module:callable`. Only tests change it.
        """
        self._count = settings.workers
        self._metrics = metrics
        self._waits = waits or Waits()
        self._silence_limit_seconds = silence_limit_seconds
        self._setup = pipe.Setup(
            _without_secrets(settings),
            worker_factory,
            beat_seconds=silence_limit_seconds / 12,
            log_level=telemetry.shown_level(),
        )
        self._template = template
        self._processes: list[WorkerProcess] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._waiting: deque[Call] = deque()
        self._suspects: set[tuple[str, int | str]] = set()
        """The work of tasks whose process was lost."""
        self._changed = asyncio.Event()
        self._failed_starts = 0
        self._start_failure = ""
        self._told_at = -math.inf
        """When the log told of a shortage last, in monotonic seconds."""
        self._accepting = False
        self._stopping = asyncio.Event()

    @property
    def slots(self) -> int:
        """How many tasks that copy ranges run at the same time; twice as many run in all."""
        return self._count * SLOTS_PER_WORKER

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The ids of the processes that take tasks now."""
        return tuple(process.pid for process in self._processes if process.ready)

    async def start(self) -> None:
        """Start a worker process; return when it takes tasks. A shortage is waited for.

        Raises:
            SlurperError: it did not start; the message says why.
        """
        self._accepting = True
        if self._template is not None:
            self._listen(self._template)
        self._grow()
        try:
            while not self.worker_pids:
                if self._failed_starts >= START_ATTEMPTS:
                    cause = self._start_failure
                    raise errors.SlurperError(f"no worker process can be started: {cause}")
                await self._wait_for_change()
        except BaseException:
            await self.stop(0)
            raise

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Run one task to its report.

        Cancelling the call cancels the task at its worker.

        Raises:
            WorkerLost: the worker died before it reported, or the engine was stopped.
            SlurperError: the engine is not started or already stopped.
            Exception: what the worker's `run` raised; or a SlurperError with its text, when the
                exception itself cannot be sent between processes.
        """
        if not self._accepting:
            raise errors.SlurperError("the engine takes no tasks: it is not running")
        reported = asyncio.get_running_loop().create_future()
        call = Call(task, reported, alone=task.identity in self._suspects)
        self._waiting.append(call)
        self._dispatch()
        try:
            report: TaskReport = await reported
        except errors.WorkerLost:
            self._suspects.add(task.identity)
            raise
        except asyncio.CancelledError:
            self._withdraw(call)
            raise
        self._suspects.discard(task.identity)
        return replace(report, workers=self._working_beside(call))

    def job_ended(self, job_id: str) -> None:
        """Let the workers close what they have open only for a job that has ended, or is paused."""
        for process in self._processes:
            process.job_ended(job_id)

    async def stop(self, grace_seconds: float) -> None:
        """Let tasks under way end within `grace_seconds`, then end the worker processes.

        Tasks that wait for a place, and tasks that do not end in time, raise `WorkerLost`. No
        process is left when this returns or is cancelled.
        """
        self._accepting = False
        for call in self._waiting:
            call.fail(errors.WorkerLost("the engine was stopped before the task began"))
        self._waiting.clear()
        try:
            await self._wait_while_busy(grace_seconds)
            self._stopping.set()
            for process in self._processes:
                process.stop()
            await self._wait_for_exit(_EXIT_SECONDS if grace_seconds else 0)
        finally:
            for keeper in self._keepers:
                keeper.cancel()
            try:
                await asyncio.gather(*self._keepers, return_exceptions=True)
            finally:
                self._let_template_go()

    async def _wait_for_exit(self, seconds: float) -> None:
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=seconds)
        for process in self._processes:
            process.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _wait_while_busy(self, grace_seconds: float) -> None:
        try:
            async with asyncio.timeout(grace_seconds):
                while any(process.load for process in self._processes):
                    await self._wait_for_change()
        except TimeoutError:
            _log.warning("tasks did not end within the grace period; their work is redone later")

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # Keeping processes alive

    def _grow(self) -> None:
        process = self._next_process()
        name = f"worker process {len(self._keepers)}"
        self._keepers.append(asyncio.create_task(self._keep(process), name=name))

    async def _keep(self, process: WorkerProcess) -> None:
        """Run one worker process, and replace it when it is lost, until the engine stops."""
        backoff_seconds = 0.0
        while True:
            ended = await self._live(process)
            if self._stopping.is_set():
                return
            if ended.was_ready:
                backoff_seconds = 0.0
            else:
                self._failed_starts += not ended.lacked  # that passes
                self._start_failure = ended.text
                backoff_seconds = _longer(backoff_seconds)
            self._changed_somewhere()
            await self._sleep_unless_stopped(backoff_seconds)
            if self._stopping.is_set():
                return
            process = self._next_process()

    def _next_process(self) -> WorkerProcess:
        process = WorkerProcess(
            self._setup,
            fork=self._fork,
            silence_limit_seconds=self._silence_limit_seconds,
            changed=self._changed_somewhere,
            waits=self._waits,
        )
        self._processes.append(process)
        return process

    async def _live(self, process: WorkerProcess) -> Exit:
        try:
            ended = await process.live()
        except (OSError, MemoryError) as error:
            lacked = shortage.number_of(error)
            ended = Exit(f"could not be started: {error}", was_ready=False, lacked=lacked)
        finally:
            self._processes.remove(process)
        if not self._stopping.is_set():
            if ended.lacked:
                self._note_shortage(ended)
            else:
                self._note_loss(process, ended)
        return ended

    def _note_loss(self, process: WorkerProcess, ended: Exit) -> None:
        if self._metrics is not None:
            self._metrics.worker_restarts.inc()
        _log.error(
            "worker process lost; it is replaced",
            pid=process.pid,
            ended=ended.text,
            was_ready=ended.was_ready,
        )

    def _note_shortage(self, ended: Exit) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_SECONDS:
            return
        self._told_at = now
        _log.error(
            "no worker process can be started at present; tasks wait, and it is tried again",
            cause=ended.text,
            advice=shortage.advice(ended.lacked),
            worker_processes=len(self.worker_pids),
        )

    async def _sleep_unless_stopped(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # The template that they are forked from

    def _fork(self, worker_socket: socket.socket) -> Child:
        """Fork a worker process. If the template is lost, start another one."""
        if self._template is None or self._template.lost:
            self._let_template_go()
            self._template = Template.spawned()
            self._listen(self._template)
        return self._template.fork(worker_socket)

    def _listen(self, template: Template) -> None:
        asyncio.get_running_loop().add_reader(template.fileno(), self._hear, template)

    def _hear(self, template: Template) -> None:
        template.read()
        if template.lost:
            _log.error("template process lost; the next worker needs another", pid=template.pid)
            self._let_template_go()

    def _let_template_go(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            asyncio.get_running_loop().remove_reader(template.fileno())
            template.close()

    # Giving calls to processes

    def _changed_somewhere(self) -> None:
        self._changed.set()
        self._dispatch()

    def _dispatch(self) -> None:
        """Give places to waiting calls, in the order in which they came."""
        for call in list(self._waiting):
            process = self._place_alone(call) if call.alone else self._place()
            if process is not None:
                self._waiting.remove(call)
                process.begin(call)

    def _open_processes(self) -> list[WorkerProcess]:
        return [
            process
            for process in self._processes
            if process.ready and process.kept_for is None and not process.runs_alone
        ]

    def _place(self) -> WorkerProcess | None:
        """The least loaded process with a free place; None also while an idle one is starting."""
        process = min(self._open_processes(), key=lambda process: process.load, default=None)
        if process is None or (process.load and self._is_growing()):
            return None
        return process if process.load < TASKS_PER_WORKER else None

    def _is_growing(self) -> bool:
        """Whether another process is starting. If none is and there is room, start one."""
        if not all(process.ready for process in self._processes):
            return True
        if len(self._keepers) == self._count:
            return False
        self._grow()
        return True

    def _place_alone(self, call: Call) -> WorkerProcess | None:
        """A process that runs nothing else, for a call whose last process was lost.

        Several tasks share a process, so a loss does not show which of them caused it. If a task
        kills its process when it runs alone, we know the cause, and no other task is lost with it.
        """
        kept = next((process for process in self._processes if process.kept_for is call), None)
        if kept is None or not kept.ready:
            kept = min(self._open_processes(), key=lambda process: process.load, default=None)
            if kept is not None and kept.load and self._is_growing():
                return None
        if kept is None:
            return None
        kept.kept_for = None if kept.load == 0 else call
        return kept if kept.load == 0 else None

    def _working_beside(self, call: Call) -> int:
        """How many processes work on the job of a call that has just ended, including its own."""
        others = (one for one in self._processes if one is not call.process)
        return 1 + sum(one.works_on(call.task.job_id) for one in others)

    def _withdraw(self, call: Call) -> None:
        if call.process is not None:
            call.process.cancel(call)
            return
        with contextlib.suppress(ValueError):  # stopped and withdrawn in the same turn
            self._waiting.remove(call)
        for process in self._processes:
            if process.kept_for is call:
                process.kept_for = None
        self._dispatch()


def _longer(backoff_seconds: float) -> float:
    return min(max(_FIRST_BACKOFF_SECONDS, backoff_seconds * 2), _LONGEST_BACKOFF_SECONDS)


def _without_secrets(settings: Settings) -> Settings:
    """The settings without the server's secrets, which workers must not get (design rule 11)."""
    return settings.model_copy(update=dict.fromkeys(NOT_FOR_WORKERS))
