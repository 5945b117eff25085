"""The keys of a source without an order are gathered page by page, by the tokens it names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slurper import errors
from slurper.objectstore.base import ListingPage, ObjectMeta
from slurper.transfer import gathering
from slurper.transfer.task import GatherReport, GatherTask, Share
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import TASK

GATHER = GatherTask(job_id="j", range_id=1, source=TASK.source, target=TASK.target, token=None)
OURS = ".slurper-precheck-" + 32 * "0"


class Paged(MemoryStore):
    """Names tokens by number; those of pages that it is to have are `pages`."""

    def __init__(self, *pages: str, circles: bool = False) -> None:
        super().__init__()
        self.pages = [page.split() for page in pages]
        self.circles = circles
        self.asked: list[str] = []
        self.refused: set[str] = set()
        self.written: dict[str, str] = {}

    async def list_on(self, *, prefix: str = "", token: str = "") -> ListingPage:
        assert prefix == GATHER.prefix
        self.asked.append(token)
        if token in self.refused:
            raise errors.StoreError("ListObjectsV2", status=400, code="BadToken")
        number = int(token or 0)
        objects = [ObjectMeta(key, 1, '"e"', None, "") for key in self.pages[number]]
        is_last = number == len(self.pages) - 1
        following = "" if is_last else str(number + 1)
        if is_last and self.circles:
            following = token
        return ListingPage(objects, not following, token=following, written=self.written)


async def gathered(store: MemoryStore, token: str | None = None, **changes: object) -> GatherReport:
    task = replace(GATHER, token=token, **changes)  # type: ignore[arg-type]
    return await gathering.gather(task, store)


def told(report: GatherReport) -> tuple[tuple[str, ...], int, bool, bool]:
    """Its keys and rows, whether it began anew, and whether it came to the end."""
    return report.keys, report.rows, report.anew, report.finished


async def test_all_pages_are_read_whatever_their_order_and_every_key_is_told_once() -> None:
    store = Paged("z b", "", f"b {OURS} a", "c")
    report = await gathered(store)
    assert told(report) == (("z", "b", "a", "c"), 7, False, True)
    assert (report.cursor, report.halt) == (None, None)
    assert store.asked == ["", "1", "2", "3"]


async def test_without_time_it_goes_on_page_by_page_from_the_token() -> None:
    store = Paged("a", "b", "c")
    report = await gathered(store, budget_seconds=0.0)
    assert report.cursor == "1"
    report = await gathered(store, "1", budget_seconds=0.0)
    assert (report.started_after, report.cursor) == ("1", "2")
    assert told(report) == (("b",), 1, False, False)


async def test_a_task_reports_before_its_keys_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_ROWS", 3)
    assert (await gathered(Paged("a b", "c d", "e"))).cursor == "2"


async def test_where_the_token_is_not_taken_any_more_the_listing_begins_anew() -> None:
    store = Paged("a", "b", "c")
    store.refused.add("x")
    report = await gathered(store, "x")
    assert told(report) == (("a", "b", "c"), 3, True, True)


async def test_a_store_that_takes_none_of_its_tokens_halts_the_task() -> None:
    store = Paged("a", "b", "c")
    store.refused.add("1")
    report = await gathered(store)
    assert report.halt is not None
    assert "BadToken" in report.halt.message
    assert (report.keys, report.cursor) == (("a",), "1")
    assert store.asked == ["", "1", "", "1"]


async def test_a_store_that_does_not_answer_halts_the_task_at_its_token() -> None:
    store = Paged("a", "b")
    store.refused |= {"", "1"}
    report = await gathered(store, "1")
    assert (report.halt is not None, report.cursor, report.started_after) == (True, "1", "1")


async def test_the_same_token_over_and_over_halts_the_task() -> None:
    report = await gathered(Paged("a", "b", circles=True))
    assert report.halt is not None
    assert "the same token" in report.halt.message


async def test_a_key_that_may_be_spelled_otherwise_is_looked_for() -> None:
    store = Paged("a+b c+d")
    store.written = {"a+b": "a%2Bb", "c+d": "c%2Bd"}
    store.add("a%2Bb", b"x")
    store.add("c+d", b"x")
    report = await gathered(store)
    assert report.keys == ("a%2Bb", "c+d")


async def test_a_limit_is_kept_to() -> None:
    report = await gathered(Paged("a", "b"), share=Share(requests_per_second=1e6))
    assert report.finished
