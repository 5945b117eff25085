"""The migrations lead to exactly what `schema.py` says, from anywhere, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, text
from sqlalchemy.engine.interfaces import ReflectedIndex

from slurper import errors
from slurper.database import migrations, rows, schema
from slurper.database.connection import Database
from slurper.database.store import JobStore
from slurper.database.tokens import TokenStore
from slurper.job.access import Scope
from slurper.job.model import Job, JobCapabilities, JobStatus, LogEntry, LogType
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store


def _differences(connection: Connection) -> list[Any]:
    options = {"compare_type": True, "compare_server_default": True}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, schema.metadata))


def _shape(connection: Connection) -> dict[str, object]:
    """What `compare_metadata` does not look at."""
    inspector = inspect(connection)
    return {
        table: (
            [column["name"] for column in inspector.get_columns(table)],
            {check["name"]: check["sqltext"] for check in inspector.get_check_constraints(table)},
            inspector.get_pk_constraint(table),
            inspector.get_foreign_keys(table),
            sorted(map(_index, inspector.get_indexes(table))),
            _storage(connection, table),
        )
        for table in inspector.get_table_names()
    }


def _storage(connection: Connection, table: str) -> list[bool]:
    if connection.dialect.name != "sqlite":
        return []
    query = text("SELECT sql FROM sqlite_master WHERE name = :name")
    sql: str = connection.execute(query, {"name": table}).scalar_one()
    return ["WITHOUT ROWID" in sql, "AUTOINCREMENT" in sql]


def _index(index: ReflectedIndex) -> tuple[str | None, list[str | None], list[str]]:
    conditions = index.get("dialect_options", {}).values()
    return index["name"], index["column_names"], sorted(map(str, conditions))


async def test_a_new_database_is_what_the_migrations_make(store: Store) -> None:
    def compare(connection: Connection) -> None:
        made_at_once = _shape(connection)
        schema.metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        migrations.migrate(connection)
        assert _differences(connection) == []
        assert _shape(connection) == made_at_once
        assert len(made_at_once) == len(schema.metadata.tables) + 1

    await store.database.write(compare)


async def test_tables_of_a_stranger_are_not_taken_for_ours(database_url: str) -> None:
    database = await Database.open(database_url)
    await database.write(lambda one: one.exec_driver_sql("DROP TABLE alembic_version"))
    await database.close()
    with pytest.raises(errors.ConfigurationError, match="already exists"):
        await Database.open(database_url)


async def test_a_migration_can_be_taken_back(store: Store) -> None:
    def tables(connection: Connection) -> list[str]:
        return sorted(inspect(connection).get_table_names())

    def go_back_and_forth(connection: Connection) -> None:
        before = tables(connection)
        command.downgrade(migrations.configure(connection), "base")
        assert tables(connection) == ["alembic_version"]
        migrations.upgrade(connection)
        assert tables(connection) == before

    await store.database.write(go_back_and_forth)


async def test_opening_again_keeps_everything(database_url: str) -> None:
    job = values.job(keys=("a", "b"))
    first = await JobStore.open(database_url)
    await first.create_job(job, values.SEALED, max_active=1, entry=values.started(job))
    await first.close()
    second = await JobStore.open(database_url)
    assert await values.whole(second, job) == job
    await second.close()


async def opened_at(revision: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Open a database as the version of the program did that had this revision."""
    with monkeypatch.context() as patched:
        patched.setattr(
            migrations, "upgrade", lambda connection: migrations.migrate(connection, revision)
        )
        return await Database.open(database_url)


async def test_a_filled_database_keeps_everything_when_it_is_brought_forward(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened_at("0001", database_url, monkeypatch)
    job = values.job(keys=("k",))
    await _fill(old, job)
    await old.close()
    store = await Store.open(database_url)
    assert await values.whole(store, job) == replace(
        job,
        status=JobStatus.ABORTED,
        finished_at=job.created_at,
        capabilities=JobCapabilities(),
    )
    assert len(await store.logs(ACCOUNT, job.id, limit=9, offset=0)) == 2
    assert (await store.retried_job(ACCOUNT, job.id)).sample == ("k",)
    await store.delete_job(ACCOUNT, job.id)
    assert await store.list_jobs(ACCOUNT, limit=9, offset=0) == []
    await store.close()


async def _fill(old: Database, job: Job) -> None:
    """Store an aborted job, using nothing that the first version did not have."""
    ended = {"status": "aborted", "finished_at": job.created_at}
    row = rows.job_values(job, values.SEALED) | ended | {"objects": 1, "failed": 1}
    del row["retry_of"], row["total_objects"], row["capabilities"], row["created_by"]
    failed = LogEntry(
        log_type=LogType.IMPORT_ERROR_RETRY_EXHAUSTION, created_at=job.created_at, object_key="k"
    )
    entries = rows.log_values(1, 0, [values.started(job), failed])

    def insert_all(connection: Connection) -> None:
        connection.execute(insert(schema.jobs), [row | {"number": 1, "log_entries": 2}])
        connection.execute(insert(schema.job_keys), [{"job_number": 1, "key": "k"}])
        whole = {"job_number": 1, "committed_at": job.created_at}
        connection.execute(insert(schema.ranges), [whole])
        connection.execute(insert(schema.logs), entries)

    await old.write(insert_all)


async def test_a_migration_that_is_killed_half_way_leaves_what_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened_at("0009", database_url, monkeypatch)
    shape = await old.read(_shape)

    def be_killed(connection: Connection) -> None:
        migrations.migrate(connection)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await old.write(be_killed)
    assert await old.read(_versions) == ["0009"]
    assert await old.read(_shape) == shape
    await old.close()
    store = await JobStore.open(database_url)
    assert await store.database.read(_versions) == [_head()]
    await store.close()


async def test_tokens_of_an_earlier_version_may_write_for_their_account(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await opened_at("0009", database_url, monkeypatch)
    insertion = text(
        "INSERT INTO tokens (name, account_id, sha256, created_at)"
        " VALUES (:name, :account, :sha256, :at)"
    )
    made = [("one", ACCOUNT), ("all", None), ("odd\n'\"", "a,b")]

    def insert_tokens(connection: Connection) -> None:
        for number, (name, account) in enumerate(made):
            values = {"name": name, "account": account, "sha256": bytes(32 * [number])}
            connection.execute(insertion, values | {"at": "2026-03-19 15:46:20.000000"})

    await old.write(insert_tokens)
    await old.close()
    store = await JobStore.open(database_url)
    found = {token.name: token for token in await TokenStore(store.database).list()}
    assert {name: token.accounts for name, token in found.items()} == {
        "one": (ACCOUNT,),
        "all": None,
        "odd\n'\"": ("a,b",),
    }
    assert {token.scope for token in found.values()} == {Scope.WRITE}
    assert not any(token.has_expired or token.expires_at for token in found.values())
    await store.close()


async def test_an_earlier_version_gets_no_token_that_may_do_less(store: Store) -> None:
    """It would take a token that may read, or has expired, for one that may do everything."""
    tokens = TokenStore(store.database)
    await tokens.create("one", (ACCOUNT,))
    await tokens.create("all")
    await tokens.create("admin", scope=Scope.ADMIN)
    await tokens.create("two", (ACCOUNT, "b"))
    await tokens.create("reads", scope=Scope.READ)
    await tokens.create("expires", expires=timedelta(hours=1))

    def go_back(connection: Connection) -> dict[str, str | None]:
        command.downgrade(migrations.configure(connection), "0011-1")
        found = connection.exec_driver_sql("SELECT name, account_id FROM tokens")
        return {row.name: row.account_id for row in found}

    left = await store.database.write(go_back)
    assert left == {"one": ACCOUNT, "all": None, "admin": None}


async def test_several_processes_may_open_a_new_database_at_once(database_url: str) -> None:
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(6)))
    for database in databases:
        assert await database.read(_versions) == [_head()]
        await database.close()


async def test_nobody_is_in_the_way_of_those_who_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(20):
        url = f"sqlite:///{tmp_path / str(number)}.db"
        databases = await asyncio.gather(*(Database.open(url) for _ in range(8)))
        for database in databases:
            await database.close()


def _versions(connection: Connection) -> list[str]:
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
    return list(found.scalars())


def _head() -> str:
    folder = migrations.__path__[0]
    head = ScriptDirectory(folder).get_current_head()
    assert head is not None
    return head
