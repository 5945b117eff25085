"""The keys of a job whose source lists in no order: gathered page by page, each kept once.

    the source is found to have none   what the job has done is forgotten, but for what is at the
                                       target; from now on `ranges.cursor` holds a token
    a report with keys                 they become rows of `job_keys`, unless they are that already
    the listing has come to its end    the cursor is taken away, and the job goes on by its keys

A store may name tokens in circles, or take none of those that it names. Neither goes on for ever:
no listing shows many more keys than there are, and one that begins anew has to find a new one.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import Connection, delete, func, insert, select, update

from slurper.database.connection import insert_missing
from slurper.database.job_row import LockedJob
from slurper.database.rows import GatheredSoFar, to_gathered
from slurper.database.schema import job_keys, jobs, ranges, uploads
from slurper.job.model import LogType
from slurper.transfer.task import GatherReport, Halt

SPARE_ROWS = 10_000
"""So many more rows than twice the keys may be listed: some are shown twice, some pages are empty.
"""

MAX_TIMES_ANEW = 5
"""In a row without a new key."""


def begin_anew(connection: Connection, job: LockedJob) -> None:
    """Forget what is done of a job; make one range of it."""
    for table in (ranges, uploads):
        connection.execute(delete(table).where(table.c.job_number == job.number))
    connection.execute(insert(ranges).values(job_number=job.number, committed_at=job.created_at))
    job.count_anew()


def begin(connection: Connection, job: LockedJob) -> None:
    """From now on the keys of the job are gathered."""
    begin_anew(connection, job)
    job.change(gathered=asdict(GatheredSoFar()), total_objects=None, total_bytes=None)


def is_under_way(connection: Connection, number: int) -> bool:
    """Whether keys of a job are being gathered."""
    found = _read(connection, number)
    return found is not None and not found.done


def keep_keys(connection: Connection, job: LockedJob, report: GatherReport) -> Halt | None:
    """Keep the keys of a report, which is not stale; return why the job cannot go on, if so."""
    before = _read(connection, job.number) or GatheredSoFar()
    now = _after(before, report, _insert(connection, job.number, report.keys))
    if report.finished:
        job.change(total_objects=_count(connection, job.number))
    job.change(gathered=asdict(now))
    problem = None if report.finished else _problem_of(now)
    if problem is None:
        return None
    # So that it can be tried once more when the job is resumed.
    job.change(gathered=asdict(replace(now, rows=0, times_anew=0)))
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
    """Return how many of them are new."""
    if not keys:
        return 0
    rows = [{"job_number": number, "key": key} for key in keys]
    statement = insert_missing(connection, job_keys)
    return connection.execute(
        statement, rows, execution_options={"preserve_rowcount": True}
    ).rowcount


def _count(connection: Connection, number: int) -> int:
    of_job = job_keys.c.job_number == number
    return connection.scalar(select(func.count()).select_from(job_keys).where(of_job)) or 0


def _read(connection: Connection, number: int) -> GatheredSoFar | None:
    return to_gathered(connection.scalar(select(jobs.c.gathered).where(jobs.c.number == number)))
