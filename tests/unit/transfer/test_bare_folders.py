"""Folders that a source lists although it has no object of their name: there is nothing to copy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.job.model import LogType
from slurper.objectstore.base import StoredObject
from slurper.settings import Settings
from slurper.transfer import attempts
from slurper.transfer.copy import CopyMeans
from slurper.transfer.etags import SourceEtags
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.range_run import RangeRun
from slurper.transfer.task import RangeReport, RangeTask
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK

SETTINGS = Settings(in_flight_requests=4, object_attempts=2)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


class Folders(MemoryStore):
    """It lists what it does not find when it is asked for it."""

    def __init__(self, *absent: str) -> None:
        super().__init__()
        self.absent = absent
        self.is_listable = True

    def _refuse(self, key: str, operation: str) -> None:
        if key in self.absent:
            raise errors.NotFound(operation, status=404, code="NoSuchKey", key=key)

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        self._refuse(key, "HeadObject")
        return await super().head(key, with_checksums=with_checksums)

    async def get(self, key, **wanted):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN003, ANN201
        self._refuse(key, "GetObject")
        return await super().get(key, **wanted)


async def run(source: MemoryStore, target: MemoryStore, task: RangeTask = TASK) -> RangeReport:
    means = CopyMeans(SETTINGS, ByteBudget(1 << 20), SourceEtags(source.dialect))
    return await RangeRun(task, source, target, means).report()


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_folder_listed_without_an_object_is_a_skip_with_its_reason(
    *, by_name: bool, overwrite: bool
) -> None:
    source, target = Folders("a/", "a/b/"), MemoryStore()
    for key in ("a/", "a/b/", "a/b/c", "real/", "z"):
        source.add(key, b"" if key.endswith("/") else b"x")
    keys = tuple(source.keys) if by_name else None
    report = await run(source, target, replace(TASK, keys=keys, overwrite=overwrite))
    assert (report.counts.transferred, report.counts.skipped, report.counts.failed) == (3, 2, 0)
    assert [event.key for event in report.events] == ["a/", "a/b/"]
    assert {event.log_type for event in report.events} == {LogType.IMPORT_SKIPPED_EMPTY_OBJECT}
    assert "no object of this name" in report.events[0].message
    assert (report.finished, report.attempts) == (True, 0)
    assert set(target.keys) == {"a/b/c", "real/", "z"}


async def test_an_object_removed_meanwhile_has_failed_though_it_was_called_like_a_folder() -> None:
    source, target = Folders("a/"), MemoryStore()
    source.add("a/", b"")
    source.add("a/b", b"x")
    list_page = source.list_page

    async def remove_then_list(**wanted):  # type: ignore[no-untyped-def] # noqa: ANN003, ANN202
        page = await list_page(**wanted)
        await source.delete("a/")
        return page

    source.list_page = remove_then_list  # type: ignore[method-assign]
    report = await run(source, target)
    assert (report.counts.transferred, report.counts.failed) == (1, 1)
    assert "removed after it was listed" in report.events[0].message


@pytest.mark.parametrize(("key", "body"), [("a", b""), ("a/", b"bytes")])
async def test_what_has_bytes_or_no_slash_is_no_folder(key: str, body: bytes) -> None:
    source, target = Folders(key), MemoryStore()
    source.add(key, body)
    report = await run(source, target)
    assert (report.counts.skipped, report.counts.failed) == (0, 1)


async def test_a_key_that_nobody_may_list_is_told_as_absent() -> None:
    source, target = Folders("a/"), MemoryStore()
    source.add("a/", b"")
    denied = errors.AccessDenied("ListObjectsV2", status=403)
    source.faults.fail(denied, operation="list_page", times=9)
    report = await run(source, target, replace(TASK, keys=("a/",)))
    assert (report.counts.skipped, report.counts.failed) == (0, 1)


async def test_a_target_that_does_not_find_its_folder_fails_it() -> None:
    source, target = MemoryStore(), MemoryStore()
    source.add("a/", b"")
    absent = errors.NotFound("PutObject", status=404, code="NoSuchKey")
    target.faults.fail(absent, operation="put", times=9)
    report = await run(source, target)
    assert (report.counts.skipped, report.counts.failed) == (0, 1)
