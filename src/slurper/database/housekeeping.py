"""What the driver does in the database beside moving jobs: finish commands, erase what is old."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, update

from slurper.database import idempotency, in_batches
from slurper.database.connection import reads
from slurper.database.leases import LeasedStore, leased_writes
from slurper.database.schema import jobs


class Housekeeping(LeasedStore):
    """The chores of the process that holds the driver's lease.

    Each method raises LeaseLost if another process drives the jobs now.
    """

    @leased_writes
    def erase_secrets(self, connection: Connection, finished_before: datetime) -> int:
        """Erase the credentials of jobs that ended before `finished_before`; return how many jobs.

        Credentials that a sweep still needs are kept.
        """
        unneeded = (jobs.c.sealed.is_not(None), jobs.c.sweeps_failed.is_(None))
        due = (jobs.c.finished_at < finished_before, *unneeded)
        erased = connection.execute(update(jobs).where(*due).values(sealed=None))
        return erased.rowcount

    @leased_writes
    def forget_answers(self, connection: Connection) -> int:
        """Delete expired answers to requests; return how many."""
        return idempotency.forget(connection)

    async def tidy(self) -> bool:
        """Do one piece of the work that commands have left; False when nothing is left.

        That work is: give a retry its keys, and remove the rows of a deleted job.
        """
        # Usually there is nothing to do, so look first without a lock.
        return await self._is_untidy() and await self._tidy_piece()

    @reads
    def _is_untidy(self, connection: Connection) -> bool:
        return _find(connection) != (None, None)

    @leased_writes
    def _tidy_piece(self, connection: Connection) -> bool:
        unready, removable = _find(connection)
        if unready is not None:
            in_batches.take_keys(connection, unready)
        elif removable is not None:
            in_batches.remove(connection, removable)
        return unready is not None or removable is not None


def _find(connection: Connection) -> tuple[int | None, int | None]:
    unready = connection.scalar(in_batches.unready())
    return unready, connection.scalar(in_batches.removable())
