"""Counts what a job will copy from the source. It lists only; no object is read."""

from __future__ import annotations

import time

from slurper.job.model import Whole
from slurper.objectstore import own_keys
from slurper.objectstore.base import ObjectStore
from slurper.planning.keyspace import KeyRange
from slurper.transfer.pacing import Pacer
from slurper.transfer.task import CountReport, CountTask
from slurper.transfer.walk import walk


async def count(task: CountTask, source: ObjectStore) -> CountReport:
    """List the source from the task's start on, until the budget is used up.

    Raises:
        SlurperError: the source cannot be listed.
    """
    pacer = None if task.share is None else Pacer(task.share)
    deadline = time.monotonic() + task.budget_seconds
    objects = size = 0
    cursor = task.start_after
    steps = walk(source, KeyRange(cursor), prefix=task.prefix)
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
    whole = Whole(objects=objects, size=size)
    return CountReport(job_id=task.job_id, cursor=cursor, finished=page.finished, whole=whole)
