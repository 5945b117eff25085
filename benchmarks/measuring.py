"""Runs a contender once and says what all its processes cost.

CPU is the user and system time that the operating system accounts to a process and all its children
(wait4), so the figures of a busy machine still compare. Peak memory is each process's own
high-water mark, read while it runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread, Timer

from benchmarks import contenders, service
from benchmarks.contenders import Command, Contender, Copy
from benchmarks.errors import MeasurementFailed

LIMIT_SECONDS = 1800.0
"""A tool that takes longer is killed."""

_FIRST_LOOK_SECONDS = 0.01
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Cost:
    """What a contender's processes came to."""

    user_seconds: float
    system_seconds: float
    wall_seconds: float
    peaks_mib: tuple[float, ...]
    """Of each process, largest first."""


def measure(contender: Contender, copy: Copy) -> Cost:
    """Let a contender make the copy.

    Raises:
        MeasurementFailed: it failed.
    """
    environment = {**os.environ, **contender.environment(copy)}
    # An installed program has its byte code; compiling it each time is not what a user pays.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    costs = [
        _measure(contender, command, copy, environment) for command in contender.commands(copy)
    ]
    return Cost(
        sum(cost.user_seconds for cost in costs),
        sum(cost.system_seconds for cost in costs),
        sum(cost.wall_seconds for cost in costs),
        tuple(sorted((peak for cost in costs for peak in cost.peaks_mib), reverse=True)),
    )


def _measure(
    contender: Contender, command: Command, copy: Copy, environment: dict[str, str]
) -> Cost:
    log = copy.scratch / "log.txt"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [contenders.program(command[0]), *command[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with _bounded(process), _watched(process.pid) as peaks:
        if contender.is_service:
            wall = service.run_job(copy.service, log)
            process.send_signal(signal.SIGTERM)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if not contender.is_service:
            wall = time.monotonic() - began
    if process.returncode:
        raise MeasurementFailed(f"status {process.returncode}:\n{log.read_text()[-2000:]}")
    return Cost(usage.ru_utime, usage.ru_stime, wall, tuple(peaks.values()))


@contextmanager
def _bounded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the process with its children after the limit, or when the block fails."""

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = Timer(LIMIT_SECONDS, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if process.returncode is None:
            kill()
            process.wait()


@contextmanager
def _watched(root: int) -> Iterator[dict[int, float]]:
    """Fill in the peak memory, in MiB, of a process and its descendants while the block runs."""
    peaks: dict[int, float] = {}
    ended = Event()

    def watch() -> None:
        pause = _FIRST_LOOK_SECONDS
        while not ended.wait(pause):
            peaks.update((pid, peak) for pid in _tree(root) if (peak := _peak_mib(pid)))
            pause = min(pause * 1.5, _LOOK_SECONDS)

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _tree(root: int) -> Iterator[int]:
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        with suppress(OSError):  # it has ended
            for child in children.read_text().split():
                yield from _tree(int(child))


def _peak_mib(pid: int) -> float | None:
    """None: it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None
