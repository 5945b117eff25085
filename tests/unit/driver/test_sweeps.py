"""The target of an aborted job is swept, whatever happened before, once nobody works on it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from slurper import errors
from slurper.driver import assignment, sweeper
from slurper.driver import loop as driver_module
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus, LogType
from slurper.transfer.task import PartsReport, PartsTask, RangeTask, Report, SweepTask, Task
from tests.unit.driver.conftest import (
    ACCOUNT,
    Bench,
    ScriptedEngine,
    large,
    report,
    until,
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(sweeper, "_FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(sweeper, "_LONGEST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.02)


async def clean(task: Task[Any]) -> Report:
    """A worker that sweeps; it must not be asked for anything else."""
    assert isinstance(task, SweepTask)
    return Report(job_id=task.job_id)


def sweeps(engine: ScriptedEngine) -> list[SweepTask]:
    return [one for one in engine.tasks if isinstance(one, SweepTask)]


async def create_and_abort(bench: Bench, *keys: str, **changes: Any) -> Job:  # noqa: ANN401
    """A job that had these large objects in progress when it was aborted."""
    job = await bench.create(**changes)
    await bench.find(job, *(keys or ("film",)))
    await abort(bench, job)
    return job


def gated(gate: asyncio.Event, outcome: Exception | None = None) -> ScriptedEngine:
    """Copies nothing of a large object before the gate opens; what is swept is swept at once."""

    async def script(task: Task[Any]) -> Report:
        if isinstance(task, RangeTask):
            return report(task, "k", large=(large("film"),), finished=True)
        if isinstance(task, SweepTask):
            return await clean(task)
        assert isinstance(task, PartsTask)
        await gate.wait()
        if outcome is not None:
            raise outcome
        return PartsReport(job_id=task.job_id, upload=task.upload)

    return ScriptedEngine(script)


async def abort(bench: Bench, job: Job) -> None:
    await bench.store.apply(ACCOUNT, job.id, Command.ABORT)


async def all_swept(bench: Bench) -> None:
    for _ in range(2000):
        if not await bench.work.unswept():
            return
        await asyncio.sleep(0.005)
    pytest.fail("waited too long")


async def test_what_a_dead_server_left_is_swept_by_the_next(bench: Bench) -> None:
    job = await create_and_abort(bench, "in/a", "in/b", prefix="in/")
    engine = ScriptedEngine(clean)
    async with bench.driving(engine):
        await all_swept(bench)
    assert [task.upload.meta.key for task in sweeps(engine)] == ["in/a", "in/b"]
    for task in sweeps(engine):
        assert (task.job_id, task.prefix) == (job.id, "in/")
        assert task.since == assignment.replayed_since(task.upload.found_at)
        assert task.upload.found_at < task.until < datetime.now(UTC)


async def test_a_job_without_large_objects_in_progress_has_nothing_to_sweep(bench: Bench) -> None:
    await abort(bench, await bench.create(sealed=b"by another key"))
    engine = ScriptedEngine(clean)
    async with bench.driving(engine):
        await all_swept(bench)
    assert engine.tasks == []


@pytest.mark.parametrize("outcome", [None, errors.WorkerLost("killed by SIGKILL")])
async def test_a_task_under_way_is_waited_for(bench: Bench, outcome: Exception | None) -> None:
    gate = asyncio.Event()
    engine = gated(gate, outcome)
    async with bench.driving(engine) as driver:
        job = await bench.create()
        driver.wake()
        await until(lambda: len(engine.tasks) == 2)
        await abort(bench, job)
        for _ in range(5):  # looks of the driver
            driver.wake()
            await asyncio.sleep(0.02)
        assert len(engine.tasks) == 2
        ended_at = datetime.now(UTC)
        gate.set()
        await all_swept(bench)
    (sweep,) = sweeps(engine)
    assert sweep.until > ended_at, "an upload of the task may have been begun until then"
    assert (await bench.progress(job)).status is JobStatus.ABORTED


async def test_a_sweep_that_was_cut_short_is_done_by_the_next_driver(bench: Bench) -> None:
    await create_and_abort(bench)
    hanging = ScriptedEngine(lambda _: asyncio.Event().wait())
    async with bench.driving(hanging):
        await until(lambda: hanging.tasks)
    assert len(await bench.work.unswept()) == 1
    engine = ScriptedEngine(clean)
    async with bench.driving(engine):
        await all_swept(bench)
    assert len(engine.tasks) == 1


async def test_a_sweep_that_fails_is_repeated(bench: Bench) -> None:
    failures = [
        errors.TransportError("reset"),
        errors.WorkerLost("killed by SIGKILL"),
        ValueError("a bug"),
    ]

    async def script(task: Task[Any]) -> Report:
        if failures:
            raise failures.pop(0)
        return await clean(task)

    job = await create_and_abort(bench)
    engine = ScriptedEngine(script)
    async with bench.driving(engine):
        await all_swept(bench)
    assert len(engine.tasks) == 4
    assert len({task.until for task in sweeps(engine)}) == 1
    entries = await bench.log_of(job)
    assert entries[-1].log_type is LogType.MIGRATION_ABORT


async def test_a_sweep_that_always_fails_is_given_up_and_the_log_says_so(bench: Bench) -> None:
    async def script(_: Task[Any]) -> Report:
        raise errors.AccessDenied("ListMultipartUploads", status=403)

    job = await create_and_abort(bench)
    engine = ScriptedEngine(script)
    async with bench.driving(engine):
        await all_swept(bench)
    assert len(engine.tasks) == sweeper.MAX_SWEEPS
    entry = (await bench.log_of(job))[-1]
    assert entry.log_type is LogType.MIGRATION_ERROR
    assert entry.message is not None
    assert "ListMultipartUploads answered HTTP 403" in entry.message


async def test_secrets_that_cannot_be_opened_end_in_the_log_too(bench: Bench) -> None:
    job = await create_and_abort(bench, sealed=b"by another key")
    engine = ScriptedEngine(clean)
    async with bench.driving(engine):
        await all_swept(bench)
    assert engine.tasks == []
    assert (await bench.log_of(job))[-1].log_type is LogType.MIGRATION_ERROR


async def test_a_database_that_is_away_delays_a_sweep(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_and_abort(bench)
    swept = bench.work.swept
    calls = 0

    async def fragile(job_id: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise errors.DatabaseUnavailable("disk full")
        await swept(job_id)

    monkeypatch.setattr(bench.work, "swept", fragile)
    async with bench.driving(ScriptedEngine(clean)):
        await all_swept(bench)
    assert calls == 2


async def test_a_driver_that_was_replaced_stops_sweeping(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_and_abort(bench)

    async def replaced(_: str) -> None:
        raise errors.LeaseLost("the lease has changed hands")

    monkeypatch.setattr(bench.work, "swept", replaced)
    with pytest.raises(errors.LeaseLost):
        await bench.driver(ScriptedEngine(clean)).run()


async def test_a_deleted_job_is_swept_and_then_gone(bench: Bench) -> None:
    job = await create_and_abort(bench)
    await bench.store.delete_job(ACCOUNT, job.id)
    engine = ScriptedEngine(clean)
    async with bench.driving(engine):
        await all_swept(bench)
    assert [task.job_id for task in engine.tasks] == [job.id]


async def test_jobs_are_swept_one_after_the_other(bench: Bench) -> None:
    jobs = [await create_and_abort(bench) for _ in range(3)]
    engine = ScriptedEngine(clean, slots=1)
    async with bench.driving(engine):
        await all_swept(bench)
    assert sorted(task.job_id for task in engine.tasks) == sorted(job.id for job in jobs)
