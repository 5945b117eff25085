"""Seals the credentials of all jobs again, while services use the database.

What a service seals, it seals inside the transaction that stores it (`sealed_now`). So there is a
moment after which nothing comes that an older key has sealed: when a new key is the first one for
every process, and all transactions that may have begun before have ended (`outlive_older`). From
then on, one pass over the rows finds everything that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from slurper.database.connection import Store, reads, serialise, writes
from slurper.database.schema import jobs

PIECE_ROWS = 200
"""One transaction changes so many rows. It takes some milliseconds."""

Sealed = bytes | Callable[[], bytes]
"""Sealed credentials, or what seals them inside the transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """The sealed credentials of one job."""

    number: int
    sealed: bytes


def sealed_now(connection: Connection, sealed: Sealed) -> bytes:
    """Return sealed credentials to store in this transaction, with the key in use now."""
    if isinstance(sealed, bytes):
        return sealed
    serialise(connection, _KEYS, shared=True)
    return sealed()


class SealedStore(Store):
    """The sealed credentials of all accounts."""

    @writes
    def outlive_older(self, connection: Connection) -> None:
        """Wait until all transactions have ended that may have sealed with an older key."""
        serialise(connection, _KEYS)

    @reads
    def after(self, connection: Connection, number: int) -> list[SealedRow]:
        """Return the next rows that have sealed credentials, in order."""
        found = connection.execute(
            select(jobs.c.number, jobs.c.sealed)
            .where(jobs.c.number > number, jobs.c.sealed.is_not(None))
            .order_by(jobs.c.number)
            .limit(PIECE_ROWS)
        )
        return [SealedRow(number=row.number, sealed=bytes(row.sealed)) for row in found]

    @writes
    def replace(self, connection: Connection, pairs: Sequence[tuple[SealedRow, bytes]]) -> int:
        """Store credentials that were sealed again; return how many.

        A row that has others by now is left alone. It has newer ones, or they were erased.
        """
        return sum(
            connection.execute(
                update(jobs)
                .where(jobs.c.number == row.number, jobs.c.sealed == row.sealed)
                .values(sealed=sealed)
            ).rowcount
            for row, sealed in pairs
        )


_KEYS = "keys"
"""The name of the lock. On SQLite it is the file's: there is only one writer at a time."""
