"""A worker's copies from, to and within Google Cloud Storage, written and read by other hands."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from slurper.demo.dataset import HOSTILE_KEYS
from slurper.demo.servers import S3Server
from slurper.jobs.models import LogType
from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.gcs.server import Asked, GcsServer, Refused, address_of
from tests.gcs.tokens import ACCOUNT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
SETTINGS = Settings(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)

NOT_AT_GOOGLE = {"..", "new\nline"}
"""Google takes no object of such a name."""


@dataclass(frozen=True)
class Thing:
    """An object: content headers by boto3's names, metadata, bytes."""

    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


class Place(Protocol):
    """A bucket, as somebody else than Slurper sees it."""

    address: StoreAddress

    def write(self, key: str, thing: Thing) -> None: ...
    def read(self, key: str) -> Thing: ...
    def keys(self) -> set[str]: ...


HEADERS = {
    "CacheControl": "cacheControl",
    "ContentDisposition": "contentDisposition",
    "ContentEncoding": "contentEncoding",
    "ContentLanguage": "contentLanguage",
    "ContentType": "contentType",
}


@dataclass
class AtS3:
    client: S3Client
    address: StoreAddress

    def write(self, key: str, thing: Thing) -> None:
        headers: dict[str, Any] = dict(thing.headers)
        self.client.put_object(
            Bucket=self.address.bucket,
            Key=key,
            Body=thing.body,
            Metadata=thing.metadata,
            **headers,
        )

    def read(self, key: str) -> Thing:
        found: Any = self.client.get_object(Bucket=self.address.bucket, Key=key)
        headers = {name: found[name] for name in HEADERS if found.get(name)}
        return Thing(found["Body"].read(), headers, found["Metadata"])

    def keys(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.address.bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}


@dataclass
class AtGoogle:
    server: GcsServer
    address: StoreAddress

    def write(self, key: str, thing: Thing) -> None:
        about = {HEADERS[name]: value for name, value in thing.headers.items()}
        self.server.add(self.address.bucket, key, thing.body, metadata=thing.metadata, **about)

    def read(self, key: str) -> Thing:
        kept = self.server.buckets[self.address.bucket].objects[key]
        found = {name: kept.resource.get(member) for name, member in HEADERS.items()}
        headers = {name: value for name, value in found.items() if value}
        return Thing(kept.data, headers, kept.resource.get("metadata", {}))

    def keys(self) -> set[str]:
        return set(self.server.buckets[self.address.bucket].names)


@pytest.fixture
def place(
    ministack: S3Server,
    gcs: GcsServer,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> Callable[[str], Place]:
    """`place(vendor)` is an empty bucket there."""

    def make(vendor: str) -> Place:
        if vendor == "gcs":
            return AtGoogle(gcs, address_of(gcs, gcs.make_bucket()))
        pair = S3Credentials(
            access_key_id=ministack.access_key_id, secret_access_key=ministack.secret_access_key
        )
        address = StoreAddress(
            origin=ministack.endpoint,
            bucket=make_bucket(ministack),
            region=ministack.region,
            dialect=dialects.GENERIC,
            credentials=pair,
            trusted=True,
        )
        return AtS3(boto(ministack), address)

    return make


Pair = tuple[Place, Place]


def read_and_written(pair: Pair) -> Pair:
    """The same buckets, of a store that copies nothing itself."""
    target = pair[1].address
    pair[1].address = replace(target, dialect=replace(target.dialect, server_side_copy=False))
    return pair


@pytest.fixture(params=["gcs to s3", "s3 to gcs", "gcs to gcs", "gcs to gcs by Google"])
def pair(request: pytest.FixtureRequest, place: Callable[[str], Place]) -> Pair:
    ends, by_google, _ = request.param.partition(" by Google")
    source, _, target = ends.partition(" to ")
    found = place(source), place(target)
    return found if by_google else read_and_written(found)


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
        overwrite=overwrite,
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


def takes(place: Place, key: str) -> bool:
    return not (isinstance(place, AtGoogle) and key in NOT_AT_GOOGLE)


async def test_hostile_keys_arrive_or_are_told(pair: Pair) -> None:
    source, target = pair
    keys = {key for key in HOSTILE_KEYS if takes(source, key)}
    for key in keys:
        source.write(key, Thing(key.encode(), {"ContentType": "text/x"}, {"n": "1"}))
    report = await copy(pair)
    expected = {key for key in keys if takes(target, key)}
    assert target.keys() == expected
    for key in expected:
        assert target.read(key) == source.read(key)
    assert {event.key for event in report.events} == keys - expected
    assert all(e.log_type is LogType.IMPORT_ERROR_RETRY_EXHAUSTION for e in report.events)
    assert all("Invalid object name" in event.message for event in report.events)
    assert report.counts.transferred == len(expected)


FULL = {
    "CacheControl": "max-age=60, public",
    "ContentDisposition": 'attachment; filename="a  b.txt"',
    "ContentEncoding": "x-own",
    "ContentLanguage": "de, en",
    "ContentType": "text/x-odd; charset=utf-8",
}


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 12 * MIB + 7])
async def test_bytes_and_headers_arrive_whatever_the_size(pair: Pair, size: int) -> None:
    source, target = pair
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    thing = Thing(body, FULL, {"plain": "value", "under_score": "a=b;c, %41"})
    source.write("dir/k", thing)
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.transferred_bytes) == (1, size)
    assert target.read("dir/k") == thing


@pytest.mark.parametrize("size", [100, 6 * MIB])
async def test_gzip_arrives_as_it_was_stored(pair: Pair, size: int) -> None:
    source, target = pair
    body = gzip.compress(bytes(range(256)) * (size // 256 + 1), compresslevel=0)
    thing = Thing(body, {"ContentEncoding": "gzip", "ContentType": "text/plain"})
    source.write("k", thing)
    await copy(pair)
    assert target.read("k") == thing


@pytest.mark.parametrize("size", [3, 6 * MIB])
async def test_without_overwrite_what_is_there_stays(pair: Pair, size: int) -> None:
    source, target = pair
    source.write("k", Thing(b"n" * size))
    source.write("new", Thing(b"n" * size))
    target.write("k", Thing(b"old"))
    report = await copy(pair, overwrite=False)
    assert (report.counts.transferred, report.counts.skipped) == (1, 1)
    assert target.read("k").body == b"old"
    assert target.read("new").body == b"n" * size


async def test_a_source_that_changes_while_it_is_copied_is_copied_whole(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = read_and_written((place("gcs"), place("gcs")))
    source.write("k", Thing(b"a" * 12 * MIB))
    answer, changed = GcsServer._json_api, list[bool]()

    def change_once(server: GcsServer, asked: Any) -> Any:  # noqa: ANN401
        answered = answer(server, asked)
        if "range" in asked.headers and not changed:
            changed.append(True)
            source.write("k", Thing(b"b" * 12 * MIB))
        return answered

    monkeypatch.setattr(GcsServer, "_json_api", change_once)
    report = await copy((source, target))
    assert (report.counts.transferred, report.attempts) == (1, 1)
    assert target.read("k").body == b"b" * 12 * MIB
    bucket = target.address.bucket
    assert [upload for upload in gcs.uploads.values() if upload.bucket == bucket] == []


@pytest.mark.parametrize("by_google", [True, False])
@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_metadata_that_no_header_can_hold_stays_within_google(
    place: Callable[[str], Place], size: int, *, by_google: bool
) -> None:
    pair = place("gcs"), place("gcs")
    if not by_google:
        read_and_written(pair)
    thing = Thing(b"x" * size, {"ContentType": "a/b"}, {"CaSe": " grün\n", "case": "😀", "ä b": ""})
    pair[0].write("k", thing)
    await copy(pair)
    assert pair[1].read("k") == thing


async def test_metadata_that_no_header_can_hold_fails_its_object(
    place: Callable[[str], Place],
) -> None:
    pair = place("gcs"), place("s3")
    pair[0].write("break", Thing(metadata={"n": "a\nb"}))
    pair[0].write("case", Thing(metadata={"N": "1", "n": "2"}))
    pair[0].write("fine", Thing(metadata={"N": "1"}))
    pair[0].write("name", Thing(metadata={"a b": "1"}))
    report = await copy(pair)
    assert [event.key for event in report.events] == ["break", "case", "name"]
    assert pair[1].keys() == {"fine"}
    assert pair[1].read("fine").metadata == {"n": "1"}


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_what_only_one_side_knows_comes_back(
    place: Callable[[str], Place], size: int
) -> None:
    google, s3, back = place("gcs"), place("s3"), place("gcs")
    assert isinstance(google, AtGoogle)
    moment, body = "2001-02-03T04:05:06Z", b"x" * size
    google.server.add(google.address.bucket, "k", body, customTime=moment, metadata={"CaSe": "ü"})
    await copy((google, s3))
    assert s3.read("k").metadata["goog-custom-time"] == moment
    await copy((s3, back))
    assert isinstance(back, AtGoogle)
    kept = back.server.buckets[back.address.bucket].objects["k"].resource
    assert (kept["customTime"], kept["metadata"]) == (moment, {"case": "ü"})


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_the_time_of_expiry_comes_back(place: Callable[[str], Place], size: int) -> None:
    s3, google, back = place("s3"), place("gcs"), place("s3")
    assert isinstance(s3, AtS3)
    assert isinstance(back, AtS3)
    expires = datetime(2099, 1, 1, tzinfo=UTC)
    s3.client.put_object(Bucket=s3.address.bucket, Key="k", Body=b"x" * size, Expires=expires)
    await copy((s3, google))
    assert google.read("k").metadata == {"http-expires": "Thu, 01 Jan 2099 00:00:00 GMT"}
    await copy((google, back))
    answer: Any = back.client.head_object(Bucket=back.address.bucket, Key="k")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Thu, 01 Jan 2099 00:00:00 GMT"
    assert back.read("k").metadata == {}


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
        pair[0].write(key, Thing(b"x" * size, FULL, {"m": key}))
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.transferred_bytes) == (3, sum(sizes.values()))
    assert not any(asked.query.get("alt") == "media" for asked in of(gcs, pair, "/o/"))
    assert len(of(gcs, pair, "/rewriteTo/")) == 3
    for key in sizes:
        assert pair[1].read(key) == pair[0].read(key)


async def test_what_google_copies_by_pieces_is_waited_for(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "rewritten_at_once", 2 * MIB)
    pair = place("gcs"), place("gcs")
    pair[0].write("k", Thing(b"x" * (7 * MIB), FULL, {"m": "1"}))
    await copy(pair)
    assert len(of(gcs, pair, "/rewriteTo/")) == 4
    assert pair[1].read("k") == pair[0].read("k")


async def test_what_takes_google_too_long_is_read_and_others_are_not(
    gcs: GcsServer, place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "rewritten_at_once", 4 * MIB)
    monkeypatch.setattr("slurper.objectstore.gcs.COPY_SECONDS", 0.0)
    pair = place("gcs"), place("gcs")
    for key, size in (("a", 5 * MIB), ("b", 4 * MIB), ("c", 6 * MIB), ("d", 1)):
        pair[0].write(key, Thing(b"x" * size, FULL))
    report = await copy(pair)
    assert (report.counts.transferred, report.counts.failed) == (4, 0)
    assert len(of(gcs, pair, "/rewriteTo/")) == 4
    read = {
        asked.path.rpartition("/")[2] for asked in of(gcs, pair, "/o/") if "range" in asked.headers
    }
    assert read == {"c"}
    for key in "abcd":
        assert pair[1].read(key) == pair[0].read(key)


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
    pair[0].write("k", Thing(b"1", FULL))
    pair[0].write("large", Thing(b"2" * 6 * MIB, FULL))
    report = await copy(pair, overwrite=False)
    assert (report.counts.transferred, report.counts.failed) == (2, 0)
    assert pair[1].read("k") == pair[0].read("k")
    assert pair[1].read("large") == pair[0].read("large")


async def test_one_token_serves_both_sides_of_a_job(
    gcs: GcsServer, place: Callable[[str], Place]
) -> None:
    pair = place("gcs"), place("gcs")
    pair[0].write("k", Thing(b"x"))
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
    pair[0].write("k", Thing(b"x"))
    nobody = replace(ACCOUNT, client_email="nobody@project")
    pair[side].address = replace(pair[side].address, credentials=nobody)
    report = await run(pair)
    assert report.halt is not None
    assert report.halt.log_type is log_type
    assert "GetAccessToken answered HTTP 400 invalid_grant" in report.halt.message
    assert report.counts.objects == 0
