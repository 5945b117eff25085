"""What a worker keeps between tasks, and what its reports say of the requests."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

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
from slurper.transfer import server_side
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
        self.when_closed: Callable[[], None] = lambda: None

    @property
    def statistics(self) -> ClientStatistics:
        return self.trouble

    @override
    async def close(self) -> None:
        self.when_closed()


TASK = RangeTask(
    job_id="j", range_id=1, source=address("from"), target=address("to"), slice=KeyRange()
)
COUNT = CountTask(job_id="j", source=TASK.source, target=TASK.target, start_after=None)


class Opened(dict[str, TroubledStore]):
    """Stores by bucket, as a worker opens them; it opens each only once."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: list[str] = []

    def open(self, where: StoreAddress, _: object) -> ObjectStore:
        assert where.bucket not in self
        self[where.bucket] = TroubledStore()
        self[where.bucket]._dialect = where.dialect
        self[where.bucket].when_closed = functools.partial(self.closed.append, where.bucket)
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


async def test_a_store_is_closed_when_its_last_job_has_ended(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    await worker.run(TASK)
    await worker.run(replace(COUNT, job_id="other", target=address("elsewhere")))
    worker.job_ended("j")
    await asyncio.sleep(0)
    assert opened.closed == ["to"], "the other job still needs the source"
    worker.job_ended("unknown")
    worker.job_ended("other")
    await asyncio.sleep(0)
    assert opened.closed == ["to", "from", "elsewhere"]
    opened.clear()
    await worker.run(TASK)
    assert sorted(opened) == ["from", "to"]
    await worker.close()


async def test_a_task_under_way_keeps_its_stores_when_its_job_is_paused(opened: Opened) -> None:
    worker = workers.Worker(Settings(), open_store=opened.open)
    await worker.run(TASK)
    going_on = asyncio.Event()
    listed: Any = opened["from"].list_page

    async def slow(**query: Any) -> ListingPage:  # noqa: ANN401 - as it is
        await going_on.wait()
        page: ListingPage = await listed(**query)
        return page

    opened["from"].list_page = slow  # type: ignore[method-assign]
    running = asyncio.create_task(worker.run(TASK))
    await asyncio.sleep(0)
    worker.job_ended("j")
    await asyncio.sleep(0)
    assert opened.closed == []
    going_on.set()
    await running
    await asyncio.sleep(0)
    assert sorted(opened.closed) == ["from", "to"]


async def freed(opened: Opened) -> None:
    """Wait until the store of the source is gone from memory."""
    store = weakref.ref(opened["from"])
    opened.clear()
    for _ in range(2000):
        if store() is None:
            break
        await asyncio.sleep(0.005)
    assert store() is None


async def test_a_store_that_no_task_uses_goes_after_a_while_with_its_credentials(
    opened: Opened,
) -> None:
    """Also when nobody says that its job has ended. No task has to come for it."""
    worker = workers.Worker(Settings(store_idle_seconds=0.05), open_store=opened.open)
    secret = f"secret-{time.monotonic_ns()}"
    await worker.run(with_secret(secret))
    await freed(opened)
    assert sorted(opened.closed) == ["from", "to"]
    assert knowers_of(secret) == []
    assert worker._stores._timer is None or worker._stores._opened == {}


async def test_stores_that_were_closed_with_their_job_are_freed_too(opened: Opened) -> None:
    worker = workers.Worker(Settings(store_idle_seconds=0.05), open_store=opened.open)
    secret = f"secret-{time.monotonic_ns()}"
    await worker.run(with_secret(secret))
    worker.job_ended("j")
    await freed(opened)
    assert knowers_of(secret) == []


async def test_what_stays_of_a_bucket_holds_no_secret(opened: Opened) -> None:
    """Whether a store copies by itself is kept for as long as the process lives."""
    dialect = replace(dialects.GENERIC, server_side_copy=True)
    worker = workers.Worker(Settings(), open_store=opened.open)
    task = replace(
        TASK,
        source=replace(TASK.source, dialect=dialect),
        target=replace(TASK.target, dialect=dialect),
    )
    await worker.run(task)
    assert len(worker._shortcuts._known) == 1
    assert "secret_access_key" not in repr(worker._shortcuts._known)
    for number in range(server_side.MAX_SHORTCUTS + 10):
        target = replace(task.target, bucket=str(number))
        worker._shortcuts.of(replace(task, target=target))
    assert len(worker._shortcuts._known) == server_side.MAX_SHORTCUTS
    await worker.close()


def with_secret(secret: str) -> RangeTask:
    """The task with credentials that nobody else knows."""
    credentials = S3Credentials(access_key_id="a", secret_access_key=secret)
    return replace(
        TASK,
        source=replace(TASK.source, credentials=credentials),
        target=replace(TASK.target, credentials=credentials),
    )


def knowers_of(secret: str) -> list[S3Credentials]:
    """The credentials in memory that have this secret."""
    return [
        one
        for one in gc.get_objects()
        if isinstance(one, S3Credentials) and one.secret_access_key == secret
    ]


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
        3: Waiting(long_ago, errors.TooManyOpenFiles("none left")),
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
        "this program has no file descriptor to ask the target with": 1,
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
        "1 request that this program has no file descriptor to ask the target with",
    )
    assert waits.of("other") == ()
