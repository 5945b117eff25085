"""Real S3 servers on free loopback ports, for the demonstration and the tests.

Each server is a child process in a session of its own. It writes only below the directory that it
is given. It is stopped by its process id: first by SIGTERM, and after some seconds by SIGKILL.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.exceptions
import httpx
from botocore.config import Config

from slurper import errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 2.0
LAUNCH_ATTEMPTS = 4

# These ports are below the range of outgoing connections. So no such connection can take a port
# between choosing it and listening on it. SeaweedFS's gRPC ports are 10,000 higher.
_PORTS = range(20_000, 22_700)
GRPC_OFFSET = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where a server listens, and a key pair that may do everything there."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    region: str = "us-east-1"
    ca_file: Path | None = None

    def client(self) -> S3Client:
        """An independent client (boto3): path-style, no retries, no checksums of its own."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            verify=str(self.ca_file) if self.ca_file else None,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                max_pool_connections=32,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


@contextmanager
def ministack(directory: Path) -> Iterator[S3Server]:
    """Run ministack, in memory, with signatures checked. Its log is `directory/server.log`."""
    with served(lambda: _plan_ministack(directory)) as server:
        yield server


def empty_ministack(server: S3Server) -> None:
    """Drop all buckets and what is in them. Users and their keys stay."""
    httpx.post(f"{server.endpoint}/_ministack/reset").raise_for_status()


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A process to start, and the folder that it works in."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    log_name: str = "server.log"
    grace_seconds: float = STOP_SECONDS
    leftovers: tuple[Path, ...] = ()
    """Files outside the directory that the server may leave behind."""

    @property
    def log(self) -> Path:
        """The file that holds its output."""
        return self.directory / self.log_name

    def why_not(self) -> str:
        """Return the error text for a program that did not start."""
        tail = self.log.read_text(errors="replace")[-2000:]
        return f"{self.name} did not start; its log ends with:\n{tail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Program):
    """How to start a server, on ports chosen for this attempt."""

    server: S3Server
    admit: Callable[[S3Server], S3Server] = lambda server: server
    """Gets the key pair that clients will use from the running server."""
    ready_seconds: float = READY_SECONDS


def _plan_ministack(directory: Path) -> Plan:
    (port,) = free_ports(1)
    return Plan(
        name="ministack",
        server=S3Server(
            endpoint=f"http://{HOST}:{port}",
            access_key_id="test",
            secret_access_key="test",  # noqa: S106 - ministack's own bootstrap pair
        ),
        admit=_create_iam_user,
        command=[sys.executable, "-m", "slurper.demo.ministack"],
        directory=directory,
        environment={
            "AUTH": "true",
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            # What is freed is used again. Fresh memory from the kernel costs as much as a copy.
            "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
            "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
            "MINISTACK_HOST": HOST,
            "S3_DATA_DIR": str(directory / "data"),
            "TMPDIR": str(directory),
        },
    )


def _create_iam_user(server: S3Server) -> S3Server:
    """Make a user. Ministack checks signatures of users, but not of its first key pair."""
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )
    user = f"owner-{secrets.token_hex(4)}"
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    with closing(iam):
        iam.create_user(UserName=user)
        iam.put_user_policy(UserName=user, PolicyName="s3", PolicyDocument=policy)
        pair = iam.create_access_key(UserName=user)["AccessKey"]
    return replace(
        server, access_key_id=pair["AccessKeyId"], secret_access_key=pair["SecretAccessKey"]
    )


def free_ports(count: int) -> list[int]:
    """Choose ports that are free now, as are the ports 10,000 higher."""
    chosen: list[int] = []
    with ExitStack() as held:
        while len(chosen) < count:
            port = _PORTS[secrets.randbelow(len(_PORTS))]
            if all(_hold(held, number) for number in (port, port + GRPC_OFFSET)):
                chosen.append(port)
    return chosen


def _hold(held: ExitStack, port: int) -> bool:
    listener = held.enter_context(socket.socket())
    try:
        listener.bind((HOST, port))
    except OSError:
        return False
    return True


@contextmanager
def served(plan: Callable[[], Plan]) -> Iterator[S3Server]:
    """Start a server. If it does not start, try again on other ports: one may have been taken."""
    for attempt in range(1, LAUNCH_ATTEMPTS + 1):
        planned = plan()
        with running(planned) as process:
            server = when_ready(planned, process)
            if server is not None:
                yield server
                return
            if attempt == LAUNCH_ATTEMPTS:
                raise errors.ConfigurationError(planned.why_not())


@contextmanager
def running(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block lasts, then end it and what it started."""
    process = _start(program)
    try:
        yield process
    finally:
        _stop(process, program.grace_seconds)
        for path in program.leftovers:
            path.unlink(missing_ok=True)


def _start(program: Program) -> subprocess.Popen[bytes]:
    program.directory.mkdir(parents=True, exist_ok=True)
    private = ("AWS_", "SLURPER_", "CLOUDFLARE_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(private)}
    with program.log.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - fixed programs, our own arguments
            program.command,
            cwd=program.directory,
            env=inherited | dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def when_ready(plan: Plan, process: subprocess.Popen[bytes]) -> S3Server | None:
    """Wait until an object can be written and removed. None: it ended, or was not ready in time."""
    deadline = time.monotonic() + plan.ready_seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server = plan.admit(plan.server)
            _write_and_remove(server)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            time.sleep(0.05)
        else:
            return server
    return None


def _write_and_remove(server: S3Server) -> None:
    bucket, key = f"ready-{secrets.token_hex(8)}", "ready"
    with closing(server.client()) as client:
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=b"ready")
        client.delete_object(Bucket=bucket, Key=key)
        client.delete_bucket(Bucket=bucket)


def _stop(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """End the process and what it started. They are in one group, which has the process's id."""
    for order, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, STOP_SECONDS)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, order)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
