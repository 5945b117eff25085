"""What the driver does in the database beside moving jobs: finish commands, remove what is old.

Each method is one piece of such work: a short transaction. While there may be more, it says so.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from slurper.database import clock, in_batches, sqlite_file
from slurper.database.connection import reads
from slurper.database.leases import LeasedStore, leased_writes


class Housekeeping(LeasedStore):
    """The chores of the process that holds the driver's lease.

    Each method raises LeaseLost if another process drives the jobs now.
    """

    @leased_writes
    def erase_secrets(self, connection: Connection, finished_before: datetime) -> int:
        """Erase the credentials of some jobs that ended before `finished_before`; return how many.

        Credentials that a sweep still needs are kept.
        """
        return in_batches.erase_secrets(connection, finished_before)

    @leased_writes
    def forget_answers(self, connection: Connection) -> int:
        """Delete some expired answers to requests; return how many."""
        return in_batches.forget_answers(connection, clock.now(connection))

    @leased_writes
    def retire(self, connection: Connection, finished_before: datetime, at: datetime) -> int:
        """Delete some jobs that ended before `finished_before`; return how many.

        `tidy` removes their rows.
        """
        return in_batches.retire(connection, finished_before, at)

    @leased_writes
    def clear(self, connection: Connection, ended_by: datetime) -> bool:
        """Delete some rows that jobs needed until they ended; False when none is left."""
        return in_batches.clear(connection, ended_by)

    @leased_writes
    def give_back(self, connection: Connection) -> bool:
        """Give unused space of SQLite's file back to the disk; False when there is little left."""
        return sqlite_file.give_back(connection)

    async def fold_log(self) -> None:
        """Take what is in SQLite's write-ahead log into the file, if nobody uses the log now."""
        await self.database.fold_log()

    async def tidy(self) -> bool:
        """Do one piece of the work that commands have left; False when nothing is left.

        That work is: give a retry its keys, and remove the rows of deleted jobs.
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
            return True
        deleted = 0
        while removable is not None and deleted < in_batches.PIECE_ROWS:
            deleted += in_batches.remove(connection, removable)
            removable = connection.scalar(in_batches.removable())
        return deleted > 0


def _find(connection: Connection) -> tuple[int | None, int | None]:
    unready = connection.scalar(in_batches.unready())
    return unready, connection.scalar(in_batches.removable())
