"""What a worker keeps between tasks, and what its reports say of the requests."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from slurper import errors
from slurper.engine.waits import Waits
from slurper.http.client import ClientStatistics, Waiting
from slurper.http.messages import Response
from slurper.job.model import Capabilities, JobCapabilities
from slurper.objectstore import dialects
from slurper.objectstore.base import ListingPage, ObjectStore, StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer import worker as workers
from slurper.transfer.task import CountTask, RangeTask
from tests.memory.store import MemoryStore


def address(bucket: str) -> StoreAddress:
    return StoreAddress(
        origin="http://memory.invalid",
        bucket=bucket,
        region="r",
        dialect=dialects.GENERIC,
        credentials=S3Credentials(access_key_id="a", secret_access_key="s"),
    )


class TroubledStore(MemoryStore):
    """Says of its requests what a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble = ClientStatistics()

    @property
    def statistics(self) -> ClientStatistics:
        return self.trouble


TASK = RangeTask(
    job_id="j", range_id=1, source=address("from"), target=address("to"), slice=KeyRange()
)
COUNT = CountTask(job_id="j", source=TASK.source, target=TASK.target, start_after=None)


class Opened(dict[str, TroubledStore]):
    """Stores by bucket, as a worker opens them; it opens each only once."""

    def open(self, where: StoreAddress, _: object) -> ObjectStore:
        assert where.bucket not in self
        self[where.bucket] = TroubledStore()
        self[where.bucket]._dialect = where.dialect
        return self[where.bucket]


@pytest.fixture
def opened() -> Opened:
    return Opened()


async def test_stores_stay_open_between_tasks(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    await worker.run(TASK)
    opened["from"].add("a", b"x")
    report = await worker.run(TASK)
    assert report.counts.transferred == 1
    assert opened["to"].keys == ("a",)
    await worker.close()


async def test_idle_stores_are_closed(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    await worker.run(TASK)
    monkeypatch.setattr(workers, "STORE_IDLE_SECONDS", -1.0)
    before = opened.copy()
    opened.clear()
    await worker.run(TASK)
    assert opened.keys() == before.keys()
    assert opened["from"] is not before["from"]


async def test_each_retry_is_reported_once(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    assert (await worker.run(TASK)).retries == 0
    opened["from"].trouble.retries += 3
    opened["to"].trouble.throttled += 2
    report = await worker.run(TASK)
    assert (report.retries, report.throttled) == (3, 2)
    report = await worker.run(TASK)
    assert (report.retries, report.throttled) == (0, 0)


async def test_what_was_found_out_is_told_until_a_task_knows_it(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    assert (await worker.run(TASK)).found == JobCapabilities()
    opened["from"]._dialect = replace(dialects.GENERIC, obeys_if_match=False)
    opened["to"]._dialect = replace(dialects.GENERIC, wants_md5=True)
    found = JobCapabilities(
        source=Capabilities(obeys_if_match=False), target=Capabilities(wants_md5=True)
    )
    assert (await worker.run(TASK)).found == found
    assert (await worker.run(COUNT)).found == found
    opened.clear()
    known = replace(TASK.target, dialect=replace(dialects.GENERIC, wants_md5=True))
    report = await worker.run(replace(TASK, target=known))
    assert report.found == JobCapabilities(source=found.source)
    await worker.close()


async def test_what_requests_wait_for_is_told_while_their_task_runs(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    await worker.run(TASK)
    long_ago = time.monotonic() - 10
    body = b"<Error><Code>InternalError</Code></Error>"
    broken = Response(500, {}, [body], len(body))
    opened["from"].trouble.waiting = {
        1: Waiting(long_ago, broken),
        2: Waiting(long_ago, broken),
        3: Waiting(time.monotonic(), broken),
    }
    opened["to"].trouble.waiting = {
        1: Waiting(long_ago, errors.TransportError("reset")),
        2: Waiting(long_ago, errors.MalformedAnswer("a header")),
    }
    assert worker.waits() == {}
    seen: list[dict[str, dict[str, int]]] = []
    listed: Any = opened["from"].list_page

    async def look(**query: Any) -> ListingPage:  # noqa: ANN401 - as it is
        seen.append(worker.waits())
        page: ListingPage = await listed(**query)
        return page

    opened["from"].list_page = look  # type: ignore[method-assign]
    await worker.run(TASK)
    told = {
        "the source answers with HTTP 500 InternalError": 2,
        "the target does not answer": 1,
        "the target answers against the rules of HTTP": 1,
    }
    assert seen[0] == {"j": told}
    assert worker.waits() == {}
    waits = Waits()
    waits.tell(7, seen[0])
    waits.tell(8, seen[0])
    waits.forget(8)
    assert waits.of("j") == (
        "2 requests that the source answers with HTTP 500 InternalError",
        "1 request that the target does not answer",
        "1 request that the target answers against the rules of HTTP",
    )
    assert waits.of("other") == ()
