"""Objects that their store copies by itself, and those it is not asked to or does not want to."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from slurper import errors
from slurper.job.model import JobOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import (
    ObjectHeaders,
    ObjectStore,
    Part,
    StoreAddress,
    StoredObject,
)
from slurper.objectstore.dialects import Dialect, PartCopy
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import MIB, Settings
from slurper.transfer import attempts
from slurper.transfer.server_side import MAX_UNFOUNDED
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask, Share
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, next_task, settle
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import Encrypting

HEADERS = ObjectHeaders({"content-type": "text/x"}, {"owner": "me"})
DIALECT = replace(dialects.GENERIC, conditional_copy=True, max_copy_bytes=1_000)


def address(bucket: str, *, dialect: Dialect = DIALECT, key_id: str = "a") -> StoreAddress:
    return StoreAddress(
        origin="http://memory.invalid",
        bucket=bucket,
        region="r",
        dialect=dialect,
        credentials=S3Credentials(access_key_id=key_id, secret_access_key="s"),
    )


TASK = RangeTask(
    job_id="j", range_id=1, source=address("from"), target=address("to"), slice=KeyRange()
)


class Server:
    """Two buckets of one server, and a worker."""

    def __init__(self, dialect: Dialect = DIALECT, **settings: Any) -> None:  # noqa: ANN401 - of Settings
        self.source = MemoryStore(dialect=dialect, bucket="from")
        self.target = MemoryStore(dialect=dialect, bucket="to", neighbours=[self.source])
        made = Settings(in_flight_requests=4, object_attempts=2, **settings)
        self._worker = Worker(made, open_store=self._open)

    def _open(self, where: StoreAddress, _: object) -> ObjectStore:
        return self.source if where.bucket == "from" else self.target

    def fill(self, *keys: str) -> None:
        for key in keys:
            self.source.add(key, key.encode(), HEADERS)

    async def run(self, task: RangeTask = TASK) -> RangeReport:
        """Run a range's task, and those of the large objects that it finds."""
        found = await self._worker.run(task)
        reports, left = await settle([first_task(task, meta) for meta in found.large], self._parts)
        assert not left
        return folded(found, reports)

    async def _parts(self, task: PartsTask) -> PartsReport:
        return await self._worker.run(task)

    @property
    def read(self) -> int:
        return self.source.faults.requests.get("get", 0)

    @property
    def copied(self) -> int:
        return self.target.faults.requests.get("copy_object", 0)

    def assert_same(self) -> None:
        assert self.target.keys == self.source.keys
        assert all(self.target.read(key) == self.source.read(key) for key in self.source.keys)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


KEYS = ("/lead", "a b", "a//b", "c?+%", "ü")


async def test_no_byte_passes_through_the_worker() -> None:
    server = Server()
    server.fill(*KEYS)
    report = await server.run()
    assert report.counts.transferred == len(KEYS)
    assert report.counts.transferred_bytes == sum(len(key.encode()) for key in KEYS)
    assert (server.read, server.copied) == (0, len(KEYS))
    assert "put" not in server.target.faults.requests
    server.assert_same()


async def test_what_the_target_would_lose_fails_and_the_others_are_copied_inside() -> None:
    server = Server(replace(DIALECT, refused_headers=frozenset({"expires"})))
    server.fill(*KEYS)
    server.source.add("b", b"1", ObjectHeaders({"expires": "0"}))
    report = await server.run()
    assert (report.counts.transferred, report.counts.failed) == (len(KEYS), 1)
    (event,) = report.events
    assert event.key == "b"
    assert "without its expires, which options.require asks for" in event.message
    assert (server.read, server.copied) == (0, len(KEYS) + 1)
    assert "b" not in server.target.keys


@pytest.mark.parametrize(
    "task",
    [
        replace(TASK, options=JobOptions(server_side_copy=False)),
        replace(TASK, options=JobOptions(include_content_types=("text/*",))),
        replace(TASK, options=JobOptions(validate_media=True)),
        replace(TASK, source=replace(TASK.source, origin="http://elsewhere.invalid")),
        replace(TASK, source=address("from", key_id="other")),
        replace(TASK, target=address("to", dialect=replace(DIALECT, server_side_copy=False))),
        replace(
            TASK,
            target=address("to", dialect=replace(DIALECT, conditional_copy=False)),
            overwrite=False,
        ),
    ],
    ids=["option", "types", "media", "origin", "credentials", "dialect", "unconditional"],
)
async def test_the_ordinary_way_where_the_short_one_would_not_do(task: RangeTask) -> None:
    server = Server()
    server.fill("a", "b")
    assert (await server.run(task)).counts.transferred == 2
    assert (server.read, server.copied) == (2, 0)


async def test_a_setting_forbids_it() -> None:
    server = Server(server_side_copy=False)
    server.fill("a")
    await server.run()
    assert (server.read, server.copied) == (1, 0)


async def test_other_credentials_will_do_where_names_are_global() -> None:
    server = Server()
    server.fill("a")
    everywhere = replace(DIALECT, global_bucket_names=True)
    target = address("to", dialect=everywhere, key_id="other")
    await server.run(replace(TASK, target=target))
    assert (server.read, server.copied) == (0, 1)


async def test_objects_over_the_limit_are_copied_in_parts_inside() -> None:
    server = Server(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("large", bytes(range(256)) * 4 * 1024 * 11, HEADERS)
    assert (await server.run()).counts.transferred == 1
    assert (server.read, server.copied) == (0, 0)
    assert server.target.faults.requests["copy_part"] == 3
    assert "put_part" not in server.target.faults.requests
    server.assert_same()


async def test_refused_parts_go_the_ordinary_way() -> None:
    server = Server(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("large", bytes(range(256)) * 4 * 1024 * 11, HEADERS)
    refusal = errors.StoreError("UploadPartCopy", status=501, code="NotImplemented")
    server.target.faults.fail(refusal, operation="copy_part", nth=2, times=9)
    assert (await server.run()).counts.transferred == 1
    assert server.read == server.target.faults.requests["put_part"] == 2
    assert server.target.open_uploads == ()
    server.assert_same()


async def test_a_source_that_changes_under_its_parts_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("large", b"1" * 11 * MIB, HEADERS)
    copy_part: Any = server.target.copy_part

    async def unconditional(*arguments: Any) -> Part:  # noqa: ANN401 - passed through
        if server.target.faults.requests.get("copy_part") == 1:
            server.source.add("large", b"2" * 11 * MIB, HEADERS)
        *rest, meta, byte_range = arguments
        part: Part = await copy_part(*rest, meta._replace(etag=""), byte_range)
        return part

    monkeypatch.setattr(server.target, "copy_part", unconditional)
    report = await server.run()
    assert (report.counts.transferred, report.attempts) == (1, 1)
    assert server.target.open_uploads == ()
    server.assert_same()


BLIND = replace(DIALECT, part_copy=PartCopy.UNCONDITIONAL)
INSIDE_BLINDLY = replace(
    TASK, source=address("from", dialect=BLIND), target=address("to", dialect=BLIND)
)
BODY = bytes(range(256)) * 4 * 1024 * 11
"""Three parts."""


class Clock:
    """The store's, which a test turns."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 900_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class BlindServer(Server):
    """It knows no condition on the source of a part."""

    def __init__(self) -> None:
        super().__init__(BLIND, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
        self.clock = Clock()
        for store in (self.source, self.target):
            store._now = self.clock
        self.source.add("large", BODY, HEADERS)

    @property
    def parts_inside(self) -> int:
        return self.target.faults.requests.get("copy_part", 0)


async def test_parts_of_a_version_that_rests_are_copied_without_a_condition() -> None:
    server = BlindServer()
    server.clock.now += timedelta(seconds=7)
    assert (await server.run(INSIDE_BLINDLY)).counts.transferred == 1
    assert (server.read, server.parts_inside) == (0, 3)
    server.assert_same()


async def test_parts_of_a_version_that_may_come_twice_are_read() -> None:
    server = BlindServer()
    server.clock.now += timedelta(seconds=3)
    assert (await server.run(INSIDE_BLINDLY)).counts.transferred == 1
    assert (server.read, server.parts_inside) == (3, 0)
    server.assert_same()


async def test_a_version_that_comes_back_under_its_parts_is_told_by_its_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = BlindServer()
    server.clock.now += timedelta(seconds=10)
    copy_part: Any = server.target.copy_part

    async def meanwhile(*arguments: Any) -> Part:  # noqa: ANN401 - passed through
        passing = server.parts_inside == 1
        if passing:
            server.source.add("large", bytes(len(BODY)), HEADERS)
        part: Part = await copy_part(*arguments)
        if passing:
            server.source.add("large", BODY, HEADERS)
        return part

    monkeypatch.setattr(server.target, "copy_part", meanwhile)
    report = await server.run(INSIDE_BLINDLY)
    assert (report.counts.transferred, report.attempts) == (1, 1)
    assert server.target.open_uploads == ()
    server.assert_same()


async def test_a_store_that_copies_no_parts_is_not_asked_to() -> None:
    whole_only = replace(DIALECT, part_copy=PartCopy.NONE)
    server = Server(whole_only, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("large", BODY, HEADERS)
    server.fill("small")
    task = replace(TASK, target=address("to", dialect=whole_only))
    assert (await server.run(task)).counts.transferred == 2
    assert (server.read, server.copied) == (3, 1)
    assert "copy_part" not in server.target.faults.requests
    server.assert_same()


UNFOUNDED = errors.PreconditionFailed("CopyObject", status=412, code="PreconditionFailed")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(("refused", "asked"), [(2, 20), (99, 3)])
async def test_a_412_for_a_version_that_is_there_fails_no_object_and_closes_the_shortcut_in_time(
    refused: int, asked: int, *, overwrite: bool
) -> None:
    server = Server()
    server.fill(*(f"k{number:02}" for number in range(20)))
    server.target.faults.fail(UNFOUNDED, operation="copy_object", times=refused)
    report = await server.run(replace(TASK, overwrite=overwrite))
    assert (report.counts.transferred, report.attempts, report.events) == (20, 0, ())
    lanes_under_way = 3
    assert asked <= server.copied <= asked + lanes_under_way
    assert server.read == (refused if refused < asked else 20)
    server.assert_same()


@pytest.mark.parametrize(("refused", "asked"), [(2, 9), (99, 3)])
@pytest.mark.parametrize(
    "refusal",
    [
        UNFOUNDED,
        errors.StoreError("UploadPartCopy", status=400, code="InvalidRequest"),
        errors.StoreError("UploadPartCopy", status=501, code="NotImplemented"),
        errors.TransportError("UploadPartCopy answered HTTP 200, but names no ETag"),
    ],
    ids=["412", "400", "501", "no ETag"],
)
async def test_parts_refused_although_nothing_is_wrong_are_read(
    refusal: errors.SlurperError, refused: int, asked: int
) -> None:
    server = Server(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    for number in range(3):
        server.source.add(f"large{number}", BODY, HEADERS)
    server.target.faults.fail(refusal, operation="copy_part", times=refused)
    report = await server.run()
    assert (report.counts.transferred, report.attempts, report.events) == (3, 0, ())
    inside = server.target.faults.requests["copy_part"]
    assert inside <= asked
    assert server.read + (inside - min(refused, inside)) == 9
    assert server.target.open_uploads == ()
    server.assert_same()


@pytest.mark.parametrize(
    "refusal",
    [
        errors.StoreError("HeadObject", status=405, code="MethodNotAllowed"),
        errors.StoreError("HeadObject", status=200, detail="it announces no size"),
        errors.IntegrityError("the response exceeds 1048576 body bytes"),
    ],
    ids=["405", "no size", "no range"],
)
async def test_objects_that_head_does_not_describe_are_read(refusal: errors.SlurperError) -> None:
    server = Server()
    server.fill(*(f"k{number:02}" for number in range(20)))
    server.source.faults.fail(refusal, operation="head", times=99)
    report = await server.run()
    assert (report.counts.transferred, report.attempts, report.events) == (20, 0, ())
    assert (server.read, server.copied) == (20, 0)
    assert server.source.faults.requests["head"] <= MAX_UNFOUNDED + 3
    server.assert_same()


async def test_a_412_for_a_version_that_is_gone_begins_the_object_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server()
    server.fill("k")
    copy_object: Any = server.target.copy_object

    async def meanwhile(*arguments: Any, **named: Any) -> str:  # noqa: ANN401 - passed through
        if server.copied == 0:
            server.source.add("k", b"another", HEADERS)
        etag: str = await copy_object(*arguments, **named)
        return etag

    monkeypatch.setattr(server.target, "copy_object", meanwhile)
    report = await server.run()
    assert (report.counts.transferred, report.attempts, server.read) == (1, 1, 0)
    server.assert_same()


TOO_LONG = errors.CopyUnfinished("too long")


async def test_what_takes_the_store_too_long_is_not_asked_of_it_again() -> None:
    server = Server()
    server.source.add("slow", b"x" * 500)
    server.target.faults.fail(TOO_LONG, operation="copy_object")
    assert (await server.run()).counts.transferred == 1
    assert (server.read, server.copied) == (1, 1)
    server.source.add("larger", b"x" * 501)
    server.source.add("smaller", b"x" * 499)
    assert (await server.run()).counts.transferred == 3
    assert (server.read, server.copied) == (3, 2)
    server.assert_same()


async def test_few_objects_wait_in_vain_also_when_each_is_a_little_smaller() -> None:
    server = Server()
    sizes = range(1_000, 900, -1)
    for size in sizes:
        server.source.add(f"{1_000 - size:03}", b"x" * size)
    server.source.add("small", b"x" * 100)
    server.target.faults.fail(TOO_LONG, operation="copy_object", times=8)
    assert (await server.run()).counts.transferred == len(sizes) + 1
    assert server.copied <= 4 + 1  # one for each lane, and what is small enough
    server.assert_same()


@pytest.mark.parametrize("size", [1_000, 6 * MIB], ids=["whole", "parts"])
async def test_bytes_are_charged_once_though_the_store_did_not_copy_them(size: int) -> None:
    roomy = replace(DIALECT, max_copy_bytes=8 * MIB, part_copy=PartCopy.NONE)
    server = Server(roomy, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("k", b"x" * size)
    server.target.faults.fail(TOO_LONG, operation="copy_object")
    task = replace(
        TASK, target=address("to", dialect=roomy), share=Share(bytes_per_second=size / 100)
    )
    found = await server._worker.run(task)
    charged = {1_000: (50, 110), 6 * MIB: (-math.inf, 0)}  # what goes in parts, later
    least, most = charged[size]
    assert least < found.owed_seconds < most
    assert (found.counts.transferred, len(found.large)) == ((1, 0) if size == 1_000 else (0, 1))


async def test_somewhat_larger_objects_go_the_ordinary_way() -> None:
    server = Server()
    server.source.add("large", b"x" * 1_001)
    server.source.add("limit", b"x" * 1_000)
    assert (await server.run()).counts.transferred == 2
    assert (server.read, server.copied) == (1, 1)
    server.assert_same()


@pytest.mark.parametrize(
    "refusal",
    [
        errors.AccessDenied("CopyObject", status=403, code="AccessDenied"),
        errors.StoreError("CopyObject", status=501, code="NotImplemented"),
        errors.NoSuchBucket("CopyObject", status=404, code="NoSuchBucket"),
        errors.UnavailableStore("CopyObject", status=500, code="InternalError"),
        errors.IntegrityError("the copy has another ETag"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_a_refusal_is_remembered_and_fails_nothing(refusal: errors.SlurperError) -> None:
    server = Server()
    server.fill(*map(str, range(40)))
    server.target.faults.fail(refusal, operation="copy_object", times=1_000)
    report = await server.run()
    assert (report.counts.transferred, report.counts.failed, report.halt) == (40, 0, None)
    assert 1 <= server.copied <= 4  # one for each lane
    asked = server.copied
    assert (await server.run()).counts.transferred == 40
    assert server.copied == asked
    server.assert_same()


async def test_what_passes_costs_one_object_its_short_way() -> None:
    server = Server()
    server.fill("a")
    await server.run()
    server.fill("b", "c")
    broken = errors.UnavailableStore("CopyObject", status=500, code="InternalError")
    server.target.faults.fail(broken, operation="copy_object")
    assert (await server.run()).counts.transferred == 3
    assert (server.read, server.copied) == (1, 4)


async def test_what_exists_is_not_replaced() -> None:
    server = Server()
    server.fill("a", "b")
    server.target.add("a", b"theirs")
    report = await server.run(replace(TASK, overwrite=False))
    assert (report.counts.transferred, report.counts.skipped) == (1, 1)
    assert server.target.read("a")[0] == b"theirs"
    assert server.read == 0


async def test_a_copy_whose_answer_was_lost_counts_as_transferred() -> None:
    server = Server()
    server.fill("a")
    lost = errors.PreconditionFailed("CopyObject", status=412, retries=1)
    server.target.faults.fail(lost, operation="copy_object", takes_effect=True)
    report = await server.run(replace(TASK, overwrite=False))
    assert (report.counts.transferred, report.counts.skipped) == (1, 0)


@pytest.mark.parametrize("theirs", [b"x", b"y"], ids=["same", "other"])
async def test_what_is_found_at_a_large_objects_key_is_not_read(theirs: bytes) -> None:
    roomy = replace(DIALECT, max_copy_bytes=8 * MIB)
    server = Server(roomy, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("k", b"x" * 6 * MIB)
    refuse: Any = server.target.copy_object

    async def too_late(key: str, *arguments: Any, **named: Any) -> str:  # noqa: ANN401 - passed through
        server.target.add(key, theirs * 6 * MIB)
        etag: str = await refuse(key, *arguments, **named)
        return etag

    server.target.copy_object = too_late  # type: ignore[method-assign]
    task = replace(TASK, target=address("to", dialect=roomy), overwrite=False)
    report = await server.run(task)
    same = int(theirs == b"x")  # which nobody can tell from a copy
    assert (report.counts.transferred, report.counts.skipped) == (same, 1 - same)
    assert (server.read, server.target.faults.requests.get("get", 0)) == (0, 0)
    assert server.target.open_uploads == ()


@pytest.mark.parametrize("theirs", [None, b"x", b"y"], ids=["ours", "same", "other"])
async def test_a_large_copy_whose_answer_was_lost_is_told_by_its_bytes_where_etags_tell_nothing(
    theirs: bytes | None,
) -> None:
    roomy = replace(DIALECT, max_copy_bytes=8 * MIB)
    server = Server(roomy, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.target = Encrypting(dialect=roomy, bucket="to", neighbours=[server.source])
    server.source.add("k", b"x" * 6 * MIB)
    lost = errors.PreconditionFailed("CopyObject", status=412, retries=1)
    server.target.faults.fail(lost, operation="copy_object", takes_effect=theirs is None)
    if theirs is not None:
        begin: Any = server.source.head

        async def then_they_write(key: str, **named: Any) -> StoredObject:  # noqa: ANN401 - passed through
            stored: StoredObject = await begin(key, **named)
            server.target.add(key, theirs * 6 * MIB)
            return stored

        server.source.head = then_they_write  # type: ignore[method-assign]
    report = await server.run(replace(TASK, target=address("to", dialect=roomy), overwrite=False))
    same = int(theirs != b"y")
    assert (report.counts.transferred, report.counts.skipped) == (same, 1 - same)
    assert server.target.faults.requests["get"] == 1 + same  # pieces of 4 MiB, until one differs


async def test_a_large_copy_whose_answer_was_lost_is_told_by_its_etag() -> None:
    roomy = replace(DIALECT, max_copy_bytes=8 * MIB)
    server = Server(roomy, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB)
    server.source.add("k", b"x" * 6 * MIB)
    lost = errors.PreconditionFailed("CopyObject", status=412, retries=1)
    server.target.faults.fail(lost, operation="copy_object", takes_effect=True)
    report = await server.run(replace(TASK, target=address("to", dialect=roomy), overwrite=False))
    assert (report.counts.transferred, report.counts.skipped) == (1, 0)
    assert (server.read, server.target.faults.requests.get("get", 0)) == (0, 0)


# A source that is deleted when its last part has been copied

KNOWN = replace(BLIND, part_copy=PartCopy.CONDITIONAL, assumed=False)
ASSUMED = replace(KNOWN, assumed=True)
UNABLE = replace(KNOWN, part_copy=PartCopy.NONE)


class VanishingServer(Server):
    """The source is gone when `after` parts are there."""

    def __init__(self, dialect: Dialect, *, after: int = 3, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(dialect, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB, **settings)
        self.source.add("large", BODY, HEADERS)
        self.task = replace(
            TASK, source=address("from", dialect=dialect), target=address("to", dialect=dialect)
        )
        self._left = after
        for name in ("put_part", "copy_part"):
            setattr(self.target, name, self._counted(getattr(self.target, name)))

    def _counted(self, method: Any) -> Any:  # noqa: ANN401 - either way to a part
        async def counted(*arguments: Any) -> Part:  # noqa: ANN401 - passed through
            part: Part = await method(*arguments)
            self._left -= 1
            if self._left == 0:
                await self.source.delete("large")
            return part

        return counted

    def assert_kept(self) -> None:
        assert self.target.read("large")[0] == BODY
        assert self.target.open_uploads == ()


@pytest.mark.parametrize(
    ("dialect", "task", "settings"),
    [
        (ASSUMED, {"options": JobOptions(server_side_copy=False)}, {}),
        (replace(ASSUMED, conditional_copy=False), {"overwrite": False}, {}),
        (UNABLE, {}, {}),
        (ASSUMED, {}, {"server_side_copy": False}),
        (KNOWN, {}, {}),
    ],
    ids=["option", "unconditional", "no-parts", "setting", "under-a-condition"],
)
async def test_a_copy_that_must_be_right_outlives_its_source(
    dialect: Dialect, task: dict[str, Any], settings: dict[str, Any]
) -> None:
    server = VanishingServer(dialect, **settings)
    report = await server.run(replace(server.task, **task))
    assert (report.counts.transferred, report.counts.failed) == (1, 0)
    server.assert_kept()


@pytest.mark.parametrize("dialect", [ASSUMED, BLIND], ids=["assumed", "blind"])
async def test_a_copy_that_may_be_of_another_version_is_not_kept(dialect: Dialect) -> None:
    server = VanishingServer(dialect)
    server.source._now = Clock()  # it rests
    server.source.add("large", BODY, HEADERS)
    server.source._now = server.target._now
    report = await server.run(server.task)
    assert (report.counts.transferred, report.counts.failed) == (0, 1)
    assert "large" not in server.target.keys
    assert server.target.open_uploads == ()


@pytest.mark.parametrize(
    ("dialect", "kept"),
    [(KNOWN, True), (ASSUMED, False), (UNABLE, True)],
    ids=["known", "assumed", "no-parts"],
)
async def test_parts_of_earlier_tasks_may_have_been_copied_inside(
    dialect: Dialect, *, kept: bool
) -> None:
    server = VanishingServer(dialect, server_side_copy=False)
    [meta] = (await server._worker.run(server.task)).large
    task = first_task(server.task, meta)
    begun = await server._parts(replace(task, budget_seconds=0.0, done=None))
    following = next_task(task, begun)
    assert 0 < len(following.done or ()) < 3
    report = (await settle([following], server._parts))[0][-1]
    assert (report.counts.transferred, report.counts.failed) == ((1, 0) if kept else (0, 1))
    assert ("large" in server.target.keys) is kept
    assert server.target.open_uploads == ()


async def test_archived_objects_are_skipped_and_not_fetched() -> None:
    server = Server()
    server.fill("a")
    archived = errors.RequiresRetrieval("CopyObject", status=403, code="InvalidObjectState")
    server.target.faults.fail(archived, operation="copy_object")
    report = await server.run()
    assert (report.counts.skipped, server.read) == (1, 0)


async def test_copies_are_paced_like_others() -> None:
    server = Server()
    server.source.add("large", b"x" * 1_000)
    server.source.add("next", b"x")
    share = Share(bytes_per_second=1.0)
    report = await server.run(replace(TASK, share=share, budget_seconds=0.05))
    assert report.counts.transferred == 1
    assert report.owed_seconds > 900
    assert not report.finished
