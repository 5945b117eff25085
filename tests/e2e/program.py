"""Runs the real `slurper` program, as a user does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from slurper.demo.servers import S3Server
from tests.e2e import forked

PROGRAM = str(Path(sys.executable).with_name("slurper"))
SECONDS = 150.0
"""More than any program takes on a busy machine: it ends what hangs."""
ACCOUNT = "a" * 32
PIPE_BYTES = 1 << 20
"""The largest that any user may have."""


@dataclass(frozen=True)
class Ended:
    """How a run ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - as JSON is
        """The one JSON document on standard output."""
        return json.loads(self.out)


class Process:
    """The program in a process and a session of its own, whose streams are pipes.

    It is forked from a process that has loaded the program, or begins `anew`, in an interpreter of
    its own.
    """

    def __init__(
        self, arguments: Sequence[str], env: Mapping[str, str] | None, *, anew: bool
    ) -> None:
        command, env = [PROGRAM, *arguments], {**os.environ, **(env or {})}
        (stdin, writing), (reading_out, out), (reading_err, err) = (os.pipe() for _ in range(3))
        self.stdin = os.fdopen(writing, "w", encoding="utf-8")
        self.stdout = os.fdopen(reading_out, encoding="utf-8")
        self.stderr = os.fdopen(reading_err, encoding="utf-8")
        self._process: forked.Forked | subprocess.Popen[bytes]
        if anew or not forked.POSSIBLE:
            self._process = subprocess.Popen(
                command, env=env, stdin=stdin, stdout=out, stderr=err, start_new_session=True
            )
        else:
            self._process = forked.Forked(command, env, (stdin, out, err))
        if sys.platform == "linux":  # a service tells of every change there, and few tests read it
            fcntl.fcntl(err, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        for descriptor in (stdin, out, err):
            os.close(descriptor)
        self.pid = self._process.pid
        self.poll = self._process.poll
        self.wait = self._process.wait
        self.send_signal = self._process.send_signal
        self.kill = self._process.kill

    def communicate(self, text: str = "") -> Ended:
        """Give it its standard input, and read all that it prints until it ends."""
        with ThreadPoolExecutor(3) as pool:
            reading = pool.submit(self.stdout.read), pool.submit(self.stderr.read)
            ends: list[Future[Any]] = [*reading, pool.submit(self._write, text)]
            late = futures.wait(ends, SECONDS).not_done
            if late:
                os.killpg(self.pid, signal.SIGKILL)  # else the threads would read for ever
        assert not late, "the program does not end"
        return Ended(self.wait(SECONDS), *(read.result() for read in reading))

    def _write(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError), self.stdin:  # it may end without reading it
            self.stdin.write(text)

    def close(self) -> None:
        """Kill it if it still runs, and wait for its end."""
        self.kill()
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()


def run(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", anew: bool = False
) -> Ended:
    """Run `slurper` to its end. Nothing a user can do may end in a traceback."""
    with closing(Process(arguments, env, anew=anew)) as process:
        ended = process.communicate(stdin)
    assert "Traceback" not in ended.err, ended.err
    return ended


@contextmanager
def started(
    *arguments: str, env: Mapping[str, str] | None = None, anew: bool = False
) -> Iterator[Process]:
    """Start `slurper`; kill it in the end if it still runs."""
    with closing(Process(arguments, env, anew=anew)) as process:
        yield process


def interrupt(process: Process, number: signal.Signals) -> None:
    """Send a signal to the program and its workers, as a terminal does."""
    os.killpg(process.pid, number)


def end(process: Process) -> Ended:
    """Wait for the end of a started program."""
    return process.communicate()


def descendants(process: Process) -> list[psutil.Process]:
    """What the program has started."""
    return psutil.Process(process.pid).children(recursive=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until something has come true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def both_sides(source: S3Server, target: S3Server, data_dir: Path) -> dict[str, str]:
    """The environment of a copy: where both sides are and what opens them."""
    env = {"SLURPER_DATA_DIR": str(data_dir)}
    for side, server in (("SOURCE", source), ("TARGET", target)):
        env |= {
            f"SLURPER_{side}_ENDPOINT": server.endpoint,
            f"SLURPER_{side}_REGION": server.region,
            f"SLURPER_{side}_ACCESS_KEY_ID": server.access_key_id,
            f"SLURPER_{side}_SECRET_ACCESS_KEY": server.secret_access_key,
        }
    return env


@dataclass(frozen=True)
class Service:
    """A running `slurper serve`."""

    process: Process
    url: str
    token: str
    client: httpx.Client
    """For plain HTTP. It costs much to make one."""
    account: str = ACCOUNT

    @property
    def env(self) -> dict[str, str]:
        """What the job commands need."""
        return {
            "SLURPER_SERVER": self.url,
            "SLURPER_API_TOKEN": self.token,
            "CLOUDFLARE_ACCOUNT_ID": self.account,
        }

    def create_job(
        self,
        source: S3Server,
        source_bucket: str,
        target_bucket: str,
        *,
        chosen: Mapping[str, object] | None = None,
        **more: object,
    ) -> str:
        """Create a job between two buckets of one server, through plain HTTP.

        `chosen` are more members of the source, `more` those of the job.
        """
        secret = {
            "accessKeyId": source.access_key_id,
            "secretAccessKey": source.secret_access_key,
        }
        side = {"vendor": "s3", "endpoint": source.endpoint, "region": source.region}
        answer = self.call(
            "POST",
            "",
            {
                "source": {**side, "bucket": source_bucket, "secret": secret, **(chosen or {})},
                "target": {**side, "bucket": target_bucket, "secret": secret},
                **more,
            },
        )
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["result"]["id"]
        return job_id

    def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask the API for something below the jobs of the account, through plain HTTP."""
        return self.client.request(
            method,
            f"{self.url}/accounts/{self.account}/slurper/jobs{path}",
            headers={"authorization": f"Bearer {self.token}"},
            json=body,
        )


@contextmanager
def serving(
    data_dir: Path, *, env: Mapping[str, str] | None = None, anew: bool = False
) -> Iterator[Service]:
    """Run `slurper serve` on a free port."""
    token = secrets.token_urlsafe(16)
    settings = {
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "SLURPER_API_TOKEN": token,
        "SLURPER_TASK_SECONDS": "0.3",
        "SLURPER_WORKERS": "1",
        # Both buckets are of one server here, and what the tests disturb is the reading.
        "SLURPER_SERVER_SIDE_COPY": "false",
        **(env or {}),
    }
    arguments = ("serve", "--port", "0", "--data-dir", str(data_dir))
    with (
        started(*arguments, env=settings, anew=anew) as process,
        httpx.Client(timeout=SECONDS) as client,
    ):
        announced = process.stdout.readline()
        assert announced.startswith("slurper listens on http://"), end(process)
        yield Service(process, announced.split()[-1], token, client)
