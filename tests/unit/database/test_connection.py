"""What cannot be opened is named with its fix; what breaks later leaves nothing half-done."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, update
from sqlalchemy.engine.interfaces import DBAPIConnection

from slurper import errors
from slurper.database import connection as database_connection
from slurper.database.connection import Database
from slurper.database.schema import jobs
from slurper.job.lifecycle import Command
from slurper.job.model import JobStatus
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "SLURPER_DATABASE_URL is no SQLAlchemy URL"),
        ("mysql://host/database", "names mysql; use sqlite or postgresql"),
        ("sqlite://", "must name a SQLite file"),
        ("sqlite:///:memory:", "must name a SQLite file"),
        ("sqlite:///slurper.db?mode=ro", "must name a SQLite file, without parameters"),
        ("sqlite:////nowhere/slurper.db", "/nowhere/slurper.db: No such file or directory; check"),
        ("sqlite:////proc/slurper.db", "/proc/slurper.db: "),
        ("sqlite:////usr", "the database file /usr: Is a directory"),
    ],
)
async def test_a_url_that_cannot_work_is_named_with_its_fix(url: str, message: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        await Database.open(url)
    assert message in str(caught.value)


async def test_postgresql_without_its_driver_or_server_says_so() -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        await Database.open("postgresql://slurper:hunter2@127.0.0.1:9/slurper")
    text = str(caught.value)
    assert "postgresql+psycopg://slurper:***@127.0.0.1:9/slurper" in text
    assert "hunter2" not in text


async def test_names_of_former_drivers_are_understood(database_url: str) -> None:
    former = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    name, _, place = database_url.partition(":")
    store = await Store.open(f"{former[name]}:{place}")
    assert await store.list_jobs(ACCOUNT, limit=1, offset=0) == []
    await store.close()


async def test_a_parameter_that_the_driver_does_not_know_is_named() -> None:
    with pytest.raises(errors.ConfigurationError, match='invalid connection option "ssl"'):
        await Database.open("postgresql://127.0.0.1:9/slurper?ssl=require")


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "slurper.db"
    file.write_bytes(b"my only copy of something else\n" * 100)
    with pytest.raises(errors.ConfigurationError, match=r"slurper\.db: file is not a database"):
        await Database.open(f"sqlite:///{file}")
    assert file.read_bytes() == b"my only copy of something else\n" * 100


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    database = await Database.open(database_url)
    newer = "UPDATE alembic_version SET version_num = '9999'"
    await database.write(lambda connection: connection.exec_driver_sql(newer))
    await database.close()
    with pytest.raises(errors.ConfigurationError, match=r"a newer one wrote it.*; upgrade Slurper"):
        await Database.open(database_url)


async def test_the_file_is_its_owners_and_commits_reach_the_disk(
    sqlite_store: Store, tmp_path: Path
) -> None:
    await values.create(sqlite_store, values.job())
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in _files(tmp_path)}
    assert files == {"slurper.db": 0o600, "slurper.db-shm": 0o600, "slurper.db-wal": 0o600}

    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    for run in (sqlite_store.database.read, sqlite_store.database.write):
        assert await run(pragmas) == ["wal", 2, 1, 1]


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    await values.create(store, values.job())
    await store.close()
    assert [file.name for file in _files(tmp_path)] == ["slurper.db"]


async def test_a_locked_database_is_waited_for_then_named_and_works_once_freed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(database_connection, "BUSY_SECONDS", 0.2)
    store = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "m", transferred=1)
    intruder = sqlite3.connect(tmp_path / "slurper.db", isolation_level=None)
    try:
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.DatabaseUnavailable, match="locked"):
            await store.work.commit(report, values.now())
        # Readers are not in the way of a writer, nor the other way round.
        assert (await store.progress(ACCOUNT, job.id)).status is JobStatus.RUNNING
        intruder.execute("ROLLBACK")
        assert (await store.work.commit(report, values.now())).applied
    finally:
        intruder.close()
        await store.close()


async def test_writers_do_not_add_up_what_they_wait_for_a_locked_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(database_connection, "TURN_SECONDS", 0.1)
    store = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "m", transferred=1)
    async with values.held(store.database):
        with pytest.raises(errors.DatabaseUnavailable, match="others wait for it already"):
            await store.work.commit(report, values.now())
    assert (await store.work.commit(report, values.now())).applied
    await store.close()


async def test_readers_do_not_wait_for_writers_that_wait(store: Store) -> None:
    """Neither for a lock nor for a thread."""
    job = values.job()
    await values.create(store, job)
    touch = update(jobs).values(failed=jobs.c.failed)
    async with values.held(store.database, lambda connection: connection.execute(touch)):
        pausing = [
            asyncio.create_task(store.apply(ACCOUNT, job.id, Command.PAUSE)) for _ in range(30)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            assert (await store.progress(ACCOUNT, job.id)).status is JobStatus.RUNNING
        assert not any(one.done() for one in pausing)
    outcomes = await asyncio.gather(*pausing, return_exceptions=True)
    assert sum(isinstance(one, errors.JobConflict) for one in outcomes) == 29


async def test_closing_ends_every_thread(database_url: str) -> None:
    before = set(threading.enumerate())
    store = await Store.open(database_url)
    await asyncio.gather(*(store.now() for _ in range(9)), values.create(store, values.job()))
    assert [one for one in set(threading.enumerate()) - before if "slurper" in one.name]
    await store.close()
    assert not [one for one in set(threading.enumerate()) - before if "slurper" in one.name]


async def test_a_full_disk_leaves_nothing_half_done_and_the_job_goes_on_once_cured(
    tmp_path: Path,
) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "m", failed=tuple(f"k{n:05}" for n in range(5000)))
    full = _limit_pages(60)
    event.listen(store.database._engine, "checkout", full)
    with pytest.raises(errors.DatabaseUnavailable, match="full"):
        await store.work.commit(report, values.now())
    assert (await store.progress(ACCOUNT, job.id)).counts.objects == 0
    assert await store.logs(ACCOUNT, job.id, limit=50, offset=1) == []
    event.remove(store.database._engine, "checkout", full)
    event.listen(store.database._engine, "checkout", _limit_pages(1_000_000))
    assert (await store.work.commit(report, values.now())).applied
    assert (await store.progress(ACCOUNT, job.id)).counts.failed == 5000
    await store.close()


def _limit_pages(pages: int) -> Callable[[DBAPIConnection, object, object], None]:
    """SQLite's own way to have a small disk."""

    def limit(connection: DBAPIConnection, _record: object, _proxy: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA max_page_count = {pages}")
        cursor.close()

    return limit


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("slurper.db*"))
