"""No transaction changes many rows, however many rows there are. So none takes long.

How long a transaction takes depends on the machine. How many rows it changes does not. At the disks
that we know, `MOST` rows of a log take less than a tenth of a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from sqlalchemy import Connection, insert, select, update

from slurper.database import rows, schema
from slurper.database.bounds import Bounds
from slurper.database.connection import Database
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus, LogType
from slurper.transfer import gathering, ledger
from slurper.transfer.planner import MAX_LARGE
from slurper.transfer.task import PartsReport
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

Result = TypeVar("Result")

FAR = datetime(9999, 1, 1, tzinfo=UTC)
MANY = 15_000
"""So many rows of each table belong to a large job. It is more than any transaction may change."""

ROOM = 200
"""For the job's own row, its ranges, and more such."""

MOST = max(ledger.MAX_EVENTS + MAX_LARGE, gathering.MAX_ROWS) + ROOM
"""A report has no more rows than that, whatever the stores do. Nothing else comes near it."""


@asynccontextmanager
async def _counted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[int]]:
    """How many rows each transaction has changed, those that go with others included."""
    changed: list[int] = []
    write = Database.write

    async def counting(self: Database, transaction: Callable[[Connection], Result]) -> Result:
        def run(connection: Connection) -> Result:
            before = _changes(connection)
            result = transaction(connection)
            changed.append(_changes(connection) - before)
            return result

        return await write(self, run)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", counting)
        yield changed
    assert changed, "or this shows nothing"


def _changes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None
        total: int = driver.total_changes
        return total
    query = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables"
    return int(connection.exec_driver_sql(query).scalar_one())


async def _large_job(store: Store) -> Job:
    """An aborted job with `MANY` rows of each kind, nearly all of them put there directly."""
    job = values.job()
    await values.create(store, job)
    names = [f"large{number:03}" for number in range(10)]
    found = await values.find_large(store, job, *names, finished=False)
    for upload in found:
        begun = PartsReport(job_id=job.id, upload=upload, begun=values.begun())
        await store.work.commit(begun, values.now())

    def fill(connection: Connection) -> None:
        owner = {"job_number": connection.scalar(select(schema.jobs.c.number))}
        keys = [owner | {"key": f"k{count * 7919 % 99_991:05}"} for count in range(MANY)]
        connection.execute(insert(schema.job_keys), keys)
        failed = LogType.IMPORT_ERROR_RETRY_EXHAUSTION.value
        entry = {"log_type": failed, "created_at": values.now(), "message": "x" * 100}
        log = [
            entry | owner | {"position": place + 1, "object_key": key["key"]}
            for place, key in enumerate(keys)
        ]
        connection.execute(insert(schema.logs), log)
        parts = [
            {
                "upload": found[count % len(found)].id,
                "number": count // len(found) + 1,
                "size": 1,
                "etag": "e",
                "checksum": "c",
            }
            for count in range(MANY)
        ]
        connection.execute(insert(schema.upload_parts), parts)
        ranges = [
            owner | {"start_after": f"z{count:05}", "end_at": f"z{count:05}!", "committed_at": FAR}
            for count in range(9_000)
        ]
        connection.execute(insert(schema.ranges), ranges)
        counts = {"log_entries": MANY + 1, "failed": MANY, "objects": MANY}
        connection.execute(update(schema.jobs).values(counts))

    await store.database.write(fill)
    await values.abort(store, job)
    return job


async def _tidy(store: Store) -> None:
    while await values.housekeeping(store.work).tidy():
        pass


async def test_a_large_job_is_retried_cleared_and_deleted_in_small_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await _large_job(store)
    retry = replace(values.job(), spec=replace(job.spec, keys=()), retry_of=job.id)
    async with _counted(monkeypatch) as changed:
        entry = values.started(retry)
        await store.create_retry(retry, values.SEALED, max_active=9, entry=entry)
        await _tidy(store)
        assert (await store.progress(ACCOUNT, retry.id)).whole.objects == MANY
        await values.abort(store, retry)
        house = values.housekeeping(store.work)
        while await house.clear(FAR):
            pass
        await store.delete_job(ACCOUNT, job.id)
        await store.delete_job(ACCOUNT, retry.id)
        await _tidy(store)
    kept = (schema.jobs, schema.logs, schema.job_keys, schema.upload_parts, schema.ranges)
    assert await values.count_rows(store, *kept) == [0] * len(kept)
    assert max(changed) < MANY / 3, "far less than there is"
    assert max(changed) <= MOST


async def test_many_jobs_lose_their_secrets_and_go_in_small_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 1_500

    def fill(connection: Connection) -> None:
        ended = {"status": JobStatus.COMPLETED.value, "finished_at": values.now()}
        made = [rows.job_values(values.job(), values.SEALED) | ended for _ in range(count)]
        connection.execute(insert(schema.jobs), made)
        numbers = connection.scalars(select(schema.jobs.c.number)).all()
        ranges = [{"job_number": number, "committed_at": values.now()} for number in numbers]
        connection.execute(insert(schema.ranges), ranges)
        asked = {"account_id": ACCOUNT, "digest": b"d", "retries": 0, "job_id": "j"}
        then = datetime(2020, 1, 1, tzinfo=UTC)
        asked |= {"answered_at": then, "kept_until": then}
        answers = [asked | {"name": str(number).encode()} for number in range(3 * count)]
        connection.execute(insert(schema.answers), answers)

    await store.database.write(fill)
    house = values.housekeeping(store.work)
    async with _counted(monkeypatch) as changed:
        erased = 0
        while more := await house.erase_secrets(FAR):
            erased += more
        while await house.forget_answers():
            pass
        while await house.clear(FAR):
            pass
        while await house.retire(FAR, datetime.now(UTC)):
            pass
        await _tidy(store)
    assert erased == count
    assert await values.count_rows(store, schema.jobs, schema.answers) == [0, 0]
    assert max(changed) <= MOST / 2


async def test_the_largest_report_is_one_small_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = values.job()
    work = await values.create(store, job)
    failed = tuple(f"a{number:05}" for number in range(ledger.MAX_EVENTS))
    large = tuple(values.large(f"b{number:05}") for number in range(MAX_LARGE))
    report = replace(values.report(job, work, "c", failed=failed), large=large)
    async with _counted(monkeypatch) as changed:
        result = await store.work.commit(report, values.now(), bounds=Bounds(log_entries=99))
        assert (result.applied, result.status) == (True, JobStatus.PAUSED)
        await store.apply(ACCOUNT, job.id, Command.ABORT)
    assert max(changed) <= MOST
