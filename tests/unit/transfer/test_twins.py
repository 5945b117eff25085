"""Of the spellings of one text one is copied to a target that normalises; the others fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.job.model import JobOptions, LogType
from slurper.objectstore import dialects
from slurper.planning.keyspace import KeyRange
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK, logged, run

NFC, NFD = "caf\u00e9/\u00fc", "cafe\u0301/u\u0308"
MIXED = "caf\u00e9/u\u0308"
FAILED = LogType.IMPORT_ERROR_RETRY_EXHAUSTION


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore(dialect=dialects.R2)


async def test_the_normal_form_is_copied_and_the_others_fail(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in (NFC, NFD, MIXED):
        source.add(key, key.encode())
    report = await run(source, target)
    assert logged(report) == [(NFD, FAILED), (MIXED, FAILED)]
    for event in report.events:
        assert ascii(event.key) in event.message
        assert ascii(NFC) in event.message
        assert "another name" in event.message
    assert target.keys == (NFC,)
    assert target.read(NFC)[0] == NFC.encode()
    assert (report.counts.transferred, report.counts.failed) == (1, 2)


async def test_without_the_normal_form_the_first_key_is_copied(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in (NFD, MIXED):
        source.add(key, key.encode())
    report = await run(source, target)
    assert logged(report) == [(MIXED, FAILED)]
    assert target.read(NFC)[0] == NFD.encode()


@pytest.mark.parametrize("overwrite", [True, False])
async def test_twins_of_different_slices_are_told_too(
    source: MemoryStore, target: MemoryStore, overwrite: bool
) -> None:
    source.add(NFC, b"normal")
    source.add(NFD, b"other")
    between = "cafz"
    for slice_ in (KeyRange(None, between), KeyRange(between), KeyRange(None, between)):
        task = replace(TASK, slice=slice_, overwrite=overwrite)
        report = await run(source, target, task)
        expected = [(NFD, FAILED)] if slice_.start_after is None else []
        assert logged(report) == expected
    assert target.read(NFC)[0] == b"normal"


async def test_a_lone_key_in_another_form_is_copied(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add(NFD, b"alone")
    source.add("cafe", b"a neighbour")
    report = await run(source, target)
    assert (logged(report), report.counts.transferred) == ([], 2)
    assert target.keys == ("cafe", NFC)


async def test_what_is_there_under_its_normal_form_is_not_overwritten(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add(NFD, b"new")
    source.add("z", b"new")
    target.add(NFC, b"old")
    report = await run(source, target, replace(TASK, overwrite=False))
    assert (report.counts.skipped, report.counts.transferred, logged(report)) == (1, 1, [])
    assert target.read(NFC)[0] == b"old"


async def test_a_prefix_that_is_removed_makes_no_twins(
    source: MemoryStore, target: MemoryStore
) -> None:
    prefix = "cafe\u0301/"
    for key in (f"{prefix}u\u0308", "caf\u00e9/\u00fc"):
        source.add(key, key.encode())
    task = replace(TASK, prefix=prefix, options=JobOptions(strip_prefix=True))
    report = await run(source, target, task)
    assert (logged(report), report.counts.transferred) == ([], 1)


async def test_named_keys_need_no_permission_to_list(
    source: MemoryStore, target: MemoryStore
) -> None:
    denial = errors.AccessDenied("ListObjectsV2", status=403)
    source.faults.fail(denial, operation="list_page", times=1000)
    source.add(NFC, b"normal")
    source.add(NFD, b"other")
    source.add("e\u0301", b"alone")
    report = await run(source, target, replace(TASK, keys=(NFD, NFC, "e\u0301")))
    assert logged(report) == [(NFD, FAILED)]
    assert target.keys == (NFC, "\u00e9")


async def test_keys_in_normal_form_cost_no_request(
    source: MemoryStore, target: MemoryStore
) -> None:
    for number in range(50):
        source.add(f"\u00fc-{number}")
    await run(source, target)
    assert source.faults.requests["list_page"] == 2  # the page, and that nothing comes after it


async def test_other_targets_keep_both(source: MemoryStore) -> None:
    target = MemoryStore()
    for key in (NFC, NFD):
        source.add(key, key.encode())
    report = await run(source, target)
    assert (logged(report), target.keys) == ([], (NFD, NFC))
