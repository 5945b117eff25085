"""One object that is denied fails; when everything is, the task halts and counts none of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore.base import Body, CreatedUpload, Download, ObjectHeaders, StoredObject
from slurper.planning.keyspace import KeyRange
from slurper.settings import Settings
from slurper.transfer import diagnosis
from slurper.transfer.task import RangeReport
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK, run

COUNT = 60
KEYS = tuple(f"k{number:02}" for number in range(COUNT))
ONE_LANE = Settings(in_flight_requests=1)
MANY_LANES = Settings(in_flight_requests=16)


class GuardedStore(MemoryStore):
    """Denies what `denies(key)` says."""

    def __init__(self) -> None:
        super().__init__()
        self.denies: Callable[[str], bool] = lambda _: False
        self.denials = 0

    def _guard(self, operation: str, key: str) -> None:
        if self.denies(key):
            self.denials += 1
            raise errors.AccessDenied(operation, status=403, code="AccessDenied")

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        self._guard("HeadObject", key)
        return await super().head(key, with_checksums=with_checksums)

    async def get(self, key: str, **more: Any) -> Download:  # noqa: ANN401 - as it is
        self._guard("GetObject", key)
        return await super().get(key, **more)

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        self._guard("PutObject", key)
        return await super().put(key, body, headers, if_absent=if_absent)

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        self._guard("CreateMultipartUpload", key)
        return await super().create_upload(key, headers)


@pytest.fixture
def source() -> GuardedStore:
    store = GuardedStore()
    for key in KEYS:
        store.add(key, key.encode())
    return store


@pytest.fixture
def target() -> GuardedStore:
    return GuardedStore()


def failed(report: RangeReport) -> set[str]:
    assert {event.log_type for event in report.events} <= {LogType.IMPORT_ERROR_RETRY_EXHAUSTION}
    return {event.key for event in report.events}


def halted(report: RangeReport) -> str:
    assert report.halt is not None
    assert report.halt.log_type is LogType.MIGRATION_ERROR
    assert "HTTP 403 AccessDenied" in report.halt.message
    assert "give these credentials the permission back, then resume" in report.halt.message
    assert not report.finished
    return report.halt.message


@pytest.mark.parametrize("settings", [ONE_LANE, MANY_LANES])
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    "denied", [KEYS[:1], KEYS[-1:], KEYS[5:45], KEYS[: diagnosis.SAMPLE], KEYS[1:]]
)
async def test_denied_objects_fail_while_others_are_allowed(
    source: GuardedStore,
    target: GuardedStore,
    side: str,
    denied: tuple[str, ...],
    settings: Settings,
) -> None:
    guarded = source if side == "source" else target
    guarded.denies = set(denied).__contains__
    report = await run(source, target, settings=settings)
    assert (report.halt, report.finished, failed(report)) == (None, True, set(denied))
    assert report.counts.transferred == COUNT - len(denied)
    assert "HTTP 403 AccessDenied; grant" in report.events[0].message
    assert target.open_uploads == ()


@pytest.mark.parametrize("settings", [ONE_LANE, MANY_LANES])
@pytest.mark.parametrize(
    ("side", "says"),
    [
        ("source", "no object of the source can be read any more: GetObject answered"),
        ("target", "nothing can be written to the target any more: PutObject answered"),
    ],
)
async def test_a_permission_lost_on_the_way_halts_and_fails_nothing(
    source: GuardedStore, target: GuardedStore, side: str, says: str, settings: Settings
) -> None:
    guarded = source if side == "source" else target
    guarded.denies = lambda _: len(target.keys) >= 30
    first = await run(source, target, settings=settings)
    assert says in halted(first)
    assert failed(first) == set()
    assert 30 - settings.in_flight_requests < first.counts.objects < COUNT
    assert guarded.denials <= settings.in_flight_requests + diagnosis.SAMPLE + 2

    guarded.denies = lambda _: False
    rest = await run(source, target, replace(TASK, slice=KeyRange(first.cursor)))
    assert (rest.halt, rest.finished) == (None, True)
    assert (first.counts + rest.counts).transferred == COUNT
    assert target.keys == KEYS


@pytest.mark.parametrize("side", ["source", "target"])
async def test_a_permission_that_was_never_there_halts_before_anything_is_counted(
    source: GuardedStore, target: GuardedStore, side: str
) -> None:
    guarded = source if side == "source" else target
    guarded.denies = lambda _: True
    report = await run(source, target, settings=MANY_LANES)
    assert side in halted(report)
    assert (report.cursor, report.counts.objects, report.events) == (None, 0, ())


async def test_explicit_keys_that_may_not_be_described_are_told_apart_likewise(
    source: GuardedStore, target: GuardedStore
) -> None:
    """A retry of what was denied has nothing but denied keys; the bucket has others."""
    named = replace(TASK, keys=KEYS[30:40])
    source.denies = set(KEYS[30:40]).__contains__
    report = await run(source, target, named)
    assert (report.halt, failed(report)) == (None, set(KEYS[30:40]))

    source.denies = lambda _: True
    report = await run(source, target, named)
    assert "HeadObject" in halted(report)
    assert (report.cursor, report.events) == (None, ())


async def test_explicit_keys_need_no_permission_to_list(
    source: GuardedStore, target: GuardedStore
) -> None:
    source.denies = {KEYS[0]}.__contains__
    unlisted = errors.AccessDenied("ListObjectsV2", status=403, code="AccessDenied")
    source.faults.fail(unlisted, operation="list_page", times=100)
    report = await run(source, target, replace(TASK, keys=KEYS[:3]))
    assert (report.halt, failed(report), report.counts.transferred) == (None, {KEYS[0]}, 2)


async def test_a_store_that_goes_away_while_it_is_asked_halts(
    source: GuardedStore, target: GuardedStore
) -> None:
    source.denies = {KEYS[0]}.__contains__
    expired = errors.CredentialsRejected("GetObject", status=403, code="ExpiredToken")
    source.faults.fail(expired, operation="get")
    report = await run(source, target, settings=ONE_LANE)
    assert report.halt is not None
    assert "ExpiredToken" in report.halt.message
    assert report.counts.objects == 0
