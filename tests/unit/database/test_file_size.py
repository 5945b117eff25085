"""SQLite's file becomes smaller when rows are deleted, a little at a time."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update
from typer.testing import CliRunner

from slurper.cli import commands
from slurper.database import schema, sqlite_file
from slurper.database.connection import Database
from slurper.job.model import Job
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

ROWS = 6_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file counts as a large one."""
    monkeypatch.setattr(sqlite_file, "SPARE_PAGES", 40)
    monkeypatch.setattr(sqlite_file, "PIECE_PAGES", 20)


async def _fill(store: Store) -> Job:
    """An aborted job with a long log."""
    job = values.job()
    await values.create(store, job)

    def fill(connection: Connection) -> None:
        entry = {"job_number": 1, "log_type": "migrationError", "created_at": values.now()}
        log = [entry | {"position": place + 1, "message": "x" * 900} for place in range(ROWS)]
        connection.execute(insert(schema.logs), log)
        connection.execute(update(schema.jobs).values(log_entries=ROWS + 1))

    await store.database.write(fill)
    await values.abort(store, job)
    return job


async def _delete(store: Store, job: Job) -> None:
    await store.delete_job(ACCOUNT, job.id)
    while await values.housekeeping(store.work).tidy():
        pass


def _pages(path: Path, pragma: str = "page_count") -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
        return count


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


@pytest.mark.usefixtures("small")
async def test_a_new_file_gives_space_back_in_pieces(sqlite_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "slurper.db"
    job = await _fill(sqlite_store)
    await sqlite_store.database.fold_log()
    large = path.stat().st_size
    await _delete(sqlite_store, job)
    house = values.housekeeping(sqlite_store.work)
    seen = [_pages(path)]
    while await house.give_back():
        seen.append(_pages(path))
    pieces = [before - after for before, after in itertools.pairwise(seen)]
    assert len(pieces) > 10
    assert all(0 < pages <= 20 + 2 for pages in pieces)
    assert _pages(path, "freelist_count") < 60
    await house.fold_log()
    assert path.stat().st_size < large / 4
    assert _log(path).stat().st_size == 0


async def test_a_little_unused_space_is_kept_for_the_rows_to_come(
    sqlite_store: Store, tmp_path: Path
) -> None:
    await _delete(sqlite_store, await _fill(sqlite_store))
    before = _pages(tmp_path / "slurper.db")
    assert not await values.housekeeping(sqlite_store.work).give_back()
    assert _pages(tmp_path / "slurper.db") == before


async def test_the_log_is_left_alone_while_somebody_reads_it(
    sqlite_store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "slurper.db"
    await _fill(sqlite_store)
    with _reading(path):
        await values.create(sqlite_store, values.job())
        await sqlite_store.database.fold_log()
        assert _log(path).stat().st_size > 0
    await values.create(sqlite_store, values.job())
    await sqlite_store.database.fold_log()
    assert _log(path).stat().st_size == 0
    busy = await sqlite_store.database.write(
        lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    )
    assert busy == 30_000, "it waits for other processes as before"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM jobs").fetchone()
        yield
        connection.execute("ROLLBACK")


async def test_what_is_for_a_file_does_nothing_elsewhere(store: Store) -> None:
    house = values.housekeeping(store.work)
    assert not await house.give_back()
    await house.fold_log()
    assert await store.list_jobs(ACCOUNT, limit=1, offset=0) == []


def _old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files as an earlier version made them."""
    monkeypatch.setattr(sqlite_file, "let_it_shrink", lambda _cursor: None)
    assert not path.exists()


async def _shrunk(path: Path) -> Store:
    store = await Store.open(f"sqlite:///{path}")
    await _delete(store, await _fill(store))
    return store


@pytest.mark.usefixtures("small")
async def test_a_file_of_an_earlier_version_stays_as_it_is_until_it_is_compacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slurper.db"
    with monkeypatch.context() as patched:
        _old_file(path, patched)
        store = await _shrunk(path)
    assert not await values.housekeeping(store.work).give_back()
    await store.close()
    before, after = sqlite_file.compact(path)
    assert after < before / 4
    assert (_pages(path, "auto_vacuum"), _pages(path, "freelist_count")) == (2, 0)
    later = await Store.open(f"sqlite:///{path}", store.lease)
    assert await later.list_jobs(ACCOUNT, limit=1, offset=0) == []
    await later.close()


def test_the_command_compacts_a_file_that_nobody_uses(tmp_path: Path) -> None:
    import asyncio

    async def prepare() -> None:
        database = await Database.open(f"sqlite:///{tmp_path / 'slurper.db'}")
        await database.close()

    asyncio.run(prepare())
    shown = CliRunner().invoke(commands.app, ["compact", "--data-dir", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "bytes before" in shown.output


def test_the_command_says_what_it_cannot_compact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = CliRunner()
    shown = runner.invoke(commands.app, ["compact", "--data-dir", str(tmp_path)])
    assert "there is no database file" in str(shown.exception)
    monkeypatch.setenv("SLURPER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    shown = runner.invoke(commands.app, ["compact"])
    assert "autovacuum" in str(shown.exception)


async def test_the_command_refuses_while_a_service_runs(
    sqlite_store: Store, tmp_path: Path
) -> None:
    import asyncio

    def run() -> str:
        found = CliRunner().invoke(commands.app, ["compact", "--data-dir", str(tmp_path)])
        return str(found.exception)

    assert "the file is in use by" in await asyncio.to_thread(run)
    assert sqlite_store.lease.name == "driver"
