"""Which objects of a copy failed: the first of them for people, all of them for the next copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import BinaryIO

from slurper.jobs.models import LogEntry, LogType
from slurper.jobs.service import JobService

LOG_PAGE = 1000
SHOWN = 10


async def collect(
    service: JobService, account_id: str, job_id: str, keys: BinaryIO | None
) -> tuple[tuple[LogEntry, ...], int]:
    """Return the first failures of a job; write the keys of all of them to `keys`, one a line.

    The second value counts the keys that no line can hold, since they contain a line break.
    """
    shown: list[LogEntry] = []
    unwritten = 0
    async for entry in log(service, account_id, job_id):
        if entry.log_type is not LogType.IMPORT_ERROR_RETRY_EXHAUSTION:
            continue
        if len(shown) < SHOWN:
            shown.append(entry)
        elif keys is None:
            break
        key = (entry.object_key or "").encode("utf-8", "surrogateescape")
        if keys is not None and b"\n" not in key:
            keys.write(key + b"\n")
        else:
            unwritten += keys is not None
    return tuple(shown), unwritten


async def log(service: JobService, account_id: str, job_id: str) -> AsyncIterator[LogEntry]:
    """Yield a job's whole log, oldest first."""
    offset = 0
    while page := await service.logs(account_id, job_id, limit=LOG_PAGE, offset=offset):
        for entry in page:
            yield entry
        offset += len(page)
