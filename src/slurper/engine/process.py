"""The control plane's end of one worker process: start it, give it tasks, see it end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

from slurper import errors, telemetry
from slurper.engine import pipe
from slurper.transfer.task import Report, Task

_log = telemetry.get_logger(__name__)

_PROGRAM = "import gc; gc.disable(); from slurper.engine.child import main; main()"
"""Nothing that the imports make is garbage; `tune_process` enables the collector afterwards."""

_NOT_FOR_WORKERS = ("SLURPER_API_TOKEN", "SLURPER_SECRET_KEY", "SLURPER_DATABASE_URL")
"""A worker gets no secrets but those inside its tasks (design rule 11)."""

_START_SECONDS = 60.0
"""A process that is not ready after this long is killed; it takes a quarter of a second."""

_REAP_SECONDS = 5.0
"""A killed process is gone within milliseconds, unless it is stuck inside the kernel."""


@dataclass(slots=True, eq=False)
class Call:
    """A task that somebody waits for."""

    _numbers: ClassVar[count[int]] = count(1)

    task: Task
    outcome: asyncio.Future[Report]
    alone: bool = False
    """Wants a process for itself."""
    process: WorkerProcess | None = None
    """Where it runs; None while it waits for a place."""
    number: int = field(default_factory=lambda: next(Call._numbers))

    def succeed(self, report: Report) -> None:
        """Hand over the report, if somebody still waits."""
        if not self.outcome.done():
            self.outcome.set_result(report)

    def fail(self, error: Exception) -> None:
        """Hand over an error, if somebody still waits."""
        if not self.outcome.done():
            self.outcome.set_exception(error)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker process ended."""

    text: str
    """`was killed by SIGKILL`, `exited with status 1`."""
    was_ready: bool
    """It could take tasks: not a process that cannot even start."""


class WorkerProcess:
    """One worker process, from its start to its end; its successor is another object.

    A process whose event loop gives no sign of life for `silence_limit_seconds` is killed: a worker
    that hangs would otherwise hold its tasks for ever.
    """

    def __init__(
        self,
        setup: pipe.Setup,
        *,
        silence_limit_seconds: float,
        changed: Callable[[], None],
    ) -> None:
        """Prepare; `changed` is called when the process gets ready and when a call of it ends."""
        self._setup = setup
        self._silence_limit_seconds = silence_limit_seconds
        self._changed = changed
        self._pipe = pipe.Pipe(self._received, self._lost)
        self._popen: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, Call] = {}
        self._gone = asyncio.Event()
        self._last_heard = 0.0
        self._was_ready = False
        self._broken_text = ""
        self.ready = False
        """It takes tasks."""
        self.kept_for: Call | None = None
        """The call that gets this process for itself as soon as it is idle."""

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        return self._popen.pid if self._popen else 0

    @property
    def load(self) -> int:
        """How many tasks are on it."""
        return len(self._calls)

    @property
    def runs_alone(self) -> bool:
        """Whether a call has it for itself."""
        return any(call.alone for call in self._calls.values())

    async def live(self) -> Exit:
        """Start the process and return when it is gone for good; its open calls are lost then.

        Nobody hears of a loss before the process is dead, so a lost task can be run again without
        meeting its former self.

        Raises:
            OSError: the process could not be started.
        """
        popen, connection = _spawn()
        self._popen = popen
        loop = asyncio.get_running_loop()
        self._last_heard = loop.time()
        try:
            await _connect(self._pipe, connection)
            self._pipe.send(sys.path)
            self._pipe.send(self._setup)
            self._watch(loop)
            await self._gone.wait()
            popen.kill()  # the pipe may have ended before the process did
            await _reap(popen)
        finally:
            if popen.poll() is None:  # cancelled: there may be no later turn of the loop
                popen.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    popen.wait(_REAP_SECONDS)
            self._lost()
            self._pipe.close()
            self._fail_calls(popen)
        return Exit(self._broken_text or _how_it_ended(popen), was_ready=self._was_ready)

    def begin(self, call: Call) -> None:
        """Run a call here."""
        call.process = self
        self._calls[call.number] = call
        self._pipe.send(pipe.Run(call.number, call.task))

    def cancel(self, call: Call) -> None:
        """End a call early; it counts as load until the worker has let go of it."""
        self._pipe.send(pipe.Cancel(call.number))

    def stop(self) -> None:
        """Ask the process to close its connections and exit."""
        self._pipe.send(pipe.Stop())

    def kill(self) -> None:
        """End the process now; `live` returns soon after."""
        if self._popen is not None:
            self._popen.kill()
            self._lost()

    def _received(self, message: object) -> None:
        self._last_heard = asyncio.get_running_loop().time()
        match message:
            case pipe.Ready():
                self.ready = self._was_ready = True
            case pipe.Broken(text):
                self._broken_text = text
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

    def _fail_calls(self, popen: subprocess.Popen[bytes]) -> None:
        text = f"worker process {popen.pid} {_how_it_ended(popen)} while it ran the task"
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


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that holds the other end of the returned socket, and nothing else of ours.

    Neither a fork of this process (its threads and loop would come along) nor multiprocessing's
    spawn (it runs the caller's `__main__` again): a plain new interpreter.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stopping = {signal.SIGINT, signal.SIGTERM}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # until the child ignores them
    try:
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter with fixed arguments
            [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_environment(os.environ),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
    return popen, ours


async def _connect(protocol: pipe.Pipe, connection: socket.socket) -> None:
    try:
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: protocol, sock=connection)
    except BaseException:
        connection.close()
        raise


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in ours.items() if name not in _NOT_FOR_WORKERS}


async def _reap(popen: subprocess.Popen[bytes]) -> None:
    """Wait for a killed process without a thread or a signal handler of its own."""
    delay_seconds, waited_seconds = 0.001, 0.0
    while popen.poll() is None and waited_seconds < _REAP_SECONDS:
        await asyncio.sleep(delay_seconds)
        waited_seconds += delay_seconds
        delay_seconds = min(delay_seconds * 2, 0.05)


def _how_it_ended(popen: subprocess.Popen[bytes]) -> str:
    status = popen.returncode
    if status is None:
        return "does not end although it was killed"
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
