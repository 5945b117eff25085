"""A running service whose file descriptors are used up goes on when there are some again."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.program import ACCOUNT, SECONDS, wait_until
from tests.servers.r2 import server as r2
from tests.servers.r2.bucket import Bucket
from tests.servers.r2.server import R2Stub
from tests.soak.service import TOKEN, Service, running

COUNT = 60
LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Stage:
    """A service, two stores, and one connection to the service that stays open."""

    service: Service
    source: R2Stub
    target: R2Stub
    client: httpx.Client

    def create(self, target: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - as JSON
        """Ask for a job into a new bucket."""
        self.target.buckets[target] = Bucket()
        body = {
            "source": _side(self.source, "source"),
            "target": _side(self.target, target),
            "options": options,
        }
        return self.ask("POST", "", body)

    def created(self, target: str, **options: Any) -> str:  # noqa: ANN401 - as JSON
        """Make a job into a new bucket; return its id."""
        answer = self.create(target, **options)
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["result"]["id"]
        return job_id

    def ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Ask for something below the account's jobs."""
        url = f"{self.service.url}/accounts/{ACCOUNT}/slurper/jobs{path}"
        return self.client.request(method, url, json=body)

    def progress(self, job_id: str) -> dict[str, Any]:
        """How far a job is."""
        answer = self.ask("GET", f"/{job_id}/progress")
        assert answer.status_code == 200, answer.text
        progress: dict[str, Any] = answer.json()["result"]
        return progress

    def wait(self, job_id: str, status: str) -> None:
        """Wait until a job has a status."""
        wait_until(lambda: self.progress(job_id)["status"] == status, f"the job to be {status}")

    def assert_exact(self, job_id: str, target: str) -> None:
        """Wait for the end of a job, and compare."""
        self.wait(job_id, "completed")
        progress = self.progress(job_id)
        assert (progress["transferredObjects"], progress["failedObjects"]) == (COUNT, 0)
        assert _bodies(self.target.buckets[target]) == _bodies(self.source.buckets["source"])

    def worker(self) -> psutil.Process:
        """The worker, when it is at rest."""
        wait_until(lambda: len(self.service.workers()) == 1, "a worker")
        (worker,) = self.service.workers()
        wait_until(lambda: not worker.net_connections("tcp"), "no connection to be open")
        return worker


def _side(stub: R2Stub, bucket: str) -> dict[str, Any]:
    at = stub.address
    secret = {"accessKeyId": at.access_key_id, "secretAccessKey": at.secret_access_key}
    return {
        "vendor": "s3",
        "bucket": bucket,
        "endpoint": at.endpoint,
        "region": at.region,
        "secret": secret,
    }


def _bodies(bucket: Bucket) -> dict[str, bytes]:
    return {key: stored.body for key, stored in bucket._objects.items()}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """`stage(SETTING="value")` starts a service with one worker, which has made a job already."""
    with ExitStack() as stack:

        def start(**settings: str) -> Stage:
            source, target = (stack.enter_context(r2.running()) for _ in range(2))
            bucket = source.buckets["source"] = Bucket()
            for number in range(COUNT):
                bucket.put(f"{number:03}", {}, b"x" * number)
            environment = {
                "SLURPER_ALLOW_HTTP": "true",
                "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
                "SLURPER_API_TOKEN": TOKEN,
                "SLURPER_DATA_DIR": str(tmp_path / "data"),
                "SLURPER_CONNECT_TIMEOUT_SECONDS": "1",
                "SLURPER_TASK_SECONDS": "0.3",
                "SLURPER_WORKERS": "1",
                **{f"SLURPER_{name}": value for name, value in settings.items()},
            }
            service = stack.enter_context(running(tmp_path, environment, LIMIT))
            headers = {"authorization": f"Bearer {TOKEN}"}
            client = stack.enter_context(httpx.Client(timeout=SECONDS, headers=headers))
            made = Stage(service, source, target, client)
            made.assert_exact(made.created("first"), "first")
            return made

        yield start


@contextmanager
def without_descriptors(process: psutil.Process) -> Iterator[None]:
    """Let a running process open nothing more while the block lasts."""
    number = resource.RLIMIT_NOFILE
    before = resource.prlimit(process.pid, number)
    resource.prlimit(process.pid, number, (3, before[1]))  # what is open stays open
    try:
        yield
    finally:
        resource.prlimit(process.pid, number, before)


def test_a_job_waits_for_descriptors_and_does_not_pause(stage: Callable[..., Stage]) -> None:
    running = stage()
    with without_descriptors(running.worker()):
        job_id = running.created("second")
        wait_until(
            lambda: "no file descriptor" in str(running.progress(job_id)["waitingFor"]),
            "progress to name the cause",
        )
        assert running.progress(job_id)["status"] == "running"
    running.assert_exact(job_id, "second")


def test_a_lasting_want_of_descriptors_is_named_and_ends_with_a_resume(
    stage: Callable[..., Stage],
) -> None:
    running = stage(RETRY_DEADLINE_SECONDS="1")
    with without_descriptors(running.worker()):
        job_id = running.created("second")
        running.wait(job_id, "paused")
        log = running.ask("GET", f"/{job_id}/logs").text
        assert "too many open files" in log
        assert "ulimit -n" in log
        assert "network and proxy" not in log
    assert running.ask("PUT", f"/{job_id}/resume").status_code == 200
    running.assert_exact(job_id, "second")


def test_a_control_plane_without_descriptors_survives(stage: Callable[..., Stage]) -> None:
    """It serves the clients that it has, gets its worker back, and accepts new clients then."""
    running = stage()
    control = psutil.Process(running.service.pid)
    slow = running.created("slow", requestRateLimit=40)
    wait_until(lambda: running.progress(slow)["objects"] > 0, "the slow job to begin")
    with without_descriptors(control):
        refused = running.create("refused")
        assert refused.status_code == 503, refused.text
        assert "too many open files" in refused.text
        # A reader of the database that is opened only now may find no descriptor either.
        asked = running.ask("GET", f"/{slow}/progress")
        assert asked.status_code in (200, 503), asked.text
        (worker,) = running.service.workers()
        worker.kill()
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{running.service.url}/healthz", timeout=3)
        before = control.cpu_times()
        time.sleep(3)
        after = control.cpu_times()
        busy = after.user + after.system - before.user - before.system
        assert busy < 1.5, "it does nothing but try to accept"
    assert httpx.get(f"{running.service.url}/healthz", timeout=SECONDS).status_code == 200
    running.assert_exact(slow, "slow")
    running.assert_exact(running.created("after"), "after")
    output = running.service.output
    assert output.count("Traceback") < 5, "the log is flooded"
    assert "ulimit -n" in output
    running.service.stop()
