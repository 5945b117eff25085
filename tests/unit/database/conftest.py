"""One store suite, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.servers import postgresql
from tests.servers.postgresql import PostgresServer
from tests.unit.database.values import Store

_numbers = count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgresql.running() as server:
        yield server


_POSTGRES_MARKS = (
    pytest.mark.processes,
    pytest.mark.skipif(postgresql.find_binaries() is None, reason=postgresql.MISSING),
)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=_POSTGRES_MARKS)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'slurper.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(f"slurper{next(_numbers)}") as url:
        yield url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[Store]:
    """For what only a file can show."""
    opened = await Store.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    yield opened
    await opened.close()
