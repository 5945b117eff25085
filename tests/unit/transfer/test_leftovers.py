"""Which uploads are taken for our own and aborted, and which are never touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slurper import errors
from slurper.jobs.models import JobOptions
from slurper.objectstore.base import ListingPage, ObjectHeaders
from slurper.objectstore.dialects import MIB
from slurper.objectstore.memory import MemoryStore
from slurper.planning.keyspace import KeyRange
from slurper.transfer import clocks, leftovers
from slurper.transfer.task import RangeTask
from tests.unit.transfer.test_range_run import LARGE, TASK, run

BIG = bytes(11 * MIB)
HOUR = timedelta(hours=1)


def replay(**changes: Any) -> RangeTask:  # noqa: ANN401 - fields of RangeTask
    """A task whose slice may have been worked on within the last minute."""
    return replace(TASK, replayed_since=datetime.now(UTC) - timedelta(minutes=1), **changes)


class Clocked(MemoryStore):
    """A store whose clock can be set."""

    def __init__(self) -> None:
        super().__init__(now=lambda: datetime.now(UTC) + self.ahead)
        self.ahead = timedelta()


@pytest.fixture
def source() -> MemoryStore:
    source = MemoryStore()
    for key in ("in/big", "in/big2", "out/big"):
        source.add(key, BIG)
    source.add("in/small", b"small")
    return source


async def begin(store: MemoryStore, *keys: str) -> None:
    for key in keys:
        await store.create_upload(key, ObjectHeaders())


async def test_a_replay_aborts_what_its_slice_may_have_left(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big", "in/small", "in/gone", "out/big")
    report = await run(source, target, replay(prefix="in/"), LARGE)
    assert report.counts.transferred == 3
    # An object copied whole never had an upload of ours, nor has one that is not there.
    assert sorted(target.open_uploads) == ["in/gone", "in/small", "out/big"]


async def test_a_replay_aborts_what_reaches_the_store_while_it_runs(source: MemoryStore) -> None:
    """A killed process had sent the request; nothing comes back to these keys later."""
    target = Clocked()
    target.add("in/big", BIG)  # by the same process: it is not copied again
    listed = 0
    list_page = source.list_page

    async def late(**arguments: Any) -> ListingPage:  # noqa: ANN401 - as the listing's own
        nonlocal listed
        listed += 1
        if listed == 1:
            await begin(target, "in/big", "in/small")
        return await list_page(**arguments)

    source.list_page = late  # type: ignore[method-assign]
    report = await run(source, target, replay(prefix="in/", overwrite=False), LARGE)
    assert (report.counts.transferred, target.open_uploads) == (3, ("in/small",))


async def test_no_replay_aborts_nothing(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big")
    await run(source, target, TASK, LARGE)
    assert target.open_uploads == ("in/big",)
    assert "list_uploads" not in target.faults.requests


async def test_only_the_slice_is_swept(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big2", "out/big")
    task = replay(slice=KeyRange("in/big", "in/z"))
    await run(source, target, task, LARGE)
    assert sorted(target.open_uploads) == ["in/big", "out/big"]


async def test_only_named_keys_are_swept(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big2")
    await run(source, target, replay(keys=("in/big2",)), LARGE)
    assert target.open_uploads == ("in/big",)


async def test_keys_without_their_prefix_are_recognised(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "big", "in/big")
    task = replay(prefix="in/", options=JobOptions(strip_prefix=True))
    await run(source, target, task, LARGE)
    assert target.open_uploads == ("in/big",)


@pytest.mark.parametrize("ahead", [-HOUR, timedelta(), HOUR])
async def test_age_is_told_by_the_stores_clock(source: MemoryStore, ahead: timedelta) -> None:
    target = Clocked()
    target.ahead = ahead - timedelta(minutes=5)
    await begin(target, "in/big")
    target.ahead = ahead - timedelta(seconds=10)
    await begin(target, "in/big2")
    target.ahead = ahead
    await run(source, target, replay(), LARGE)
    assert target.open_uploads == ("in/big",)


async def test_objects_that_lost_work_completed_are_swept_too(source: MemoryStore) -> None:
    target = Clocked()
    target.add("in/big", BIG)
    await begin(target, "in/big")
    report = await run(source, target, replay(overwrite=False), LARGE)
    assert (report.counts.transferred, target.open_uploads) == (4, ())


async def test_a_task_without_time_sweeps_all_the_same(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big")
    report = await run(source, target, replay(budget_seconds=0.0), LARGE)
    assert (report.counts.objects, target.open_uploads, target.keys) == (0, (), ())


@pytest.mark.parametrize("operation", ["list_uploads", "abort_upload"])
async def test_who_may_not_sweep_can_copy(source: MemoryStore, operation: str) -> None:
    target = Clocked()
    await begin(target, "in/big")
    refusal = errors.AccessDenied("ListMultipartUploads", status=403)
    target.faults.fail(refusal, operation=operation, times=100)
    report = await run(source, target, replay(), LARGE)
    assert (report.finished, report.halt, report.counts.transferred) == (True, None, 4)
    assert target.open_uploads == ("in/big",)


async def test_a_source_that_may_not_be_asked_keeps_uploads(source: MemoryStore) -> None:
    target = MemoryStore()
    await begin(target, "in/big")
    source.faults.fail(errors.AccessDenied("HeadObject", status=403), operation="head")
    with pytest.raises(errors.AccessDenied):
        await sweep(source, target)
    assert target.open_uploads == ("in/big",)


async def sweep(source: MemoryStore, target: MemoryStore, *, until: datetime | None = None) -> None:
    await leftovers.sweep(
        source,
        target,
        prefix="",
        since=datetime.now(UTC) - HOUR,
        until=until,
        source_key=str,
        keys=KeyRange(),
        is_copied_in_parts=bool,
    )


@pytest.mark.parametrize("operation", ["list_uploads", "abort_upload"])
async def test_a_sweep_tells_what_it_met_and_goes_on(source: MemoryStore, operation: str) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big2", "out/big")
    target.faults.fail(errors.AccessDenied(operation, status=403), operation=operation, times=1)
    with pytest.raises(errors.AccessDenied, match=operation):
        await sweep(source, target)
    assert len(target.open_uploads) == (3 if operation == "list_uploads" else 1)
    await sweep(source, target)
    assert target.open_uploads == ()


@pytest.mark.parametrize("ahead", [-HOUR, timedelta(), HOUR])
async def test_what_was_begun_after_the_last_work_is_not_ours(
    source: MemoryStore, ahead: timedelta
) -> None:
    """A new job may be writing the keys of an aborted one."""
    target = Clocked()
    target.ahead = ahead - timedelta(minutes=5)
    await begin(target, "in/big")
    target.ahead = ahead - timedelta(seconds=10)
    await begin(target, "in/big2")
    target.ahead = ahead
    await sweep(source, target, until=datetime.now(UTC) - timedelta(minutes=1))
    assert target.open_uploads == ("in/big2",)


@pytest.mark.parametrize(
    ("ahead_seconds", "least", "most"),
    [(0, 0, 0), (-0.4, -1.5, 0), (-3600, -3601.5, -3600), (3600, 3598.5, 3600), (1.5, 0, 1.5)],
)
async def test_clocks_are_compared_with_the_least_that_explains_the_answer(
    ahead_seconds: float, least: float, most: float
) -> None:
    store = Clocked()
    store.ahead = timedelta(seconds=ahead_seconds)
    assert least <= (await clocks.ahead_of_ours(store)).total_seconds() <= most


async def test_a_store_that_does_not_answer_has_our_time() -> None:
    store = Clocked()
    store.ahead = HOUR
    store.faults.fail(errors.TransportError("reset"))
    assert await clocks.ahead_of_ours(store) == timedelta()


@pytest.mark.parametrize("ahead", [-HOUR, -timedelta(seconds=5), timedelta(), HOUR])
async def test_a_replay_knows_its_own_copies_whatever_the_targets_clock_says(
    source: MemoryStore, ahead: timedelta
) -> None:
    target = Clocked()
    target.ahead = ahead - timedelta(minutes=10)
    target.add("in/small", b"SMALL")  # of equal size, before the job
    target.ahead = ahead
    target.add("out/big", BIG)  # by this job
    report = await run(source, target, replay(overwrite=False), LARGE)
    assert (report.counts.transferred, report.counts.skipped) == (3, 1)
