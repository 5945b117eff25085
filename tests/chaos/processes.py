"""The real program in processes that can be killed and started again at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.e2e.program import ACCOUNT, PROGRAM, SECONDS, wait_until

TOKEN = "token-of-the-chaos-tests"

MOST_TRIES = 4


class Process:
    """One `slurper`, in a session of its own, with its output in a file."""

    def __init__(self, arguments: tuple[str, ...], env: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                [PROGRAM, *arguments],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """Kill -9 the program alone; its workers notice."""
        self._popen.kill()
        self._popen.wait()

    def kill_all(self) -> None:
        """Kill -9 the program and its workers at the same moment."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def kill_worker(self, place: int) -> bool:
        """Kill -9 one of its workers, or what they are forked from; False when it has none."""
        try:
            workers = psutil.Process(self._popen.pid).children(recursive=True)
            if workers:
                workers[place % len(workers)].kill()
        except psutil.NoSuchProcess:
            return False
        return bool(workers)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._popen.terminate()
        self._popen.wait(SECONDS)


class Servers:
    """One or two `slurper serve` on one data folder."""

    def __init__(self, directory: Path, env: Mapping[str, str], *, count: int) -> None:
        self._directory = directory
        self._env = {
            **env,
            "PYTHONUNBUFFERED": "1",
            "SLURPER_ALLOW_HTTP": "true",
            "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
            "SLURPER_API_TOKEN": TOKEN,
            "SLURPER_DATA_DIR": str(directory / "data"),
        }
        self._started = 0
        self._http = httpx.Client(timeout=SECONDS, headers={"authorization": f"Bearer {TOKEN}"})
        self.processes = [self._start() for _ in range(count)]

    @property
    def database(self) -> Path:
        """Where the jobs are."""
        return self._directory / "data" / "slurper.db"

    @property
    def output(self) -> str:
        """What all of them, dead ones too, have printed."""
        logs = sorted(self._directory.glob("serve-*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def restart(self, process: Process) -> None:
        """Start another in the place of one that was ended."""
        self.processes[self.processes.index(process)] = self._start()

    def create(self, body: Mapping[str, Any]) -> str:
        """Create a job and return its id."""
        answer = self._http.post(self._url(""), json=body)
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["result"]["id"]
        return job_id

    def command(self, path: str) -> bool:
        """Pause, resume or abort; False when the job ended before."""
        answer = self._http.put(self._url(path))
        assert answer.status_code in (200, 409), answer.text
        return answer.status_code == 200

    def get(self, path: str) -> Any:  # noqa: ANN401 - as JSON is
        """Read something below the account's jobs."""
        answer = self._http.get(self._url(path))
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def delete(self, path: str) -> None:
        """Delete a job."""
        answer = self._http.delete(self._url(path))
        assert answer.status_code == 200, answer.text

    def stop(self) -> None:
        """End all of them cleanly."""
        for process in self.processes:
            self._ready(process)
            process.stop()
        assert [process.code for process in self.processes] == [0] * len(self.processes)

    def close(self) -> None:
        """Leave nothing behind."""
        self._http.close()
        for process in self.processes:
            process.kill_all()

    def _start(self) -> Process:
        self._started += 1
        log = self._directory / f"serve-{self._started:02}.log"
        return Process(("serve", "--port", "0"), self._env, log)

    def _url(self, path: str) -> str:
        return f"{self._ready(self.processes[0])}/accounts/{ACCOUNT}/slurper/jobs{path}"

    def _ready(self, process: Process) -> str:
        """Wait until it has said where it listens."""

        def announced() -> bool:
            assert process.code is None, process.output
            return "slurper listens on " in process.output

        wait_until(announced, "a server to come up")
        return process.output.partition("slurper listens on ")[2].split()[0]


class Copies:
    """`slurper copy`, run again and again until it is through."""

    def __init__(self, directory: Path, env: Mapping[str, str], *arguments: str) -> None:
        self._directory = directory
        self._env = {**env, "SLURPER_DATA_DIR": str(directory / "data")}
        self._arguments = ("copy", *arguments, "--json")
        self._started = 0
        self.process = self._start()

    @property
    def database(self) -> Path:
        """Where the job is, once there is one."""
        (found,) = self._directory.glob("data/copies/*/slurper.db")
        return found

    @property
    def output(self) -> str:
        """What all runs have printed."""
        logs = sorted(self._directory.glob("copy-*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')}" for log in logs)

    def restart(self) -> None:
        """Run the same command again."""
        self.process = self._start()

    def finish(self) -> None:
        """Run it until it is through, as a user would whose first try met a fault at once.

        Before it has a job, it asks both sides only briefly whether they can be used.
        """
        for _ in range(MOST_TRIES):
            wait_until(lambda: self.process.code is not None, "the copy to end")
            if "cannot be used" not in self.process.output:
                break
            self.restart()
        assert self.process.code == 0, self.process.output

    def close(self) -> None:
        """Leave nothing behind."""
        self.process.kill_all()

    def _start(self) -> Process:
        self._started += 1
        log = self._directory / f"copy-{self._started:02}.log"
        return Process(self._arguments, self._env, log)
