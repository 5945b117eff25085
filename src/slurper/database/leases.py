"""Leases: each has at most one holder, and a token that refuses the writes of earlier holders.

A lease is a row with a token. A process that takes the lease raises the token. A holder can renew
only while the row has its token. A transaction that checks the token cannot commit after another
process has raised it. Two things are separate:

- *Safety* depends on the token alone. A process may be stopped, suspended or cut off for any time.
  If the token was raised meanwhile, its transactions are refused. No clock takes part.
- *Takeover* is possible when the lease has expired, or when its holder on the same machine is
  certainly dead. One clock judges expiry: the database server's, or with SQLite this machine's. If
  it jumps, a takeover may come too early or too late. There are never two holders.

An expired lease that no other process has taken still belongs to its holder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, TypeVar

from sqlalchemy import Connection, Row, Select, select, update

from slurper import errors
from slurper.database import clock
from slurper.database.connection import (
    Arguments,
    Database,
    Result,
    Store,
    insert_missing,
    reads,
    writes,
)
from slurper.database.holders import Holder
from slurper.database.schema import leases

LeasedStoreT = TypeVar("LeasedStoreT", bound="LeasedStore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What a holder shows in each of its transactions."""

    name: str
    token: int
    """It grows each time the lease is taken or released."""


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
        """Take the lease for `seconds`; None when a process holds it, perhaps this one."""
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
        """Extend the lease to `seconds` from now, even if it has expired meanwhile.

        Raises:
            LeaseLost: somebody else has taken it.
        """
        _check_for_update(connection, lease)
        expires_at = clock.now(connection) + timedelta(seconds=seconds)
        _change(connection, lease.name, expires_at=expires_at)

    @writes
    def release(self, connection: Connection, lease: Lease) -> None:
        """Let others take the lease at once. If another process has taken it, nothing happens.

        This raises the token. So transactions that still show this lease are refused.
        """
        mine = (leases.c.name == lease.name, leases.c.token == lease.token)
        free = {"token": lease.token + 1, "holder": None, "expires_at": None}
        connection.execute(update(leases).where(*mine).values(free))


def check(connection: Connection, lease: Lease) -> None:
    """Pass if the lease is held, and let no other process take it until the transaction ends.

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
    """Make the row of the lease, if there is none. The row and its token stay for ever."""
    connection.execute(insert_missing(connection, leases).values(name=name, token=0))


def _holder_of(connection: Connection, row: Row[*tuple[Any, ...]] | None) -> Holder | None:
    if row is None or row.holder is None:
        return None
    holder = Holder.parse(row.holder)
    is_over = row.expires_at <= clock.now(connection) or holder.lives is False
    return None if is_over else holder


def _change(connection: Connection, name: str, **values: object) -> None:
    connection.execute(update(leases).where(leases.c.name == name).values(values))


class LeasedStore(Store):
    """A store whose writes are those of the holder of a lease, and of no other process."""

    def __init__(self, database: Database, lease: Lease) -> None:
        super().__init__(database)
        self.lease = lease


def leased_writes(
    method: Callable[Concatenate[LeasedStoreT, Connection, Arguments], Result],
) -> Callable[Concatenate[LeasedStoreT, Arguments], Coroutine[Any, Any, Result]]:
    """Run the whole method as one transaction, in which the lease is checked first."""

    @functools.wraps(method)
    def checked(
        store: LeasedStoreT,
        connection: Connection,
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        check(connection, store.lease)
        return method(store, connection, *args, **kwargs)

    return writes(checked)
