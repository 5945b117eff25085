"""Creating, reading, commanding and deleting jobs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import event, select

from slurper import errors
from slurper.database import schema
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, Job, JobStatus, LogType, Progress, Whole
from slurper.planning.keyspace import KeyRange, encode_key
from slurper.secrets import JobSecrets, S3Credentials, Sealer
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

HOSTILE_KEYS = tuple(
    sorted(
        (
            "a//b",
            "/lead",
            "a/../b",
            "x y+%25&=?#",
            "ü",
            "u\u0308",
            "\U0001f600",
            "\x01",
            "\n",
            "\0",
        ),
        key=str.encode,
    )
)


async def _log_types(store: Store, job: Job) -> list[LogType]:
    entries = await store.logs(job.account_id, job.id, limit=50, offset=0)
    return [entry.log_type for entry in entries]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prefix": "ü/\0\n", "overwrite": False},
        {"prefix": "\udcff", "keys": ("\udcff", "\udcff\udcfe"[::-1])},
        {"keys": HOSTILE_KEYS, "options": values.ALL_OPTIONS},
    ],
    ids=["defaults", "prefix", "not-unicode", "keys-and-options"],
)
async def test_a_job_comes_back_as_it_was_stored(store: Store, changes: dict[str, Any]) -> None:
    job = values.job(**changes)
    if job.spec.keys:
        in_order = tuple(sorted(job.spec.keys, key=encode_key))
        job = values.job(**(changes | {"keys": in_order}))
    work = await values.create(store, job)
    assert await values.whole(store, job) == job
    assert (await store.get_job(ACCOUNT, job.id)).spec.keys == (
        None if job.spec.keys is None else ()
    )
    assert work.slice == KeyRange(None, None)
    assert await store.progress(ACCOUNT, job.id) == Progress(
        job_id=job.id,
        created_at=job.created_at,
        finished_at=None,
        status=JobStatus.RUNNING,
        counts=Counts(),
        whole=Whole(objects=len(job.spec.keys) if job.spec.keys else None),
    )
    assert await store.logs(ACCOUNT, job.id, limit=50, offset=0) == [values.started(job)]


async def test_times_come_back_in_utc_whatever_zone_they_went_in(store: Store) -> None:
    job = values.job()
    elsewhere = job.created_at.astimezone(datetime.now().astimezone().tzinfo)
    await values.create(store, job)
    assert (await store.get_job(ACCOUNT, job.id)).created_at == elsewhere
    assert (await store.get_job(ACCOUNT, job.id)).created_at.tzinfo is UTC


async def test_a_job_is_absent_for_other_accounts_and_ids(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    for account_id, job_id in ((ACCOUNT, "0" * 64), ("b" * 32, job.id)):
        with pytest.raises(errors.JobNotFound):
            await store.get_job(account_id, job_id)
        with pytest.raises(errors.JobNotFound):
            await store.progress(account_id, job_id)
        with pytest.raises(errors.JobNotFound):
            await store.logs(account_id, job_id, limit=50, offset=0)
        with pytest.raises(errors.JobNotFound):
            await store.apply(account_id, job_id, Command.ABORT)
        with pytest.raises(errors.JobNotFound):
            await store.delete_job(account_id, job_id)
    assert (await store.get_job(ACCOUNT, job.id)).status is JobStatus.RUNNING


async def test_jobs_are_listed_newest_first_without_their_keys(store: Store) -> None:
    jobs = [values.job(keys=("k",) if number % 2 else None) for number in range(7)]
    for job in (*jobs, values.job("b" * 32)):
        await values.create(store, job)
    newest_first = [job.id for job in reversed(jobs)]
    for offset in range(9):
        page = await store.list_jobs(ACCOUNT, limit=3, offset=offset)
        assert [job.id for job in page] == newest_first[offset : offset + 3]
    listed = await store.list_jobs(ACCOUNT, limit=50, offset=0)
    assert [job.spec.keys for job in listed] == [None, (), None, (), None, (), None]


async def test_logs_page_oldest_first_and_keep_their_offsets(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    keys = tuple(f"k{number:03}" for number in range(120))
    await store.work.commit(values.report(job, work, "k119", failed=keys), values.now())
    before = await store.logs(ACCOUNT, job.id, limit=50, offset=40)
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    assert await store.logs(ACCOUNT, job.id, limit=50, offset=40) == before
    assert [entry.object_key for entry in before] == list(keys[39:89])
    tail = await store.logs(ACCOUNT, job.id, limit=50, offset=120)
    assert [entry.object_key for entry in tail] == ["k119", None]
    assert await store.logs(ACCOUNT, job.id, limit=50, offset=122) == []


async def test_progress_reads_one_row_and_neither_keys_nor_logs_nor_secrets(
    store: Store,
) -> None:
    job = values.job(keys=("k",))
    await values.create(store, job)
    statements: list[str] = []

    def remember(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    engine = store.database._engine
    event.listen(engine, "before_cursor_execute", remember)
    await store.progress(ACCOUNT, job.id)
    queries = [statement for statement in statements if not statement.startswith("BEGIN")]
    assert len(queries) == 1
    assert "FROM jobs" in queries[0]
    assert not any(word in queries[0] for word in ("sealed", "job_keys", "logs", "source", "JOIN"))


async def test_the_limit_counts_active_jobs_of_the_account(store: Store) -> None:
    first, second, third = (values.job() for _ in range(3))
    await values.create(store, first, max_active=2)
    await values.create(store, second, max_active=2)
    await values.create(store, values.job("b" * 32), max_active=2)
    await store.apply(ACCOUNT, second.id, Command.PAUSE)
    with pytest.raises(errors.JobLimitReached, match="Maximum number of concurrent jobs"):
        await values.create(store, third, max_active=2)
    with pytest.raises(errors.JobNotFound):
        await store.get_job(ACCOUNT, third.id)
    await store.apply(ACCOUNT, second.id, Command.ABORT)
    await values.create(store, third, max_active=2)


async def test_concurrent_creates_never_pass_the_limit(store: Store, database_url: str) -> None:
    other = await Store.open(database_url, store.lease)
    creates = [values.create(one, values.job(), max_active=4) for one in (store, other) * 10]
    outcomes = await asyncio.gather(*creates, return_exceptions=True)
    await other.close()
    refused = [one for one in outcomes if isinstance(one, errors.JobLimitReached)]
    assert len(refused) == 16
    assert len(await store.list_jobs(ACCOUNT, limit=50, offset=0)) == 4


async def test_commands_change_status_and_log_in_one_step(store: Store) -> None:
    job = values.job(keys=("a", "b"))
    await values.create(store, job)
    paused = await store.apply(ACCOUNT, job.id, Command.PAUSE)
    assert (paused.status, paused.finished_at, paused.spec) == (
        JobStatus.PAUSED,
        None,
        replace(job.spec, keys=()),
    )
    assert await store.work.running_jobs() == []
    assert (await store.apply(ACCOUNT, job.id, Command.RESUME)).status is JobStatus.RUNNING
    aborted = await store.apply(ACCOUNT, job.id, Command.ABORT)
    assert aborted.status is JobStatus.ABORTED
    assert aborted.finished_at is not None
    assert await store.get_job(ACCOUNT, job.id) == aborted
    assert (await store.progress(ACCOUNT, job.id)).finished_at == aborted.finished_at
    assert await _log_types(store, job) == [
        LogType.MIGRATION_START,
        LogType.MIGRATION_PAUSE,
        LogType.MIGRATION_RESUME,
        LogType.MIGRATION_ABORT,
    ]


async def test_a_refused_command_leaves_no_trace(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    with pytest.raises(errors.JobConflict):
        await store.apply(ACCOUNT, job.id, Command.RESUME)
    assert await store.get_job(ACCOUNT, job.id) == job
    assert await _log_types(store, job) == [LogType.MIGRATION_START]


async def test_a_command_for_all_skips_jobs_that_do_not_allow_it(store: Store) -> None:
    running, paused, ended, foreign = (values.job(account) for account in (ACCOUNT,) * 3 + ("b",))
    for job in (running, paused, ended, foreign):
        await values.create(store, job)
    await store.apply(ACCOUNT, paused.id, Command.PAUSE)
    await store.apply(ACCOUNT, ended.id, Command.ABORT)
    assert [job.id for job in await store.apply_all(ACCOUNT, Command.PAUSE)] == [running.id]
    aborted = await store.apply_all(ACCOUNT, Command.ABORT)
    assert [(job.id, job.status) for job in aborted] == [
        (running.id, JobStatus.ABORTED),
        (paused.id, JobStatus.ABORTED),
    ]
    assert await store.apply_all(ACCOUNT, Command.ABORT) == []
    assert [work.job.id for work in await store.work.running_jobs()] == [foreign.id]
    assert await _log_types(store, ended) == [LogType.MIGRATION_START, LogType.MIGRATION_ABORT]


async def test_deleting_takes_everything_of_an_ended_job_and_nothing_else(store: Store) -> None:
    doomed, kept = values.job(keys=("a", "b")), values.job(keys=("c",))
    work = await values.create(store, doomed)
    await values.create(store, kept)
    await store.work.commit(values.report(doomed, work, "a", failed=("a",)), values.now())
    with pytest.raises(errors.JobConflict, match="still active"):
        await store.delete_job(ACCOUNT, doomed.id)
    await values.abort(store, doomed)
    await store.delete_job(ACCOUNT, doomed.id)
    with pytest.raises(errors.JobNotFound):
        await store.get_job(ACCOUNT, doomed.id)
    counts = await values.count_rows(
        store, schema.jobs, schema.job_keys, schema.ranges, schema.logs
    )
    assert counts == [1, 1, 1, 1]
    assert await values.whole(store, kept) == kept


async def test_running_jobs_come_oldest_first_with_all_a_driver_needs(store: Store) -> None:
    jobs = [values.job(keys=HOSTILE_KEYS), values.job(), values.job("b" * 32)]
    for job in (*jobs, paused := values.job()):
        await values.create(store, job)
    await store.apply(ACCOUNT, paused.id, Command.PAUSE)
    work = await store.work.running_jobs()
    found = [values.made_at(one.job, job) for one, job in zip(work, jobs, strict=True)]
    assert found == [values.without_keys(job) for job in jobs]
    assert {one.sealed for one in work} == {values.SEALED}
    assert [len(one.ranges) for one in work] == [1, 1, 1]


async def test_only_secrets_of_jobs_long_ended_are_erased(store: Store) -> None:
    ended, recent, paused = (values.job() for _ in range(3))
    for job in (ended, recent, paused):
        await values.create(store, job)
    finished = (await values.abort(store, ended)).finished_at
    assert finished is not None
    await asyncio.sleep(0.01)
    await values.abort(store, recent)
    await store.apply(ACCOUNT, paused.id, Command.PAUSE)
    assert await values.housekeeping(store.work).erase_secrets(finished) == 0
    assert (
        await values.housekeeping(store.work).erase_secrets(finished + timedelta(milliseconds=5))
        == 1
    )
    assert (
        await values.housekeeping(store.work).erase_secrets(finished + timedelta(milliseconds=5))
        == 0
    )
    query = select(schema.jobs.c.id, schema.jobs.c.sealed)
    rows = await store.database.read(lambda connection: connection.execute(query).all())
    assert {row.id: row.sealed for row in rows} == {
        ended.id: None,
        recent.id: values.SEALED,
        paused.id: values.SEALED,
    }
    await store.apply(ACCOUNT, paused.id, Command.RESUME)
    assert (await store.work.running_jobs())[0].sealed == values.SEALED


async def test_no_file_ever_holds_a_secret_and_erased_ones_are_gone_altogether(
    sqlite_store: Store, tmp_path: Path
) -> None:
    secret = "correct-horse-battery-staple"
    pair = S3Credentials(access_key_id="AKIDEXAMPLE", secret_access_key=secret)
    sealer = Sealer((Fernet.generate_key().decode(),))
    sealed = sealer.seal(JobSecrets(source=pair, target=pair))
    job = values.job()
    await sqlite_store.create_job(job, sealed, max_active=1, entry=values.started(job))

    def on_disk() -> bytes:
        files = sorted(tmp_path.glob("slurper.db*"))
        assert files
        return b"".join(file.read_bytes() for file in files)

    assert secret.encode() not in on_disk()
    assert b"AKIDEXAMPLE" not in on_disk()
    assert sealed in on_disk()
    assert sealer.open((await sqlite_store.work.running_jobs())[0].sealed).source == pair
    await values.abort(sqlite_store, job)
    await values.housekeeping(sqlite_store.work).erase_secrets(
        datetime.now(UTC) + timedelta(seconds=1)
    )
    await sqlite_store.close()
    assert sealed not in on_disk()
