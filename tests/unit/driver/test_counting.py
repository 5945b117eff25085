"""What the source holds is found out beside the copying, where a job asks for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from slurper import errors
from slurper.driver import counter
from slurper.driver import loop as driver_module
from slurper.job.model import JobOptions, JobStatus, Whole
from slurper.objectstore.dialects import KeyOrder
from slurper.transfer.task import (
    CountReport,
    CountTask,
    GatherReport,
    GatherTask,
    RangeTask,
    Report,
    Share,
    Task,
)
from tests.unit.driver.conftest import Bench, ScriptedEngine, report, until

COUNTED = JobOptions(count_objects=True)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.02)


class Counting(ScriptedEngine):
    """Copies nothing before the gate opens; counts in three tasks, as `fate` lets it."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__(self.work)
        self.gate = asyncio.Event()
        self.failures = list(failures)

    async def work(self, task: Task[Any]) -> Report:
        if not isinstance(task, CountTask):
            assert isinstance(task, RangeTask)
            await self.gate.wait()
            return report(task, "z", objects=6, finished=True)
        if self.failures:
            raise self.failures.pop(0)
        number = int(task.start_after or "0") + 1
        found = Whole(objects=number, size=10 * number)
        return CountReport(
            job_id=task.job_id, cursor=str(number), finished=number == 3, whole=found
        )

    @property
    def counts(self) -> list[CountTask]:
        return [task for task in self.tasks if isinstance(task, CountTask)]


async def whole(bench: Bench, engine: Counting, options: JobOptions = COUNTED) -> Whole:
    job = await bench.create(prefix="in/", options=options)
    async with bench.driving(engine):
        for _ in range(2_000):
            if (await bench.progress(job)).whole != Whole():
                break
            await asyncio.sleep(0.005)
        found = (await bench.progress(job)).whole
        engine.gate.set()
        await bench.until(job, JobStatus.COMPLETED)
    return found


async def test_a_job_is_counted_task_by_task_while_it_copies(bench: Bench) -> None:
    engine = Counting()
    assert await whole(bench, engine) == Whole(objects=6, size=60)
    assert [task.start_after for task in engine.counts] == [None, "1", "2"]
    assert {task.prefix for task in engine.counts} == {"in/"}
    assert {task.share for task in engine.counts} == {None}


async def test_failures_on_the_way_are_gone_through(bench: Bench) -> None:
    engine = Counting(errors.WorkerLost("killed"), errors.TransportError("reset"))
    assert await whole(bench, engine) == Whole(objects=6, size=60)
    assert len(engine.counts) == 5


async def test_a_rate_limit_is_shared_with_the_copying(bench: Bench) -> None:
    engine = Counting()
    limited = JobOptions(count_objects=True, request_rate_limit=100)
    await whole(bench, engine, limited)
    assert {task.share for task in engine.counts} == {Share(requests_per_second=5)}
    (copying,) = [task for task in engine.tasks if not isinstance(task, CountTask)]
    assert copying.share == Share(requests_per_second=95)


async def test_what_cannot_be_counted_is_given_up_and_copied_all_the_same(bench: Bench) -> None:
    engine = Counting(*[errors.TransportError("reset")] * 100)
    job = await bench.create(options=COUNTED)
    async with bench.driving(engine):
        await until(lambda: len(engine.counts) >= counter.MAX_FAILURES)
        await asyncio.sleep(0.1)
        engine.gate.set()
        progress = await bench.until(job, JobStatus.COMPLETED)
    assert len(engine.counts) == counter.MAX_FAILURES
    assert progress.whole == Whole()


async def test_nobody_counts_unasked(bench: Bench) -> None:
    engine = Counting()
    engine.gate.set()
    job = await bench.create()
    keys = await bench.create(options=COUNTED, keys=("a", "b"))
    async with bench.driving(engine):
        await bench.until(job, JobStatus.COMPLETED)
        assert (await bench.progress(keys)).whole == Whole(objects=2)
    assert engine.counts == []


class Unordered(Counting):
    """Finds on its way that its source has no order; gathers two keys, one by one."""

    async def work(self, task: Task[Any]) -> Report:
        if isinstance(task, CountTask):
            self.gate.set()  # the count is under way when it is found out
            raise errors.NoOrder("the listing shows 'a' again")
        await self.gate.wait()
        if isinstance(task, GatherTask):
            is_last = task.token == "t"
            return GatherReport(
                job_id=task.job_id,
                range_id=task.range_id,
                started_after=task.token,
                cursor=None if is_last else "t",
                keys=("b" if is_last else "z",),
                rows=1,
                anew=False,
                finished=is_last,
            )
        assert isinstance(task, RangeTask)
        if task.keys is None:
            return report(task, "d", objects=1, order=KeyOrder.NONE, disorder="shows 'a' again")
        return report(task, task.keys[-1], objects=len(task.keys), finished=True)


async def test_a_source_without_an_order_is_counted_by_its_keys_and_copied_by_them(
    bench: Bench,
) -> None:
    engine = Unordered()
    async with bench.driving(engine):
        job = await bench.create(prefix="in/", options=COUNTED, overwrite=False)
        progress = await bench.until(job, JobStatus.COMPLETED)
    assert progress.whole == Whole(objects=2)
    assert progress.counts.objects == 2
    first, *gathering, last = [task for task in engine.tasks if not isinstance(task, CountTask)]
    assert (first.keys, first.replayed_since) == (None, None)
    assert [(type(task), task.token) for task in gathering] == [
        (GatherTask, None),
        (GatherTask, "t"),
    ]
    assert (type(last), last.keys, last.slice.start_after) == (RangeTask, ("b", "z"), None)
    assert last.replayed_since is not None, "what it has copied before is its own"
    assert {task.prefix for task in engine.tasks} == {"in/"}
    assert len(engine.counts) <= counter.MAX_FAILURES
