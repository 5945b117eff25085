"""How a copy ended: its counts, which objects failed, and why others were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from slurper.database.reading import JobReader
from slurper.job.model import Counts, JobCapabilities, JobStatus, LogEntry, LogType

LOG_PAGE = 1000
SHOWN = 10

EXISTS = "exists"
"""A reason to skip an object. It is the only one without a log entry."""

SKIPPED = {
    LogType.IMPORT_SKIPPED_STORAGE_CLASS: "archived",
    LogType.IMPORT_SKIPPED_OVERSIZED: "too large",
    LogType.IMPORT_SKIPPED_EMPTY_OBJECT: "empty",
    LogType.IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE: "type not included",
    LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE: "type excluded",
    LogType.IMPORT_SKIPPED_INVALID_MEDIA: "invalid media",
    LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL: "requires retrieval",
    EXISTS: "exists already",
}
"""The reasons to skip an object, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is known of the objects that were not transferred."""

    failed_entries: tuple[LogEntry, ...]
    """The log entries of the first objects that failed, for people."""
    unwritten_keys: int
    """How many failed keys were not written to the file, because they contain a line break."""
    skipped: Mapping[str, int]
    """How many objects were skipped, by reason: a log type, or `EXISTS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """How a copy ended, or how far it came."""

    job_id: str
    resumed: bool
    """An earlier run had begun the job."""
    status: JobStatus
    counts: Counts
    """The counters of the whole job, earlier runs included."""
    seconds: float
    """How long this run took."""
    copied_now: Counts
    """The counters of this run alone."""
    left: Left
    """What is known of the objects that were not transferred."""
    capabilities: JobCapabilities
    """What the stores were found to do when the job was made."""
    halt: str | None = None
    """Why the job could not go on."""
    stopped_by: int | None = None
    """The signal that ended this run early."""


async def collect(
    jobs: JobReader, account_id: str, job_id: str, keys: BinaryIO | None, *, skipped: int
) -> Left:
    """Read the log of a job. `skipped` is how many objects the job has skipped.

    The keys of all objects that failed are written to `keys`, one per line.
    """
    failed_entries: list[LogEntry] = []
    reasons: Counter[str] = Counter()
    unwritten = 0
    async for entry in log(jobs, account_id, job_id):
        if entry.log_type in SKIPPED:
            reasons[entry.log_type] += 1
        elif entry.log_type is LogType.IMPORT_ERROR_RETRY_EXHAUSTION:
            if len(failed_entries) < SHOWN:
                failed_entries.append(entry)
            unwritten += not _written(entry, keys)
    reasons[EXISTS] = skipped - reasons.total()
    return Left(
        failed_entries=tuple(failed_entries), unwritten_keys=unwritten, skipped=dict(+reasons)
    )


def _written(entry: LogEntry, keys: BinaryIO | None) -> bool:
    """Write the key of an object, if there is a file. False: a line cannot hold the key."""
    key = (entry.object_key or "").encode("utf-8", "surrogateescape")
    if keys is None:
        return True
    if b"\n" in key:
        return False
    keys.write(key + b"\n")
    return True


async def log(jobs: JobReader, account_id: str, job_id: str) -> AsyncIterator[LogEntry]:
    """Yield a job's whole log, oldest first."""
    offset = 0
    while page := await jobs.logs(account_id, job_id, limit=LOG_PAGE, offset=offset):
        for entry in page:
            yield entry
        offset += len(page)
