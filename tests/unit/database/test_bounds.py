"""A job has so many rows in the database and no more, and what was settled is counted exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.database import ranges, schema
from slurper.database.bounds import Bounds
from slurper.database.job_row import RangeWork
from slurper.job.lifecycle import Command
from slurper.job.model import MESSAGE_CHARACTERS, Job, JobStatus, LogEntry, LogType
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import GatherReport, ObjectEvent
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

TEN = Bounds(log_entries=10)


async def _fill(store: Store, job: Job, work: RangeWork) -> None:
    """Settle ten objects that failed, in one report."""
    failed = tuple(f"k{number}" for number in range(10))
    report = values.report(job, work, "k9", transferred=5, failed=failed)
    result = await store.work.commit(report, values.now(), bounds=TEN)
    assert (result.applied, result.status) == (True, JobStatus.PAUSED)
    assert "SLURPER_JOB_LOG_ENTRIES" in result.problem


async def _logged(store: Store, job: Job) -> list[LogEntry]:
    return await store.logs(ACCOUNT, job.id, limit=99, offset=0)


async def test_a_job_with_a_full_log_pauses_says_why_and_counts_what_was_settled(
    store: Store,
) -> None:
    job = values.job()
    work = await values.create(store, job)
    await _fill(store, job, work)
    counts = (await store.progress(ACCOUNT, job.id)).counts
    assert (counts.objects, counts.transferred, counts.failed) == (15, 5, 10)
    *_, last = await _logged(store, job)
    assert last.log_type is LogType.MIGRATION_ERROR
    assert "11 entries, as many as SLURPER_JOB_LOG_ENTRIES allows" in (last.message or "")
    assert "raise SLURPER_JOB_LOG_ENTRIES, start the service again" in (last.message or "")


async def test_it_goes_on_when_the_bound_was_raised_and_not_before(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await _fill(store, job, work)
    entries = len(await _logged(store, job))
    for _ in range(3):
        with pytest.raises(errors.JobConflict, match="SLURPER_JOB_LOG_ENTRIES"):
            await store.apply(ACCOUNT, job.id, Command.RESUME, bounds=TEN)
    assert len(await _logged(store, job)) == entries, "or the log grows by being resumed"
    higher = Bounds(log_entries=100)
    await store.apply(ACCOUNT, job.id, Command.RESUME, bounds=higher)
    (rest,) = await values.open_ranges(store, job)
    assert rest.slice == KeyRange("k9")
    done = values.report(job, rest, "z", transferred=1, failed=("z",), finished=True)
    result = await store.work.commit(done, values.now(), bounds=higher)
    assert result.status is JobStatus.COMPLETED
    counts = (await store.progress(ACCOUNT, job.id)).counts
    assert (counts.objects, counts.transferred, counts.failed) == (17, 6, 11)
    retried = await store.retried_job(ACCOUNT, job.id)
    assert retried.failed == 11


async def test_reports_that_were_under_way_are_counted_all_the_same(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    cut = replace(values.report(job, work, "a", transferred=1), boundaries=("m",))
    (second,) = (await store.work.commit(cut, values.now())).cut_off
    first = replace(work, slice=KeyRange("a", "m"))
    await _fill(store, job, first)
    late = values.report(job, second, "n", failed=("n",))
    result = await store.work.commit(late, values.now(), bounds=TEN)
    assert (result.applied, result.status) == (True, JobStatus.PAUSED)
    assert (await store.progress(ACCOUNT, job.id)).counts.failed == 11
    errors_logged = [
        one for one in await _logged(store, job) if one.log_type is LogType.MIGRATION_ERROR
    ]
    assert len(errors_logged) == 1


async def test_a_job_that_is_done_completes_however_long_its_log_is(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    failed = tuple(f"k{number:02}" for number in range(20))
    done = values.report(job, work, "k19", failed=failed, finished=True)
    result = await store.work.commit(done, values.now(), bounds=TEN)
    assert (result.status, result.problem) == (JobStatus.COMPLETED, "")


async def test_a_paused_job_that_is_done_completes_on_resume_however_long_its_log_is(
    store: Store,
) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    failed = tuple(f"k{number:02}" for number in range(20))
    done = values.report(job, work, "k19", failed=failed, finished=True)
    await store.work.commit(done, values.now(), bounds=TEN)
    resumed = await store.apply(ACCOUNT, job.id, Command.RESUME, bounds=TEN)
    assert resumed.status is JobStatus.COMPLETED


async def test_a_job_that_gathers_too_many_keys_pauses_and_keeps_them(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    none = replace(values.report(job, work, None), order=KeyOrder.NONE, disorder="no order")
    await store.work.commit(none, values.now())
    (work,) = await values.open_ranges(store, job)
    bounds = Bounds(gathered_keys=4)

    def page(began: str | None, token: str, *keys: str) -> GatherReport:
        return GatherReport(
            job_id=job.id,
            range_id=work.range_id,
            started_after=began,
            cursor=token,
            finished=not token,
            keys=keys,
            rows=len(keys),
            anew=False,
        )

    first = await store.work.commit(page(None, "t1", "a", "b", "c"), values.now(), bounds=bounds)
    assert first.status is JobStatus.RUNNING
    full = await store.work.commit(page("t1", "t2", "d", "e"), values.now(), bounds=bounds)
    assert (full.applied, full.status) == (True, JobStatus.PAUSED)
    assert "SLURPER_JOB_GATHERED_KEYS" in full.problem
    with pytest.raises(errors.JobConflict, match="SLURPER_JOB_GATHERED_KEYS"):
        await store.apply(ACCOUNT, job.id, Command.RESUME, bounds=bounds)
    await store.apply(ACCOUNT, job.id, Command.RESUME)
    end = replace(page("t2", "", "f"), cursor=None)
    await store.work.commit(end, values.now(), bounds=bounds)
    progress = await store.progress(ACCOUNT, job.id)
    assert (progress.status, progress.whole.objects) == (JobStatus.RUNNING, 6)
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    await store.apply(ACCOUNT, job.id, Command.RESUME, bounds=bounds)  # all keys are there


@pytest.mark.parametrize("text", ["x" * 60_000, "\0" * 60_000, "\udcff" * 60_000, "ü" * 60_000])
async def test_a_message_is_cut(store: Store, text: str) -> None:
    job = values.job()
    work = await values.create(store, job)
    event = ObjectEvent(key="k", log_type=LogType.IMPORT_ERROR_RETRY_EXHAUSTION, message=text)
    report = replace(values.report(job, work, "k", failed=("k",)), events=(event,))
    await store.work.commit(report, values.now())
    *_, last = await _logged(store, job)
    assert last.message is not None
    assert len(last.message) == MESSAGE_CHARACTERS
    assert last.message.endswith("…")


async def test_a_job_gets_so_many_ranges_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MAX_RANGES", 5)
    job = values.job()
    work = await values.create(store, job)
    for number in range(20):
        cursor = f"a{number:02}"
        report = replace(
            values.report(job, work, cursor, transferred=1), boundaries=(f"z{99 - number}",)
        )
        result = await store.work.commit(report, values.now())
        assert result.applied
        assert result.has_most_ranges == (number >= 3)
        work = replace(work, slice=KeyRange(cursor, result.end_at))
    assert await values.count_rows(store, schema.ranges) == [5]


async def test_a_job_gets_the_ranges_that_there_is_room_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MAX_RANGES", 3)
    job = values.job()
    work = await values.create(store, job)
    boundaries = ("d", "p", "t", "x")
    report = replace(values.report(job, work, "a", transferred=1), boundaries=boundaries)
    result = await store.work.commit(report, values.now())
    assert [piece.slice for piece in result.cut_off] == [KeyRange("d", "p"), KeyRange("p", None)]
    assert (result.end_at, result.has_most_ranges) == ("d", True)
