"""The database connection: one way to write, one way to read, on SQLite and on PostgreSQL.

A transaction is an ordinary function of a connection. It runs from BEGIN to COMMIT in a thread, so
the event loop does not wait for the database. Writers and readers have threads of their own
(`threads`).

SQLite has one writer at a time. Writers of this process queue in order instead of polling the file,
for up to `TURN_SECONDS`; other processes wait up to `BUSY_SECONDS`. `BEGIN IMMEDIATE` takes the
write lock before the first read of a transaction, so what it read cannot change under it. Readers
see the last commit (WAL) and never wait.

A commit is on the disk when it returns (`synchronous=FULL`). Otherwise a power loss could undo an
abort that was acknowledged. A commit costs one fsync. That is cheap here, since a busy range
commits once in several seconds.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    Table,
    create_engine,
    event,
    exc,
    make_url,
    text,
)
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from slurper import errors
from slurper.database import migrations, sqlite_file
from slurper.database.threads import NoTurnError, Threads

if TYPE_CHECKING:
    from sqlalchemy.dialects.sqlite import Insert

BUSY_SECONDS = 30
"""How long a transaction waits for one of another process. On SQLite it waits for the end of that
one. On PostgreSQL the server rolls back a transaction that sends no statement for so long."""

TURN_SECONDS = 15
"""How long a transaction waits for others of this process, where only one can write. They take that
long only when they wait for another process. The limit keeps such waits from adding up."""

_SWITCH_SECONDS = 0.005
"""How long we wait before the next try while another process sets up a new file."""

CONNECT_SECONDS = 30
"""How long a PostgreSQL server may take to accept a connection, unless the URL says otherwise."""

POSTGRESQL_WRITERS = 10
"""Transactions that write at the same time; most of them wait for a lock or for the server."""

READERS = 5
"""Transactions that read at the same time."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
StoreT = TypeVar("StoreT", bound="Store")

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+aiosqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""The drivers in use, by the names that a URL may give, names of earlier versions included."""

_UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


class Database:
    """An open database at the newest schema. Shared by the stores of one process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(slurper_reads=True)
        writers = 1 if engine.dialect.name == "sqlite" else POSTGRESQL_WRITERS
        self._writing = Threads("writes", writers)
        self._reading = Threads("reads", READERS)

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Connect, and bring the schema to the newest version.

        Raises:
            ConfigurationError: the URL, file or server cannot be used; names it and the fix.
        """
        url = _parse(database_url)
        database = cls(_create_engine(url))
        try:
            await database.write(_upgrade)
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
        """End every thread and connection. SQLite folds its write-ahead log into the file."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._writing.close()
        self._reading.close()
        self._engine.dispose()

    async def write(self, transaction: Callable[[Connection], Result]) -> Result:
        """Run a function as one transaction that commits at its end.

        Raises:
            DatabaseUnavailable: nothing is committed. (If the server goes away while it answers
                the COMMIT, the transaction may be committed.)
        """
        return await self._run(self._writing, self._engine, transaction)

    async def read(self, transaction: Callable[[Connection], Result]) -> Result:
        """Run a function as one transaction that only reads.

        Raises:
            DatabaseUnavailable: the database could not be read.
        """
        return await self._run(self._reading, self._reader, transaction)

    async def fold_log(self) -> None:
        """Shorten SQLite's write-ahead log, which does not become shorter by itself.

        Raises:
            DatabaseUnavailable: the file could not be used.
        """
        if self._engine.dialect.name == "sqlite":
            try:
                await self._writing.run(functools.partial(_fold_log, self._engine), TURN_SECONDS)
            except NoTurnError:
                return  # it is not idle; later, then

    async def _run(
        self, threads: Threads, engine: Engine, transaction: Callable[[Connection], Result]
    ) -> Result:
        work = functools.partial(_from_begin_to_commit, engine, transaction)
        try:
            return await threads.run(work, TURN_SECONDS)
        except NoTurnError as error:
            raise errors.DatabaseUnavailable(f"the database cannot be used: {error}") from error


class Store:
    """Base of classes whose methods are transactions: those decorated with `reads` or `writes`.

    Such a method is written as an ordinary function that takes a connection. Callers pass no
    connection, and await the method.
    """

    def __init__(self, database: Database) -> None:
        self.database = database


def reads(
    method: Callable[Concatenate[StoreT, Connection, Arguments], Result],
) -> Callable[Concatenate[StoreT, Arguments], Coroutine[Any, Any, Result]]:
    """Run the whole method as one transaction that only reads (`Database.read`)."""

    @functools.wraps(method)
    async def run(store: StoreT, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await store.database.read(
            lambda connection: method(store, connection, *args, **kwargs)
        )

    return run


def writes(
    method: Callable[Concatenate[StoreT, Connection, Arguments], Result],
) -> Callable[Concatenate[StoreT, Arguments], Coroutine[Any, Any, Result]]:
    """Run the whole method as one transaction that commits at its end (`Database.write`)."""

    @functools.wraps(method)
    async def run(store: StoreT, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await store.database.write(
            lambda connection: method(store, connection, *args, **kwargs)
        )

    return run


def serialise(connection: Connection, name: str, *, shared: bool = False) -> None:
    """Let no other transaction with the same `name` run until this one ends.

    Those that are `shared` may run together, but not beside one that is not. This is for rules over
    several rows, which row locks cannot guard. On SQLite there is only one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        kind = "_shared" if shared else ""
        lock = text(f"SELECT pg_advisory_xact_lock{kind}(hashtextextended(:name, 0))")
        connection.execute(lock, {"name": f"slurper:{name}"})


def insert_missing(connection: Connection, table: Table) -> Insert:
    """Return an INSERT that leaves out rows that the table has already.

    SQLAlchemy has a separate one for each dialect. Only the dialect in use is imported, because an
    import takes time.
    """
    dialect = importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    statement: Insert = dialect.insert(table).on_conflict_do_nothing()
    return statement


def _upgrade(connection: Connection) -> None:
    serialise(connection, "migrations")
    migrations.upgrade(connection)


def _from_begin_to_commit(engine: Engine, transaction: Callable[[Connection], Result]) -> Result:
    with _translated(), engine.begin() as connection:
        return transaction(connection)


def _fold_log(engine: Engine) -> None:
    with _translated(), engine.connect() as connection:
        cursor = connection.connection.cursor()  # no transaction may be open
        sqlite_file.fold_log(cursor, BUSY_SECONDS)
        cursor.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _UNAVAILABLE as error:
        cause = getattr(error, "orig", None) or error
        raise errors.DatabaseUnavailable(f"the database cannot be used: {cause}") from error


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


def _create_engine(url: URL) -> Engine:
    """Make the engine: one connection for each thread, and any thread may use any connection."""
    if url.get_backend_name() == "sqlite":
        _create_file(url)
        # Named, because releases before SQLAlchemy 2.0.38 open a file anew for each transaction.
        engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=1 + READERS,
            max_overflow=0,
            connect_args={"check_same_thread": False},
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=READERS,
            max_overflow=POSTGRESQL_WRITERS,
        )
    except ImportError as error:
        raise errors.ConfigurationError(
            "SLURPER_DATABASE_URL names PostgreSQL, which needs the extra slurper[postgres]"
        ) from error
    event.listen(engine, "connect", _set_up_postgresql)
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
    _set_up_file(cursor)
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # erased secrets are gone from the file
    cursor.close()


def _set_up_file(cursor: DBAPICursor) -> None:
    """Let a new file shrink, and switch it to write-ahead logging. A file keeps both for ever.

    While a new file is being switched, SQLite does not wait for other processes that open it at the
    same time. So we wait and try again.
    """
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            sqlite_file.let_it_shrink(cursor)
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(_SWITCH_SECONDS)
        else:
            return


def _set_up_postgresql(dbapi_connection: DBAPIConnection, _record: object) -> None:
    """Make the server end a transaction of a suspended process, so that nobody waits for ever."""
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
