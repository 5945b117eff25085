"""`slurper serve` with few file descriptors, killed now and then, and watched all the time."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from slurper.demo.servers import HOST, free_ports
from tests.e2e.program import PROGRAM, SECONDS, wait_until

TOKEN = "token-of-the-soak-that-is-long-enough"
LOOK_SECONDS = 0.25
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Look:
    """What one process held at a moment."""

    at: float
    pid: int
    is_worker: bool
    resident_mib: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service that may be killed and started again, always at the same address."""

    folder: Path
    environment: Mapping[str, str]
    limit: int
    """How many descriptors each of its processes may have."""
    port: int = field(default_factory=lambda: free_ports(1)[0])
    _running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the control plane."""
        return self._running[-1].pid

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "".join(log.read_text() for log in sorted(self.folder.glob("serve-*.log")))

    def start(self) -> None:
        """Start it, and wait until it listens."""
        log = self.folder / f"serve-{len(self._running) + 1:03}.log"
        limited = f'ulimit -n {self.limit}; exec "$@"'
        options = ("--port", str(self.port), "--verbose")
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", limited, "sh", PROGRAM, "serve", *options],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            return "slurper listens on" in log.read_text()

        wait_until(listens, "the service to come up")

    def stop(self) -> None:
        """End it as a service manager does."""
        process = self._running[-1]
        process.terminate()
        assert process.wait(SECONDS) == 0, self.output[-5000:]

    def kill(self) -> None:
        """Kill -9 the control plane, its template and its workers at once."""
        process = self._running[-1]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def processes(self) -> list[psutil.Process]:
        """The control plane, the template, and the workers, those of a lost template too."""
        session = self.pid
        others = [pid for pid in psutil.pids() if pid != session and _session_of(pid) == session]
        found = []
        for pid in (session, *others):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def workers(self) -> list[psutil.Process]:
        """The workers."""
        return [one for one in self.processes() if _name(one) == "slurper-worker"]

    def records(self) -> Iterator[dict[str, Any]]:
        """What it has logged lately."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - MIB))
            for line in log:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    @property
    def _log(self) -> Path:
        return self.folder / f"serve-{len(self._running):03}.log"


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def running(folder: Path, environment: Mapping[str, str], limit: int) -> Iterator[Service]:
    """Run the service while the block lasts. No process is left behind."""
    service = Service(folder, {**environment, "PYTHONUNBUFFERED": "1"}, limit)
    service.start()
    try:
        yield service
    finally:
        service.kill()


class Watcher(threading.Thread):
    """Looks at the processes of a service."""

    def __init__(self, service: Service) -> None:
        super().__init__(name="watcher")
        self._service = service
        self._over = threading.Event()
        self.looks: list[Look] = []

    def run(self) -> None:
        """Look until `end`."""
        while not self._over.wait(LOOK_SECONDS):
            for process in self._service.processes():
                self._look(process)

    def end(self) -> list[Look]:
        """Look no more; return what was seen."""
        self._over.set()
        self.join()
        return self.looks

    def _look(self, process: psutil.Process) -> None:
        try:
            seen = Look(
                at=time.monotonic(),
                pid=process.pid,
                is_worker=process.name() == "slurper-worker",
                resident_mib=process.memory_info().rss / MIB,
                descriptors=process.num_fds(),
            )
        except psutil.Error:  # it has just been killed
            return
        self.looks.append(seen)


class Killer(threading.Thread):
    """Kills a process of a service every so often, or all of them."""

    def __init__(self, service: Service, seconds: float, chance: random.Random) -> None:
        super().__init__(name="killer")
        self._service = service
        self._seconds = seconds
        self._chance = chance
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        """Kill until `end`."""
        while not self._over.wait(self._chance.uniform(0.5, 1.5) * self._seconds):
            if not self._service.workers():
                continue  # it has not recovered from the last one
            victims = self._service.processes()[1:]
            if self._chance.random() < 0.3 or not victims:
                self._service.kill()
                self._service.start()
            else:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._chance.choice(victims).kill()
            self.kills += 1

    def end(self) -> None:
        """Kill no more."""
        self._over.set()
        self.join()
