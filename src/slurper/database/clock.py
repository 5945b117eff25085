"""The one clock of all processes on a database: its server's, or with SQLite this machine's.

The clocks of two machines differ. So this clock gives every time that one process stores and
another compares.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, select

from slurper.database.schema import UtcDateTime


def now(connection: Connection) -> datetime:
    """Return the time at this moment."""
    if connection.dialect.name != "postgresql":
        return datetime.now(UTC)
    # now() would tell when the transaction began: perhaps long before it got the lock.
    clock = select(func.clock_timestamp(type_=UtcDateTime))
    moment: datetime = connection.execute(clock).scalar_one()
    return moment


def ahead_of_ours(connection: Connection) -> timedelta:
    """By how much the database's clock is ahead of this process's clock.

    The true value is never more, and less only by the time that the question takes. A time that is
    translated to our clock may seem older by that.
    """
    if connection.dialect.name != "postgresql":
        return timedelta()
    asked_at = datetime.now(UTC)
    return now(connection) - asked_at
