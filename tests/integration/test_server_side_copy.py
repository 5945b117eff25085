"""Real servers copy between two buckets of theirs; a proxy counts what is asked of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from slurper.demo.servers import S3Server
from slurper.http.client import TransportOptions
from slurper.job.model import JobOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectHeaders, StoreAddress
from slurper.objectstore.factory import open_store
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.server_side import MAX_UNFOUNDED
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.chaos.faults import Fault, status, with_header
from tests.chaos.proxy import FaultProxy
from tests.conformance.test_object_store import KEYS
from tests.servers.r2.server import R2Stub

MakeBucket = Callable[[S3Server], str]

FRIENDLY = ("url", "encoded-slash", "punctuation", "spaces", "nfc", "nfd", "emoji", "control")
"""Keys that SeaweedFS keeps as they are."""

HEADERS = ObjectHeaders(
    {"content-type": "text/x; charset=utf-8", "content-encoding": "gzip", "cache-control": "no"},
    {"owner": "me", "odd": "a=b;c:%41"},
)
MIB = 1 << 20
IN_PARTS = Settings(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB, stream_seconds=0)
BODIES = r"^GET /[^/ ]+/[^?]+ HTTP"


@pytest.fixture(params=["ministack", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


class Stage:
    """A source bucket with hostile keys, an empty target, and a proxy before both."""

    def __init__(self, server: S3Server, proxy: FaultProxy, buckets: tuple[str, str]) -> None:
        self.proxy = proxy
        self.source, self.target = (
            StoreAddress(
                origin=proxy.endpoint,
                bucket=bucket,
                region=server.region,
                dialect=dialects.GENERIC,
                credentials=S3Credentials(
                    access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
                ),
                trusted=True,
            )
            for bucket in buckets
        )
        self.bodies: dict[str, bytes] = {}

    @property
    def task(self) -> RangeTask:
        return RangeTask(
            job_id="j", range_id=1, source=self.source, target=self.target, slice=KeyRange()
        )

    async def fill(self, keys: list[str]) -> None:
        self.bodies = {key: key.encode() * (1 + index * 50) for index, key in enumerate(keys)}
        store = open_store(self.source, TransportOptions())
        for key, body in self.bodies.items():
            await store.put(key, Body([body]), HEADERS)
        await store.close()
        self.proxy.requests.clear()

    async def run(self, task: RangeTask) -> RangeReport:
        worker = Worker(Settings(request_retries=0))
        try:
            return await worker.run(task)
        finally:
            await worker.close()

    async def assert_same(self) -> None:
        store = open_store(self.target, TransportOptions())
        for key, body in self.bodies.items():
            download = await store.get(key)
            assert bytes(download.body) == body
            assert download.stored.headers == HEADERS
        listed = (await store.list_page()).objects
        assert {meta.key for meta in listed} == self.bodies.keys()
        await store.close()


@pytest.fixture
async def stage(
    server: S3Server, make_bucket: MakeBucket, request: pytest.FixtureRequest
) -> AsyncIterator[Stage]:
    with FaultProxy(server.endpoint).running() as proxy:
        stage = Stage(server, proxy, (make_bucket(server), make_bucket(server)))
        hostile = request.node.callspec.params["server"] == "ministack"
        await stage.fill([KEYS[name] for name in (KEYS if hostile else FRIENDLY)])
        yield stage


async def test_every_key_arrives_and_no_body_is_read(stage: Stage) -> None:
    report = await stage.run(stage.task)
    assert (report.finished, report.halt, report.events) == (True, None, ())
    assert report.counts.transferred == len(stage.bodies)
    assert report.counts.transferred_bytes == sum(map(len, stage.bodies.values()))
    assert stage.proxy.count(BODIES) == 0
    assert stage.proxy.count(r"^PUT ") == len(stage.bodies)
    assert stage.proxy.count(r"^HEAD ") == len(stage.bodies)
    await stage.assert_same()


@pytest.mark.parametrize(
    "refusal",
    [status(501, "NotImplemented"), status(403, "AccessDenied")],
    ids=["unknown", "denied"],
)
async def test_refused_copies_go_the_ordinary_way(stage: Stage, refusal: Fault) -> None:
    stage.proxy.add(refusal, r"^PUT ", times=1)
    report = await stage.run(stage.task)
    assert (report.counts.transferred, report.counts.failed) == (len(stage.bodies), 0)
    await stage.assert_same()


UNFOUNDED = with_header("x-amz-copy-source", status(412, "PreconditionFailed"))
"""As Swift answers for objects of parts, whose HEAD shows the very ETag that was asked for."""


async def test_copies_refused_for_an_etag_that_head_shows_go_the_ordinary_way(
    stage: Stage,
) -> None:
    stage.proxy.add(UNFOUNDED, r"^PUT ")
    report = await stage.run(stage.task)
    assert (report.counts.transferred, report.events) == (len(stage.bodies), ())
    assert (report.attempts, report.retries) == (0, 0)
    assert stage.proxy.count(BODIES) == len(stage.bodies)
    lanes = Settings().in_flight_requests
    assert stage.proxy.count(r"^PUT ") <= len(stage.bodies) + MAX_UNFOUNDED + lanes
    await stage.assert_same()


@pytest.mark.parametrize(
    "refusal",
    [
        UNFOUNDED,
        with_header("x-amz-copy-source", status(400, "InvalidRequest")),
        with_header("x-amz-copy-source", status(501, "NotImplemented")),
    ],
    ids=["412", "400", "501"],
)
async def test_copies_of_parts_refused_though_nothing_is_wrong_are_read(
    server: S3Server, make_bucket: MakeBucket, refusal: Fault
) -> None:
    with FaultProxy(server.endpoint).running() as proxy:
        stage = Stage(server, proxy, (make_bucket(server), make_bucket(server)))
        proxy.add(refusal, r"^PUT .*partNumber=")
        small = replace(dialects.GENERIC, max_copy_bytes=MIB)
        task = replace(
            stage.task,
            source=replace(stage.source, dialect=small),
            target=replace(stage.target, dialect=small),
        )
        body = bytes(range(256)) * (4 * 1024 * 11)
        source, target = (
            open_store(each, TransportOptions()) for each in (task.source, task.target)
        )
        await source.put("large", Body([body]), HEADERS)
        worker = Worker(IN_PARTS)

        async def run(parts: PartsTask) -> PartsReport:
            return await worker.run(parts)

        found = await worker.run(task)
        large, _ = await settle([first_task(task, meta) for meta in found.large], run)
        await worker.close()
        report = folded(found, large)
        assert (report.counts.transferred, report.attempts, report.events) == (1, 0, ())
        assert bytes((await target.get("large")).body) == body
        assert proxy.count(r"^GET /[^/ ]+/large") == 3 + 1  # each part, and here
        for store in (source, target):
            await store.close()


async def test_the_option_turns_it_off(stage: Stage) -> None:
    task = replace(stage.task, options=JobOptions(server_side_copy=False))
    assert (await stage.run(task)).counts.transferred == len(stage.bodies)
    assert stage.proxy.count(r"^HEAD ") == 0
    assert stage.proxy.count(BODIES) == len(stage.bodies)
    await stage.assert_same()


@pytest.mark.parametrize(("age", "reads"), [(timedelta(minutes=1), 0), (timedelta(), 3)])
async def test_r2_copies_parts_of_what_rests(
    r2_stub: R2Stub, make_bucket: MakeBucket, age: timedelta, reads: int
) -> None:
    server = r2_stub.address
    body = bytes(range(256)) * (4 * 1024 * 11)
    with FaultProxy(server.endpoint).running() as proxy:
        stage = Stage(server, proxy, (make_bucket(server), make_bucket(server)))
        small = replace(dialects.R2, max_copy_bytes=MIB)  # else parts are needed beyond 5 GiB only
        task = replace(
            stage.task,
            source=replace(stage.source, dialect=small),
            target=replace(stage.target, dialect=small),
        )
        source, target = (r2_stub.buckets[each.bucket] for each in (stage.source, stage.target))
        source.now = lambda: datetime.now(UTC) - age
        source.put("k", {"content-type": "a/b"}, body)
        worker = Worker(IN_PARTS)

        async def run(parts: PartsTask) -> PartsReport:
            return await worker.run(parts)

        found = await worker.run(task)
        large, _ = await settle([first_task(task, meta) for meta in found.large], run)
        await worker.close()
        assert folded(found, large).counts.transferred == 1
        assert (target.get("k").body, target.get("k").content) == (body, {"content-type": "a/b"})
        assert proxy.count(BODIES) == reads
        assert proxy.count(r"^PUT .*partNumber=") == 3
