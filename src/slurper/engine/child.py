"""The program of a worker process: one event loop that runs tasks for the control plane.

It lives as long as its pipe. When the control plane is gone, for any reason, the pipe ends. Then
the process ends at once and without clean-up: another control plane may already run the same slices
again. Only its own control plane decides when it stops. A terminal or a service manager may send
signals to the whole process group. The process ignores them, and so does its template.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import functools
import gc
import importlib
import os
import pickle
import socket
import sys
import traceback
from collections.abc import Coroutine
from typing import Any, NoReturn, Protocol

import uvloop

from slurper import descriptors, errors, telemetry
from slurper.engine import pipe, shortage
from slurper.engine.waits import Told
from slurper.http import capacity
from slurper.settings import MIB, Settings
from slurper.transfer.task import Report, Task

EXIT_ORPHANED = 3
EXIT_BROKEN = 4

SHARE_OF_DESCRIPTORS = 0.75
"""A worker's descriptors are nearly all for connections to stores."""

_DESCRIPTORS = 16
"""So many are needed at the least: some for an event loop. uvloop aborts if it finds none."""

CLOSE_SECONDS = 1.0
"""How long a stopping process may take to close its connections. Then it ends anyway."""


WAITS_SECONDS = 0.5
"""How often a worker checks what its tasks wait for. It reports only changes."""


class Runner(Protocol):
    """What a worker process runs: `slurper.transfer.worker.Worker`, or a stand-in of a test."""

    def run(self, task: Task[Any]) -> Coroutine[Any, Any, Report]:
        """Run one task; several may be under way."""
        ...

    def job_ended(self, job_id: str) -> None:
        """Close what is open only for a job that has ended."""
        ...

    def waits(self) -> Told:
        """What the requests of each job wait for, and how many requests wait."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def run(connection: socket.socket) -> NoReturn:
    """Serve the pipe, in a process that was just forked. The first message on it is `sys.path`."""
    faulthandler.enable()
    descriptors.raise_limit()
    descriptors.require(_DESCRIPTORS, "a worker process")
    capacity.claim(SHARE_OF_DESCRIPTORS)
    paths, setup = _receive(connection), _receive(connection)
    assert isinstance(paths, list)  # noqa: S101 - the two opening messages
    assert isinstance(setup, pipe.Setup)  # noqa: S101
    telemetry.configure_logging(setup.log_level)
    sys.path[:] = paths
    connection.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_serve(connection, setup))
        # `sys.exit` would wait for threads. A resolver thread may wait for a dead network.
        sys.stderr.flush()
        os._exit(status)


def _receive(connection: socket.socket) -> object:
    length = pipe.LENGTH.unpack(_receive_exactly(connection, pipe.LENGTH.size))[0]
    return pipe.decode(_receive_exactly(connection, length))


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            os._exit(EXIT_ORPHANED)
        data += chunk
    return bytes(data)


async def _serve(connection: socket.socket, setup: pipe.Setup) -> int:
    child = _Child(setup)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: child.pipe, sock=connection)
    try:
        worker = _make_worker(setup)
    except Exception as error:
        telemetry.print_traceback(type(error), error, None)
        return await child.refuse(error)
    return await child.serve(worker)


def _make_worker(setup: pipe.Setup) -> Runner:
    module, _, name = setup.worker_factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    worker: Runner = factory(setup.settings)
    tune_process(setup.settings)
    return worker


class _Child:
    """The tasks under way in this process."""

    def __init__(self, setup: pipe.Setup) -> None:
        self.pipe = pipe.Pipe(self._received, self._lost)
        self._beat_seconds = setup.beat_seconds
        self._exit_status = EXIT_ORPHANED
        self._stop = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[Report]] = {}
        self._worker: Runner | None = None
        self._told: Told = {}

    async def refuse(self, error: Exception) -> int:
        status = shortage.exit_status(error)
        self._exit_status = EXIT_BROKEN if status == shortage.FAULT else status
        self.pipe.send(pipe.Broken(f"{type(error).__name__}: {error}"))
        self.pipe.close()  # ends the process once the message is out
        await asyncio.Event().wait()
        return EXIT_BROKEN

    async def serve(self, worker: Runner) -> int:
        self._worker = worker
        self.pipe.send(pipe.Ready())
        self._beat()
        self._tell_waits(worker)
        await self._stop.wait()
        for task in self._tasks.values():
            task.cancel()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                await worker.close()
        except TimeoutError:
            pass  # the connections end with the process
        return 0

    def _received(self, message: object) -> None:
        match message:
            case pipe.Run(number, task) if self._worker is not None:
                running = asyncio.create_task(self._worker.run(task))
                running.add_done_callback(functools.partial(self._answer, number))
                self._tasks[number] = running
            case pipe.Cancel(number):
                if number in self._tasks:
                    self._tasks[number].cancel()
            case pipe.JobEnded(job_id) if self._worker is not None:
                self._worker.job_ended(job_id)
            case pipe.Stop():
                self._stop.set()

    def _answer(self, number: int, ended: asyncio.Task[Report]) -> None:
        del self._tasks[number]
        try:
            self.pipe.send(pipe.Reported(number, ended.result()))
        except asyncio.CancelledError:
            cancelled = errors.SlurperError("the task was cancelled in its worker process")
            self.pipe.send(pipe.Raised(number, cancelled))
        except Exception as error:
            self.pipe.send(pipe.Raised(number, _portable(error)))

    def _beat(self) -> None:
        self.pipe.send(pipe.Beat())
        asyncio.get_running_loop().call_later(self._beat_seconds, self._beat)

    def _tell_waits(self, worker: Runner) -> None:
        told = worker.waits()
        if told != self._told:
            self._told = told
            self.pipe.send(pipe.Waiting(told))
        asyncio.get_running_loop().call_later(WAITS_SECONDS, self._tell_waits, worker)

    def _lost(self) -> None:
        os._exit(self._exit_status)


def _portable(error: Exception) -> Exception:
    """The error if it can be pickled, else one with its text. A note says where it was raised.

    Some errors can be pickled but not read back, because their constructor needs other arguments
    than `args`. So we try to read it back here, where a failure does no harm.
    """
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled one line above
    except Exception:
        copy = errors.SlurperError(f"{type(error).__name__}: {error}")
    if not isinstance(error, errors.SlurperError):
        copy.add_note("in the worker process:\n" + "".join(traceback.format_exception(error)))
    assert isinstance(copy, Exception)  # noqa: S101 - pickle returns what it was given
    return copy


# glibc's <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def tune_process(settings: Settings) -> None:
    """Tune memory allocation and garbage collection for a process that copies bytes.

    By default, glibc returns freed memory to the kernel as soon as 128 KiB are free at the heap's
    end, and it gets buffers over 128 KiB by mmap. Request buffers come and go all the time. So each
    object may cost a system call and new page faults. We measured copies over TLS: each took either
    75 or 115 microseconds, by chance. With higher thresholds each took 75. A full window of buffers
    is kept for the next one. This memory was in use before, so it is within `in_flight_bytes`. The
    trim threshold is higher than that, because an equal one would return every full window.

    By default, Python's collector looks at all young containers after every 700 new ones. A copy
    makes dozens, and nearly all of them are freed by reference count. If the collector runs less
    often, cycles only keep their memory longer. Objects that exist now (modules, code) stay, so the
    collector need not look at them. A collection now would touch them all, and so copy the memory
    that is shared with the template.
    """
    _raise_malloc_thresholds(trim_bytes=2 * settings.in_flight_bytes + 64 * MIB)
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def _raise_malloc_thresholds(*, trim_bytes: int) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc: macOS, musl
    mallopt(_M_MMAP_THRESHOLD, 32 * MIB)  # the largest value that glibc accepts
    mallopt(_M_TRIM_THRESHOLD, min(trim_bytes, 2**31 - 1))
