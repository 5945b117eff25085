"""Runs the real `slurper` program, as a user does."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from slurper.demo.servers import S3Server

PROGRAM = str(Path(sys.executable).with_name("slurper"))
SECONDS = 150.0
"""More than any program takes on a busy machine: it ends what hangs."""
ACCOUNT = "a" * 32


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


def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Ended:
    """Run `slurper` to its end. Nothing a user can do may end in a traceback."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        env={**os.environ, **(env or {})},
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(
    *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start `slurper`; kill it in the end if it still runs."""
    with subprocess.Popen(
        [PROGRAM, *arguments],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal to the program and its workers, as a terminal does."""
    os.killpg(process.pid, number)


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for the end of a started program."""
    out, err = process.communicate(timeout=SECONDS)
    return Ended(process.returncode, out, err)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """What the program has started."""
    return psutil.Process(process.pid).children(recursive=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until something has come true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
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

    process: subprocess.Popen[str]
    url: str
    token: str

    @property
    def env(self) -> dict[str, str]:
        """What the job commands need."""
        return {
            "SLURPER_SERVER": self.url,
            "SLURPER_API_TOKEN": self.token,
            "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
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
        return httpx.request(
            method,
            f"{self.url}/accounts/{ACCOUNT}/slurper/jobs{path}",
            headers={"authorization": f"Bearer {self.token}"},
            json=body,
            timeout=SECONDS,
        )


@contextmanager
def serving(data_dir: Path, *, env: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Run `slurper serve` on a free port."""
    token = secrets.token_urlsafe(16)
    settings = {
        "PYTHONUNBUFFERED": "1",
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
    with started(*arguments, env=settings) as process:
        assert process.stdout is not None
        announced = process.stdout.readline()
        assert announced.startswith("slurper listens on http://"), end(process)
        yield Service(process, announced.split()[-1], token)
