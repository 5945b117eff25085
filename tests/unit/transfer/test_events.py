"""A task ends after so many objects with events; the next one goes on, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.job.model import MESSAGE_CHARACTERS, LogType
from slurper.objectstore.base import ListingPage
from slurper.planning.keyspace import KeyRange
from slurper.transfer import attempts, ledger
from slurper.transfer.copy import CopyMeans
from slurper.transfer.etags import SourceEtags
from slurper.transfer.ledger import Failed, Ledger, Skipped, Transferred
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.range_run import RangeRun
from slurper.transfer.task import RangeReport
from tests.memory.made_up import SyntheticStore
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import SETTINGS, TASK

MOST = 25
COUNT = 137
LANES = SETTINGS.in_flight_requests


class Archived(SyntheticStore):
    """Each object is archived, but one in ten."""

    async def list_page(
        self, *, prefix: str = "", start_after: str | None = None, max_keys: int = 1000
    ) -> ListingPage:
        """Show storage classes that cannot be read at once."""
        page = await super().list_page(prefix=prefix, start_after=start_after, max_keys=max_keys)
        shown = [
            meta if meta.key.endswith("0") else meta._replace(storage_class="GLACIER")
            for meta in page.objects
        ]
        return replace(page, objects=shown)


@pytest.fixture(autouse=True)
def _few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MAX_EVENTS", MOST)
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


async def _reports(source: MemoryStore) -> list[RangeReport]:
    """The reports of tasks that go on, each where the last one ended, to the end of the slice."""
    reports: list[RangeReport] = []
    cursor: str | None = None
    while not reports or not reports[-1].finished:
        budget = ByteBudget(SETTINGS.in_flight_bytes)
        means = CopyMeans(SETTINGS, budget, SourceEtags(source.dialect))
        task = replace(TASK, slice=KeyRange(cursor))
        report = await RangeRun(task, source, MemoryStore(), means).report()
        assert report.halt is None
        assert report.cursor != cursor
        reports.append(report)
        cursor = report.cursor
    return reports


async def test_a_source_full_of_archived_objects_is_reported_in_pieces() -> None:
    reports = await _reports(Archived(COUNT))
    assert all(len(report.events) <= MOST for report in reports)
    keys = [event.key for report in reports for event in report.events]
    assert len(keys) == len(set(keys)) == sum(report.counts.skipped for report in reports)
    assert sum(report.counts.objects for report in reports) == COUNT
    assert sum(report.counts.transferred for report in reports) == (COUNT + 9) // 10


async def test_objects_that_fail_end_a_task_too() -> None:
    source = SyntheticStore(COUNT)
    source.faults.fail(errors.IntegrityError("damaged"), operation="get", times=10 * COUNT)
    reports = await _reports(source)
    assert all(len(report.events) <= MOST + LANES for report in reports)
    keys = [event.key for report in reports for event in report.events]
    assert len(keys) == len(set(keys)) == COUNT == sum(one.counts.failed for one in reports)


def test_events_that_wait_for_an_earlier_object_count_too() -> None:
    called = []
    full = Ledger(None, lambda: called.append(1))
    first = full.open("a")
    for number in range(MOST):
        assert not full.is_full
        full.settle(full.open(f"b{number:03}"), Failed("broken"))
    assert full.is_full
    assert called
    assert full.events == []
    full.settle(first, Transferred(1))
    assert len(full.events) == MOST


def test_a_long_message_does_not_leave_the_worker() -> None:
    told = Ledger(None)
    told.settle(told.open("a"), Failed("x" * 60_000))
    told.settle(told.open("b"), Skipped(LogType.IMPORT_SKIPPED_OVERSIZED, "y" * 60_000))
    assert [len(event.message) for event in told.events] == [MESSAGE_CHARACTERS] * 2
