"""The control plane's end of one worker process: start it, give it tasks, see it end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

from slurper import errors, telemetry
from slurper.engine import pipe, shortage
from slurper.engine.template import Child
from slurper.engine.waits import Waits
from slurper.transfer.task import Report, Task

_log = telemetry.get_logger(__name__)

_START_SECONDS = 60.0
"""A process that is not ready after this time is killed. A start takes about 0.01 seconds."""

_REAP_SECONDS = 5.0
"""A killed process is gone within milliseconds, unless it is stuck inside the kernel."""


@dataclass(slots=True, eq=False)
class Call:
    """A task and the caller who waits for its report."""

    _numbers: ClassVar[count[int]] = count(1)

    task: Task[Any]
    reported: asyncio.Future[Report]
    alone: bool = False
    """It must have a process for itself."""
    process: WorkerProcess | None = None
    """Where it runs; None while it waits for a place."""
    number: int = field(default_factory=lambda: next(Call._numbers))

    def succeed(self, report: Report) -> None:
        """Hand over the report, if the caller still waits."""
        if not self.reported.done():
            self.reported.set_result(report)

    def fail(self, error: Exception) -> None:
        """Hand over an error, if the caller still waits."""
        if not self.reported.done():
            self.reported.set_exception(error)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker process ended."""

    text: str
    """For example `was killed by SIGKILL` or `exited with status 1`."""
    was_ready: bool
    """Whether it could take tasks before it ended."""
    lacked: int = 0
    """The error number, if it could not begin because the system lacked something for now."""


class WorkerProcess:
    """One worker process, from its start to its end. Its replacement is another object.

    If its event loop gives no sign of life for `silence_limit_seconds`, the process is killed.
    Otherwise a worker that hangs would keep its tasks for ever.
    """

    def __init__(
        self,
        setup: pipe.Setup,
        *,
        fork: Callable[[socket.socket], Child],
        silence_limit_seconds: float,
        changed: Callable[[], None],
        waits: Waits,
    ) -> None:
        """Prepare.

        `fork` makes a process that serves the other end of a pipe. `changed` is called when the
        process becomes ready, and when one of its calls ends. `waits` is told what its tasks wait
        for.
        """
        self._setup = setup
        self._fork = fork
        self._silence_limit_seconds = silence_limit_seconds
        self._changed = changed
        self._waits = waits
        self._pipe = pipe.Pipe(self._received, self._lost)
        self._child: Child | None = None
        self._calls: dict[int, Call] = {}
        self._gone = asyncio.Event()
        self._last_heard = 0.0
        self._was_ready = False
        self._broken_text = ""
        self.ready = False
        """Whether it takes tasks."""
        self.kept_for: Call | None = None
        """The call that gets this process for itself as soon as it is idle."""

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._child.pid if self._child else 0

    @property
    def load(self) -> int:
        """How many tasks it has."""
        return len(self._calls)

    @property
    def runs_alone(self) -> bool:
        """Whether a call has it for itself."""
        return any(call.alone for call in self._calls.values())

    def works_on(self, job_id: str) -> bool:
        """Whether it has a task of this job."""
        return any(call.task.job_id == job_id for call in self._calls.values())

    async def live(self) -> Exit:
        """Start the process, and return when it has ended. Its open calls are lost then.

        Calls are reported as lost only when the process is dead. So a lost task never runs twice
        at the same time.

        Raises:
            OSError: the process could not be started.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                child = self._child = self._fork(theirs)
            except BaseException:
                ours.close()
                raise
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        try:
            await _connect(self._pipe, ours)
            self._pipe.send(sys.path)
            self._pipe.send(self._setup)
            self._watch(loop)
            await self._gone.wait()
            child.kill()  # the pipe may have ended before the process did
            await _end_of(child)
        finally:
            if not child.over:  # cancelled: there may be no later turn of the loop
                child.kill()
                child.wait(_REAP_SECONDS)
            self._lost()
            self._pipe.close()
            self._fail_calls(child)
        return Exit(
            self._broken_text or _how_it_ended(child),
            was_ready=self._was_ready,
            lacked=0 if self._was_ready else _what_it_lacked(child),
        )

    def begin(self, call: Call) -> None:
        """Run a call here."""
        call.process = self
        self._calls[call.number] = call
        self._pipe.send(pipe.Run(call.number, call.task))

    def cancel(self, call: Call) -> None:
        """End a call early. It counts as load until the worker has answered it."""
        self._pipe.send(pipe.Cancel(call.number))

    def job_ended(self, job_id: str) -> None:
        """Let the process close what it has open only for this job."""
        if self.ready:
            self._pipe.send(pipe.JobEnded(job_id))

    def stop(self) -> None:
        """Ask the process to close its connections and exit."""
        self._pipe.send(pipe.Stop())

    def kill(self) -> None:
        """End the process now; `live` returns soon after."""
        if self._child is not None:
            self._child.kill()
            self._lost()

    def _received(self, message: object) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        match message:
            case pipe.Ready():
                self.ready = self._was_ready = True
            case pipe.Broken(text):
                self._broken_text = text
            case pipe.Waiting(told):
                self._waits.tell(self.pid, told)
                return
            case pipe.Reported(number, report):
                self._calls.pop(number).succeed(report)
            case pipe.Raised(number, error):
                self._calls.pop(number).fail(error)
            case _:
                return
        self._changed()

    def _lost(self) -> None:
        self.ready = False
        self._gone.set()

    def _fail_calls(self, child: Child) -> None:
        text = f"worker process {child.pid} {_how_it_ended(child)} while it ran the task"
        self._waits.forget(child.pid)
        for call in self._calls.values():
            call.fail(errors.WorkerLost(text))
        self._calls.clear()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._gone.is_set():
            return
        silence_seconds = loop.time() - self._last_heard
        limit_seconds = self._silence_limit_seconds if self._was_ready else _START_SECONDS
        if silence_seconds > limit_seconds:
            _log.error("worker process is silent; it is killed", pid=self.pid)
            self.kill()
            return
        loop.call_later(self._silence_limit_seconds / 4, self._watch, loop)


async def _connect(protocol: pipe.Pipe, connection: socket.socket) -> None:
    try:
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: protocol, sock=connection)
    except BaseException:
        connection.close()
        raise


async def _end_of(child: Child) -> None:
    """Wait until the template tells that a killed process has ended."""
    delay_seconds, waited_seconds = 0.001, 0.0
    while not child.over and waited_seconds < _REAP_SECONDS:
        await asyncio.sleep(delay_seconds)
        waited_seconds += delay_seconds
        delay_seconds = min(delay_seconds * 2, 0.05)


def _what_it_lacked(child: Child) -> int:
    """The error number of what the system had too little of, so that it could not begin; or 0."""
    return child.refusal or (0 if child.status is None else shortage.told_by(child.status))


def _how_it_ended(child: Child) -> str:
    if child.refusal:
        return f"could not be forked: {os.strerror(child.refusal)}"
    if child.orphaned:
        return "ended unseen, since its template process was lost"
    status = child.status
    if status is None:
        return "does not end although it was killed"
    if lacked := shortage.told_by(status):
        return f"could not begin: {os.strerror(lacked)}"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
