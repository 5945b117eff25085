"""What a worker keeps between tasks, and what its reports say of the requests."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from slurper.http.client import ClientStatistics
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectHeaders, ObjectStore, StoreAddress
from slurper.objectstore.memory import MemoryStore
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer import worker as workers
from slurper.transfer.task import RangeTask


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


class Opened(dict[str, TroubledStore]):
    """Stores by bucket, as a worker opens them; it opens each only once."""

    def open(self, where: StoreAddress, _: object) -> ObjectStore:
        assert where.bucket not in self
        self[where.bucket] = TroubledStore()
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


class GatedStore(MemoryStore):
    """Holds every PUT back until the gate is open, and knows how many are held."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.held = 0

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        self.held += 1
        await self.gate.wait()
        self.held -= 1
        return await super().put(key, body, headers, if_absent=if_absent)


@pytest.fixture
def gated() -> tuple[workers.Worker, dict[str, GatedStore]]:
    """A worker of three places, and its stores; the source has 20 objects."""
    stores = {name: GatedStore() for name in ("from", "to", "elsewhere")}
    for number in range(20):
        stores["from"].add(f"{number:02}", b"x")
    worker = workers.Worker(
        Settings(in_flight_requests=3), open_store=lambda where, _: stores[where.bucket]
    )
    return worker, stores


async def test_the_tasks_of_a_target_share_its_places(
    gated: tuple[workers.Worker, dict[str, GatedStore]],
) -> None:
    worker, stores = gated
    halves = (KeyRange(None, "09"), KeyRange("09", None))
    running = [
        asyncio.create_task(worker.run(replace(TASK, range_id=number, slice=half)))
        for number, half in enumerate(halves)
    ]
    other = asyncio.create_task(worker.run(replace(TASK, target=address("elsewhere"))))
    await asyncio.sleep(0.05)
    assert (stores["to"].held, stores["elsewhere"].held) == (3, 3)
    for store in stores.values():
        store.gate.set()
    reports = await asyncio.gather(*running, other)
    assert [report.counts.transferred for report in reports] == [10, 10, 20]
    assert stores["to"].keys == stores["elsewhere"].keys == stores["from"].keys
    await worker.close()


async def test_the_time_of_a_task_begins_with_its_first_place(
    gated: tuple[workers.Worker, dict[str, GatedStore]],
) -> None:
    worker, stores = gated
    first = asyncio.create_task(worker.run(TASK))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(worker.run(replace(TASK, range_id=2, budget_seconds=0.4)))
    await asyncio.sleep(0.5)
    assert stores["to"].held == 3
    stores["to"].gate.set()
    assert (await first).finished
    assert (await second).finished
    await worker.close()
