"""Lifecycle and store together against a model of a few dictionaries, in random order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from slurper import errors
from slurper.database import in_batches
from slurper.database.job_row import CommitResult, RangeWork
from slurper.job.lifecycle import Command
from slurper.job.model import Job, LogType
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import Halt, RangeReport
from tests.unit.database import values
from tests.unit.database.values import Store

LIMIT = 3
Result = TypeVar("Result")
_machines = count()

# The lifecycle once more, in other words than the module under test.
COMMANDS = {
    Command.PAUSE: ({"running"}, "paused", "migrationPause"),
    Command.RESUME: ({"paused"}, "running", "migrationResume"),
    Command.ABORT: ({"running", "paused"}, "aborted", "migrationAbort"),
}


@dataclass
class ModelJob:
    """What a job should look like."""

    job: Job
    range_id: int
    status: str = "running"
    cursor: str | None = None
    done: bool = False
    transferred: int = 0
    skipped: int = 0
    failed: int = 0
    failed_keys: list[str] = field(default_factory=list)
    log: list[tuple[str, str | None]] = field(default_factory=lambda: [("migrationStart", None)])

    @property
    def active(self) -> bool:
        return self.status in {"running", "paused"}

    def allows(self, command: Command) -> bool:
        return self.status in COMMANDS[command][0]

    def give(self, command: Command) -> None:
        _, self.status, log_type = COMMANDS[command]
        self.log.append((log_type, None))
        self.complete_if_done()

    def complete_if_done(self) -> None:
        if self.status == "running" and self.done:
            self.status = "completed"
            self.log.append(("migrationComplete", None))

    def settle(self, report: RangeReport) -> bool:
        """Take a report in; False when it is stale."""
        if self.done or report.started_after != self.cursor:
            return False
        self.cursor, self.done = report.cursor, report.finished
        self.transferred += report.counts.transferred
        self.skipped += report.counts.skipped
        self.failed += report.counts.failed
        self.log += [(event.log_type.value, event.key) for event in report.events]
        self.failed_keys += [event.key for event in report.events]
        if report.halt and self.status == "running":
            self.status = "paused"
            self.log.append((report.halt.log_type.value, None))
        self.complete_if_done()
        return True


class StoreMachine(RuleBasedStateMachine):
    """One account of a store that other examples used before."""

    store: Store
    runner: asyncio.Runner

    jobs = Bundle("jobs")
    reports = Bundle("reports")

    def __init__(self) -> None:
        super().__init__()
        self.account = f"account{next(_machines)}"
        self.model: dict[str, ModelJob] = {}
        self.keys = count()

    def run(self, work: Awaitable[Result]) -> Result:
        async def awaited() -> Result:
            return await work

        return self.runner.run(awaited())

    def active(self) -> list[ModelJob]:
        return [job for job in self.model.values() if job.active]

    @rule(target=jobs, keys=st.sampled_from([None, ("a", "b")]))
    def create(self, keys: tuple[str, ...] | None) -> object:
        job = values.job(self.account, keys=keys)
        creating = values.create(self.store, job, max_active=LIMIT)
        if len(self.active()) >= LIMIT:
            with pytest.raises(errors.JobLimitReached):
                self.run(creating)
            return multiple()
        self.model[job.id] = ModelJob(job, self.run(creating).range_id)
        return job.id

    @rule(target=jobs, job_id=jobs)
    def retry(self, job_id: str) -> object:
        expected = self.model.get(job_id)
        job = replace(values.job(self.account, keys=()), retry_of=job_id)
        entry = values.started(job)
        retrying = self.store.create_retry(job, values.SEALED, max_active=LIMIT, entry=entry)
        if expected is None:
            with pytest.raises(errors.JobNotFound):
                self.run(retrying)
            return multiple()
        if expected.active or not expected.failed_keys or len(self.active()) >= LIMIT:
            with pytest.raises(errors.JobConflict):
                self.run(retrying)
            return multiple()
        self.run(retrying)
        self.tidy()
        (work,) = self.run(values.open_ranges(self.store, job))
        self.model[job.id] = ModelJob(job, work.range_id)
        keys = self.run(self.store.work.keys_within(job.id, KeyRange(), limit=1000))
        assert list(keys) == sorted(expected.failed_keys, key=str.encode)
        return job.id

    @rule()
    def tidy(self) -> None:
        while self.run(values.housekeeping(self.store.work).tidy()):
            pass

    @rule(job_id=jobs, command=st.sampled_from(list(COMMANDS)))
    def command(self, job_id: str, command: Command) -> None:
        expected = self.model.get(job_id)
        commanding = self.store.apply(self.account, job_id, command)
        if expected is None:
            with pytest.raises(errors.JobNotFound):
                self.run(commanding)
        elif not expected.allows(command):
            with pytest.raises(errors.JobConflict):
                self.run(commanding)
        else:
            expected.give(command)
            assert self.run(commanding).status.value == expected.status

    @rule(command=st.sampled_from(list(COMMANDS)))
    def command_all(self, command: Command) -> None:
        allowing = [one for one in self.model.values() if one.active and one.allows(command)]
        changed = self.run(self.store.apply_all(self.account, command))
        assert [job.id for job in changed] == [one.job.id for one in allowing]
        for one in allowing:
            one.give(command)

    @rule(
        target=reports,
        job_id=jobs,
        transferred=st.integers(0, 3),
        skipped=st.integers(0, 2),
        failed=st.integers(0, 2),
        finished=st.booleans(),
        halts=st.booleans(),
    )
    def work(
        self,
        job_id: str,
        *,
        transferred: int,
        skipped: int,
        failed: int,
        finished: bool,
        halts: bool,
    ) -> object:
        """A worker begins where the job stands now; its report may be committed much later."""
        expected = self.model.get(job_id)
        if expected is None:
            return multiple()
        work = RangeWork(
            range_id=expected.range_id,
            slice=KeyRange(expected.cursor, None),
        )
        cursor = f"k{next(self.keys):06}"
        return values.report(
            expected.job,
            work,
            cursor,
            transferred=transferred,
            skipped=skipped,
            failed=tuple(f"{cursor}/{number}" for number in range(failed)),
            finished=finished,
            halt=Halt(log_type=LogType.MIGRATION_ERROR, message="no") if halts else None,
        )

    @rule(report=reports)
    def commit(self, report: RangeReport) -> None:
        expected = self.model.get(report.job_id)
        outcome: CommitResult = self.run(self.store.work.commit(report, values.now()))
        if expected is None:
            assert not outcome.applied
            return
        assert outcome.applied == expected.settle(report)
        assert outcome.status.value == expected.status
        assert outcome.still_open == (not expected.done)

    @rule(job_id=consumes(jobs))
    def delete(self, job_id: str) -> None:
        expected = self.model.get(job_id)
        deleting = self.store.delete_job(self.account, job_id)
        if expected is None:
            with pytest.raises(errors.JobNotFound):
                self.run(deleting)
        elif expected.active:
            with pytest.raises(errors.JobConflict):
                self.run(deleting)
        else:
            self.run(deleting)
            del self.model[job_id]

    @precondition(lambda self: self.model)
    @rule()
    def erase(self) -> None:
        self.run(
            values.housekeeping(self.store.work).erase_secrets(
                datetime.now(UTC) + timedelta(hours=1)
            )
        )

    @invariant()
    def jobs_are_as_expected(self) -> None:
        listed = self.run(self.store.list_jobs(self.account, limit=50, offset=0))
        newest_first = list(reversed(self.model.values()))
        assert [job.id for job in listed] == [one.job.id for one in newest_first]
        for expected in newest_first:
            self.is_as_expected(expected)

    def is_as_expected(self, expected: ModelJob) -> None:
        job_id = expected.job.id
        progress = self.run(self.store.progress(self.account, job_id))
        counts = progress.counts
        assert progress.status.value == expected.status
        assert (progress.finished_at is None) == expected.active
        assert (counts.transferred, counts.skipped, counts.failed) == (
            expected.transferred,
            expected.skipped,
            expected.failed,
        )
        assert counts.objects == counts.transferred + counts.skipped + counts.failed
        entries = self.run(self.store.logs(self.account, job_id, limit=1000, offset=0))
        assert [(entry.log_type.value, entry.object_key) for entry in entries] == expected.log

    @invariant()
    def running_work_is_as_expected(self) -> None:
        found = self.run(self.store.work.running_jobs())
        work = {one.job.id: one for one in found if one.job.account_id == self.account}
        running = [one for one in self.model.values() if one.status == "running"]
        assert list(work) == [one.job.id for one in running]
        for expected in running:
            (left,) = work[expected.job.id].ranges
            assert left.slice == KeyRange(expected.cursor, None)
            assert work[expected.job.id].job == values.without_keys(expected.job)

    def teardown(self) -> None:
        self.run(self.store.apply_all(self.account, Command.ABORT))


def test_the_store_agrees_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_batches, "PIECE_ROWS", 3)
    with asyncio.Runner() as runner:
        store = runner.run(Store.open(f"sqlite:///{tmp_path / 'slurper.db'}"))
        machine = type("Machine", (StoreMachine,), {"store": store, "runner": runner})
        bounded = settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(machine, settings=bounded)
        finally:
            runner.run(store.close())
