"""Which uploads are taken for our own and aborted, and which are never touched."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slurper import errors
from slurper.job.model import JobOptions
from slurper.objectstore.base import ObjectHeaders
from slurper.settings import MIB
from slurper.transfer import clocks, leftovers
from slurper.transfer.task import RangeTask
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import LARGE, TASK, run

BIG = bytes(11 * MIB)
HOUR = timedelta(hours=1)


def replay(**changes: Any) -> RangeTask:  # noqa: ANN401 - fields of RangeTask
    """A task whose objects may have been worked on within the last minute."""
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


async def test_a_replay_aborts_what_lost_work_has_begun(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big", "in/small", "in/gone", "in/big3", "out/big")
    report = await run(source, target, replay(prefix="in/"), LARGE)
    assert report.counts.transferred == 3
    # Nothing but a large object of this job ever had an upload of ours.
    assert sorted(target.open_uploads) == ["in/big3", "in/gone", "in/small", "out/big"]


async def test_a_replay_aborts_what_reaches_the_store_while_it_runs(source: MemoryStore) -> None:
    """A killed process had sent the request; nothing comes back to this key later."""
    target = Clocked()
    complete_upload = target.complete_upload

    async def late(key: str, *arguments: Any, **more: Any) -> str:  # noqa: ANN401 - passed through
        await begin(target, key, "in/small")
        return await complete_upload(key, *arguments, **more)

    target.complete_upload = late  # type: ignore[method-assign]
    report = await run(source, target, replay(keys=("in/big",)), LARGE)
    assert (report.counts.transferred, target.open_uploads) == (1, ("in/small",))


async def test_no_replay_aborts_nothing(source: MemoryStore) -> None:
    target = Clocked()
    await begin(target, "in/big")
    await run(source, target, TASK, LARGE)
    assert target.open_uploads == ("in/big",)
    assert "list_uploads" not in target.faults.requests


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


@pytest.mark.parametrize("operation", ["list_uploads", "abort_upload"])
async def test_who_may_not_sweep_can_copy(source: MemoryStore, operation: str) -> None:
    target = Clocked()
    await begin(target, "in/big")
    refusal = errors.AccessDenied("ListMultipartUploads", status=403)
    target.faults.fail(refusal, operation=operation, times=100)
    report = await run(source, target, replay(), LARGE)
    assert (report.finished, report.halt, report.counts.transferred) == (True, None, 4)
    assert target.open_uploads == ("in/big",)


async def sweep(target: MemoryStore, **changes: Any) -> None:  # noqa: ANN401 - of `leftovers.sweep`
    await leftovers.sweep(target, "in/big", **{"since": datetime.now(UTC) - HOUR, **changes})


@pytest.mark.parametrize("operation", ["list_uploads", "abort_upload"])
async def test_a_sweep_tells_what_it_met_and_goes_on(operation: str) -> None:
    target = Clocked()
    await begin(target, "in/big", "in/big", "in/big")
    target.faults.fail(errors.AccessDenied(operation, status=403), operation=operation, times=1)
    with pytest.raises(errors.AccessDenied, match=operation):
        await sweep(target)
    assert len(target.open_uploads) == (3 if operation == "list_uploads" else 1)
    await sweep(target)
    assert target.open_uploads == ()


async def test_the_upload_that_is_known_stays() -> None:
    target = Clocked()
    await begin(target, "in/big")
    known = (await target.create_upload("in/big", ObjectHeaders())).upload_id
    await sweep(target, known=known)
    assert list(target._uploads) == [known]


@pytest.mark.parametrize("ahead", [-HOUR, timedelta(), HOUR])
async def test_what_was_begun_after_the_last_work_is_not_ours(ahead: timedelta) -> None:
    """A new job may be writing the keys of an aborted one."""
    target = Clocked()
    target.ahead = ahead - timedelta(minutes=5)
    await begin(target, "in/big")
    target.ahead = ahead - timedelta(seconds=10)
    kept = (await target.create_upload("in/big", ObjectHeaders())).upload_id
    target.ahead = ahead
    await sweep(target, until=datetime.now(UTC) - timedelta(minutes=1))
    assert list(target._uploads) == [kept]


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
