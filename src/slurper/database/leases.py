"""Leases: at most one holder of a name, and a fencing token against those who believe they are it.

A lease is a row. Whoever takes it raises its token; only a row whose token is still the own one can
be renewed, and a transaction that checks the token cannot commit once somebody else has raised it.
So two things are kept apart:

- *Safety* is the token alone. A process that was stopped, suspended or cut off for however long
  finds it raised, and its transaction is refused. No clock takes part.
- *Takeover* is the expiry, or the certain death of a holder on the same machine. It is judged by
  one clock: the database server's, or with SQLite this machine's. A clock that jumps can hasten or
  delay a takeover; it cannot make two holders.

An expired lease that nobody has taken is still its holder's: there is no other to be protected.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from slurper import errors
from slurper.database import clock
from slurper.database.connection import Database, Store, insert_missing, reads, writes
from slurper.database.holders import Holder
from slurper.database.schema import leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What its holder shows in every transaction."""

    name: str
    token: int
    """Grows with every change of hands."""


class LeaseStore(Store):
    """The leases of a database, as one process sees them."""

    def __init__(self, database: Database, holder: Holder | None = None) -> None:
        """Prepare; `holder` is this process unless a test says otherwise."""
        super().__init__(database)
        self._holder = holder or Holder.this_process()

    @reads
    def holder(self, connection: Connection, name: str) -> Holder | None:
        """Return who holds the lease, or None when it can be taken. Changes nothing."""
        row = connection.execute(_row_of(name)).one_or_none()
        return _holder_of(connection, row)

    @writes
    def acquire(self, connection: Connection, name: str, seconds: float) -> Lease | None:
        """Take the lease for a time; None when somebody holds it, which may be this process."""
        _ensure(connection, name)
        row = connection.execute(_row_of(name).with_for_update()).one()
        if _holder_of(connection, row) is not None:
            return None
        lease = Lease(name=name, token=row.token + 1)
        _change(
            connection,
            row.name,
            token=lease.token,
            holder=self._holder.encode(),
            expires_at=clock.now(connection) + timedelta(seconds=seconds),
        )
        return lease

    @writes
    def renew(self, connection: Connection, lease: Lease, seconds: float) -> None:
        """Hold the lease for a time from now on, even if it has expired meanwhile.

        Raises:
            LeaseLost: somebody else has taken it.
        """
        _check_for_update(connection, lease)
        expires_at = clock.now(connection) + timedelta(seconds=seconds)
        _change(connection, lease.name, expires_at=expires_at)

    @writes
    def release(self, connection: Connection, lease: Lease) -> None:
        """Let others take the lease at once; nothing happens when somebody has taken it already.

        The token is raised: what still shows this lease is refused from now on.
        """
        mine = (leases.c.name == lease.name, leases.c.token == lease.token)
        free = {"token": lease.token + 1, "holder": None, "expires_at": None}
        connection.execute(update(leases).where(*mine).values(free))


def check(connection: Connection, lease: Lease) -> None:
    """Pass while the lease is held, and keep it from changing hands until the transaction ends.

    Raises:
        LeaseLost: somebody else has taken it, or it was released.
    """
    query = select(leases.c.token, leases.c.holder).where(leases.c.name == lease.name)
    row = connection.execute(query.with_for_update(read=True)).one_or_none()
    _compare(row, lease)


def _check_for_update(connection: Connection, lease: Lease) -> None:
    row = connection.execute(_row_of(lease.name).with_for_update()).one_or_none()
    _compare(row, lease)


def _compare(row: Row[*tuple[Any, ...]] | None, lease: Lease) -> None:
    if row is not None and row.token == lease.token:
        return
    taker = "nobody" if row is None or row.holder is None else str(Holder.parse(row.holder))
    raise errors.LeaseLost(f"the lease {lease.name!r} has changed hands; it is held by {taker} now")


def _row_of(name: str) -> Select[*tuple[Any, ...]]:
    return select(leases).where(leases.c.name == name)


def _ensure(connection: Connection, name: str) -> None:
    """Make the row that a first holder needs. It stays for ever, and with it the token."""
    connection.execute(insert_missing(connection, leases).values(name=name, token=0))


def _holder_of(connection: Connection, row: Row[*tuple[Any, ...]] | None) -> Holder | None:
    if row is None or row.holder is None:
        return None
    holder = Holder.parse(row.holder)
    is_over = row.expires_at <= clock.now(connection) or holder.lives is False
    return None if is_over else holder


def _change(connection: Connection, name: str, **values: object) -> None:
    connection.execute(update(leases).where(leases.c.name == name).values(values))
