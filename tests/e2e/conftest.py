"""The service as its users run it: `slurper serve` in a process of its own, between real stores."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from cloudflare import Cloudflare

from slurper.demo.servers import S3Server
from tests.chaos import proxy
from tests.servers.gcs.server import GcsServer
from tests.servers.seaweedfs import TlsFiles

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SLURPER = Path(sys.executable).with_name("slurper")
TOKEN = "token-of-the-end-to-end-tests"
READY_SECONDS = 150
STOP_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running `slurper serve`."""

    origin: str
    """`http://host:port`, without a base path."""
    token: str
    pid: int

    @property
    def base_url(self) -> str:
        """What an SDK is given."""
        return f"{self.origin}/client/v4"

    def jobs_url(self, account_id: str) -> str:
        """The collection of an account's jobs, for plain HTTP."""
        return f"{self.base_url}/accounts/{account_id}/slurper/jobs"


@contextmanager
def serve(directory: Path, environment: Mapping[str, str]) -> Iterator[Service]:
    """Run `slurper serve` on a free port; stopped by SIGTERM, which must end it cleanly."""
    log = directory / "serve.log"
    variables = {
        **os.environ,
        "SLURPER_API_TOKEN": TOKEN,
        "SLURPER_DATA_DIR": str(directory / "data"),
        **environment,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SLURPER, "serve", "--port", "0"],
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Service(origin=_origin(process, log), token=TOKEN, pid=process.pid)
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _origin(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until the service says where it listens, and answers there."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            origin = line.partition("slurper listens on ")[2].strip()
            if origin and _answers(origin):
                return origin
        time.sleep(0.05)
    raise AssertionError(f"slurper serve did not come up:\n{log.read_text()}")


def _answers(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    ministack: S3Server,
    gcs: GcsServer,
    tls_files: TlsFiles,
) -> Iterator[Service]:
    """The service of the SDK tests. R2 is ministack; jobs are slow enough to be paused."""
    environment = {
        **gcs.environment,
        "SLURPER_R2_ENDPOINT": ministack.endpoint,
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "SLURPER_CA_FILE": str(tls_files.ca),
        "SLURPER_WORKERS": "1",
        "SLURPER_MAX_CONCURRENT_JOBS": "3",
        "SLURPER_IN_FLIGHT_REQUESTS": "4",
        "SLURPER_TASK_SECONDS": "0.5",
    }
    with serve(tmp_path_factory.mktemp("service"), environment) as service:
        yield service


@pytest.fixture
def account() -> str:
    """An account that no other test uses."""
    return secrets.token_hex(16)


@pytest.fixture
def sdk(service: Service) -> Iterator[Cloudflare]:
    """The official SDK, told nothing but where the service is."""
    with Cloudflare(base_url=service.base_url, api_token=service.token) as client:
        yield client


@pytest.fixture(scope="session")
def fill(
    boto: Callable[[S3Server], S3Client],
) -> Callable[[S3Server, str, Mapping[str, bytes]], None]:
    """`fill(server, bucket, objects)` puts objects by key, several at a time."""

    def put_all(server: S3Server, bucket: str, objects: Mapping[str, bytes]) -> None:
        client = boto(server)

        def put(item: tuple[str, bytes]) -> None:
            client.put_object(Bucket=bucket, Key=item[0], Body=item[1])

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(put, objects.items()))

    return put_all


@pytest.fixture(scope="session")
def large_bucket(
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> str:
    """A bucket in SeaweedFS whose copying takes long enough to be paused and aborted."""
    bucket = make_bucket(seaweedfs)
    fill(seaweedfs, bucket, {f"many/{number:05}": b"x" * 64 for number in range(LARGE_COUNT)})
    return bucket


@pytest.fixture
def buckets(
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> tuple[str, str]:
    """A bucket with `COUNT` objects, and an empty one."""
    source, target = make_bucket(ministack), make_bucket(ministack)
    fill(ministack, source, {f"item-{number:03}": b"x" * number for number in range(COUNT)})
    return source, target


@pytest.fixture
def slow(ministack: S3Server) -> Iterator[S3Server]:
    """ministack, with every object of `buckets` slow to read."""
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(proxy.delayed(0.3), "^GET /[^?]*item-")
        yield replace(ministack, endpoint=front.endpoint)


COUNT = 60
LARGE_COUNT = 2_000
