"""What is Google's alone in a worker's copies from, to and within Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from slurper.job.model import LogType
from slurper.objectstore.base import StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.settings import Settings
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.pairs.cases import FULL
from tests.pairs.referee import Bucket
from tests.pairs.stores import Kind, Store
from tests.servers.gcs.server import Asked, GcsServer, Refused
from tests.servers.gcs.tokens import ACCOUNT

MIB = 1 << 20
SETTINGS = Settings(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
ONE_LANE = SETTINGS.model_copy(update={"in_flight_requests": 1})


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


def read_and_written(pair: Pair) -> Pair:
    """The same buckets, of a store that copies nothing itself."""
    target = pair[1].address
    pair[1].address = replace(target, dialect=replace(target.dialect, server_side_copy=False))
    return pair


async def copy(pair: Pair, *, overwrite: bool = True) -> RangeReport:
    report = await run(pair, overwrite=overwrite)
    assert (report.finished, report.halt) == (True, None)
    return report


async def run(pair: Pair, *, overwrite: bool = True) -> RangeReport:
    worker = Worker(SETTINGS)
    task = RangeTask(
        job_id="j",
        range_id=1,
        source=pair[0].address,
        target=pair[1].address,
        slice=KeyRange(),
        budget_seconds=100.0,
        overwrite=overwrite,
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
    source, target = read_and_written((place("gcs"), place("gcs")))
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


@pytest.mark.parametrize("by_google", [True, False])
@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_metadata_that_no_header_can_hold_stays_within_google(
    place: Callable[[str], Place], size: int, *, by_google: bool
) -> None:
    pair = place("gcs"), place("gcs")
    if not by_google:
        read_and_written(pair)
    source, target = pair
    metadata = {"CaSe": " grün\n", "case": "😀", "ä b": ""}
    source.bucket.put("k", b"x" * size, ContentType="a/b", Metadata=metadata)
    await copy(pair)
    assert target.bucket.get("k") == source.bucket.get("k")
    assert target.bucket.get("k").metadata == metadata


@pytest.mark.parametrize("to", ["s3", "r2", "gcs"])
async def test_listed_objects_without_a_size_are_copied_and_one_without_any_fails_alone(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    pair = source, target = place("gcs"), place(to)
    bodies = {"a": b"1", "large": b"x" * 6 * MIB, "none": b"", "z": b"2"}
    for key, body in bodies.items():
        source.bucket.put(key, body)
    gcs.add(source.bucket.name, "never-told", b"3", size=None)
    monkeypatch.setattr(gcs, "unlisted", {"large": ("size",), "none": ("size", "generation")})
    report = await run(pair)
    assert (report.finished, report.halt) == (True, None)
    assert (report.counts.transferred, report.counts.failed) == (4, 1)
    (event,) = report.events
    assert (event.key, "does not tell the size" in event.message) == ("never-told", True)
    assert {key: target.bucket.get(key).body for key in bodies} == bodies


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


# Copies that Google makes itself


def of(gcs: GcsServer, pair: Pair, part: str) -> list[Asked]:
    """What was asked of a pair's buckets and holds this."""
    names = [place.address.bucket for place in pair]
    return [a for a in gcs.asked if part in a.path and any(name in a.path for name in names)]


async def test_no_byte_passes_through_the_worker(
    gcs: GcsServer, place: Callable[[str], Place]
) -> None:
    pair = place("gcs"), place("gcs")
    sizes = {"small": 3, "large": 6 * MIB, "none": 0}
    for key, size in sizes.items():
        pair[0].bucket.put(key, b"x" * size, **FULL, Metadata={"m": key})
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.transferred_bytes) == (3, sum(sizes.values()))
    assert not any(asked.query.get("alt") == "media" for asked in of(gcs, pair, "/o/"))
    assert len(of(gcs, pair, "/rewriteTo/")) == 3
    for key in sizes:
        assert pair[1].bucket.get(key) == pair[0].bucket.get(key)


async def test_what_google_copies_by_pieces_is_waited_for(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "rewritten_at_once", 2 * MIB)
    pair = place("gcs"), place("gcs")
    pair[0].bucket.put("k", b"x" * (7 * MIB), **FULL, Metadata={"m": "1"})
    await copy(pair)
    assert len(of(gcs, pair, "/rewriteTo/")) == 4
    assert pair[1].bucket.get("k") == pair[0].bucket.get("k")


async def test_what_takes_google_too_long_is_read_and_others_are_not(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "rewritten_at_once", 4 * MIB)
    monkeypatch.setattr("slurper.objectstore.gcs.writing.COPY_SECONDS", 0.0)
    pair = place("gcs"), place("gcs")
    for key, size in (("a", 5 * MIB), ("b", 4 * MIB), ("c", 6 * MIB), ("d", 1)):
        pair[0].bucket.put(key, b"x" * size, **FULL)
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.failed) == (4, 0)
    assert len(of(gcs, pair, "/rewriteTo/")) == 4
    read = {
        asked.path.rpartition("/")[2] for asked in of(gcs, pair, "/o/") if "range" in asked.headers
    }
    assert read == {"c"}
    for key in "abcd":
        assert pair[1].bucket.get(key) == pair[0].bucket.get(key)


@pytest.mark.parametrize("size", [3, 6 * MIB])
@pytest.mark.parametrize("byte", [b"x", b"y"], ids=["ours", "theirs"])
async def test_what_is_found_at_the_target_is_told_by_its_checksum(
    gcs: GcsServer,
    place: Callable[[str], Place],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    byte: bytes,
) -> None:
    pair = place("gcs"), place("gcs")
    pair[0].bucket.put("k", b"x" * size, **FULL)
    rewrite = GcsServer._rewrite

    def too_late(server: GcsServer, asked: Any, *names: str) -> Any:  # noqa: ANN401
        if "k" not in gcs.buckets[pair[1].bucket.name].objects:
            gcs.add(pair[1].bucket.name, "k", byte * size)
        return rewrite(server, asked, *names)

    monkeypatch.setattr(GcsServer, "_rewrite", too_late)
    report = await copy(pair, overwrite=False)
    ours = int(byte == b"x")
    assert (report.counts.transferred, report.counts.skipped) == (ours, 1 - ours)
    assert not any(asked.query.get("alt") == "media" for asked in of(gcs, pair, "/o/"))
    assert pair[1].bucket.get("k").body == byte * size


async def test_a_large_object_that_takes_google_too_long_is_its_last_such(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "rewritten_at_once", 4 * MIB)
    monkeypatch.setattr("slurper.objectstore.gcs.writing.COPY_SECONDS", 0.0)
    monkeypatch.setattr("tests.integration.test_google_copies.SETTINGS", ONE_LANE)
    pair = place("gcs"), place("gcs")
    for key, size in (("a", 6 * MIB), ("b", 6 * MIB), ("c", 7 * MIB), ("d", 4 * MIB)):
        pair[0].bucket.put(key, b"x" * size, **FULL)
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.failed) == (4, 0)
    asked = [asked.path.rpartition("/")[2] for asked in of(gcs, pair, "/rewriteTo/")]
    assert asked == ["a", "d"]
    for key in "abcd":
        assert pair[1].bucket.get(key) == pair[0].bucket.get(key)


async def test_a_source_deleted_after_its_last_part_was_read_is_copied(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = place("gcs"), place("gcs")
    source.bucket.put("k", b"a" * 12 * MIB)
    monkeypatch.setattr(gcs, "refuses_rewrites", Refused(400, "invalid", "Not here."))
    answer = GcsServer._json_api

    def delete_when_read(server: GcsServer, asked: Any) -> Any:  # noqa: ANN401
        answered = answer(server, asked)
        last = (
            "range" in asked.headers
            and sum("range" in a.headers for a in of(gcs, (source, target), "/o/k")) == 3
        )
        if last:
            gcs._delete(source.bucket.name, "k")
        return answered

    monkeypatch.setattr(GcsServer, "_json_api", delete_when_read)
    report = await copy((source, target))
    assert (report.counts.transferred, report.counts.failed) == (1, 0)
    assert target.bucket.get("k").body == b"a" * 12 * MIB


@pytest.mark.parametrize(
    "refusal",
    [
        Refused(403, "forbidden", "mover does not have storage.objects.get access"),
        Refused(400, "invalid", "This bucket does not take that."),
        Refused(404, "notFound", "The specified bucket does not exist."),
    ],
    ids=lambda refusal: refusal.reason,
)
async def test_what_google_does_not_copy_goes_the_ordinary_way(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch, refusal: Refused
) -> None:
    monkeypatch.setattr(gcs, "refuses_rewrites", refusal)
    pair = place("gcs"), place("gcs")
    pair[0].bucket.put("k", b"1", **FULL)
    pair[0].bucket.put("large", b"2" * 6 * MIB, **FULL)
    report = await copy(pair, overwrite=False)
    assert (report.counts.transferred, report.counts.failed) == (2, 0)
    assert pair[1].bucket.get("k") == pair[0].bucket.get("k")
    assert pair[1].bucket.get("large") == pair[0].bucket.get("large")


async def test_one_token_serves_both_sides_of_a_job(
    gcs: GcsServer, place: Callable[[str], Place]
) -> None:
    pair = place("gcs"), place("gcs")
    pair[0].bucket.put("k", b"x")
    given = len(gcs.tokens.given)
    await copy(pair)
    assert len(gcs.tokens.given) == given + 1


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
