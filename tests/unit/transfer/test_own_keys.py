"""What a check of another job has written to a source is no part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.cli import census
from slurper.http.client import TransportOptions
from slurper.job.model import Whole
from slurper.objectstore import own_keys
from slurper.planning.keyspace import KeyRange
from slurper.settings import Settings
from slurper.transfer import counting
from slurper.transfer.task import CountTask
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import ADDRESS, TASK, run

THEIRS = (f"{own_keys.PREFIX}notes.txt", "a", "b")


@pytest.fixture
def source() -> MemoryStore:
    """A page of keys of checks, and a few more, among somebody's objects."""
    store = MemoryStore()
    for number in range(1_200):
        store.add(f"{own_keys.PREFIX}{number:032x}", b"precheck")
    for key in THEIRS:
        store.add(key, key.encode())
    return store


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore()


@pytest.mark.parametrize("overwrite", [True, False])
async def test_it_is_neither_copied_nor_counted(
    source: MemoryStore, target: MemoryStore, overwrite: bool
) -> None:
    report = await run(source, target, replace(TASK, overwrite=overwrite))
    assert target.keys == THEIRS
    assert (report.finished, report.cursor, report.counts.objects) == (True, "b", len(THEIRS))
    assert report.events == ()


async def test_one_that_is_gone_by_the_time_it_would_be_read_is_no_failure(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.faults.fail(errors.NotFound("GetObject", status=404), operation="get")
    report = await run(source, target, replace(TASK, slice=KeyRange(end_at=own_keys.PREFIX + "g")))
    assert (report.finished, report.counts.objects) == (True, 0)


async def test_a_page_of_nothing_else_does_not_keep_a_task_from_getting_ahead(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.faults.latency_seconds = 0.2
    report = await run(source, target, replace(TASK, budget_seconds=0.05))
    assert report.counts.objects > 0


async def test_a_key_that_the_job_names_is_copied(source: MemoryStore, target: MemoryStore) -> None:
    named = f"{own_keys.PREFIX}{0:032x}"
    report = await run(source, target, replace(TASK, keys=(named,)))
    assert (target.keys, report.counts.transferred) == ((named,), 1)


COUNT = CountTask(job_id="j", source=ADDRESS, target=ADDRESS, start_after=None)


async def test_whoever_counts_the_source_agrees(
    source: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = await counting.count(COUNT, source)
    assert report.whole == Whole(objects=len(THEIRS), size=sum(map(len, THEIRS)))
    monkeypatch.setattr(census, "open_store", lambda *_: source)
    taken = census.Census()
    await taken.take(ADDRESS, TransportOptions.from_settings(Settings()), "")
    assert (taken.total, taken.final) == (len(THEIRS), True)
