"""A real local engine over real worker processes that run small scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from slurper import telemetry
from slurper.engine.local import LocalEngine
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import GENERIC
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import RangeTask
from tests.workers import worker_processes

SCRIPTED = "tests.unit.engine.runners:Scripted"

_NOWHERE = StoreAddress(
    origin="http://127.0.0.1:9",
    bucket="bucket",
    region="us-east-1",
    dialect=GENERIC,
    credentials=S3Credentials(access_key_id="id", secret_access_key="secret"),
)

StartEngine = Callable[..., Awaitable[LocalEngine]]


def make_task(script: str, range_id: int = 1) -> RangeTask:
    """A task whose prefix tells the scripted worker what to do."""
    return RangeTask(
        job_id="job",
        range_id=range_id,
        source=_NOWHERE,
        target=_NOWHERE,
        slice=KeyRange(),
        prefix=script,
    )


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Start engines; each is stopped at the end of the test and must leave no process behind."""
    before = {process.pid for process in worker_processes()}
    engines: list[LocalEngine] = []

    async def start(
        *,
        workers: int = 1,
        worker_factory: str = SCRIPTED,
        metrics: telemetry.Metrics | None = None,
        silence_limit_seconds: float = 30.0,
    ) -> LocalEngine:
        engine = LocalEngine(
            Settings(workers=workers),
            metrics=metrics,
            worker_factory=worker_factory,
            silence_limit_seconds=silence_limit_seconds,
        )
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.stop(0)
    assert {process.pid for process in worker_processes()} <= before
