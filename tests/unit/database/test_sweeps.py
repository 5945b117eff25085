"""An aborted job is marked as unswept until a driver has looked after its target."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from slurper.database import schema
from slurper.job.lifecycle import Command
from slurper.job.model import LogEntry, LogType
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

EVER_AFTER = timedelta(days=9999)


def _given_up() -> LogEntry:
    return LogEntry(log_type=LogType.MIGRATION_ERROR, created_at=values.now(), message="403")


async def _unswept(store: Store) -> list[str]:
    return [work.job.id for work in await store.work.unswept()]


async def _sealed(store: Store) -> list[bytes | None]:
    query = select(schema.jobs.c.sealed).order_by(schema.jobs.c.number)
    return await store.database.read(lambda connection: list(connection.scalars(query)))


async def test_abort_asks_for_a_sweep_of_what_was_open(store: Store) -> None:
    job, other = values.job(keys=("a", "b", "c")), values.job()
    work = await values.create(store, job)
    await values.create(store, other)
    await store.work.commit(values.report(job, work, "a", transferred=1), values.now())
    assert await _unswept(store) == []
    await store.apply_all(ACCOUNT, Command.ABORT)
    first, second = await store.work.unswept()
    assert (first.job.id, second.job.id) == (job.id, other.id)
    assert (first.sealed, first.ranges[0].slice.start_after) == (values.SEALED, "a")
    await store.work.swept(job.id)
    assert await _unswept(store) == [other.id]


async def test_the_mark_outlives_a_crash(store: Store, database_url: str) -> None:
    job = values.job()
    await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    later = await Store.open(database_url, store.lease)
    assert await _unswept(later) == [job.id]
    await later.close()


async def test_secrets_stay_for_as_long_as_a_sweep_needs_them(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    assert await values.housekeeping(store.work).erase_secrets(values.now() + EVER_AFTER) == 0
    await store.work.swept(job.id)
    assert await _sealed(store) == [values.SEALED]
    assert await values.housekeeping(store.work).erase_secrets(values.now() + EVER_AFTER) == 1
    assert await _sealed(store) == [None]


async def test_a_deleted_job_stays_until_it_is_swept_and_nobody_sees_it(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    await store.delete_job(ACCOUNT, job.id)
    assert await store.list_jobs(ACCOUNT, limit=9, offset=0) == []
    assert not await values.housekeeping(store.work).tidy()
    assert await _unswept(store) == [job.id]
    await store.work.swept(job.id)
    assert await _sealed(store) == [None]
    while await values.housekeeping(store.work).tidy():
        pass
    assert await values.count_rows(store, schema.jobs) == [0]


@pytest.mark.parametrize("deleted", [False, True])
async def test_a_sweep_is_given_up_after_so_many_failures(store: Store, *, deleted: bool) -> None:
    job = values.job()
    await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    if deleted:
        await store.delete_job(ACCOUNT, job.id)
    outcomes = [
        await store.work.sweep_failed(job.id, max_failures=3, entry=_given_up()) for _ in range(3)
    ]
    assert outcomes == [False, False, True]
    assert await _unswept(store) == []
    if not deleted:
        entries = await store.logs(ACCOUNT, job.id, limit=9, offset=0)
        assert [entry.log_type for entry in entries[1:]] == [
            LogType.MIGRATION_ABORT,
            LogType.MIGRATION_ERROR,
        ]


async def test_a_completed_job_is_not_swept(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.work.commit(values.report(job, work, None, finished=True), values.now())
    assert await _unswept(store) == []
