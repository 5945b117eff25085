"""What is old, and what only work under way needed, goes in small pieces."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from slurper import errors
from slurper.database import in_batches, schema
from slurper.database.housekeeping import Housekeeping
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus
from slurper.transfer.task import PartsReport
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

FAR = datetime(9999, 1, 1, tzinfo=UTC)
WORK = (schema.job_keys, schema.ranges, schema.uploads, schema.upload_parts)


async def _all(piece: Callable[[], Awaitable[object]]) -> int:
    """Do piece after piece; return how many there were."""
    pieces = 0
    while await piece():
        pieces += 1
        assert pieces < 1000
    return pieces


async def _clear(store: Store) -> int:
    return await _all(lambda: values.housekeeping(store.work).clear(FAR))


async def _completed(store: Store, **changes: Any) -> Job:  # noqa: ANN401 - fields of JobSpec
    job = values.job(**changes)
    work = await values.create(store, job)
    done = values.report(job, work, "k", transferred=1, failed=("k",), finished=True)
    assert (await store.work.commit(done, values.now())).status is JobStatus.COMPLETED
    return job


async def _aborted_with_parts(store: Store, parts: int) -> Job:
    """An aborted job that has a large object in progress. Its target is not swept yet."""
    job = values.job()
    await values.create(store, job)
    (upload,) = await values.find_large(store, job, "large", finished=False)
    begun = PartsReport(job_id=job.id, upload=upload, begun=values.begun())
    await store.work.commit(begun, values.now())
    (upload,) = await values.unsettled(store, job)
    told = tuple(values.part(number + 1) for number in range(parts))
    await store.work.commit(PartsReport(job_id=job.id, upload=upload, parts=told), values.now())
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    return job


async def test_rows_of_work_go_when_their_job_has_ended(store: Store) -> None:
    job = await _aborted_with_parts(store, 12)
    running = values.job(keys=("a",))
    await values.create(store, running)
    assert await values.count_rows(store, *WORK) == [1, 2, 1, 12]
    await _clear(store)
    assert await values.count_rows(store, *WORK) == [1, 2, 1, 12], "it is not swept yet"
    await store.work.swept(job.id)
    assert await _clear(store) > 0
    assert await values.count_rows(store, *WORK) == [1, 1, 0, 0]
    assert await _clear(store) == 0, "what was cleared is not looked at again"
    (left,) = await store.work.running_jobs()
    assert (left.job.id, len(left.ranges)) == (running.id, 1)


async def test_pieces_are_small_and_go_on_where_the_last_one_ended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_batches, "PIECE_ROWS", 5)
    job = await _aborted_with_parts(store, 23)
    await store.work.swept(job.id)
    seen = [sum(await values.count_rows(store, *WORK))]
    while await values.housekeeping(store.work).clear(FAR):
        seen.append(sum(await values.count_rows(store, *WORK)))
    assert seen[-1] == 0
    assert all(before - after <= 5 for before, after in itertools.pairwise(seen))


async def test_the_log_and_what_is_shown_of_a_cleared_job_stay(store: Store) -> None:
    job = await _completed(store, keys=("a", "k"))
    before = await values.whole(store, job)
    await _clear(store)
    assert await values.whole(store, job) == before
    assert before.spec.keys == ("a", "k")
    retried = await store.retried_job(ACCOUNT, job.id)
    assert (retried.failed, retried.sample) == (1, ("k",))
    retry = replace(values.job(), spec=replace(job.spec, keys=()), retry_of=job.id)
    entry = values.started(retry)
    await store.create_retry(retry, values.SEALED, max_active=9, entry=entry)
    assert (await values.whole(store, retry)).spec.keys == ("k",)
    await values.abort(store, retry)
    await _clear(store)
    shown = await values.whole(store, retry)
    assert shown.spec.keys == (), "they are in the other's log"
    assert shown.key_count == 1, "so a client knows that there were some"


async def test_a_report_that_comes_when_all_was_cleared_changes_nothing(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await values.abort(store, job)
    await _clear(store)
    late = values.report(job, work, "k", transferred=1)
    result = await store.work.commit(late, values.now())
    assert (result.applied, result.still_open) == (False, False)
    assert (await store.progress(ACCOUNT, job.id)).counts.objects == 0


async def test_secrets_are_erased_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_batches, "PIECE_JOBS", 3)
    for _ in range(8):
        await _completed(store)
    running = values.job()
    await values.create(store, running)
    house = values.housekeeping(store.work)
    assert [await house.erase_secrets(FAR) for _ in range(4)] == [3, 3, 2, 0]
    assert await store.work.open_to_work(running.id) == values.SEALED


async def test_jobs_that_ended_long_ago_are_deleted_in_pieces(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_batches, "PIECE_JOBS", 3)
    old = [await _completed(store) for _ in range(7)]
    unswept = await _aborted_with_parts(store, 2)
    recent, running = await _completed(store), values.job()
    await values.create(store, running)
    await _set_finished(store, [*old, unswept], datetime.now(UTC) - timedelta(days=31))
    house = values.housekeeping(store.work)
    now = datetime.now(UTC)
    before = now - timedelta(days=30)
    # `recent` has a time that the tests made up, so it is set to now.
    await _set_finished(store, [recent], now)
    assert [await house.retire(before, now) for _ in range(4)] == [3, 3, 2, 0]
    listed = [one.id for one in await store.list_jobs(ACCOUNT, limit=50, offset=0)]
    assert listed == [running.id, recent.id]
    for job in (*old, unswept):
        with pytest.raises(errors.JobNotFound):
            await store.get_job(ACCOUNT, job.id)
    await _all(house.tidy)
    assert await values.count_rows(store, schema.jobs) == [3], "the unswept one is needed still"
    (needed,) = await store.work.unswept()
    assert (needed.job.id, needed.sealed) == (unswept.id, values.SEALED)
    await store.work.swept(unswept.id)
    await _all(house.tidy)
    assert await values.count_rows(store, schema.jobs, schema.upload_parts) == [2, 0]


async def _set_finished(store: Store, jobs: list[Job], at: datetime) -> None:
    these = schema.jobs.c.id.in_([job.id for job in jobs])

    def change(connection: Connection) -> None:
        connection.execute(update(schema.jobs).where(these).values(finished_at=at))

    await store.database.write(change)


async def test_a_driver_that_was_replaced_removes_nothing(store: Store) -> None:
    await _completed(store)
    stale = Housekeeping(store.database, replace(store.lease, token=store.lease.token - 1))
    pieces: list[Callable[[], Awaitable[object]]] = [
        lambda: stale.clear(FAR),
        lambda: stale.retire(FAR, FAR),
        lambda: stale.erase_secrets(FAR),
        stale.forget_answers,
        stale.give_back,
    ]
    for piece in pieces:
        with pytest.raises(errors.LeaseLost):
            await piece()
    sealed = select(schema.jobs.c.sealed)
    assert await store.database.read(lambda connection: connection.scalar(sealed)) is not None
