"""A driver over a real job store, with an engine in this process whose work a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from cryptography.fernet import Fernet
from prometheus_client import CollectorRegistry

from slurper import errors, telemetry
from slurper.database.bounds import UNBOUNDED, Bounds
from slurper.database.job_row import CommitResult
from slurper.database.leases import LeaseStore
from slurper.database.store import JobStore
from slurper.database.work import JobWork, WorkStore
from slurper.driver import turn
from slurper.driver.loop import Driver
from slurper.job.model import (
    Counts,
    Job,
    JobSpec,
    JobStatus,
    Location,
    LogEntry,
    LogType,
    Progress,
    Vendor,
)
from slurper.objectstore.base import ObjectMeta
from slurper.secrets import JobSecrets, S3Credentials, Sealer
from slurper.settings import Settings
from slurper.transfer.task import (
    PartsTask,
    ProgressReport,
    RangeReport,
    RangeTask,
    Task,
    TaskReport,
)

ACCOUNT = "a" * 32
SECRETS = JobSecrets(
    source=S3Credentials(access_key_id="from", secret_access_key="hush"),
    target=S3Credentials(access_key_id="to", secret_access_key="hush"),
)
SPEC = JobSpec(
    source=Location(vendor=Vendor.S3, bucket="from", endpoint="https://s3.example"),
    target=Location(vendor=Vendor.S3, bucket="to", endpoint="https://s3.example"),
)

Script = Callable[[RangeTask], Awaitable[RangeReport]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays shrink so that tests need not wait for them; their order stays."""
    monkeypatch.setattr(turn, "_FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(turn, "_FRUITLESS_DELAY_SECONDS", 0.01)


class ScriptedEngine:
    """An engine whose tasks are calls of a test's function; checks what every driver must keep."""

    def __init__(self, script: Callable[[Any], Awaitable[Any]], *, slots: int = 4) -> None:
        self.script = script
        self.slots = slots
        self.tasks: list[Any] = []
        """Every task that was submitted, in order."""
        self.ended: list[str] = []
        """The jobs whose end was told, in order."""
        self._under_way: list[Task[Any]] = []

    async def start(self) -> None:
        """Part of the protocol."""

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Part of the protocol."""
        assert not any(clash(task, other) for other in self._under_way), "the same work twice"
        assert len(self._under_way) < 2 * self.slots, "more tasks than the engine takes"
        ranges = sum(not isinstance(other, PartsTask) for other in self._under_way)
        assert isinstance(task, PartsTask) or ranges < self.slots, "more ranges than slots"
        self.tasks.append(task)
        self._under_way.append(task)
        try:
            answer: TaskReport = await self.script(task)
        finally:
            self._under_way.remove(task)
        return answer

    def job_ended(self, job_id: str) -> None:
        """Part of the protocol."""
        self.ended.append(job_id)

    async def stop(self, grace_seconds: float) -> None:
        """Part of the protocol."""

    def tasks_of(self, job: Job) -> list[Any]:
        return [task for task in self.tasks if task.job_id == job.id]


def clash(one: Task[Any], other: Task[Any]) -> bool:
    """Whether two tasks must not be under way at the same time."""
    if one.identity != other.identity:
        return False
    if not isinstance(one, PartsTask) or not isinstance(other, PartsTask):
        return True
    if one.upload.generation != other.upload.generation:
        return False  # the earlier one works for an upload that is over
    if one.upload.begun is None or not one.numbers or not other.numbers:
        return True
    return not set(one.numbers).isdisjoint(other.numbers)


class FragileWork(WorkStore):
    """A real store of work whose database is away for a while when a test says so."""

    commits_to_fail = 0
    reads_to_fail = 0
    failure: Exception = errors.DatabaseUnavailable("database is locked")

    async def commit(
        self, report: ProgressReport, at: datetime, *, bounds: Bounds = UNBOUNDED
    ) -> CommitResult:
        if self.commits_to_fail:
            self.commits_to_fail -= 1
            raise self.failure
        return await super().commit(report, at, bounds=bounds)

    async def running_jobs(self) -> list[JobWork]:
        if self.reads_to_fail:
            self.reads_to_fail -= 1
            raise self.failure
        return await super().running_jobs()


@dataclass
class Bench:
    """Store, sealer and settings of a test, and the short ways to them."""

    store: JobStore
    work: FragileWork
    sealer: Sealer
    settings: Settings
    metrics: telemetry.Metrics = field(
        default_factory=lambda: telemetry.Metrics(CollectorRegistry())
    )

    def driver(self, engine: Any, **changes: Any) -> Driver:  # noqa: ANN401 - of Settings
        settings = self.settings.model_copy(update=changes)
        return Driver(self.work, engine, self.sealer, settings, metrics=self.metrics)

    @asynccontextmanager
    async def driving(self, engine: Any, **changes: Any) -> AsyncIterator[Driver]:  # noqa: ANN401
        """Run a driver for the length of the block."""
        driver = self.driver(engine, **changes)
        running = asyncio.create_task(driver.run())
        try:
            yield driver
        finally:
            await driver.stop(30)
            await running

    async def create(self, *, sealed: bytes | None = None, **changes: Any) -> Job:  # noqa: ANN401
        """Store a running job; changes are of its spec."""
        job = Job(
            id=token_hex(32),
            account_id=ACCOUNT,
            spec=replace(SPEC, **changes),
            status=JobStatus.RUNNING,
            created_at=datetime.now(UTC),
        )
        entry = LogEntry(log_type=LogType.MIGRATION_START, created_at=job.created_at)
        secrets = self.sealer.seal(SECRETS) if sealed is None else sealed
        await self.store.create_job(job, secrets, max_active=1000, entry=entry)
        return job

    async def find(self, job: Job, *keys: str, size: int = 100 << 20) -> None:
        """Commit that a task of the job's range has found large objects with these keys."""
        (work,) = [one for one in await self.work.running_jobs() if one.job.id == job.id]
        (open_range,) = work.ranges
        found = RangeReport(
            job_id=job.id,
            range_id=open_range.range_id,
            started_after=open_range.slice.start_after,
            cursor=max(keys),
            finished=False,
            counts=Counts(),
            large=tuple(large(key, size) for key in keys),
        )
        assert (await self.work.commit(found, datetime.now(UTC))).applied

    async def progress(self, job: Job) -> Progress:
        return await self.store.progress(ACCOUNT, job.id)

    async def until(self, job: Job, *statuses: JobStatus) -> Progress:
        """Wait until the job has one of the statuses."""
        for _ in range(12_000):
            progress = await self.progress(job)
            if progress.status in statuses:
                return progress
            await asyncio.sleep(0.005)
        pytest.fail(f"the job did not get {statuses}, it is {progress}")

    async def log_of(self, job: Job) -> list[LogEntry]:
        return await self.store.logs(ACCOUNT, job.id, limit=1000, offset=0)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    settings = Settings(data_dir=tmp_path, task_seconds=8)
    store = await JobStore.open(settings.resolved_database_url)
    lease = await LeaseStore(store.database).acquire("driver", 3600)
    assert lease is not None
    work = FragileWork(store.database, lease)
    yield Bench(store, work, Sealer((Fernet.generate_key().decode(),)), settings)
    await store.close()


def report(
    task: RangeTask,
    cursor: str | None,
    *,
    objects: int = 0,
    finished: bool = False,
    **changes: Any,  # noqa: ANN401 - fields of RangeReport
) -> RangeReport:
    """What a worker says that transferred some objects of one byte."""
    return RangeReport(
        job_id=task.job_id,
        range_id=task.range_id,
        started_after=task.slice.start_after,
        cursor=cursor,
        finished=finished,
        counts=Counts(objects=objects, transferred=objects, transferred_bytes=objects),
        **changes,
    )


def large(key: str, size: int = 100 << 20) -> ObjectMeta:
    """An object that is copied in parts."""
    return ObjectMeta(key, size, f'"{key}"', datetime(2026, 1, 1, tzinfo=UTC), "")


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition; the bound is only there to end a broken test."""
    for _ in range(12_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("waited too long")


def steps(count: int) -> Script:
    """A worker that takes `count` tasks for a range, one object each: keys `0001`, `0002`, ..."""

    async def step(task: RangeTask) -> RangeReport:
        await asyncio.sleep(0)
        number = int(task.slice.start_after or "0") + 1
        return report(task, f"{number:04}", objects=1, finished=number >= count)

    return step
