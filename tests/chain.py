"""Plays the driver for the large objects of a range: one parts task after the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

from slurper.objectstore.base import ObjectMeta
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask, Upload

MOST_TASKS = 50
_ids = count(1)


def first_task(task: RangeTask, meta: ObjectMeta) -> PartsTask:
    """The first task for a large object that a range's task has found."""
    return PartsTask(
        job_id=task.job_id,
        upload=Upload(id=next(_ids), meta=meta, found_at=datetime.now(UTC)),
        source=task.source,
        target=task.target,
        prefix=task.prefix,
        sample=task.keys or (),
        overwrite=task.overwrite,
        options=task.options,
        done=(),
        replayed_since=task.replayed_since,
        budget_seconds=task.budget_seconds,
    )


def next_task(task: PartsTask, report: PartsReport) -> PartsTask:
    """The task that goes on where a report ends."""
    if report.restarted is not None:
        again = replace(
            task.upload,
            meta=report.restarted,
            attempt=task.upload.attempt + 1,
            begun=None,
            seen=report.seen,
        )
        return replace(task, upload=again, numbers=None, done=())
    upload = replace(task.upload, begun=report.begun or task.upload.begun)
    if upload.begun is None:
        return replace(task, upload=upload)
    done = tuple(sorted((*(task.done or ()), *report.parts), key=lambda part: part.number))
    finished = {part.number for part in done}
    total = -(-upload.meta.size // upload.begun.part_size)
    missing = tuple(number for number in range(1, total + 1) if number not in finished)
    return replace(task, upload=upload, numbers=missing, done=done)


async def settle(
    tasks: Iterable[PartsTask], run: Callable[[PartsTask], Awaitable[PartsReport]]
) -> tuple[list[PartsReport], list[PartsTask]]:
    """Run the tasks of large objects until each is settled or halts.

    Returns their reports, and where those that halted are to be gone on with.
    """
    reports: list[PartsReport] = []
    left: list[PartsTask] = []
    for first in tasks:
        following = first
        for _ in range(MOST_TASKS):
            report = await run(following)
            reports.append(report)
            if report.settled:
                break
            following = next_task(following, report)
            if report.halt is not None:
                left.append(following)
                break
        else:
            raise AssertionError(f"{first.upload.meta.key} is never settled")
    return reports, left


def folded(found: RangeReport, large: list[PartsReport]) -> RangeReport:
    """What a range's report would say had its task settled the large objects too."""
    for report in large:
        found = replace(
            found,
            counts=found.counts + report.counts,
            events=(*found.events, *report.events),
            halt=found.halt or report.halt,
            retries=found.retries + report.retries,
            attempts=found.attempts + report.attempts,
            throttled=found.throttled + report.throttled,
        )
    return found
