"""A deleted job is gone at once, and its rows go in pieces that keep nobody waiting."""

from __future__ import annotations

from itertools import pairwise

import pytest
from sqlalchemy import select

from slurper import errors
from slurper.database import in_batches, schema
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

PIECE = 10


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_batches, "PIECE_ROWS", PIECE)


async def _aborted(store: Store, *, failed: int = 0, keys: int | None = None) -> Job:
    named = None if keys is None else tuple(f"k{number:03}" for number in range(keys))
    job = values.job(keys=named)
    work = await values.create(store, job)
    if failed:
        names = tuple(f"k{number:03}" for number in range(failed))
        await store.work.commit(values.report(job, work, "k999", failed=names), values.now())
    await values.abort(store, job)
    return job


async def _rows(store: Store) -> int:
    tables = (schema.jobs, schema.job_keys, schema.ranges, schema.logs)
    return sum(await values.count_rows(store, *tables))


@pytest.mark.parametrize(
    ("failed", "keys"), [(0, None), (8, None), (0, 10), (95, None), (0, 46), (95, 46), (9, 11)]
)
async def test_pieces_are_bounded_and_leave_nothing(
    store: Store, failed: int, keys: int | None
) -> None:
    kept = await _aborted(store, failed=12, keys=3)
    rows = await _rows(store)
    job = await _aborted(store, failed=failed, keys=keys)
    sizes = [await _rows(store)]
    await store.delete_job(ACCOUNT, job.id)
    sizes.append(await _rows(store))
    while await values.housekeeping(store.work).tidy():
        sizes.append(await _rows(store))
    assert sizes[-1] == rows
    removed = [before - after for before, after in pairwise(sizes)]
    assert all(0 < count <= 2 * PIECE + 2 for count in removed)
    assert (await store.progress(ACCOUNT, kept.id)).counts.failed == 12
    assert await store.logs(ACCOUNT, kept.id, limit=1, offset=12)


async def test_a_small_job_goes_in_one_step(store: Store) -> None:
    job = await _aborted(store, failed=3, keys=2)
    await store.delete_job(ACCOUNT, job.id)
    assert await _rows(store) == 0
    assert not await values.housekeeping(store.work).tidy()


async def test_a_large_job_is_gone_at_once_for_everybody(store: Store) -> None:
    job = await _aborted(store, failed=50)
    other = values.job()
    work = await values.create(store, other)
    await store.delete_job(ACCOUNT, job.id)
    assert await _rows(store) > 40, "or this shows nothing"
    for read in (
        store.get_job(ACCOUNT, job.id),
        store.progress(ACCOUNT, job.id),
        store.logs(ACCOUNT, job.id, limit=1, offset=0),
        store.retried_job(ACCOUNT, job.id),
        store.apply(ACCOUNT, job.id, Command.RESUME),
        store.renew_secrets(ACCOUNT, job.id, b"sealed"),
        store.delete_job(ACCOUNT, job.id),
    ):
        with pytest.raises(errors.JobNotFound):
            await read
    assert [one.id for one in await store.list_jobs(ACCOUNT, limit=9, offset=0)] == [other.id]
    late = values.report(job, work, "z", failed=("z",))
    assert not (await store.work.commit(late, values.now())).applied
    assert [one.id for one in await store.apply_all(ACCOUNT, Command.ABORT)] == [other.id]


async def test_the_secrets_of_a_deleted_job_go_first(store: Store) -> None:
    job = await _aborted(store, failed=50)
    await store.delete_job(ACCOUNT, job.id)
    query = select(schema.jobs.c.sealed)
    assert await store.database.read(lambda connection: connection.scalar(query)) is None
    assert await values.housekeeping(store.work).erase_secrets(values.now().replace(year=9999)) == 0


async def test_removal_goes_on_after_a_crash(store: Store, database_url: str) -> None:
    job = await _aborted(store, failed=50)
    await store.delete_job(ACCOUNT, job.id)
    await values.housekeeping(store.work).tidy()
    later = await Store.open(database_url, store.lease)
    while await values.housekeeping(later.work).tidy():
        pass
    assert await _rows(later) == 0
    await later.close()


async def test_others_commit_between_two_pieces(store: Store) -> None:
    for _ in range(2):
        await store.delete_job(ACCOUNT, (await _aborted(store, failed=40)).id)
    job = values.job()
    work = await values.create(store, job)
    assert await values.housekeeping(store.work).tidy()
    done = values.report(job, work, "m", transferred=1, finished=True)
    assert (await store.work.commit(done, values.now())).status is JobStatus.COMPLETED
    while await values.housekeeping(store.work).tidy():
        pass
    assert [one.id for one in await store.list_jobs(ACCOUNT, limit=9, offset=0)] == [job.id]
