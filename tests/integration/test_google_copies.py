"""What is Google's alone in a worker's copies from, to and within Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from slurper.jobs.models import LogType
from slurper.objectstore.base import StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.settings import Settings
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.gcs.server import GcsServer
from tests.gcs.tokens import ACCOUNT
from tests.pairs.referee import Bucket
from tests.pairs.stores import Kind, Store

MIB = 1 << 20
SETTINGS = Settings(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)


@dataclass
class Place:
    """A bucket, and how a worker is told of it."""

    address: StoreAddress
    bucket: Bucket


@pytest.fixture
def place(store_of: Callable[[Kind], Store]) -> Callable[[str], Place]:
    """`place(vendor)` is an empty bucket there."""

    def make(vendor: str) -> Place:
        store = store_of(Kind(vendor))
        bucket = store.new_bucket()
        return Place(store.address(bucket), bucket)

    return make


Pair = tuple[Place, Place]


async def copy(pair: Pair) -> RangeReport:
    report = await run(pair)
    assert (report.finished, report.halt) == (True, None)
    return report


async def run(pair: Pair) -> RangeReport:
    worker = Worker(SETTINGS)
    task = RangeTask(
        job_id="j",
        range_id=1,
        source=pair[0].address,
        target=pair[1].address,
        slice=KeyRange(),
        budget_seconds=100.0,
    )

    async def settle_large(large: PartsTask) -> PartsReport:
        found = await worker.run(large)
        assert isinstance(found, PartsReport)
        return found

    report = await worker.run(task)
    assert isinstance(report, RangeReport)
    large, _ = await settle([first_task(task, meta) for meta in report.large], settle_large)
    await worker.close()
    return folded(report, large)


async def test_a_source_that_changes_while_it_is_copied_is_copied_whole(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = place("gcs"), place("gcs")
    source.bucket.put("k", b"a" * 12 * MIB)
    answer, changed = GcsServer._json_api, list[bool]()

    def change_once(server: GcsServer, asked: Any) -> Any:  # noqa: ANN401
        answered = answer(server, asked)
        if "range" in asked.headers and not changed:
            changed.append(True)
            gcs.add(source.bucket.name, "k", b"b" * 12 * MIB)
        return answered

    monkeypatch.setattr(GcsServer, "_json_api", change_once)
    report = await copy((source, target))
    assert (report.counts.transferred, report.attempts) == (1, 1)
    assert target.bucket.get("k").body == b"b" * 12 * MIB
    bucket = target.bucket.name
    assert [upload for upload in gcs.uploads.values() if upload.bucket == bucket] == []


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_metadata_that_no_header_can_hold_stays_within_google(
    place: Callable[[str], Place], size: int
) -> None:
    source, target = place("gcs"), place("gcs")
    metadata = {"CaSe": " grün\n", "case": "😀", "ä b": ""}
    source.bucket.put("k", b"x" * size, ContentType="a/b", Metadata=metadata)
    await copy((source, target))
    assert target.bucket.get("k") == source.bucket.get("k")
    assert target.bucket.get("k").metadata == metadata


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_what_only_one_side_knows_comes_back(
    gcs: GcsServer, place: Callable[[str], Place], size: int
) -> None:
    google, s3, back = place("gcs"), place("s3"), place("gcs")
    moment, body = "2001-02-03T04:05:06Z", b"x" * size
    gcs.add(google.bucket.name, "k", body, customTime=moment, metadata={"CaSe": "ü"})
    await copy((google, s3))
    assert s3.bucket.get("k").metadata["goog-custom-time"] == moment
    await copy((s3, back))
    kept = gcs.buckets[back.bucket.name].objects["k"].resource
    assert (kept["customTime"], kept["metadata"]) == (moment, {"case": "ü"})


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_the_time_of_expiry_comes_back(place: Callable[[str], Place], size: int) -> None:
    s3, google, back = place("s3"), place("gcs"), place("s3")
    s3.bucket.put("k", b"x" * size, Expires="Thu, 01 Jan 2099 00:00:00 GMT")
    await copy((s3, google))
    assert google.bucket.get("k").metadata == {"http-expires": "Thu, 01 Jan 2099 00:00:00 GMT"}
    await copy((google, back))
    assert back.bucket.get("k").headers["expires"] == "Thu, 01 Jan 2099 00:00:00 GMT"
    assert back.bucket.get("k").metadata == {}


@pytest.mark.parametrize(
    ("side", "log_type"),
    [(0, LogType.MIGRATION_ERROR_FAILED_CONTINUATION), (1, LogType.MIGRATION_ERROR)],
    ids=["source", "target"],
)
async def test_an_account_that_is_refused_halts(
    place: Callable[[str], Place], side: int, log_type: LogType
) -> None:
    pair = place("gcs"), place("gcs")
    pair[0].bucket.put("k", b"x")
    nobody = replace(ACCOUNT, client_email="nobody@project")
    pair[side].address = replace(pair[side].address, credentials=nobody)
    report = await run(pair)
    assert report.halt is not None
    assert report.halt.log_type is log_type
    assert "GetAccessToken answered HTTP 400 invalid_grant" in report.halt.message
    assert report.counts.objects == 0
