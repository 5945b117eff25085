"""Many large bodies at once take no more memory than they may, and hold up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import httpx
import pytest

from slurper.database.store import JobStore
from slurper.job.model import Job, JobSpec, JobStatus, Location, LogEntry, LogType, Vendor
from slurper.settings import Settings
from tests.e2e import program
from tests.security import served
from tests.security.endpoints import answering
from tests.security.served import ALLOWED, MIB, Growth, Served

MEMORY = 64 * MIB
"""What large bodies may take. Each flood would take ten times as much, and more."""
EACH = 16
"""So many connections of an account."""
FLOODING, QUIET = ("a" * 32, "b" * 32), "c" * 32
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    env = {
        "SLURPER_REQUEST_MEMORY_BYTES": str(MEMORY),
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
    }
    with served.serving(tmp_path, env=env) as running:
        yield running


@dataclass(frozen=True)
class Client:
    """One of the service's users, with a token of its own."""

    service: Served
    account: str
    token: str

    @property
    def path(self) -> str:
        return f"/accounts/{self.account}/slurper/jobs"

    def head(self, length: int | None) -> bytes:
        body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\n{body}\r\n\r\n"
        ).encode()

    def question(self, job_id: str) -> bytes:
        return (
            f"GET {self.path}/{job_id} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n"
        ).encode()

    def read(self, job_id: str) -> httpx.Response:
        """Ask for a job as the SDKs do: again, if there is no room."""
        headers = {"authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.service.port}{self.path}/{job_id}"
        for _ in range(5):
            answer = httpx.get(url, headers=headers, timeout=program.SECONDS)
            if answer.status_code != 429:
                break
        return answer

    def post(self, body: bytes) -> httpx.Response:
        """Send a body as a usual client does."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        url = f"http://127.0.0.1:{self.service.port}{self.path}"
        return httpx.post(url, content=body, headers=headers, timeout=program.SECONDS)


def client_of(service: Served, account: str, folder: Path) -> Client:
    made = program.run(
        "token", "create", account[:8], "--account", account, "--data-dir", str(folder)
    )
    assert made.code == 0, made.err
    return Client(service, account, made.out.strip())


@pytest.fixture
def clients(service: Served, tmp_path: Path) -> list[Client]:
    """Two that flood, and one that does not."""
    return [client_of(service, account, tmp_path) for account in (*FLOODING, QUIET)]


def create(keys: list[str], endpoint: str = NOWHERE, *, escaped: bool = False) -> bytes:
    side = {
        "vendor": "s3",
        "bucket": "photos",
        "endpoint": endpoint,
        "secret": {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2hunter2"},
    }
    target = {**side, "bucket": "copies"}
    body = {"source": {**side, "keys": keys}, "target": target}
    return json.dumps(body, ensure_ascii=escaped).encode()


def largest() -> bytes:
    """30 MB: as many keys as there may be, as long as they may be, and escaped."""
    return create([f"{number:04}" + "\u00fc" * 510 for number in range(10_000)], escaped=True)


def wide() -> bytes:
    """30 MB that would take four times as much."""
    return create(["x" * 3_050 + "\U0001f600"] * 9_800)


@pytest.mark.parametrize("chunked", [False, True], ids=["of known length", "chunked"])
@pytest.mark.parametrize("make", [largest, wide])
def test_large_bodies_of_many_connections_stay_in_their_memory(
    service: Served, clients: list[Client], make: Callable[[], bytes], chunked: bool
) -> None:
    body = make()
    almost = body[:-1]
    data = b"%x\r\n%s" % (len(body), almost) if chunked else almost
    *flooding, quiet = clients

    def attack(work: tuple[Client, socket.socket]) -> None:
        attacker, connection = work
        if served.try_send(connection, attacker.head(None if chunked else len(body))):
            connection.settimeout(program.SECONDS)
            with_rest(connection, data)

    with Growth(service) as growth, served.many(service, EACH * len(flooding)) as connections:
        work = [(attacker, connections.pop()) for attacker in flooding for _ in range(EACH)]
        with ThreadPoolExecutor(len(work)) as pool:
            under_way = [pool.submit(attack, each) for each in work]
            assert quiet.post(create(["k"])).status_code == 403, "nothing listens at its store"
            for each in under_way:
                each.result()
            assert quiet.post(create(["k"])).status_code == 403
        for _, connection in work:
            connection.close()
    assert growth.bytes < MEMORY + ALLOWED
    assert quiet.post(largest()).status_code == 403, "it was taken, and its store asked"


def with_rest(connection: socket.socket, data: bytes) -> None:
    """Send on, unless the service closes the connection."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def test_keys_that_wait_for_a_check_stay_in_their_memory(
    service: Served, clients: list[Client]
) -> None:
    """The stores say nothing, so each check takes its whole time."""
    *flooding, quiet = clients
    with answering(status="") as silent, ThreadPoolExecutor(2 * EACH) as pool:
        endpoint = f"http://127.0.0.1:{silent.port}"
        body = create([f"{number:04}" + "x" * 1_000 for number in range(10_000)], endpoint)
        with Growth(service) as growth:
            under_way = [pool.submit(one.post, body) for one in flooding for _ in range(EACH)]
            program.wait_until(lambda: len(silent.connections) > 0, "a check under way")
            assert quiet.post(create(["k"])).status_code == 403
            answers = [each.result() for each in under_way]
    assert growth.bytes < MEMORY + ALLOWED
    assert {answer.status_code for answer in answers} == {403, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "5", "the SDKs wait, and try again"
            assert answer.json()["errors"][0]["code"] == 10058
    assert quiet.post(largest()).status_code == 403


KEYS = tuple(f"{number:04}" + "x" * 1_000 for number in range(10_000))
SIDE = Location(vendor=Vendor.S3, bucket="photos", endpoint=NOWHERE)


def stored_job(folder: Path, account: str) -> str:
    """Store a paused job with as many keys as there may be; return its id."""

    async def store() -> str:
        opened = await JobStore.open(Settings(data_dir=folder).resolved_database_url)
        now = datetime.now(UTC)
        job = Job(
            id=token_hex(32),
            account_id=account,
            spec=JobSpec(source=SIDE, target=SIDE, keys=KEYS),
            status=JobStatus.PAUSED,
            created_at=now,
        )
        entry = LogEntry(log_type=LogType.MIGRATION_START, created_at=now)
        await opened.create_job(job, b"sealed", max_active=9, entry=entry)
        await opened.close()
        return job.id

    return asyncio.run(store())


def test_long_answers_that_nobody_takes_stay_in_their_memory(
    service: Served, clients: list[Client], tmp_path: Path
) -> None:
    """Each is 10 MB, and is kept until it is taken."""
    jobs = [(one, stored_job(tmp_path, one.account)) for one in clients]
    quiet, own = jobs.pop()
    with Growth(service) as growth, contextlib.ExitStack() as stack:
        for attacker, job_id in jobs:
            for connection in stack.enter_context(served.many(service, EACH, room=4096)):
                served.try_send(connection, attacker.question(job_id))
        shown = quiet.read(own)
        assert shown.json()["result"]["source"]["keys"] == list(KEYS)
    assert growth.bytes < MEMORY + ALLOWED
    for attacker, job_id in jobs:
        assert attacker.read(job_id).status_code == 200, "the room is free again"
