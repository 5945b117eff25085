"""The database connection: one way to write, one way to read, on SQLite and on PostgreSQL.

SQLite has one writer at a time. Writers of this process queue in order on a lock instead of
polling the file, for up to `TURN_SECONDS`; other processes wait up to `BUSY_SECONDS`. `BEGIN
IMMEDIATE` takes the write lock before the first read of a transaction, so what it read cannot
change under it. Readers see the last commit (WAL) and never wait.

A commit is on the disk when it returns (`synchronous=FULL`). A commit costs one fsync, and a busy
range commits once in several seconds, so durability is cheap here; without it a power loss could
take back an abort that had been acknowledged.

A transaction that has begun ends, even when its caller is cancelled (`uninterrupted`): a statement
runs in the driver's thread or on the server, where cancelling the wait for it would leave the
transaction open and the write lock taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from sqlalchemy import URL, Connection, Table, event, exc, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from slurper import errors
from slurper.database import migrations

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

BUSY_SECONDS = 30
"""How long a transaction waits for another process's: on SQLite for its end, on PostgreSQL for its
next statement, after which the server takes it back."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

TURN_SECONDS = 15
"""How long a transaction waits for others of this process, where only one can write. It comes to
that only when those wait for another process: so many of them must not add up their waits."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

_UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


def uninterrupted(
    transaction: Callable[Arguments, Coroutine[Any, Any, Result]],
) -> Callable[Arguments, Coroutine[Any, Any, Result]]:
    """Let a cancelled caller wait for the end of its transaction, and be cancelled then."""

    @functools.wraps(transaction)
    async def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        task = asyncio.create_task(transaction(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # nobody is left to be told
            raise

    return run


class Database:
    """An open database at the newest schema. Shared by the stores of one process."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(slurper_reads=True)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Connect, and bring the schema to the newest version.

        Raises:
            ConfigurationError: the URL, file or server cannot be used; names it and the fix.
        """
        url = _parse(database_url)
        database = cls(_create_engine(url))
        try:
            async with database.write() as connection:
                await database.serialise(connection, "migrations")
                await connection.run_sync(migrations.upgrade)
        except (
            errors.DatabaseUnavailable,
            exc.DBAPIError,
            migrations.UnknownRevisionError,
        ) as error:
            await database.close()
            raise errors.ConfigurationError(_cannot_use(url, error)) from error
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close every connection. SQLite folds its write-ahead log into the file."""
        await self._engine.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Run the block as one transaction that commits at its end.

        Raises:
            DatabaseUnavailable: the block is not committed. (Only a server that goes away while it
                answers the COMMIT leaves that open.)
        """
        with _translated():
            async with self._turn(), self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """On SQLite, be the only writer of this process while the block lasts."""
        if not self._is_sqlite:
            yield
            return
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._writing.acquire()
        except TimeoutError as error:
            raise errors.DatabaseUnavailable(
                "the database cannot be used: database is locked, and others wait for it already"
            ) from error
        try:
            yield
        finally:
            self._writing.release()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Run the block as one transaction that only reads.

        Raises:
            DatabaseUnavailable: the database could not be read.
        """
        with _translated():
            async with self._reader.begin() as connection:
                yield connection

    async def serialise(self, connection: AsyncConnection, name: str) -> None:
        """Let no other transaction with the same `name` run until this one ends.

        For rules over several rows, which row locks cannot guard. On SQLite writers are alone.
        """
        if not self._is_sqlite:
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            await connection.execute(lock, {"name": f"slurper:{name}"})


def insert_missing(connection: AsyncConnection, table: Table) -> Insert:
    """Return an INSERT that leaves out what the table has already.

    It is spelled alike on SQLite and PostgreSQL, but known to SQLAlchemy by dialect; the one that
    is not in use takes its time to load.
    """
    dialect = importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    statement: Insert = dialect.insert(table).on_conflict_do_nothing()
    return statement


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _UNAVAILABLE as error:
        cause = getattr(error, "orig", None) or error
        raise errors.DatabaseUnavailable(f"the database cannot be used: {cause}") from error
    except ConnectionError as error:  # asyncpg's refused and lost connections arrive bare
        raise errors.DatabaseUnavailable(f"the database cannot be reached: {error}") from error


def _parse(database_url: str) -> URL:
    try:
        url = make_url(database_url)
    except exc.ArgumentError as error:
        raise errors.ConfigurationError(
            "SLURPER_DATABASE_URL is no SQLAlchemy URL such as sqlite:////var/lib/slurper/slurper.db"
            " or postgresql://user:password@host/database"
        ) from error
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise errors.ConfigurationError(
            f"SLURPER_DATABASE_URL names {url.drivername}; use sqlite or postgresql"
        )
    return url.set(drivername=driver)


def _create_engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        _create_file(url)
        # Named, because releases before SQLAlchemy 2.0.38 open a file anew for each transaction.
        engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool)
        event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    try:
        engine = create_async_engine(url, pool_pre_ping=True)
    except ImportError as error:
        raise errors.ConfigurationError(
            "SLURPER_DATABASE_URL names PostgreSQL, which needs the extra slurper[postgres]"
        ) from error
    event.listen(engine.sync_engine, "connect", _set_up_postgresql)
    return engine


def _create_file(url: URL) -> None:
    """Create the database file readable by its owner only; SQLite's side files inherit that."""
    if not url.database or url.database == ":memory:" or url.query:
        raise errors.ConfigurationError(
            "SLURPER_DATABASE_URL must name a SQLite file, without parameters"
        )
    try:
        os.close(os.open(url.database, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise errors.ConfigurationError(_cannot_use(url, error)) from error


def _set_up_sqlite(dbapi_connection: DBAPIConnection, _record: object) -> None:
    dbapi_connection.isolation_level = None  # `_begin_sqlite` begins, not the driver
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # erased secrets are gone from the file
    cursor.close()


def _set_up_postgresql(dbapi_connection: DBAPIConnection, _record: object) -> None:
    """Let nobody wait for ever for a process that was suspended inside a transaction."""
    cursor = dbapi_connection.cursor()
    milliseconds = int(BUSY_SECONDS * 1000)
    cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    cursor.close()
    dbapi_connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("slurper_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _cannot_use(url: URL, error: Exception) -> str:
    if isinstance(error, migrations.UnknownRevisionError):
        cause = f"its schema is unknown to this version, so a newer one wrote it ({error})"
        fix = "upgrade Slurper, or restore the backup made before the upgrade"
    else:
        cause = str(error.strerror if isinstance(error, OSError) else _root_cause(error))
        fix = "check that it exists, has space, and that this user may write to it"
    if url.get_backend_name() == "sqlite" and url.database:
        return f"cannot use the database file {Path(url.database).absolute()}: {cause}; {fix}"
    return f"cannot use the database {url.render_as_string()}: {cause}; {fix}"


def _root_cause(error: BaseException) -> BaseException:
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig
    return _root_cause(error.__cause__) if error.__cause__ else error
