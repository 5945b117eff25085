"""Driver, database and real worker processes together, while processes are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slurper.engine.local import LocalEngine
from slurper.job.model import Counts, Job, JobStatus, Progress
from slurper.settings import Settings
from tests.unit.driver.conftest import SPEC, Bench, until
from tests.unit.driver.folder_worker import BODY, FOLDER

pytestmark = pytest.mark.processes

OBJECTS = 600
FOUND = range(1, OBJECTS, 4)
"""Every fourth object is at the target before the job is made."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    return folder


@asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[LocalEngine]:
    """A server's life: engine and driver, and an end that leaves no grace to anything."""
    engine = LocalEngine(
        Settings(workers=2), worker_factory="tests.unit.driver.folder_worker:FolderWorker"
    )
    await engine.start()
    driver = bench.driver(engine, task_seconds=0.2)
    running = asyncio.create_task(driver.run())
    try:
        yield engine
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await engine.stop(0)


async def create(bench: Bench, *, overwrite: bool) -> Job:
    source = SPEC.source.__class__(
        vendor=SPEC.source.vendor, bucket=str(OBJECTS), endpoint=SPEC.source.endpoint
    )
    return await bench.create(source=source, overwrite=overwrite)


def find(folder: Path) -> None:
    """Put objects at the target that an earlier job copied a minute ago."""
    minute_ago = time.time() - 60
    for number in FOUND:
        path = folder / f"{number:05}"
        path.write_bytes(BODY)
        os.utime(path, (minute_ago, minute_ago))


def check(progress: Progress, folder: Path, *, skipped: int) -> None:
    transferred = OBJECTS - skipped
    assert progress.counts == Counts(
        objects=OBJECTS,
        transferred=transferred,
        skipped=skipped,
        transferred_bytes=transferred * len(BODY),
    )
    present = {path.name for path in folder.iterdir() if not path.suffix}
    assert present == {f"{number:05}" for number in range(1, OBJECTS + 1)}


def kill_a_worker(engine: LocalEngine) -> bool:
    """Kill one that runs a task; returns whether there was any."""
    busy = [process for process in engine._processes if process.load]
    for process in busy[:1]:
        with contextlib.suppress(
            ProcessLookupError
        ):  # killed before, and its engine has not seen it yet
            os.kill(process.pid, signal.SIGKILL)
    return bool(busy)


@pytest.mark.parametrize("overwrite", [True, False])
async def test_kill_9_in_the_middle_of_a_task_changes_no_count(
    bench: Bench, folder: Path, *, overwrite: bool
) -> None:
    find(folder)
    job = await create(bench, overwrite=overwrite)
    async with served(bench) as engine:
        for settled in (1, OBJECTS // 3, OBJECTS // 2):
            while (await bench.progress(job)).counts.objects < settled:  # noqa: ASYNC110
                await asyncio.sleep(0.002)  # other processes do the work
            await until(lambda: kill_a_worker(engine))
        progress = await bench.until(job, JobStatus.COMPLETED)
    check(progress, folder, skipped=0 if overwrite else len(FOUND))
    assert bench.metric("slurper_tasks_total", outcome="lost") >= 1


async def test_servers_and_workers_killed_again_and_again_change_no_count(
    bench: Bench, folder: Path
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    find(folder)
    job = await create(bench, overwrite=False)
    for _ in range(4):
        async with served(bench) as engine:
            for _ in range(2):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0.01, 0.15)):
                        await bench.until(job, JobStatus.COMPLETED)
                kill_a_worker(engine)
    async with served(bench):
        progress = await bench.until(job, JobStatus.COMPLETED)
    check(progress, folder, skipped=len(FOUND))
