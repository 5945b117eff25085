from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.job.model import Whole
from slurper.transfer import counting
from slurper.transfer.task import CountTask, Share
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK

COUNT = CountTask(job_id="j", source=TASK.source, target=TASK.target, start_after=None)


@pytest.fixture
def source() -> MemoryStore:
    store = MemoryStore()
    for number in range(2_500):
        store.add(f"in/{number:04}", b"x" * (number % 3))
    store.add("out/1", b"x")
    return store


async def test_everything_below_the_prefix_is_counted(source: MemoryStore) -> None:
    report = await counting.count(replace(COUNT, prefix="in/"), source)
    assert (report.finished, report.cursor) == (True, "in/2499")
    assert report.whole == Whole(objects=2_500, size=833 * 3 + 0)
    assert set(source.faults.requests) == {"list_page"}


async def test_without_time_it_goes_on_page_by_page(source: MemoryStore) -> None:
    cursor, objects, tasks, finished = None, 0, 0, False
    while not finished and tasks < 10:
        task = replace(COUNT, budget_seconds=0.0, start_after=cursor)
        report = await counting.count(task, source)
        objects += report.whole.objects or 0
        cursor, tasks, finished = report.cursor, tasks + 1, report.finished
    assert (objects, finished) == (2_501, True)
    assert tasks > 2


async def test_an_empty_source_has_nothing() -> None:
    report = await counting.count(COUNT, MemoryStore())
    assert (report.finished, report.cursor, report.whole) == (
        True,
        None,
        Whole(objects=0, size=0),
    )


async def test_a_limit_is_kept_to(source: MemoryStore) -> None:
    task = replace(COUNT, share=Share(requests_per_second=1e6))
    assert (await counting.count(task, source)).finished


async def test_a_listing_that_fails_is_an_error(source: MemoryStore) -> None:
    source.faults.fail(errors.TransportError("reset"), operation="list_page", nth=2)
    with pytest.raises(errors.TransportError):
        await counting.count(COUNT, source)
