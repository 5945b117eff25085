"""Large objects under a driver: shared, resumed, begun again, and paused for when nothing helps."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from slurper import errors
from slurper.driver import assignment, loop
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, Job, JobStatus, LogType
from slurper.objectstore.base import Part
from slurper.transfer.task import BegunUpload, Halt, PartsReport, PartsTask, RangeTask, Report, Task
from tests.unit.driver.conftest import ACCOUNT, Bench, ScriptedEngine, large, report, until

MIB = 1 << 20
PART = 16 * MIB
PARTS = 16


class Uploader:
    """A worker that copies parts, and remembers what it was asked for."""

    def __init__(self, *keys: str, size: int = PARTS * PART) -> None:
        self._found = tuple(large(key, size) for key in keys or ("film",))
        self.copied: Counter[tuple[str, int]] = Counter()
        """How often each part, by upload id and number."""
        self.tasks: list[PartsTask] = []
        self.parts_per_task = 99

    async def __call__(self, task: Task[Any]) -> Report:
        if isinstance(task, RangeTask):
            last = self._found[-1].key
            return report(task, last, large=self._found, finished=True)
        assert isinstance(task, PartsTask)
        self.tasks.append(task)
        await asyncio.sleep(0)
        return await self.copy(task)

    async def copy(self, task: PartsTask) -> PartsReport:
        begun = task.upload.begun or self._begin(task)
        numbers = range(1, PARTS + 1) if task.numbers is None else task.numbers
        copied = numbers[: self.parts_per_task]
        for number in copied:
            self.copied[begun.upload_id, number] += 1
        parts = tuple(Part(number, PART, "e") for number in copied)
        if task.done is not None and len(task.done) + len(parts) == PARTS:
            return settled(task)
        new = None if task.upload.begun else begun
        return PartsReport(job_id=task.job_id, upload=task.upload, begun=new, parts=parts)

    def _begin(self, task: PartsTask) -> BegunUpload:
        return BegunUpload(
            upload_id=f"{task.upload.meta.key}-{task.upload.attempt}",
            part_size=PART,
            whole_checked=True,
            begun_at=datetime.now(UTC),
            last_modified=None,
        )

    def each_part_once(self) -> bool:
        return len(self.copied) % PARTS == 0 and set(self.copied.values()) == {1}


def settled(task: PartsTask) -> PartsReport:
    counts = Counts(objects=1, transferred=1, transferred_bytes=task.upload.meta.size)
    return PartsReport(job_id=task.job_id, upload=task.upload, counts=counts)


async def complete(bench: Bench, engine: ScriptedEngine, job: Job) -> None:
    async with bench.driving(engine):
        await bench.until(job, JobStatus.COMPLETED)


async def test_an_object_that_fits_into_one_task_has_one(bench: Bench) -> None:
    uploader = Uploader("a", "b", size=4 * PART)
    uploader.copy = finish  # type: ignore[method-assign]
    job = await bench.create()
    await complete(bench, ScriptedEngine(uploader), job)
    assert sorted(task.upload.meta.key for task in uploader.tasks) == ["a", "b"]
    assert (await bench.progress(job)).counts.transferred == 2


async def finish(task: PartsTask) -> PartsReport:
    return settled(task)


async def test_idle_slots_share_an_object(bench: Bench) -> None:
    uploader = Uploader()
    copy = uploader.copy

    async def copy_when_all_have_a_share(task: PartsTask) -> PartsReport:
        await until(lambda: not task.numbers or len(uploader.tasks) >= 5)
        return await copy(task)

    uploader.copy = copy_when_all_have_a_share  # type: ignore[method-assign]
    job = await bench.create()
    await complete(bench, ScriptedEngine(uploader), job)
    shares = [task.numbers for task in uploader.tasks]
    assert shares[0] == (), "it only begins"
    assert sorted(len(share or ()) for share in shares[1:]) == [0, 4, 4, 4, 4]
    assert uploader.tasks[-1].done is not None
    assert uploader.each_part_once()


async def test_one_slot_goes_on_where_it_stopped(bench: Bench) -> None:
    uploader = Uploader()
    uploader.parts_per_task = 5
    job = await bench.create()
    await complete(bench, ScriptedEngine(uploader, slots=1), job)
    assert [len(task.done or ()) for task in uploader.tasks] == [0, 5, 10, 15]
    assert uploader.each_part_once()


async def test_a_new_driver_copies_no_part_again(bench: Bench) -> None:
    uploader = Uploader()
    uploader.parts_per_task = 3
    job = await bench.create()
    async with bench.driving(ScriptedEngine(uploader, slots=1)):
        await until(lambda: len(uploader.tasks) >= 3)
    assert (await bench.progress(job)).status is JobStatus.RUNNING
    uploader.parts_per_task = 99
    await complete(bench, ScriptedEngine(uploader), job)
    assert uploader.each_part_once()
    assert {task.replayed_since for task in uploader.tasks[:3]} == {None}
    later = uploader.tasks[-1]
    assert later.replayed_since == assignment.replayed_since(later.upload.found_at)


async def test_pause_keeps_the_parts_and_resume_goes_on(bench: Bench) -> None:
    uploader = Uploader()
    uploader.parts_per_task = 1
    job = await bench.create()
    async with bench.driving(ScriptedEngine(uploader, slots=1)) as driving:
        await until(lambda: len(uploader.tasks) >= 4)
        await bench.store.apply(ACCOUNT, job.id, Command.PAUSE)
        driving.wake()
        await until(lambda: bench.metric("slurper_tasks_under_way") == 0)
        paused_at = len(uploader.tasks)
        await asyncio.sleep(0.05)
        assert len(uploader.tasks) == paused_at
        uploader.parts_per_task = 99
        await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
        driving.wake()
        await bench.until(job, JobStatus.COMPLETED)
    assert uploader.each_part_once()


async def test_a_lost_share_is_dealt_again_and_nothing_else(bench: Bench) -> None:
    uploader = Uploader()
    losses = [errors.WorkerLost("killed by SIGKILL")]

    async def script(task: Task[Any]) -> Report:
        if isinstance(task, PartsTask) and task.numbers and losses:
            raise losses.pop()
        return await uploader(task)

    job = await bench.create()
    await complete(bench, ScriptedEngine(script), job)
    assert losses == []
    assert uploader.each_part_once()


async def test_an_object_is_begun_again_in_its_new_version(bench: Bench) -> None:
    uploader = Uploader()
    newer = large("film", PARTS * PART)._replace(etag='"newer"')
    is_changed = False

    async def script(task: Task[Any]) -> Report:
        nonlocal is_changed
        if isinstance(task, PartsTask) and task.numbers and not is_changed:
            is_changed = True
            return PartsReport(job_id=task.job_id, upload=task.upload, restarted=newer, attempts=1)
        return await uploader(task)

    job = await bench.create()
    await complete(bench, ScriptedEngine(script), job)
    assert uploader.tasks[-1].upload.meta == newer
    assert uploader.tasks[-1].upload.attempt == 2
    of_new = [count for (upload_id, _), count in uploader.copied.items() if upload_id == "film-2"]
    assert of_new == [1] * PARTS


async def test_an_object_that_kills_every_worker_pauses_its_job(bench: Bench) -> None:
    uploader = Uploader()

    async def script(task: Task[Any]) -> Report:
        if isinstance(task, PartsTask):
            raise errors.WorkerLost("killed by SIGKILL")
        return await uploader(task)

    job, other = await bench.create(), await bench.create(prefix="other/")
    engine = ScriptedEngine(script)
    async with bench.driving(engine):
        await bench.until(job, JobStatus.PAUSED)
        await bench.until(other, JobStatus.PAUSED)
    budgets = [one.budget_seconds for one in engine.tasks_of(job) if isinstance(one, PartsTask)]
    assert len(budgets) == loop.MAX_FAILURES
    assert budgets == sorted(budgets, reverse=True)
    entry = (await bench.log_of(job))[-1]
    assert entry.log_type is LogType.MIGRATION_ERROR
    assert "'film'" in (entry.message or "")


async def test_a_halt_pauses_and_keeps_the_parts(bench: Bench) -> None:
    uploader = Uploader()
    halts = [Halt(log_type=LogType.MIGRATION_ERROR, message="expired")]

    async def script(task: Task[Any]) -> Report:
        answer = await uploader(task)
        if isinstance(answer, PartsReport) and answer.parts and halts:
            return replace(answer, halt=halts.pop())
        return answer

    uploader.parts_per_task = 4
    job = await bench.create()
    async with bench.driving(ScriptedEngine(script, slots=1)) as driving:
        await bench.until(job, JobStatus.PAUSED)
        await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
        driving.wake()
        await bench.until(job, JobStatus.COMPLETED)
    assert uploader.each_part_once()


async def test_sides_that_cannot_be_used_pause_the_job(bench: Bench) -> None:
    job = await bench.create(sealed=b"by another key")
    await bench.find(job, "film")
    async with bench.driving(ScriptedEngine(Uploader())):
        await bench.until(job, JobStatus.PAUSED)


@pytest.mark.parametrize("count", [7, 130])
async def test_many_large_objects_are_all_settled(bench: Bench, count: int) -> None:
    uploader = Uploader(*(f"k{number:03}" for number in range(count)), size=4 * PART)
    uploader.copy = finish  # type: ignore[method-assign]
    job = await bench.create()
    await complete(bench, ScriptedEngine(uploader), job)
    assert (await bench.progress(job)).counts.transferred == count


async def test_a_job_with_keys_says_some_of_them(bench: Bench) -> None:
    uploader = Uploader()
    uploader.copy = finish  # type: ignore[method-assign]
    job = await bench.create(keys=("film", "other"))
    await bench.find(job, "film")
    async with bench.driving(ScriptedEngine(uploader)):
        await until(lambda: uploader.tasks)
    assert uploader.tasks[0].sample == ("film", "other")
