"""What the driver promises when workers, databases and settings fail it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from slurper import errors
from slurper.database.bounds import Bounds
from slurper.database.store import JobStore
from slurper.driver import assignment, turn
from slurper.driver import loop as driver_module
from slurper.driver.loop import MAX_FAILURES
from slurper.job.lifecycle import Command
from slurper.job.model import JobStatus, LogType
from slurper.secrets import Sealer
from slurper.transfer.task import Halt, RangeReport, RangeTask
from tests.unit.database.values import held
from tests.unit.driver.conftest import (
    ACCOUNT,
    SECRETS,
    SPEC,
    Bench,
    Script,
    ScriptedEngine,
    report,
    steps,
    until,
)


def failing(at: str, error: Exception, *, times: int, then: Script) -> Script:
    """A worker that fails `times` times on the slice after the key `at`."""
    left = times

    async def script(task: RangeTask) -> RangeReport:
        nonlocal left
        if task.slice.start_after == at and left:
            left -= 1
            raise error
        return await then(task)

    return script


class TestWantOfDescriptors:
    async def test_a_task_that_finds_none_is_run_again(self, bench: Bench) -> None:
        """Its requests have waited for long already. The next task may find some."""
        none_left = errors.TooManyOpenFiles("too many open files")
        assert none_left.blocks_job, "or this shows nothing"
        engine = ScriptedEngine(failing("0002", none_left, times=3, then=steps(4)))
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 4

    async def test_a_want_that_lasts_pauses_the_job_and_is_named(self, bench: Bench) -> None:
        none_left = errors.TooManyOpenFiles("too many open files")
        engine = ScriptedEngine(failing("0002", none_left, times=MAX_FAILURES, then=steps(4)))
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            await bench.until(job, JobStatus.PAUSED)
            message = (await bench.log_of(job))[-1].message
        assert message is not None
        assert "too many open files" in message
        assert "ulimit -n" in message


class TestLostWorkers:
    async def test_the_same_slice_runs_again_as_a_replay_with_less_time(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lost = errors.WorkerLost("killed by SIGKILL")
        engine = ScriptedEngine(failing("0002", lost, times=3, then=steps(4)))
        monkeypatch.setattr(assignment, "AGE_SHARE", 1e12)
        async with bench.driving(engine, task_seconds=8.0) as driver:
            job = await bench.create(overwrite=False)
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 4
        tries = [task for task in engine.tasks if task.slice.start_after == "0002"]
        assert [task.budget_seconds for task in tries] == [8.0, 4.0, 2.0, 1.0]
        assert tries[0].replayed_since is None
        since = tries[1].replayed_since
        assert since is not None
        assert since < job.created_at
        assert [task.replayed_since for task in tries[2:]] == [since, since]
        after = engine.tasks[-1]
        assert (after.slice.start_after, after.budget_seconds) == ("0003", 8.0)
        assert after.replayed_since == since  # the lost task may have come as far
        assert bench.metric("slurper_tasks_total", outcome="lost") == 3

    async def test_a_slice_lost_while_its_job_is_paused_is_a_replay_on_resume(
        self, bench: Bench
    ) -> None:
        gate = asyncio.Event()

        async def lose_first(task: RangeTask) -> RangeReport:
            if not gate.is_set():
                await gate.wait()
                raise errors.WorkerLost("killed by SIGKILL")
            return await steps(2)(task)

        engine = ScriptedEngine(lose_first)
        async with bench.driving(engine) as driver:
            job = await bench.create()
            driver.wake()
            await until(lambda: engine.tasks)
            await bench.store.apply(ACCOUNT, job.id, Command.PAUSE)
            driver.wake()
            await asyncio.sleep(0.05)
            gate.set()
            await until(lambda: bench.metric("slurper_tasks_total", outcome="lost") == 1)
            await asyncio.sleep(0.05)
            assert len(engine.tasks) == 1
            await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
            driver.wake()
            await bench.until(job, JobStatus.COMPLETED)
        assert [task.replayed_since is not None for task in engine.tasks] == [False, True, True]

    async def test_a_slice_that_always_kills_its_worker_pauses_the_job_and_names_the_slice(
        self, bench: Bench
    ) -> None:
        lost = errors.WorkerLost("worker process 1 was killed by SIGSEGV while it ran the task")
        poison = failing("0003", lost, times=MAX_FAILURES, then=steps(5))
        engine = ScriptedEngine(poison)
        async with bench.driving(engine) as driver:
            job = await bench.create()
            other = await bench.create()
            driver.wake()
            engine.script = by_job({job.id: poison, other.id: steps(30)})
            progress = await bench.until(job, JobStatus.PAUSED)
            assert progress.counts.objects == 3
            tries = [task for task in engine.tasks_of(job) if task.slice.start_after == "0003"]
            assert len(tries) == MAX_FAILURES
            assert tries[-1].budget_seconds == 0.5
            entry = (await bench.log_of(job))[-1]
            assert entry.log_type is LogType.MIGRATION_ERROR
            assert entry.message is not None
            assert f"Range {tries[0].range_id}" in entry.message
            assert "'0003'" in entry.message
            assert "SIGSEGV" in entry.message
            assert "resume" in entry.message
            await bench.until(other, JobStatus.COMPLETED)
            # Once the cause is gone, resume goes on at the cursor.
            await bench.store.apply(ACCOUNT, job.id, Command.RESUME)
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 5

    async def test_losses_that_are_not_in_a_row_do_not_add_up(self, bench: Bench) -> None:
        async def lose_every_other(task: RangeTask) -> RangeReport:
            if task.replayed_since is None:
                raise errors.WorkerLost("killed by SIGKILL")
            return await steps(3 * MAX_FAILURES)(task)

        async with bench.driving(ScriptedEngine(lose_every_other)) as driver:
            job = await bench.create()
            driver.wake()
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 3 * MAX_FAILURES


class TestTasksThatRaise:
    async def test_an_unexpected_error_is_tried_again(self, bench: Bench) -> None:
        engine = ScriptedEngine(failing("0001", RuntimeError("a bug"), times=2, then=steps(3)))
        job = await bench.create()
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 3
        assert bench.metric("slurper_tasks_total", outcome="failed") == 2

    async def test_one_that_does_not_go_away_pauses_the_job(self, bench: Bench) -> None:
        engine = ScriptedEngine(failing("0001", RuntimeError("a bug"), times=99, then=steps(3)))
        job = await bench.create()
        async with bench.driving(engine):
            await bench.until(job, JobStatus.PAUSED)
        message = (await bench.log_of(job))[-1].message or ""
        assert "RuntimeError: a bug" in message
        assert len(engine.tasks) == 1 + MAX_FAILURES

    async def test_one_that_would_fail_every_task_pauses_the_job_at_once(
        self, bench: Bench
    ) -> None:
        error = errors.CredentialsRejected("ListObjectsV2", status=403, code="InvalidAccessKeyId")
        engine = ScriptedEngine(failing("0001", error, times=99, then=steps(3)))
        job = await bench.create()
        async with bench.driving(engine):
            await bench.until(job, JobStatus.PAUSED)
        message = (await bench.log_of(job))[-1].message or ""
        assert "HTTP 403 InvalidAccessKeyId" in message
        assert "renew the credentials" in message
        assert len(engine.tasks) == 2

    async def test_a_report_that_contradicts_itself_pauses_the_job(self, bench: Bench) -> None:
        async def script(task: RangeTask) -> RangeReport:
            return report(task, task.slice.start_after, objects=5)

        job = await bench.create()
        async with bench.driving(ScriptedEngine(script)):
            progress = await bench.until(job, JobStatus.PAUSED)
        assert progress.counts.objects == 0
        assert "ValueError" in ((await bench.log_of(job))[-1].message or "")

    async def test_a_task_without_progress_is_not_repeated_in_a_rush(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turn, "_FRUITLESS_DELAY_SECONDS", 3600.0)

        async def script(task: RangeTask) -> RangeReport:
            return report(task, task.slice.start_after, throttled=50)

        engine = ScriptedEngine(script)
        await bench.create()
        async with bench.driving(engine):
            await until(lambda: bench.metric("slurper_commits_total", outcome="applied") == 1)
            await asyncio.sleep(0.1)
        assert len(engine.tasks) == 1
        assert bench.metric("slurper_throttled_total") == 50

    async def test_several_slices_halting_at_once_pause_the_job_once(self, bench: Bench) -> None:
        halt = Halt(log_type=LogType.MIGRATION_ERROR, message="the bucket is gone")

        async def script(task: RangeTask) -> RangeReport:
            await asyncio.sleep(0.05)
            return report(task, "k" if task.slice.end_at else "s", objects=1, halt=halt)

        job = await bench.create()
        await bench.store.database.write(_cut_ranges_in_two)
        async with bench.driving(ScriptedEngine(script)):
            await bench.until(job, JobStatus.PAUSED)
            await until(lambda: bench.metric("slurper_commits_total", outcome="applied") == 2)
        assert [entry.log_type for entry in await bench.log_of(job)].count(
            LogType.MIGRATION_ERROR
        ) == 1
        assert bench.metric("slurper_jobs_ended_total", status="paused") == 1


def _cut_ranges_in_two(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE ranges SET end_at = X'6D'")
    connection.exec_driver_sql(
        "INSERT INTO ranges (job_number, start_after, done, committed_at)"
        " SELECT job_number, end_at, done, committed_at FROM ranges"
    )


def by_job(scripts: dict[str, Script]) -> Script:
    async def script(task: RangeTask) -> RangeReport:
        return await scripts[task.job_id](task)

    return script


def _wait_briefly(connection: DBAPIConnection, _record: object, _proxy: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 20")
    cursor.close()


class TestDatabase:
    async def test_a_report_survives_a_locked_database(self, bench: Bench) -> None:
        bench.work.commits_to_fail = 5
        engine = ScriptedEngine(steps(3))
        job = await bench.create()
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 3
        assert len(engine.tasks) == 3, "no task was run twice for it"
        assert bench.metric("slurper_commits_total", outcome="delayed") == 5

    async def test_really_locked(self, bench: Bench) -> None:
        """Somebody else holds the write lock for longer than a transaction waits."""
        locked = asyncio.Event()

        async def script(task: RangeTask) -> RangeReport:
            await locked.wait()
            return await steps(2)(task)

        event.listen(bench.store.database._engine, "checkout", _wait_briefly)
        other = await JobStore.open(bench.settings.resolved_database_url)
        engine = ScriptedEngine(script)
        job = await bench.create()
        try:
            async with bench.driving(engine):
                await until(lambda: engine.tasks)
                async with held(other.database):
                    locked.set()
                    await until(
                        lambda: bench.metric("slurper_commits_total", outcome="delayed") >= 2
                    )
                progress = await bench.until(job, JobStatus.COMPLETED)
        finally:
            await other.close()
        assert progress.counts.objects == 2
        assert len(engine.tasks) == 2

    async def test_stop_gives_a_waiting_report_its_grace(self, bench: Bench) -> None:
        bench.work.commits_to_fail = 3
        job = await bench.create()
        engine = ScriptedEngine(steps(9), slots=1)
        driver = bench.driver(engine)
        running = asyncio.create_task(driver.run())
        await until(lambda: bench.metric("slurper_commits_total", outcome="delayed") >= 1)
        await driver.stop(30)
        await running
        assert (await bench.progress(job)).counts.objects == 1

    async def test_a_database_away_at_the_end_of_the_grace_costs_only_the_report(
        self, bench: Bench
    ) -> None:
        bench.work.commits_to_fail = 10**9
        job = await bench.create()
        driver = bench.driver(ScriptedEngine(steps(2)))
        running = asyncio.create_task(driver.run())
        await until(lambda: bench.metric("slurper_commits_total", outcome="delayed") >= 1)
        await driver.stop(0.01)
        await running
        bench.work.commits_to_fail = 0
        engine = ScriptedEngine(steps(2))
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 2
        assert engine.tasks[0].replayed_since is not None

    async def test_an_answer_lost_after_the_commit_counts_once(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = bench.work.commit
        lost = [True]

        async def commit_and_lose_the_answer(
            said: RangeReport, at: datetime, *, bounds: Bounds
        ) -> object:
            outcome = await commit(said, at, bounds=bounds)
            if lost and said.started_after == "0001":
                lost.clear()
                raise errors.DatabaseUnavailable("server closed the connection")
            return outcome

        monkeypatch.setattr(bench.work, "commit", commit_and_lose_the_answer)
        engine = ScriptedEngine(steps(4))
        job = await bench.create()
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 4
        assert len(engine.tasks) == 4
        assert bench.metric("slurper_commits_total", outcome="stale") == 1

    @pytest.mark.parametrize(
        "failure", [errors.DatabaseUnavailable("disk I/O error"), RuntimeError("no such table")]
    )
    async def test_reading_that_fails_is_tried_again(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.01)
        bench.work.failure = failure
        bench.work.reads_to_fail = 3
        job = await bench.create()
        async with bench.driving(ScriptedEngine(steps(2))):
            await bench.until(job, JobStatus.COMPLETED)

    async def test_a_slow_read_does_not_take_the_board_back(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reports committed while running jobs are read must not be undone by what was read."""
        read = bench.work.running_jobs

        async def read_slowly() -> object:
            works = await read()
            await asyncio.sleep(0.02)
            return works

        monkeypatch.setattr(bench.work, "running_jobs", read_slowly)
        monkeypatch.setattr(driver_module, "POLL_SECONDS", 0.001)
        engine = ScriptedEngine(steps(60))
        job = await bench.create()
        async with bench.driving(engine):
            progress = await bench.until(job, JobStatus.COMPLETED)
        assert progress.counts.objects == 60
        assert len(engine.tasks) == 60, "no slice was submitted twice"
        assert bench.metric("slurper_commits_total", outcome="stale") == 0


class TestUnusableJobs:
    async def test_secrets_sealed_with_another_key_pause_the_job_and_no_other(
        self, bench: Bench
    ) -> None:
        stranger = Sealer((Fernet.generate_key().decode(),))
        broken = await bench.create(sealed=stranger.seal(SECRETS))
        fine = await bench.create()
        async with bench.driving(ScriptedEngine(steps(2))):
            await bench.until(broken, JobStatus.PAUSED)
            await bench.until(fine, JobStatus.COMPLETED)
        entry = (await bench.log_of(broken))[-1]
        assert entry.log_type is LogType.MIGRATION_ERROR
        assert "sealed with another key" in (entry.message or "")
        assert "resume" in (entry.message or "")

    async def test_an_address_the_settings_forbid_pauses_the_job(self, bench: Bench) -> None:
        target = SPEC.target.__class__(
            vendor=SPEC.target.vendor, bucket="to", endpoint="http://s3.example"
        )
        job = await bench.create(target=target)
        async with bench.driving(ScriptedEngine(steps(2)), allow_http=False):
            await bench.until(job, JobStatus.PAUSED)
        message = (await bench.log_of(job))[-1].message or ""
        assert "the target's endpoint must start with https://" in message

    async def test_replays_reach_back_to_the_jobs_creation_and_hardly_further(
        self, bench: Bench
    ) -> None:
        engine = ScriptedEngine(steps(1))
        job = await bench.create()
        async with bench.driving(engine):
            await bench.until(job, JobStatus.COMPLETED)
        since = engine.tasks[0].replayed_since
        assert since is not None
        assert since.microsecond == 0
        assert timedelta(seconds=1) <= job.created_at - since < timedelta(seconds=2)
