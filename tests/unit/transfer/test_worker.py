"""What a worker keeps between tasks, and what its reports say of the requests."""

from __future__ import annotations

import pytest

from slurper.http.client import ClientStatistics
from slurper.objectstore import dialects
from slurper.objectstore.base import ObjectStore, StoreAddress
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
