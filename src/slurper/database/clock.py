"""The one clock of all processes on a database: its server's, or with SQLite this machine's.

What one process notes and another compares is told by this clock, because the clocks of two
machines differ.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from slurper.database.schema import UtcDateTime


def now(connection: Connection) -> datetime:
    """Return the time at this moment."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    # Not now(), which is when the transaction began, perhaps long before it got the lock.
    clock = select(func.clock_timestamp(type_=UtcDateTime))
    moment: datetime = connection.execute(clock).scalar_one()
    return moment


def ahead_of_ours(connection: Connection) -> timedelta:
    """By how much the database's clock is ahead of this process's, at most.

    Less only by the time that asking takes: what is translated to our clock seems that much older.
    """
    if connection.dialect.name != "postgresql":
        return timedelta()
    asked_at = datetime.now(UTC)
    return now(connection) - asked_at
