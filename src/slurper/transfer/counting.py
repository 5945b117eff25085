"""Counts what a job copies of the source, without looking at any object."""

from __future__ import annotations

import time

from slurper.job.model import Counts, Whole
from slurper.objectstore import own_keys
from slurper.objectstore.base import ObjectStore
from slurper.transfer.pacing import Pacer
from slurper.transfer.task import RangeReport, RangeTask
from slurper.transfer.walk import walk


async def count(task: RangeTask, source: ObjectStore) -> RangeReport:
    """List the source from the start of the task's slice on, until the budget is used up.

    Raises:
        SlurperError: the source cannot be listed.
    """
    pacer = None if task.share is None else Pacer(task.share)
    deadline = time.monotonic() + task.budget_seconds
    objects = size = 0
    cursor = task.slice.start_after
    steps = walk(source, task.slice, prefix=task.prefix)
    while True:
        page = await steps.next_page()
        found = own_keys.without_own(page.objects)
        objects += len(found)
        size += sum(max(meta.size, 0) for meta in found)
        cursor = page.objects[-1].key if page.objects else cursor
        if page.finished or time.monotonic() >= deadline:
            break
        if pacer is not None:
            pacer.spend(requests=1)
            await pacer.turn_to_ask()
    return RangeReport(
        job_id=task.job_id,
        range_id=task.range_id,
        started_after=task.slice.start_after,
        cursor=cursor,
        finished=page.finished,
        counts=Counts(),
        order=page.order,
        counted=Whole(objects=objects, size=size),
    )
