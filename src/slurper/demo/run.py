"""The demonstration. It has two real S3 servers, the real service, the official SDK, and a check.

Everything runs on free loopback ports and writes below one temporary directory. At the end, even
after an error, everything is stopped and removed.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cloudflare import Cloudflare
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from slurper import errors
from slurper.demo import compare, dataset, servers
from slurper.demo.compare import Bucket

if TYPE_CHECKING:
    from cloudflare.types.r2.super_slurper import JobProgressResponse

ACCOUNT_ID = "d3m0" * 8
POLL_SECONDS = 0.2
START_SECONDS = 30.0
STOP_SECONDS = 40.0
COPY_SECONDS = 300.0
SHOWN_DIFFERENCES = 10
SMALL_PARTS = {
    # Objects of a few megabytes then already show multipart uploads.
    "SLURPER_MULTIPART_THRESHOLD_BYTES": str(16 << 20),
    "SLURPER_PART_BYTES": str(8 << 20),
    # A copy of a few seconds then shows its progress in small steps.
    "SLURPER_TASK_SECONDS": "0.5",
}
_PRIVATE = ("AWS_", "CLOUDFLARE_", "SLURPER_")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Service:
    """The running `slurper serve` and its API token."""

    url: str
    token: str

    def sdk(self) -> Cloudflare:
        """Return the official SDK. Only the address differs from its usual one."""
        return Cloudflare(base_url=f"{self.url}/client/v4", api_token=self.token)


def run(console: Console | None = None) -> bool:
    """Run the demonstration; True if everything was copied and both sides are equal.

    Raises:
        ConfigurationError: a server or the service did not start. The message has its log's end.
    """
    shown = console or Console(highlight=False, markup=False, emoji=False)
    with (
        _private_environment_set_aside(),
        _sigterm_as_interrupt(),
        tempfile.TemporaryDirectory(prefix="slurper-demo-") as name,
    ):
        return _Demo(shown, Path(name)).run()


class _Demo:
    def __init__(self, console: Console, directory: Path) -> None:
        self._console = console
        self._directory = directory
        self._begun = time.monotonic()

    def run(self) -> bool:
        self._say("starting two S3 servers and slurper serve")
        with (
            servers.ministack(self._directory / "source") as source_server,
            servers.ministack(self._directory / "target") as target_server,
            _service(self._directory, target_server.endpoint) as service,
        ):
            source = Bucket(source_server.client(), "demo-source")
            target = Bucket(target_server.client(), "demo-target")
            for bucket in (source, target):
                bucket.client.create_bucket(Bucket=bucket.name)
            count = self._fill(source)
            progress = self._copy(service, source_server, target_server, count)
            results = self._compare(source, target, count)
        return self._conclude(count, progress, results)

    def _fill(self, source: Bucket) -> int:
        self._say("filling the source: ordinary, empty, hostile and large objects")
        filled = dataset.fill(source.client, source.name)
        return sum(1 for _ in self._counted("fill", filled, None))

    def _copy(
        self,
        service: Service,
        source: servers.S3Server,
        target: servers.S3Server,
        count: int,
    ) -> JobProgressResponse:
        self._say(f"creating the job with the official SDK at {service.url}/client/v4")
        with service.sdk() as client:
            created = client.r2.super_slurper.jobs.create(
                account_id=ACCOUNT_ID,
                source={
                    "vendor": "s3",
                    "bucket": "demo-source",
                    "endpoint": source.endpoint,
                    "region": source.region,
                    "secret": {
                        "access_key_id": source.access_key_id,
                        "secret_access_key": source.secret_access_key,
                    },
                },
                target={
                    "vendor": "r2",
                    "bucket": "demo-target",
                    "secret": {
                        "access_key_id": target.access_key_id,
                        "secret_access_key": target.secret_access_key,
                    },
                },
            )
            assert created is not None  # noqa: S101 - an answer without a result is none of ours
            assert created.id is not None  # noqa: S101 - as above
            begun = time.monotonic()
            progress = self._follow(client, created.id, count)
        seconds = time.monotonic() - begun
        self._say(f"copied in {seconds:.1f} s ({(progress.objects or 0) / seconds:,.0f} objects/s)")
        return progress

    def _follow(self, client: Cloudflare, job_id: str, count: int) -> JobProgressResponse:
        deadline = time.monotonic() + COPY_SECONDS
        said = -1
        with self._bar() as bar:
            task = bar.add_task("copy", total=count)
            while True:
                progress = client.r2.super_slurper.jobs.progress(job_id, account_id=ACCOUNT_ID)
                assert progress is not None  # noqa: S101 - as above
                objects = progress.objects or 0
                bar.update(task, completed=objects)
                if bar.disable and objects != said:
                    said = objects
                    self._say(f"{progress.status}: {objects:,} of {count:,} objects")
                if progress.status != "running" or time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS)
        if progress.status != "completed" or progress.failed_objects:
            self._show_log(client, job_id)
        return progress

    def _show_log(self, client: Cloudflare, job_id: str) -> None:
        for entry in client.r2.super_slurper.jobs.logs.list(job_id, account_id=ACCOUNT_ID):
            self._say(f"log: {entry.log_type} {entry.object_key!r} {entry.message}")

    def _compare(self, source: Bucket, target: Bucket, count: int) -> list[compare.Comparison]:
        self._say("comparing both sides with boto3: keys, bytes, headers, metadata")
        return list(self._counted("compare", compare.compare(source, target), count))

    def _conclude(
        self, count: int, progress: JobProgressResponse, results: list[compare.Comparison]
    ) -> bool:
        differences = [result for result in results if result.difference]
        for found in differences[:SHOWN_DIFFERENCES]:
            self._say(f"DIFFERENT {found.key!r}: {found.difference}")
        if len(differences) > SHOWN_DIFFERENCES:
            self._say(f"... and {len(differences) - SHOWN_DIFFERENCES} more")
        if progress.status != "completed":
            self._say(f"the job ended as {progress.status}, not completed")
        verified = len(results) - len(differences)
        self._say(f"done in {time.monotonic() - self._begun:.1f} s")
        self._console.print(
            f"demo: {progress.objects} objects, {progress.transferred_objects} transferred, "
            f"{progress.skipped_objects} skipped, {progress.failed_objects} failed, "
            f"{verified} verified",
            soft_wrap=True,
        )
        counts = (progress.objects, progress.transferred_objects, verified, len(results))
        return progress.status == "completed" and set(counts) == {count}

    def _counted(self, label: str, items: Iterable[Item], total: int | None) -> Iterator[Item]:
        with self._bar() as bar:
            yield from bar.track(items, total=total, description=label)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description:<8}", markup=False),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def _say(self, text: str) -> None:
        self._console.print(f"[{time.monotonic() - self._begun:5.1f} s] {text}", soft_wrap=True)


@contextmanager
def _private_environment_set_aside() -> Iterator[None]:
    """Hide variables that are set for real work, above all accounts, from the demonstration."""
    private = {name: value for name, value in os.environ.items() if name.startswith(_PRIVATE)}
    for name in private:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(private)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM act like Ctrl-C, so that everything is stopped and removed."""

    def interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - a signal handler's signature
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _service(directory: Path, r2_endpoint: str) -> Iterator[Service]:
    """Run `slurper serve` on a free port."""
    token = secrets.token_urlsafe(24)
    output, log = directory / "serve.out", directory / "serve.log"
    environment = dict(os.environ) | SMALL_PARTS
    environment |= {
        "PYTHONUNBUFFERED": "1",
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "SLURPER_API_TOKEN": token,
        "SLURPER_DATA_DIR": str(directory / "data"),
        "SLURPER_R2_ENDPOINT": r2_endpoint,
    }
    with output.open("wb") as out, log.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "slurper", "serve", "--port", "0"],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield Service(_announced_url(process, output, log), token)
    finally:
        _stop(process)


def _announced_url(process: subprocess.Popen[bytes], output: Path, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        first, newline, _ = output.read_text().partition("\n")
        if newline:
            return first.rpartition(" ")[2]
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise errors.ConfigurationError(f"slurper serve did not start; its log ends with:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its workers end with it
        process.wait()
