"""SQLite's file: how it becomes smaller when rows are deleted.

Pages of deleted rows are used again. A file that was made with `auto_vacuum = INCREMENTAL` can also
give them back to the disk, some at a time. A file of an earlier version cannot, until it is
compacted once (`compact`).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

SPARE_PAGES = 2_048
"""So many unused pages stay in the file (8 MiB), for the rows to come."""

PIECE_PAGES = 512
"""One transaction gives so many pages back (2 MiB)."""

_LOG_PAGES = 1_000
"""When a commit has made the log this long, SQLite takes it into the file by itself."""

_AUTO_VACUUM_INCREMENTAL = 2


def let_it_shrink(cursor: DBAPICursor) -> None:
    """Make an empty file one that can give pages back.

    Others are left alone: the statement would wait until nobody writes.
    """
    cursor.execute("PRAGMA page_count")
    if cursor.fetchone() == (0,):
        cursor.execute(f"PRAGMA auto_vacuum = {_AUTO_VACUUM_INCREMENTAL}")


def give_back(connection: Connection) -> bool:
    """Give some unused pages back to the disk; False when there are few, or it cannot be done."""
    if connection.dialect.name != "sqlite":
        return False
    if _number(connection, "auto_vacuum") != _AUTO_VACUUM_INCREMENTAL:
        return False
    if _number(connection, "freelist_count") < SPARE_PAGES + PIECE_PAGES:
        return False
    cursor = connection.connection.cursor()
    for _ in range(PIECE_PAGES):
        cursor.execute("PRAGMA incremental_vacuum(1)")  # of a larger number sqlite3 does one too
    cursor.close()
    return True


def fold_log(cursor: DBAPICursor, busy_seconds: float) -> None:
    """Take the write-ahead log into the file and cut the log; not while somebody uses it.

    Most of it is done while others may write. Only then is the rest done and the log cut, which
    keeps writers out for a moment. `busy_seconds` is how long this connection waits for others, but
    not here.
    """
    cursor.execute("PRAGMA busy_timeout = 0")
    try:
        for mode in ("PASSIVE", "TRUNCATE"):
            cursor.execute(f"PRAGMA wal_checkpoint({mode})")
            is_busy, in_log, folded = cursor.fetchone() or (1, 0, 0)
            if is_busy or in_log - folded > _LOG_PAGES:
                return
    finally:
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")


def compact(path: Path) -> tuple[int, int]:
    """Write the file anew, without unused pages; return its size before and after.

    From then on it can give pages back. Nobody else can write meanwhile.

    Raises:
        sqlite3.Error: somebody uses the file, or the disk has no space for a second one.
    """
    before = path.stat().st_size
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        connection.execute(f"PRAGMA auto_vacuum = {_AUTO_VACUUM_INCREMENTAL}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return before, path.stat().st_size


def _number(connection: Connection, pragma: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one())
