"""The keys of a job whose source lists in no order: gathered page by page, each kept once.

    the source is found to have none   the job's progress is forgotten (the objects at the target
                                       stay); from now on `ranges.cursor` holds a token
    a report with keys                 new keys become rows of `job_keys`
    the listing has come to its end    the cursor is removed, and the job goes on by its keys

A store may send tokens that lead in a circle, or refuse its own tokens. Two limits end that. A
listing may not show many more rows than there are keys. A listing may begin anew only
`MAX_TIMES_ANEW` times without a new key.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, delete, insert, select, update

from slurper.database.connection import insert_missing
from slurper.database.job_row import LockedJob
from slurper.database.rows import GatheredSoFar, to_gathered
from slurper.database.schema import job_keys, jobs, ranges, uploads
from slurper.job.model import LogType
from slurper.transfer.task import GatherReport, Halt

SPARE_ROWS = 10_000
"""A listing may show twice as many rows as there are keys, and so many more. Some keys are shown
twice, and some pages are empty."""

MAX_TIMES_ANEW = 5
"""How often a listing may begin anew in a row without a new key."""


def begin_anew(connection: Connection, job: LockedJob) -> None:
    """Forget a job's progress, and give it one range over all its keys."""
    for table in (ranges, uploads):
        connection.execute(delete(table).where(table.c.job_number == job.number))
    connection.execute(insert(ranges).values(job_number=job.number, committed_at=job.created_at))
    job.count_anew()


def begin(connection: Connection, job: LockedJob) -> None:
    """Begin to gather the keys of the job."""
    begin_anew(connection, job)
    job.gather(GatheredSoFar())
    job.change(total_objects=None, total_bytes=None)


def is_under_way(connection: Connection, number: int) -> bool:
    """Whether keys of a job are being gathered."""
    found = _read(connection, number)
    return found is not None and not found.done


def keep_keys(connection: Connection, job: LockedJob, report: GatherReport) -> Halt | None:
    """Store the keys of a report that is not stale; return a halt if the job cannot go on."""
    before = _read(connection, job.number) or GatheredSoFar()
    now = _after(before, report, _insert(connection, job.number, report.keys))
    if report.finished:
        job.change(total_objects=now.keys)
    job.gather(now)
    problem = None if report.finished else _problem_of(now)
    if problem is None:
        return None
    # When the job is resumed, the listing gets another try.
    job.gather(replace(now, rows=0, times_anew=0))
    this = ranges.c.id == report.range_id
    connection.execute(update(ranges).where(this).values(cursor=None))
    return Halt(log_type=LogType.MIGRATION_ERROR_FAILED_CONTINUATION, message=problem)


def _after(before: GatheredSoFar, told: GatherReport, new: int) -> GatheredSoFar:
    times_anew = before.times_anew + told.anew
    return GatheredSoFar(
        keys=before.keys + new,
        rows=told.rows if told.anew else before.rows + told.rows,
        times_anew=0 if new else times_anew,
        done=told.finished,
    )


def _problem_of(now: GatheredSoFar) -> str | None:
    does = "the source lists in no order that could be gone on with after a key"
    if now.rows > 2 * now.keys + SPARE_ROWS:
        return (
            f"{does}, and its pages go in circles: they have shown {now.rows} rows, and among them "
            f"{now.keys} keys; report it to the provider. Resumed, it lists from the beginning"
        )
    if now.times_anew >= MAX_TIMES_ANEW:
        return (
            f"{does}, and has not taken the token of its own page {now.times_anew} times, without "
            "a new key between; report it to the provider. Resumed, it lists from the beginning"
        )
    return None


def _insert(connection: Connection, number: int, keys: tuple[str, ...]) -> int:
    """Insert the keys that are new; return how many they are."""
    if not keys:
        return 0
    rows = [{"job_number": number, "key": key} for key in keys]
    statement = insert_missing(connection, job_keys)
    return connection.execute(
        statement, rows, execution_options={"preserve_rowcount": True}
    ).rowcount


def _read(connection: Connection, number: int) -> GatheredSoFar | None:
    return to_gathered(connection.scalar(select(jobs.c.gathered).where(jobs.c.number == number)))
