"""What the driver promises while nothing goes wrong."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Table, func, insert, select

from slurper import errors
from slurper.database.housekeeping import Housekeeping
from slurper.database.schema import answers, jobs, ranges
from slurper.driver import chores
from slurper.driver import loop as driver_module
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, JobOptions, JobStatus, LogType
from slurper.secrets import JobSecrets
from slurper.transfer.task import Halt, ObjectEvent, RangeReport, RangeTask, Share
from tests.unit.driver.conftest import ACCOUNT, SECRETS, Bench, ScriptedEngine, report, steps, until


class TestMovingForward:
    async def test_a_job_is_driven_task_by_task_until_it_completes(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(5))
        job = await bench.create(prefix="p/", overwrite=False)
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts == Counts(objects=5, transferred=5, transferred_bytes=5)
        assert [task.slice.start_after for task in engine.tasks] == [
            None, "0001", "0002", "0003", "0004",
        ]  # fmt: skip
        entries = [entry.log_type for entry in await bench.log_of(job)]
        assert entries == [LogType.MIGRATION_START, LogType.MIGRATION_COMPLETE]

    async def test_a_task_carries_what_the_worker_needs(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(1))
        job = await bench.create(prefix="p/", overwrite=False)
        async with bench.driving(engine, task_seconds=0.3):
            await bench.until(job, JobStatus.COMPLETED)
        (task,) = engine.tasks
        assert (task.prefix, task.overwrite, task.budget_seconds) == ("p/", False, 0.3)
        assert task.wanted_pieces == engine.slots
        assert (task.source.bucket, task.target.bucket) == ("from", "to")
        assert task.source.origin == "https://s3.example"
        assert "hush" not in repr(task)

    async def test_wake_starts_a_job_created_while_the_driver_runs(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 3600.0)
        engine = ScriptedEngine(steps(2))
        async with bench.driving(engine) as driver:
            await asyncio.sleep(0.05)
            job = await bench.create()
            driver.wake()
            await bench.until(job, JobStatus.COMPLETED)

    async def test_without_wake_the_poll_finds_the_job(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)
        async with bench.driving(ScriptedEngine(steps(1))):
            await asyncio.sleep(0.05)
            await bench.until(await bench.create(), JobStatus.COMPLETED)

    async def test_what_is_committed_is_counted_in_the_metrics(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            counts = Counts(objects=6, transferred=3, skipped=2, failed=1, transferred_bytes=99)
            done = report(task, "k", finished=True, retries=4, attempts=5, throttled=6)
            return replace(done, counts=counts)

        job = await bench.create()
        async with bench.driving(ScriptedEngine(script)):
            await bench.until(job, JobStatus.COMPLETED)
        assert bench.metric("slurper_objects_total", outcome="transferred") == 3
        assert bench.metric("slurper_objects_total", outcome="skipped") == 2
        assert bench.metric("slurper_objects_total", outcome="failed") == 1
        assert bench.metric("slurper_transferred_bytes_total") == 99
        assert bench.metric("slurper_request_retries_total") == 4
        assert bench.metric("slurper_object_attempts_total") == 5
        assert bench.metric("slurper_throttled_total") == 6
        assert bench.metric("slurper_tasks_total", outcome="reported") == 1
        assert bench.metric("slurper_task_seconds_count") == 1
        assert bench.metric("slurper_commits_total", outcome="applied") == 1
        assert bench.metric("slurper_jobs_ended_total", status="completed") == 1
        assert bench.metric("slurper_jobs_running") == 0
        assert bench.metric("slurper_tasks_under_way") == 0


class TestFairness:
    async def test_two_jobs_take_turns_on_one_slot(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(6), slots=1)
        jobs = [await bench.create(), await bench.create()]
        async with bench.driving(engine):
            for job in jobs:
                await bench.until(job, JobStatus.COMPLETED)
        turns = [task.job_id for task in engine.tasks]
        assert turns[0::2] == [jobs[0].id] * 6
        assert turns[1::2] == [jobs[1].id] * 6

    async def test_a_late_job_does_not_wait_for_the_early_ones_end(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(40), slots=1)
        early = await bench.create()
        async with bench.driving(engine) as driver:
            await until(lambda: len(engine.tasks) > 5)
            late = await bench.create()
            driver.wake()
            await until(lambda: engine.tasks_of(late))
            seen = len(engine.tasks_of(early))
            await bench.until(early, JobStatus.COMPLETED)
            await bench.until(late, JobStatus.COMPLETED)
        assert seen < 40
        turns = [task.job_id for task in engine.tasks]
        begun = turns.index(late.id)
        both = turns[begun : begun + 2 * (40 - seen)]
        assert all(one != other for one, other in itertools.pairwise(both))

    async def test_more_jobs_than_slots_all_complete(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(4), slots=3)
        jobs = [await bench.create() for _ in range(8)]
        async with bench.driving(engine):
            for job in jobs:
                await bench.until(job, JobStatus.COMPLETED)
        assert all(len(engine.tasks_of(job)) == 4 for job in jobs)


async def test_a_job_that_has_as_many_ranges_as_it_may_have_looks_for_no_more_cuts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look costs requests at the source."""
    monkeypatch.setattr("slurper.database.ranges.MAX_RANGES", 3)
    looked: list[int] = []

    async def script(task: RangeTask) -> RangeReport:
        number = int(task.slice.start_after or "0") + 1
        cuts: tuple[str, ...] = ()
        if task.wanted_pieces > 1:
            looked.append(len(engine.tasks))
            cuts = (f"{9000 - len(engine.tasks):04}",)
        return report(task, f"{number:04}", objects=1, finished=number >= 40, boundaries=cuts)

    engine = ScriptedEngine(script, slots=8)
    job = await bench.create()
    async with bench.driving(engine):
        progress = await bench.until(job, JobStatus.COMPLETED)
    assert progress.counts.objects == 42, "40 of the first range, one of each other"
    assert 2 <= len(looked) <= 4
    assert max(looked) < 10


class TestExplicitKeys:
    async def test_2500_keys_are_three_tasks(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            assert task.keys is not None
            assert task.slice.end_at == task.keys[-1]
            return report(task, task.keys[-1], objects=len(task.keys), finished=True)

        keys = tuple(f"key-{number:05}" for number in range(2500))
        engine = ScriptedEngine(script, slots=1)
        job = await bench.create(keys=keys)
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        given = [task.keys or () for task in engine.tasks]
        assert list(map(len, given)) == [1000, 1000, 500]
        assert tuple(key for part in given for key in part) == keys
        assert progress.counts.transferred == 2500

    async def test_they_are_shared_by_all_slots_from_the_first_task_on(self, bench: Bench) -> None:
        begun = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            assert task.keys is not None
            if len(engine.tasks) == engine.slots:
                begun.set()
            await begun.wait()
            return report(task, task.keys[-1], objects=len(task.keys), finished=True)

        keys = tuple(f"key-{number:05}" for number in range(2500))
        engine = ScriptedEngine(script)
        job = await bench.create(keys=keys)
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        given = sorted(task.keys or () for task in engine.tasks)
        assert list(map(len, given)) == [625, 625, 625, 625]
        assert tuple(key for part in given for key in part) == keys
        assert progress.counts.transferred == 2500

    async def test_a_task_cut_short_goes_on_after_its_cursor(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            assert task.keys is not None
            some = task.keys[:7]
            return report(task, some[-1], objects=len(some), finished=some == task.keys)

        keys = tuple(f"key-{number:03}" for number in range(50))
        engine = ScriptedEngine(script)
        job = await bench.create(keys=keys)
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.transferred == 50
        assert [task.slice.start_after for task in engine.tasks] == [
            None, *(keys[last] for last in range(6, 49, 7)),
        ]  # fmt: skip

    async def test_a_last_key_settled_without_finishing_still_ends_the_job(
        self, bench: Bench
    ) -> None:
        async def script(task: RangeTask) -> RangeReport:
            return report(task, "b", objects=2, finished=False)

        engine = ScriptedEngine(script)
        job = await bench.create(keys=("a", "b"))
        async with bench.driving(engine):
            await bench.until(job, JobStatus.COMPLETED)
        assert len(engine.tasks) == 1

    async def test_keys_are_copied_when_they_can_be_cut_no_more(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("slurper.database.ranges.MAX_RANGES", 2)

        async def some(task: RangeTask) -> RangeReport:
            assert task.keys is not None
            done = task.keys[:50]
            return report(task, done[-1], objects=len(done), finished=done == task.keys)

        keys = tuple(f"key-{number:05}" for number in range(1000))
        engine = ScriptedEngine(some, slots=8)
        job = await bench.create(keys=keys)
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 1000

    async def test_no_keys_at_all_is_a_completed_job(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            pytest.fail(f"there is nothing to do: {task}")

        # The database takes no keys for no selection, so the driver meets this only in old jobs.
        job = await bench.create(keys=("a",))
        await bench.store.database.write(
            lambda connection: connection.exec_driver_sql("DELETE FROM job_keys")
        )
        async with bench.driving(ScriptedEngine(script)):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts == Counts()


class TestPauseAndAbort:
    async def test_the_report_under_way_is_committed_and_nothing_more_begins(
        self, bench: Bench
    ) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await gate.wait()
            return await steps(3)(task)

        engine = ScriptedEngine(script)
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            await until(lambda: engine.tasks)
            await bench.store.apply(ACCOUNT, job.id, Command.PAUSE)
            driver.wake()
            gate.set()
            await until(lambda: bench.metric("slurper_commits_total", outcome="applied") == 1)
            await asyncio.sleep(0.05)
            progress = await bench.progress(job)
            assert (progress.status, progress.counts.objects) == (JobStatus.PAUSED, 1)
            assert len(engine.tasks) == 1
            assert engine.ended == [job.id], "its connections are not closed"
            await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 3
        assert [task.slice.start_after for task in engine.tasks] == [None, "0001", "0002"]
        assert [task.replayed_since for task in engine.tasks] == [None] * 3
        assert engine.ended == [job.id] * 2

    @pytest.mark.parametrize("command", [Command.PAUSE, Command.ABORT])
    async def test_a_job_that_waits_for_its_turn_gets_none_any_more(
        self, bench: Bench, command: Command
    ) -> None:
        """Also when this driver has not heard of it: another server took the command."""
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await gate.wait()
            return await steps(1)(task)

        engine = ScriptedEngine(script, slots=1)
        first, waiting = await bench.create(), await bench.create()
        async with bench.driving(engine):
            await until(lambda: engine.tasks)
            await bench.store.apply(ACCOUNT, waiting.id, command)
            gate.set()
            await bench.until(first, JobStatus.COMPLETED)
            await asyncio.sleep(0.05)
        assert engine.tasks_of(waiting) == []
        assert set(engine.ended) <= {first.id, waiting.id}

    async def test_a_task_gets_the_secrets_that_were_given_last(self, bench: Bench) -> None:
        renewed = JobSecrets(source=SECRETS.source, target=SECRETS.source)
        job = await bench.create()

        async def script(task: RangeTask) -> RangeReport:
            await bench.store.renew_secrets(ACCOUNT, job.id, bench.sealer.seal(renewed))
            return await steps(2)(task)

        engine = ScriptedEngine(script)
        async with bench.driving(engine):
            await bench.until(job, JobStatus.COMPLETED)
        given = [task.target.credentials for task in engine.tasks]
        assert given == [SECRETS.target, SECRETS.source]

    async def test_a_job_paused_during_its_last_task_completes_on_resume(
        self, bench: Bench
    ) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await gate.wait()
            return report(task, "z", objects=1, finished=True)

        engine = ScriptedEngine(script)
        job = await bench.create()
        async with bench.driving(engine) as driver:
            await until(lambda: engine.tasks)
            await bench.store.apply(ACCOUNT, job.id, Command.PAUSE)
            gate.set()
            await until(lambda: bench.metric("slurper_commits_total", outcome="applied") == 1)
            assert (await bench.progress(job)).status is JobStatus.PAUSED
            await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
            driver.wake()
            await bench.until(job, JobStatus.COMPLETED)
        assert len(engine.tasks) == 1

    @pytest.mark.parametrize("delete", [False, True])
    async def test_abort_ends_it_and_so_does_deleting_it_meanwhile(
        self, bench: Bench, *, delete: bool
    ) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await gate.wait()
            return await steps(9)(task)

        engine = ScriptedEngine(script)
        job = await bench.create()
        async with bench.driving(engine) as driver:
            await until(lambda: engine.tasks)
            await bench.store.apply(ACCOUNT, job.id, Command.ABORT)
            if delete:
                await bench.store.delete_job(ACCOUNT, job.id)
            gate.set()
            await until(lambda: not driver._tasks)
            other = await bench.create()
            driver.wake()
            await bench.until(other, JobStatus.COMPLETED)
        assert len(engine.tasks_of(job)) == 1
        if not delete:
            progress = await bench.progress(job)
            assert (progress.status, progress.counts.objects) == (JobStatus.ABORTED, 1)

    async def test_a_halt_pauses_with_its_log_entry_and_resume_replays(self, bench: Bench) -> None:
        halts = [
            Halt(log_type=LogType.MIGRATION_ERROR_FAILED_CONTINUATION, message="listing broke")
        ]

        async def script(task: RangeTask) -> RangeReport:
            if task.slice.start_after == "0002" and halts:
                return report(task, "0003", objects=1, halt=halts.pop())
            return await steps(5)(task)

        engine = ScriptedEngine(script)
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            progress = await bench.until(job, JobStatus.PAUSED)
            assert progress.counts.objects == 3
            await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 5
        entries = await bench.log_of(job)
        assert [entry.log_type for entry in entries[1:3]] == [
            LogType.MIGRATION_ERROR_FAILED_CONTINUATION,
            LogType.MIGRATION_RESUME,
        ]
        assert entries[1].message == "listing broke"
        # Objects beyond the one that halted the task may have been copied by it.
        replays = [task.slice.start_after for task in engine.tasks if task.replayed_since]
        assert replays == ["0003", "0004"]
        assert bench.metric("slurper_jobs_ended_total", status="paused") == 1


class TestStopping:
    async def test_stop_waits_for_tasks_and_commits_them(self, bench: Bench) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await gate.wait()
            return await steps(9)(task)

        engine = ScriptedEngine(script)
        job = await bench.create()
        driver = bench.driver(engine)
        running = asyncio.create_task(driver.run())
        await until(lambda: engine.tasks)
        stopping = asyncio.create_task(driver.stop(60))
        await asyncio.sleep(0)
        gate.set()
        await stopping
        await running
        progress = await bench.progress(job)
        assert (progress.status, progress.counts.objects) == (JobStatus.RUNNING, 1)
        assert len(engine.tasks) == 1

    @pytest.mark.parametrize("how", ["stop", "cancel"])
    async def test_what_is_abandoned_changes_nothing(self, bench: Bench, how: str) -> None:
        async def script(task: RangeTask) -> RangeReport:
            await asyncio.sleep(3600)
            return report(task, "k", objects=1)

        engine = ScriptedEngine(script)
        job = await bench.create()
        driver = bench.driver(engine)
        running = asyncio.create_task(driver.run())
        await until(lambda: engine.tasks)
        if how == "stop":
            await driver.stop(0.01)
        else:
            running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await bench.progress(job)).counts == Counts()
        assert bench.metric("slurper_tasks_total", outcome="cancelled") == 1

    async def test_the_next_driver_goes_on_at_the_cursors_and_expects_replays(
        self, bench: Bench
    ) -> None:
        async def hang_at_3(task: RangeTask) -> RangeReport:
            if task.slice.start_after == "0003":
                await asyncio.sleep(3600)
            return await steps(6)(task)

        job = await bench.create(overwrite=False)
        first = ScriptedEngine(hang_at_3)
        running = asyncio.create_task(bench.driver(first).run())
        await until(lambda: first.tasks and first.tasks[-1].slice.start_after == "0003")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        second = ScriptedEngine(steps(6))
        async with bench.driving(second):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 6
        assert [task.slice.start_after for task in second.tasks] == ["0003", "0004", "0005"]
        since = second.tasks[0].replayed_since
        assert since is not None
        assert timedelta() < job.created_at - since < timedelta(seconds=2.1)
        assert [task.replayed_since for task in second.tasks[1:]] == [since, since]

    async def test_a_job_made_under_this_driver_is_no_replay(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(3))
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            await bench.until(job, JobStatus.COMPLETED)
        assert [task.replayed_since for task in engine.tasks] == [None] * 3


class TestHousekeeping:
    async def test_secrets_of_ended_jobs_are_erased_after_the_retention(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chores, "HOUSEKEEPING_SECONDS", 0.01)
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)
        job = await bench.create()
        kept = await bench.create()
        await bench.store.apply(ACCOUNT, kept.id, Command.PAUSE)
        async with bench.driving(ScriptedEngine(steps(1)), secret_retention_seconds=0.0):
            await bench.until(job, JobStatus.COMPLETED)
            for _ in range(1000):
                if await self._sealed(bench, job.id) is None:
                    break
                await asyncio.sleep(0.005)
        assert await self._sealed(bench, job.id) is None
        assert await self._sealed(bench, kept.id) is not None

    async def test_answers_are_forgotten_after_their_time(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chores, "HOUSEKEEPING_SECONDS", 0.01)
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)
        now = datetime.now(UTC)
        row = {"account_id": ACCOUNT, "digest": b"d", "retries": 0, "answered_at": now}
        rows = [
            row | {"name": b"due", "job_id": "1", "kept_until": now},
            row | {"name": b"kept", "job_id": "2", "kept_until": now + timedelta(hours=1)},
        ]
        await bench.store.database.write(
            lambda connection: connection.execute(insert(answers), rows)
        )

        def left(connection: Connection) -> list[str]:
            return list(connection.scalars(select(answers.c.job_id)))

        async with bench.driving(ScriptedEngine(steps(1))):
            for _ in range(1000):
                if len(await bench.store.database.read(left)) == 1:
                    break
                await asyncio.sleep(0.005)
        assert await bench.store.database.read(left) == ["2"]

    async def test_what_ended_jobs_leave_goes_and_then_they_go_themselves(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chores, "HOUSEKEEPING_SECONDS", 0.01)
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)

        async def count(table: Table) -> int:
            query = select(func.count()).select_from(table)
            return await bench.store.database.read(
                lambda connection: connection.execute(query).scalar_one()
            )

        async def becomes(table: Table, number: int) -> None:
            for _ in range(1000):
                if await count(table) == number:
                    return
                await asyncio.sleep(0.005)
            pytest.fail(f"{table.name} has {await count(table)} rows")

        job, kept = await bench.create(), await bench.create()
        await bench.store.apply(ACCOUNT, kept.id, Command.PAUSE)
        async with bench.driving(ScriptedEngine(steps(1))):
            await bench.until(job, JobStatus.COMPLETED)
            await becomes(ranges, 1)
        assert await count(jobs) == 2, "jobs are kept for ever, unless a setting says otherwise"
        a_moment = 0.01 / 86_400
        async with bench.driving(ScriptedEngine(steps(1)), job_retention_days=a_moment):
            await becomes(jobs, 1)
        assert (await bench.progress(kept)).status is JobStatus.PAUSED

    async def test_secrets_are_kept_for_the_retention(self, bench: Bench) -> None:
        job = await bench.create()
        async with bench.driving(ScriptedEngine(steps(1)), secret_retention_seconds=3600.0):
            await bench.until(job, JobStatus.COMPLETED)
        async with bench.driving(ScriptedEngine(steps(1)), secret_retention_seconds=3600.0):
            await asyncio.sleep(0.05)
        assert await self._sealed(bench, job.id) is not None
        assert (
            await Housekeeping(bench.work.database, bench.work.lease).erase_secrets(
                datetime.now(UTC)
            )
            == 1
        )

    async def test_housekeeping_that_fails_does_not_stop_the_jobs(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(_self: Housekeeping, _before: datetime) -> int:
            raise errors.DatabaseUnavailable("disk is full")

        monkeypatch.setattr(Housekeeping, "erase_secrets", fail)
        job = await bench.create()
        async with bench.driving(ScriptedEngine(steps(3))):
            await bench.until(job, JobStatus.COMPLETED)

    async def _sealed(self, bench: Bench, job_id: str) -> bytes | None:
        query = select(jobs.c.sealed).where(jobs.c.id == job_id)
        return await bench.store.database.read(
            lambda connection: connection.execute(query).scalar_one()
        )


class TestBounds:
    async def test_a_job_with_a_full_log_pauses_and_goes_on_with_a_higher_bound(
        self, bench: Bench
    ) -> None:
        async def fail(task: RangeTask) -> RangeReport:
            number = int(task.slice.start_after or "0") + 1
            failed = LogType.IMPORT_ERROR_RETRY_EXHAUSTION
            event = ObjectEvent(key=f"{number:04}", log_type=failed, message="broken")
            settled = report(task, event.key, finished=number >= 20, events=(event,))
            return replace(settled, counts=Counts(objects=1, failed=1))

        job = await bench.create()
        async with bench.driving(ScriptedEngine(fail), job_log_entries=8):
            progress = await bench.until(job, JobStatus.PAUSED)
        assert progress.counts.failed == 7, "and one entry is that of the start"
        *_, last = await bench.log_of(job)
        assert "SLURPER_JOB_LOG_ENTRIES" in (last.message or "")
        assert bench.metric("slurper_jobs_ended_total", status="paused") == 1
        await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
        async with bench.driving(ScriptedEngine(fail), job_log_entries=100):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.failed == 20
        keys = [entry.object_key for entry in await bench.log_of(job) if entry.object_key]
        assert keys == [f"{number:04}" for number in range(1, 21)]


class TestLimits:
    async def test_tasks_get_their_share_and_a_change_reaches_the_next_one(
        self, bench: Bench
    ) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            if task.slice.start_after is not None:
                return report(task, "b", objects=1, finished=True)
            await gate.wait()
            return report(task, "a", objects=1)

        engine = ScriptedEngine(script)
        options = JobOptions(bandwidth_limit=1000, request_rate_limit=10)
        job = await bench.create(options=options)
        async with bench.driving(engine) as driver:
            await until(lambda: engine.tasks)
            await bench.store.change_options(
                ACCOUNT, job.id, lambda options: replace(options, bandwidth_limit=None)
            )
            driver.wake()
            options = driver._board.jobs[job.id].job.spec.options
            await until(lambda: driver._board.jobs[job.id].job.spec.options != options)
            gate.set()
            await bench.until(job, JobStatus.COMPLETED)
        shares = [task.share for task in engine.tasks if task.share is not None]
        assert [replace(share, credit_seconds=0.0) for share in shares] == [
            Share(bytes_per_second=1000, requests_per_second=10),
            Share(bytes_per_second=None, requests_per_second=10),
        ]
        assert shares[0].credit_seconds == 0
        assert shares[1].credit_seconds > 0  # the commit took a while

    async def test_without_limits_nothing_is_paced(self, bench: Bench) -> None:
        engine = ScriptedEngine(steps(1))
        async with bench.driving(engine):
            await bench.until(await bench.create(), JobStatus.COMPLETED)
        assert [task.share for task in engine.tasks] == [None]

    async def test_a_range_that_owes_waits_and_takes_no_slot_meanwhile(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            if task.prefix == "owes/":
                return report(task, "a", objects=1, owed_seconds=3600.0)
            return await steps(3)(task)

        engine = ScriptedEngine(script, slots=1)
        owing = await bench.create(prefix="owes/")
        other = await bench.create()
        async with bench.driving(engine):
            await bench.until(other, JobStatus.COMPLETED)
            assert len(engine.tasks_of(owing)) == 1
            assert (await bench.progress(owing)).counts.objects == 1

    async def test_what_a_task_owes_by_limits_that_are_lifted_is_not_waited_for(
        self, bench: Bench
    ) -> None:
        gate = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            if task.slice.start_after is not None:
                return report(task, "b", objects=1, finished=True)
            await gate.wait()
            return report(task, "a", objects=1, owed_seconds=3600.0)

        engine = ScriptedEngine(script)
        job = await bench.create(options=JobOptions(bandwidth_limit=1))
        async with bench.driving(engine) as driver:
            await until(lambda: engine.tasks)
            await bench.store.change_options(ACCOUNT, job.id, lambda _: JobOptions())
            driver.wake()
            await until(lambda: not driver._board.jobs[job.id].job.spec.options.is_limited)
            gate.set()
            await bench.until(job, JobStatus.COMPLETED)
