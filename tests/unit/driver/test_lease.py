"""A driver that was replaced by another process's writes nothing and ends."""

from __future__ import annotations

import asyncio

import pytest

from slurper import errors
from slurper.database.leases import LeaseStore
from slurper.driver import chores
from slurper.driver import loop as driver_module
from slurper.job.model import JobStatus
from slurper.transfer.task import RangeReport, RangeTask
from tests.unit.driver.conftest import Bench, FragileWork, ScriptedEngine, report, steps, until


async def _replace(bench: Bench) -> FragileWork:
    """Do what another process does that takes over."""
    leases = LeaseStore(bench.store.database)
    await leases.release(bench.work.lease)
    lease = await leases.acquire("driver", 3600)
    assert lease is not None
    return FragileWork(bench.store.database, lease)


async def test_a_report_that_comes_too_late_ends_the_driver(bench: Bench) -> None:
    """Tasks under way are abandoned; the successor counts each object once."""
    replaced = asyncio.Event()

    async def work(task: RangeTask) -> RangeReport:
        if task.job_id == job.id:
            await replaced.wait()
            return report(task, "0001", objects=1)
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    engine = ScriptedEngine(work)
    job, other = await bench.create(), await bench.create()
    driver = bench.driver(engine)
    running = asyncio.create_task(driver.run())
    await until(lambda: len(engine.tasks) == 2)
    successor = await _replace(bench)
    replaced.set()
    with pytest.raises(errors.LeaseLost, match="changed hands"):
        await running
    assert engine._under_way == [], "nothing is left running"
    assert [(await bench.progress(one)).counts.objects for one in (job, other)] == [0, 0]
    assert [entry.message for entry in await bench.log_of(job)] == [None]
    bench.work = successor
    async with bench.driving(ScriptedEngine(steps(3))):
        ended = [await bench.until(one, JobStatus.COMPLETED) for one in (job, other)]
    assert [one.counts.objects for one in ended] == [3, 3]


async def test_an_idle_driver_notices_with_its_housekeeping(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)
    running = asyncio.create_task(bench.driver(ScriptedEngine(steps(1))).run())
    await asyncio.sleep(0.05)
    assert not running.done()
    await _replace(bench)
    with pytest.raises(errors.LeaseLost):
        await running


async def test_a_replaced_driver_begins_no_job_that_is_younger_than_its_successor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The successor takes such a job for untouched, and what it finds at the target for old."""
    monkeypatch.setattr(driver_module, "POLL_SECONDS", 3600.0)
    engine = ScriptedEngine(steps(1))
    driver = bench.driver(engine)
    running = asyncio.create_task(driver.run())
    await asyncio.sleep(0.05)
    await _replace(bench)
    await bench.create()
    driver.wake()
    with pytest.raises(errors.LeaseLost):
        await running
    assert engine.tasks == []


async def test_a_report_is_kept_while_the_database_is_away_and_the_lease_expires(
    bench: Bench,
) -> None:
    """Nobody could take the lease meanwhile, so the work counts."""
    job = await bench.create()
    bench.work.commits_to_fail = 5
    await LeaseStore(bench.store.database).renew(bench.work.lease, 0.001)
    async with bench.driving(ScriptedEngine(steps(2))):
        progress = await bench.until(job, JobStatus.COMPLETED)
    assert progress.counts.objects == 2
