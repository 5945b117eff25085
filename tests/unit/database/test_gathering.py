"""The keys of a source without an order are gathered, each once, and then copied by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper.database import gathering
from slurper.database.job_row import RangeWork
from slurper.database.work import JobWork
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, Job, JobStatus, LogType, Progress, Whole
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import GatherReport, Halt
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

DISORDER = "the store lists in an order of its own, and does not go on in it after 'd'"


async def unordered(store: Store) -> Job:
    """A job that has copied something when its source is found to have no order."""
    job = values.job(prefix="in/")
    work = await values.create(store, job)
    await values.find_large(store, job, "in/a", finished=False)
    found = replace(
        values.report(job, replace(work, slice=KeyRange("in/a")), "in/d", transferred=2),
        order=KeyOrder.NONE,
        disorder=DISORDER,
    )
    outcome = await store.work.commit(found, values.now())
    assert (outcome.applied, outcome.status, outcome.problem) == (True, JobStatus.RUNNING, "")
    return job


async def running(store: Store) -> JobWork:
    (work,) = await store.work.running_jobs()
    return work


def page(
    job: Job,
    work: RangeWork,
    *keys: str,
    token: str | None,
    rows: int | None = None,
    anew: bool = False,
    halt: Halt | None = None,
) -> GatherReport:
    """Keys that were listed; without a token they were the last."""
    return GatherReport(
        job_id=job.id,
        range_id=work.range_id,
        started_after=work.slice.start_after,
        cursor=token,
        keys=keys,
        rows=len(keys) if rows is None else rows,
        anew=anew,
        finished=token is None,
        halt=halt,
    )


async def see(store: Store, job: Job) -> Progress:
    return await store.progress(ACCOUNT, job.id)


async def test_a_job_without_an_order_begins_anew_by_gathering_its_keys(store: Store) -> None:
    job = await unordered(store)
    work = await running(store)
    assert work.job.capabilities.source.key_order == "none"
    assert (work.job.spec.keys, work.uploads) == (None, ())
    assert [one.slice for one in work.ranges] == [KeyRange()]
    progress = await see(store, job)
    assert (progress.counts, progress.whole) == (Counts(), Whole())
    assert "0 keys so far" in progress.waiting_for[0]


async def test_every_key_is_kept_once_and_then_they_are_the_jobs_keys(store: Store) -> None:
    job = await unordered(store)
    work = await running(store)
    first = page(job, work.ranges[0], "in/z", "in/b", "in/é", token="z/2")
    assert (await store.work.commit(first, values.now())).still_open
    assert not (await store.work.commit(first, values.now())).applied
    assert "3 keys so far" in (await see(store, job)).waiting_for[0]
    (left,) = (await running(store)).ranges
    assert left.slice == KeyRange("z/2")
    # Tokens come in any order.
    second = page(job, left, "in/b", "in/\udcff", token="a/1")
    assert (await store.work.commit(second, values.now())).applied
    (left,) = (await running(store)).ranges
    last = page(job, left, "in/a", token=None)
    outcome = await store.work.commit(last, values.now())
    assert (outcome.applied, outcome.status, outcome.still_open) == (True, JobStatus.RUNNING, True)
    assert not (await store.work.commit(last, values.now())).applied
    progress = await see(store, job)
    assert (progress.whole, progress.waiting_for) == (Whole(objects=5), ())
    work = await running(store)
    assert work.job.spec.keys == ()
    assert [one.slice for one in work.ranges] == [KeyRange()]
    kept = await store.work.keys_within(job.id, KeyRange(), limit=10)
    assert kept == ("in/a", "in/b", "in/z", "in/é", "in/\udcff")
    # A client that asks for the job sees what was asked for.
    assert (await store.get_job(ACCOUNT, job.id)).spec.keys is None
    end = values.report(job, work.ranges[0], "in/\udcff", transferred=5, finished=True)
    assert (await store.work.commit(end, values.now())).status is JobStatus.COMPLETED


async def test_one_page_that_is_reported_twice_is_taken_in_once(store: Store) -> None:
    job = await unordered(store)
    (left,) = (await running(store)).ranges
    only = page(job, left, "in/a", token=None)
    assert (await store.work.commit(only, values.now())).applied
    assert not (await store.work.commit(only, values.now())).applied
    assert (await see(store, job)).whole == Whole(objects=1)


async def test_a_listing_that_begins_anew_keeps_what_is_there(store: Store) -> None:
    job = await unordered(store)
    (left,) = (await running(store)).ranges
    await store.work.commit(page(job, left, "in/a", "in/b", token="1"), values.now())
    (left,) = (await running(store)).ranges
    again = page(job, left, "in/b", "in/c", token="2", anew=True)
    assert (await store.work.commit(again, values.now())).status is JobStatus.RUNNING
    (left,) = (await running(store)).ranges
    await store.work.commit(page(job, left, "in/a", token=None), values.now())
    assert (await see(store, job)).whole == Whole(objects=3)


async def test_pages_in_circles_pause_the_job_and_are_listed_from_the_beginning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "SPARE_ROWS", 5)
    job = await unordered(store)
    for token in ("1", "2", "1", "2"):
        (left,) = await values.open_ranges(store, job)
        outcome = await store.work.commit(
            page(job, left, "in/a", "in/b", token=token), values.now()
        )
        assert (outcome.status, outcome.problem) == (JobStatus.RUNNING, "")
    (left,) = await values.open_ranges(store, job)
    outcome = await store.work.commit(page(job, left, "in/a", "in/b", token="1"), values.now())
    assert outcome.status is JobStatus.PAUSED
    assert "in circles" in outcome.problem
    logs = await store.logs(ACCOUNT, job.id, limit=100, offset=0)
    assert logs[-1].log_type is LogType.MIGRATION_ERROR_FAILED_CONTINUATION
    assert logs[-1].message == outcome.problem
    assert (await see(store, job)).waiting_for == ()
    await store.apply(ACCOUNT, job.id, Command.RESUME)
    (left,) = await values.open_ranges(store, job)
    assert left.slice == KeyRange()
    await store.work.commit(page(job, left, "in/c", token=None), values.now())
    assert (await see(store, job)).whole == Whole(objects=3)


async def test_a_store_that_takes_no_token_of_its_own_pauses_the_job(store: Store) -> None:
    job = await unordered(store)
    statuses = []
    for number in range(1 + gathering.MAX_TIMES_ANEW):
        (left,) = await values.open_ranges(store, job)
        report = page(job, left, "in/a", token=str(number), anew=number > 0)
        outcome = await store.work.commit(report, values.now())
        statuses.append(outcome.status)
    assert statuses == [JobStatus.RUNNING] * gathering.MAX_TIMES_ANEW + [JobStatus.PAUSED]
    assert "has not taken the token" in outcome.problem


async def test_what_was_counted_of_a_source_without_an_order_is_not_its_whole(
    store: Store,
) -> None:
    job = await unordered(store)
    await store.work.counted(job.id, Whole(objects=1, size=1))
    assert (await see(store, job)).whole == Whole()


async def test_late_reports_of_what_was_done_before_change_nothing(store: Store) -> None:
    job = values.job()
    first = await values.create(store, job)
    (upload,) = await values.find_large(store, job, "a", finished=False)
    found = replace(
        values.report(job, replace(first, slice=KeyRange("a")), "d", transferred=2),
        order=KeyOrder.NONE,
        disorder=DISORDER,
    )
    await store.work.commit(found, values.now())
    late = values.report(job, replace(first, slice=KeyRange("d")), "e", transferred=1)
    assert not (await store.work.commit(late, values.now())).applied
    assert not (await store.work.commit(values.settled(job, upload), values.now())).applied
    assert (await see(store, job)).counts == Counts()
