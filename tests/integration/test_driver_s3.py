"""Service, driver and local engine copy between two real S3 servers while a worker is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from prometheus_client import CollectorRegistry

from slurper import telemetry
from slurper.database.leases import LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.demo.servers import S3Server
from slurper.driver.assignment import CLOCK_ALLOWANCE
from slurper.driver.leadership import Leadership
from slurper.driver.loop import Driver
from slurper.engine.local import LocalEngine
from slurper.job.model import Counts, JobSpec, JobStatus, Location, LogType, Progress, Vendor
from slurper.secrets import JobSecrets, S3Credentials, Sealer
from slurper.service.jobs import JobService
from slurper.settings import Settings
from tests.workers import worker_processes

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ACCOUNT = "b" * 32
OBJECTS = 400
FOUND = 50
"""So many of them are at the target already."""

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]


@dataclass
class Served:
    """A server without its API."""

    store: JobStore
    service: JobService
    driver: Driver
    engine: LocalEngine
    metrics: telemetry.Metrics


@asynccontextmanager
async def served(directory: Path, key: str, *, task_seconds: float = 0.3) -> AsyncIterator[Served]:
    settings = Settings(
        data_dir=directory,
        workers=2,
        task_seconds=task_seconds,
        in_flight_requests=8,
        allow_http=True,
        allow_private_endpoints=True,
    )
    metrics = telemetry.Metrics(CollectorRegistry())
    store = await JobStore.open(settings.resolved_database_url)
    engine = LocalEngine(settings, metrics=metrics)
    sealer = Sealer((key,))
    try:
        async with Leadership(LeaseStore(store.database), 10).hold() as tenure:
            work = WorkStore(store.database, tenure.lease)
            driver = Driver(work, engine, sealer, settings, metrics=metrics)
            service = JobService(store, sealer, settings, wake=driver.wake)
            await engine.start()
            driving = asyncio.create_task(driver.run())
            try:
                yield Served(store, service, driver, engine, metrics)
            finally:
                await driver.stop(0)
                await driving
                await engine.stop(5)
    finally:
        await store.close()


@dataclass
class Sides:
    """A filled source bucket and an empty target bucket, on two kinds of server."""

    source: S3Server
    target: S3Server
    source_bucket: str
    target_bucket: str
    bodies: dict[str, bytes]

    def spec(self, *, overwrite: bool) -> JobSpec:
        return JobSpec(
            source=_location(self.source, self.source_bucket),
            target=_location(self.target, self.target_bucket),
            overwrite=overwrite,
        )

    @property
    def secrets(self) -> JobSecrets:
        return JobSecrets(source=_credentials(self.source), target=_credentials(self.target))


def _location(server: S3Server, bucket: str) -> Location:
    return Location(vendor=Vendor.S3, bucket=bucket, endpoint=server.endpoint, region=server.region)


def _credentials(server: S3Server) -> S3Credentials:
    return S3Credentials(
        access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
    )


@pytest.fixture(scope="module")
def filled(
    ministack: S3Server, boto: Boto, make_bucket: MakeBucket
) -> tuple[str, dict[str, bytes]]:
    """A bucket that no test changes, and what is in it."""
    bodies = {
        f"folder-{number % 7}/object-{number:04}": os.urandom(200 + 37 * number)
        for number in range(OBJECTS)
    }
    bucket = make_bucket(ministack)
    _put_all(boto(ministack), bucket, bodies)
    return bucket, bodies


@pytest.fixture
def sides(
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: MakeBucket,
    filled: tuple[str, dict[str, bytes]],
) -> Sides:
    bucket, bodies = filled
    return Sides(ministack, seaweedfs, bucket, make_bucket(seaweedfs), bodies)


def _put_all(client: S3Client, bucket: str, bodies: dict[str, bytes]) -> None:
    def put(key: str) -> None:
        client.put_object(Bucket=bucket, Key=key, Body=bodies[key], Metadata={"name": key})

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put, bodies))


def _read_all(client: S3Client, bucket: str) -> dict[str, bytes]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(key: str) -> bytes:
        with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
            return body.read()

    with ThreadPoolExecutor(8) as threads:
        return dict(zip(keys, threads.map(read, keys), strict=True))


async def until(
    server: Served, job_id: str, condition: Callable[[Progress], bool], *, seconds: float = 90
) -> Progress:
    async with asyncio.timeout(seconds):
        while True:
            progress = await server.service.progress(ACCOUNT, job_id)
            if condition(progress):
                return progress
            await asyncio.sleep(0.05)


def _has_ended(progress: Progress) -> bool:
    return progress.status is not JobStatus.RUNNING


async def kill_a_busy_worker(server: Served) -> None:
    for _ in range(60_000):
        for process in server.engine._processes:
            if process.load:
                os.kill(process.pid, signal.SIGKILL)
                return
        await asyncio.sleep(0.001)
    pytest.fail("no worker ever runs a task")


def check_counts(progress: Progress, sides: Sides, *, skipped: set[str]) -> None:
    transferred = {key: body for key, body in sides.bodies.items() if key not in skipped}
    assert progress.counts == Counts(
        objects=OBJECTS,
        transferred=len(transferred),
        skipped=len(skipped),
        transferred_bytes=sum(map(len, transferred.values())),
    )


async def test_killing_a_worker_in_the_middle_loses_nothing(
    sides: Sides, boto: Boto, tmp_path: Path
) -> None:
    async with served(tmp_path, Fernet.generate_key().decode()) as server:
        job_id = await server.service.create(ACCOUNT, sides.spec(overwrite=True), sides.secrets)
        await until(server, job_id, lambda progress: progress.counts.objects > 0)
        await kill_a_busy_worker(server)
        progress = await until(server, job_id, _has_ended)
        logs = await server.store.logs(ACCOUNT, job_id, limit=50, offset=0)
        restarts = server.metrics.registry.get_sample_value("slurper_worker_restarts_total")
    assert progress.status is JobStatus.COMPLETED, logs
    check_counts(progress, sides, skipped=set())
    assert [entry.log_type for entry in logs] == [
        LogType.MIGRATION_START,
        LogType.MIGRATION_COMPLETE,
    ]
    assert restarts == 1
    assert _read_all(boto(sides.target), sides.target_bucket) == sides.bodies
    assert worker_processes() == []


async def test_one_flat_bucket_is_copied_by_both_workers_even_when_one_is_killed(
    sides: Sides, boto: Boto, tmp_path: Path
) -> None:
    async with served(tmp_path, Fernet.generate_key().decode()) as server:
        job_id = await server.service.create(ACCOUNT, sides.spec(overwrite=False), sides.secrets)
        await until(server, job_id, lambda _: _busy_workers(server) == 2)
        await kill_a_busy_worker(server)
        progress = await until(server, job_id, _has_ended)
        logs = await server.store.logs(ACCOUNT, job_id, limit=50, offset=0)
    assert progress.status is JobStatus.COMPLETED, logs
    check_counts(progress, sides, skipped=set())
    assert _read_all(boto(sides.target), sides.target_bucket) == sides.bodies
    assert worker_processes() == []


def _busy_workers(server: Served) -> int:
    return sum(process.load > 0 for process in server.engine._processes)


async def test_killed_server_and_worker_do_not_turn_copies_into_skips(
    sides: Sides, boto: Boto, tmp_path: Path
) -> None:
    key = Fernet.generate_key().decode()
    skipped = set(sorted(sides.bodies)[:: OBJECTS // FOUND])
    target = boto(sides.target)
    # Of equal size, so that only their age tells them from our own lost work.
    found = {name: bytes(len(sides.bodies[name])) for name in skipped}
    _put_all(target, sides.target_bucket, found)
    await _let_the_clock_move_on()
    # Tasks so long that few report before their worker and their server are gone.
    async with served(tmp_path, key, task_seconds=60.0) as server:
        job_id = await server.service.create(ACCOUNT, sides.spec(overwrite=False), sides.secrets)
        await _until_copied(target, sides.target_bucket, len(skipped) + 40)
        await kill_a_busy_worker(server)
        await _until_copied(target, sides.target_bucket, len(skipped) + 80)
        assert (await server.service.progress(ACCOUNT, job_id)).status is JobStatus.RUNNING
    # The first server was stopped without grace in the middle of its tasks.
    async with served(tmp_path, key) as server:
        progress = await until(server, job_id, _has_ended)
        logs = await server.store.logs(ACCOUNT, job_id, limit=50, offset=0)
    assert progress.status is JobStatus.COMPLETED, logs
    check_counts(progress, sides, skipped=skipped)
    assert _read_all(target, sides.target_bucket) == sides.bodies | found
    assert worker_processes() == []


async def _until_copied(client: S3Client, bucket: str, count: int) -> None:
    for _ in range(6000):
        page = await asyncio.to_thread(client.list_objects_v2, Bucket=bucket)
        if page["KeyCount"] >= count:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"there are never {count} objects at the target")


async def _let_the_clock_move_on() -> None:
    """What is at the target now is then older than the job by more than the clock allowance."""
    await asyncio.sleep(CLOCK_ALLOWANCE.total_seconds() + 1.1)
