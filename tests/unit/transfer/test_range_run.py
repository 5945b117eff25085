"""One range task over stores in memory: what is copied, counted, skipped, failed, or halted."""

from __future__ import annotations

import asyncio
import bisect
import hashlib
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slurper import errors
from slurper.job.model import JobOptions, LogType
from slurper.objectstore import checksums, dialects, key_shapes
from slurper.objectstore.base import (
    Body,
    Download,
    ListingPage,
    ObjectHeaders,
    StoreAddress,
    StoredObject,
)
from slurper.objectstore.checksums import Algorithm, Told
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import MIB, Settings
from slurper.transfer import attempts, planner
from slurper.transfer.copy import CopyMeans
from slurper.transfer.etags import SourceEtags
from slurper.transfer.pacing import BURST_SECONDS, ByteBudget
from slurper.transfer.parts_run import PartsRun
from slurper.transfer.range_run import RangeRun
from slurper.transfer.task import PartsReport, PartsTask, RangeReport, RangeTask, Share
from tests.chain import first_task, folded, settle
from tests.memory.made_up import DiscardingStore, SyntheticStore
from tests.memory.store import MemoryStore

ADDRESS = StoreAddress(
    origin="http://memory.invalid",
    bucket="b",
    region="r",
    dialect=dialects.GENERIC,
    credentials=S3Credentials(access_key_id="a", secret_access_key="s"),
)
TASK = RangeTask(job_id="j", range_id=1, source=ADDRESS, target=ADDRESS, slice=KeyRange())
SETTINGS = Settings(in_flight_requests=4, object_attempts=3)

RESET = errors.TransportError("reset")
BUSY = errors.UnavailableStore("GetObject", status=500, code="InternalError")


class Encrypting(MemoryStore):
    """ETags look like MD5s here, and are none."""

    def _keep(self, key: str, body: bytes, headers: ObjectHeaders, *more: Any) -> Any:  # noqa: ANN401 - as it is
        etag = hashlib.md5(b"a key of its own" + body, usedforsecurity=False).hexdigest()
        return super()._keep(key, body, headers, f'"{etag}"', *more[1:])


class TellingStore(Encrypting):
    """Tells the checksum of an object, if asked, and perhaps a wrong one. Its ETags are no MD5s."""

    lies = False

    def _keep(self, key: str, body: bytes, headers: ObjectHeaders, *more: Any) -> Any:  # noqa: ANN401 - as it is
        return MemoryStore._keep(self, key, body, headers, f'"{id(self)}"', *more[1:])

    async def head(self, key: str, *, with_checksums: bool = False) -> StoredObject:
        stored = await super().head(key, with_checksums=with_checksums)
        if with_checksums:
            body = self.read(key)[0] + (b"!" if self.lies else b"")
            algorithm = Algorithm.CRC64NVME
            stored.told = Told(algorithm, checksums.encode(algorithm, [body]))
        return stored


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


@pytest.fixture
def source() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore()


async def run(
    source: MemoryStore,
    target: MemoryStore,
    task: RangeTask = TASK,
    settings: Settings = SETTINGS,
) -> RangeReport:
    budget = ByteBudget(settings.in_flight_bytes)
    means = CopyMeans(settings, budget, SourceEtags(source.dialect))

    async def run_parts(parts: PartsTask) -> PartsReport:
        return await PartsRun(parts, source, target, means).report()

    found = await RangeRun(task, source, target, means).report()
    reports, _ = await settle([first_task(task, meta) for meta in found.large], run_parts)
    report = folded(found, reports)
    assert budget.used == 0
    assert report.counts.objects == (
        report.counts.transferred + report.counts.skipped + report.counts.failed
    )
    return report


def logged(report: RangeReport) -> list[tuple[str, LogType]]:
    return [(event.key, event.log_type) for event in report.events]


async def test_everything_is_copied_with_its_headers(
    source: MemoryStore, target: MemoryStore
) -> None:
    headers = ObjectHeaders({"content-type": "text/x", "expires": "never"}, {"owner": "\xc3\xa9"})
    keys = ["/lead", "a//b", "a/../b", "dir", "dir/", "emoji-\U0001f600", "ü"]
    for key in keys:
        source.add(key, key.encode(), headers)
    report = await run(source, target)
    assert (report.finished, report.halt, report.cursor) == (True, None, max(keys))
    assert report.counts.transferred == len(keys)
    assert report.counts.transferred_bytes == sum(len(key.encode()) for key in keys)
    assert target.keys == source.keys
    assert all(target.read(key) == (key.encode(), headers) for key in keys)


async def test_an_empty_slice_finishes_without_a_cursor(
    source: MemoryStore, target: MemoryStore
) -> None:
    report = await run(source, target)
    assert (report.finished, report.cursor, report.counts.objects) == (True, None, 0)


async def test_only_the_slice_is_touched(source: MemoryStore, target: MemoryStore) -> None:
    for key in ("a", "b", "c", "d", "e"):
        source.add(key)
    report = await run(source, target, replace(TASK, slice=KeyRange("a", "d")))
    assert target.keys == ("b", "c", "d")
    assert (report.finished, report.cursor) == (True, "d")


async def test_a_spent_budget_leaves_the_rest_for_the_next_task(
    source: MemoryStore, target: MemoryStore
) -> None:
    for number in range(2_500):
        source.add(f"k{number:04d}")
    source.faults.latency_seconds = 0.001
    cursor, tasks, settled = None, 0, 0
    while tasks < 10_000:
        task = replace(TASK, slice=KeyRange(cursor), budget_seconds=0.05)
        report = await run(source, target, task)
        cursor, tasks = report.cursor, tasks + 1
        settled += report.counts.objects
        if report.finished:
            break
    assert tasks > 1
    assert settled == 2_500
    assert target.keys == source.keys


async def test_a_page_slower_than_the_budget_does_not_stop_the_job(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a")
    source.add("b")
    source.faults.latency_seconds = 0.02
    report = await run(source, target, replace(TASK, budget_seconds=0.001))
    assert report.counts.objects > 0


async def test_without_overwrite_existing_objects_stay(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in ("a", "b", "c"):
        source.add(key, b"new")
    target.add("b", b"old")
    target.add("between", b"other")
    report = await run(source, target, replace(TASK, overwrite=False))
    assert target.read("b")[0] == b"old"
    assert (report.counts.transferred, report.counts.skipped, logged(report)) == (2, 1, [])


async def test_an_object_that_appears_after_the_listing_is_not_overwritten(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("a", b"ours")
    listing = target.list_page

    async def list_then_write(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        page = await listing(**arguments)
        target.add("a", b"theirs")
        return page

    monkeypatch.setattr(target, "list_page", list_then_write)
    report = await run(source, target, replace(TASK, overwrite=False))
    assert target.read("a")[0] == b"theirs"
    assert (report.counts.skipped, report.counts.transferred) == (1, 0)


@pytest.mark.parametrize(("age_seconds", "transferred"), [(10, 1), (-10, 0)])
async def test_a_replayed_slice_recognises_its_own_earlier_copies(
    age_seconds: int, transferred: int
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=60)
    moment = since + timedelta(seconds=age_seconds)
    source = MemoryStore()
    target = MemoryStore(now=lambda: moment)
    source.add("a", b"same")
    target.add("a", b"same")
    moment = datetime.now(UTC)
    task = replace(TASK, overwrite=False, replayed_since=since)
    report = await run(source, target, task)
    assert report.counts.transferred == transferred
    assert report.counts.skipped == 1 - transferred


@pytest.mark.parametrize("store", [MemoryStore, Encrypting])
@pytest.mark.parametrize("large", [False, True])
async def test_in_a_replay_what_somebody_else_stored_is_no_copy_of_ours(
    store: type[MemoryStore], *, large: bool
) -> None:
    """Of equal size and stored since the job was made: only its bytes are not ours."""
    size = 11 * MIB if large else 1000
    source, target = MemoryStore(), store()
    for key in ("ours", "theirs"):
        source.add(key, key[:1].encode() * size)
    source.add("empty")
    target.add("empty")
    target.add("ours", b"o" * size)
    target.add("theirs", b"T" + b"t" * (size - 1))
    since = datetime.now(UTC) - timedelta(seconds=60)
    task = replace(TASK, overwrite=False, replayed_since=since)
    report = await run(source, target, task, settings=LARGE)
    assert (report.counts.transferred, report.counts.skipped, report.events) == (2, 1, ())
    assert report.counts.transferred_bytes == size
    assert target.read("theirs")[0][:1] == b"T"
    if store is MemoryStore:  # equal ETags cost no request, and of others one piece is enough
        assert target.faults.requests["get"] == source.faults.requests["get"] == 1


@pytest.mark.parametrize("lies", [False, True])
async def test_in_a_replay_equal_checksums_of_both_stores_tell_without_a_read(
    *, lies: bool
) -> None:
    """Of checksums that differ one may be wrong; then the bytes decide."""
    source, target = TellingStore(), TellingStore()
    for store in (source, target):
        store.add("a", b"same")
    source.lies = lies
    since = datetime.now(UTC) - timedelta(seconds=60)
    report = await run(source, target, replace(TASK, overwrite=False, replayed_since=since))
    assert report.counts.transferred == 1
    assert target.faults.requests.get("get", 0) == int(lies)


async def test_in_a_replay_an_object_that_goes_away_under_comparison_is_copied() -> None:
    source, target = MemoryStore(), Encrypting()
    source.add("a", b"same")
    target.add("a", b"same")
    since = datetime.now(UTC) - timedelta(seconds=60)
    listed: Any = target.list_page

    async def list_then_lose(**query: Any) -> ListingPage:  # noqa: ANN401 - as it is
        page: ListingPage = await listed(**query)
        if page.objects and query.get("max_keys") != 1:
            target.remove("a")
        return page

    target.list_page = list_then_lose  # type: ignore[method-assign]
    report = await run(source, target, replace(TASK, overwrite=False, replayed_since=since))
    assert (report.counts.transferred, target.read("a")[0]) == (1, b"same")


async def test_comparing_a_replay_keeps_to_the_limits_of_the_job() -> None:
    source, target = MemoryStore(), Encrypting()
    for number in range(4):
        source.add(f"k{number}", bytes(1000))
        target.add(f"k{number}", bytes(1000))
    since = datetime.now(UTC) - timedelta(seconds=60)
    share = Share(bytes_per_second=10_000)
    task = replace(TASK, overwrite=False, replayed_since=since, share=share)
    report = await run(source, target, task)
    assert report.counts.transferred == 4
    assert report.owed_seconds > 4000 / 10_000 - BURST_SECONDS - 0.3


async def test_a_refusal_that_our_own_earlier_send_caused_counts_as_transferred(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a", b"data")
    refusal = errors.PreconditionFailed("PutObject", status=412, retries=1)
    target.faults.fail(refusal, operation="put", takes_effect=True)
    report = await run(source, target, replace(TASK, overwrite=False))
    assert (report.counts.transferred, report.counts.skipped) == (1, 0)


async def test_skips_have_their_reasons(source: MemoryStore, target: MemoryStore) -> None:
    source.add("archived", b"x", storage_class="GLACIER")
    source.add("empty")
    source.add("huge", b"x" * 100)
    source.add("page", b"x", ObjectHeaders({"content-type": "text/html"}))
    source.add("picture", b"x", ObjectHeaders({"content-type": "image/png"}))
    options = JobOptions(
        skip_empty=True,
        max_object_bytes=50,
        exclude_content_types=("text/html",),
        validate_media=True,
    )
    report = await run(source, target, replace(TASK, options=options))
    assert logged(report) == [
        ("archived", LogType.IMPORT_SKIPPED_STORAGE_CLASS),
        ("empty", LogType.IMPORT_SKIPPED_EMPTY_OBJECT),
        ("huge", LogType.IMPORT_SKIPPED_OVERSIZED),
        ("page", LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE),
        ("picture", LogType.IMPORT_SKIPPED_INVALID_MEDIA),
    ]
    assert target.keys == ()


async def test_media_is_known_however_its_first_bytes_came(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"x" * 1000
    source.add("picture", picture, ObjectHeaders({"content-type": "image/png"}))
    get = source.get

    async def in_pieces(key: str, **arguments: Any) -> Download:  # noqa: ANN401 - passed through
        download = await get(key, **arguments)
        whole = bytes(download.body)
        return replace(download, body=Body([whole[:1], whole[1:5], whole[5:]]))

    monkeypatch.setattr(source, "get", in_pieces)
    options = JobOptions(validate_media=True)
    report = await run(source, target, replace(TASK, options=options))
    assert (logged(report), target.read("picture")[0]) == ([], picture)


async def test_an_object_archived_out_of_sight_is_skipped_with_its_reason(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a", b"x")
    source.faults.fail(
        errors.RequiresRetrieval("GetObject", status=403, code="InvalidObjectState"),
        operation="get",
    )
    report = await run(source, target)
    assert logged(report) == [("a", LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL)]
    assert "InvalidObjectState" in report.events[0].message


async def test_a_passing_failure_costs_an_attempt_and_nothing_else(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a", b"x")
    source.faults.fail(RESET, operation="get", times=2)
    report = await run(source, target)
    assert (report.counts.transferred, report.attempts) == (1, 2)


async def test_a_broken_object_fails_while_both_stores_answer(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a", b"x")
    source.add("b", b"y")
    source.faults.fail(errors.IntegrityError("damaged"), operation="get", times=3)
    single = Settings(in_flight_requests=1, object_attempts=3)
    report = await run(source, target, settings=single)
    assert (report.counts.failed, report.counts.transferred, report.halt) == (1, 1, None)
    assert logged(report) == [("a", LogType.IMPORT_ERROR_RETRY_EXHAUSTION)]
    assert "after 3 attempts" in report.events[0].message


async def test_an_outage_halts_instead_of_failing_objects(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in ("a", "b", "c"):
        source.add(key, b"x")
    single = Settings(in_flight_requests=1, object_attempts=2)
    target.faults.fail(BUSY, operation="put", times=100)
    target.faults.fail(BUSY, operation="list_page", times=100)
    report = await run(source, target, settings=single)
    assert report.halt is not None
    assert report.halt.log_type is LogType.MIGRATION_ERROR
    assert "HTTP 500" in report.halt.message
    assert (report.counts.objects, report.cursor, report.finished) == (0, None, False)


async def test_rejected_credentials_halt_at_once(source: MemoryStore, target: MemoryStore) -> None:
    for key in ("a", "b", "c"):
        source.add(key, b"x")
    rejected = errors.CredentialsRejected("PutObject", status=403, code="ExpiredToken")
    target.faults.fail(rejected, operation="put", nth=2)
    target.faults.fail(rejected, operation="create_upload", times=9)
    single = Settings(in_flight_requests=1)
    report = await run(source, target, settings=single)
    assert report.halt is not None
    assert "ExpiredToken" in report.halt.message
    assert "resume" in report.halt.message
    assert (report.counts.transferred, report.cursor) == (1, "a")


async def test_what_was_copied_beyond_an_unsettled_key_is_not_counted(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in ("a", "b", "c"):
        source.add(key, b"x")
    rejected = errors.CredentialsRejected("PutObject", status=403)
    target.faults.fail(rejected, operation="put", nth=1)
    target.faults.fail(rejected, operation="create_upload", times=9)
    report = await run(source, target, settings=Settings(in_flight_requests=3))
    assert report.halt is not None
    assert (report.cursor, report.counts.objects) == (None, 0)


async def test_a_listing_that_cannot_go_on_halts_with_its_own_type(
    source: MemoryStore, target: MemoryStore
) -> None:
    for number in range(1_500):
        source.add(f"k{number:04d}")
    source.faults.fail(
        errors.ListingError("keys out of order"), operation="list_page", nth=2, times=9
    )
    report = await run(source, target)
    assert report.halt is not None
    assert report.halt.log_type is LogType.MIGRATION_ERROR_FAILED_CONTINUATION
    assert not report.finished


async def test_a_vanished_object_fails_and_says_so(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a")
    gone = errors.NotFound("GetObject", status=404, code="NoSuchKey")
    source.faults.fail(gone, operation="get")
    report = await run(source, target)
    assert report.counts.failed == 1
    assert "removed after it was listed" in report.events[0].message


async def test_a_replaced_object_is_copied_in_its_new_version(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("a", b"old")
    getting = source.get

    async def replace_then_get(key: str, **arguments: Any) -> Download:  # noqa: ANN401 - as above
        if source.faults.requests.get("get", 0) == 0:
            source.add("a", b"newer")
        return await getting(key, **arguments)

    monkeypatch.setattr(source, "get", replace_then_get)
    report = await run(source, target)
    assert target.read("a")[0] == b"newer"
    assert (report.counts.transferred_bytes, report.attempts) == (5, 1)


LARGE = Settings(
    in_flight_requests=2, multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB, object_attempts=2
)


async def test_a_large_object_goes_in_equal_parts_with_its_headers(
    source: MemoryStore, target: MemoryStore
) -> None:
    headers = ObjectHeaders({"content-type": "video/mp4"}, {"a": "b"})
    body = bytes(range(256)) * (45 * 1024)
    source.add("film", body, headers)
    report = await run(source, target, settings=LARGE)
    assert target.read("film") == (body, headers)
    assert report.counts.transferred_bytes == len(body)
    assert target.faults.requests["put_part"] == 3
    assert target.open_uploads == ()


async def test_a_failed_upload_leaves_no_parts_behind(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("film", bytes(11 * MIB))
    target.faults.fail(errors.AccessDenied("UploadPart", status=403), operation="put_part", nth=2)
    report = await run(source, target, settings=LARGE)
    assert (report.counts.failed, target.open_uploads, target.keys) == (1, (), ())


async def test_a_large_object_that_appears_meanwhile_is_kept(
    source: MemoryStore, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.add("film", bytes(11 * MIB))
    listing = target.list_page

    async def list_then_write(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        page = await listing(**arguments)
        target.add("film", b"x" * (11 * MIB))
        return page

    monkeypatch.setattr(target, "list_page", list_then_write)
    report = await run(source, target, replace(TASK, overwrite=False), settings=LARGE)
    assert (report.counts.skipped, target.open_uploads) == (1, ())
    assert target.read("film")[0] == b"x" * (11 * MIB)


async def test_explicit_keys_missing_ones_fail_with_a_reason(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in ("a", "b", "c", "z"):
        source.add(key, key.encode())
    target.add("c", b"there")
    task = replace(TASK, keys=("a", "c", "missing", "z"), overwrite=False)
    report = await run(source, target, task)
    assert target.keys == ("a", "c", "z")
    assert logged(report) == [("missing", LogType.IMPORT_ERROR_RETRY_EXHAUSTION)]
    assert (report.counts.transferred, report.counts.skipped, report.counts.failed) == (2, 1, 1)


async def test_a_key_that_the_target_does_not_even_look_for_fails_alone(
    source: MemoryStore, target: MemoryStore
) -> None:
    for key in ("a", "b"):
        source.add(key, key.encode())
    target.add("a", b"there, though it does not say so")
    refused = errors.StoreError("refused", status=400, code="InvalidRequest", key="a")
    target.faults.fail(refused, operation="head")
    report = await run(source, target, replace(TASK, keys=("a", "b"), overwrite=False))
    assert (report.halt, report.counts.transferred, report.counts.failed) == (None, 1, 1)
    assert logged(report) == [("a", LogType.IMPORT_ERROR_RETRY_EXHAUSTION)]
    assert target.read("a")[0] == b"there, though it does not say so"


async def test_what_a_target_of_folders_would_change_fails_whatever_it_finds_there(
    source: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = MemoryStore(dialect=replace(dialects.GENERIC, unkept_keys=key_shapes.KEPT_IN_FOLDERS))
    for key in ("a//b", "a/b", "bytes/", "folder/"):
        source.add(key, b"" if key == "folder/" else key.encode())
    target.add("a/b", b"there")
    described = target.head
    monkeypatch.setattr(target, "head", lambda key: described(key.replace("//", "/")))
    task = replace(TASK, keys=tuple(source.keys), overwrite=False)
    report = await run(source, target, task)
    counts = report.counts
    assert (counts.transferred, counts.skipped, counts.failed) == (1, 1, 2)
    assert [key for key, _ in logged(report)] == ["a//b", "bytes/"]
    assert "does not keep keys that hold '//'" in report.events[0].message
    assert "give the object another key" in report.events[0].message
    assert (target.keys, target.read("a/b")[0]) == (("a/b", "folder/"), b"there")


@pytest.mark.parametrize("prefix", ["", "d", "d/"])
async def test_of_a_folder_and_a_file_of_one_name_the_file_is_copied(
    source: MemoryStore, prefix: str
) -> None:
    target = MemoryStore(dialect=replace(dialects.GENERIC, unkept_keys=key_shapes.KEPT_IN_FOLDERS))
    for key in ("d", "d/", "d/x", "d/y/"):
        source.add(key, b"" if key.endswith("/") else b"1")
    report = await run(source, target, replace(TASK, prefix=prefix))
    if prefix == "d/":  # the file is not under it
        assert (target.keys, report.events) == (("d/", "d/x", "d/y/"), ())
        return
    assert target.keys == ("d", "d/x", "d/y/")
    (event,) = report.events
    assert (event.key, report.counts.failed) == ("d/", 1)
    assert "cannot keep both 'd/' and 'd'; only the second is copied" in event.message


async def test_an_option_leaves_out_what_the_target_cannot_keep(source: MemoryStore) -> None:
    target = MemoryStore(dialect=replace(dialects.GENERIC, unkept_keys=key_shapes.KEPT_IN_FOLDERS))
    source.add("a//", b"")
    report = await run(source, target, replace(TASK, options=JobOptions(skip_empty=True)))
    assert logged(report) == [("a//", LogType.IMPORT_SKIPPED_EMPTY_OBJECT)]
    assert (report.counts.skipped, report.counts.failed) == (1, 0)


async def test_the_prefix_can_be_left_behind(source: MemoryStore, target: MemoryStore) -> None:
    for key in ("in/", "in/a", "in/b/c", "out"):
        source.add(key, key.encode())
    target.add("b/c", b"there")
    task = replace(TASK, prefix="in/", overwrite=False, options=JobOptions(strip_prefix=True))
    report = await run(source, target, task)
    assert target.keys == ("a", "b/c")
    assert target.read("b/c")[0] == b"there"
    assert logged(report) == [("in/", LogType.IMPORT_ERROR_RETRY_EXHAUSTION)]


names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=12)


@hypothesis_settings(deadline=None, max_examples=40)
@given(ours=names, theirs=names, overwrite=st.booleans())
def test_the_merge_agrees_with_set_algebra(
    ours: list[str], theirs: list[str], overwrite: bool
) -> None:
    async def scenario() -> None:
        source, target = MemoryStore(), MemoryStore()
        for key in ours:
            source.add(key, b"ours")
        for key in theirs:
            target.add(key, b"theirs")
        report = await run(source, target, replace(TASK, overwrite=overwrite))
        both = set(ours) & set(theirs)
        assert report.counts.skipped == (0 if overwrite else len(both))
        assert set(target.keys) == set(ours) | set(theirs)
        for key in target.keys:
            kept = key not in set(ours) or (key in both and not overwrite)
            assert target.read(key)[0] == (b"theirs" if kept else b"ours")

    asyncio.run(scenario())


WANTING = replace(TASK, wanted_pieces=4)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "SPLIT_SECONDS", 0.05)


def numbered(count: int) -> SyntheticStore:
    store = SyntheticStore(count)
    store.faults.latency_seconds = 0.001
    return store


def check_cuts(report: RangeReport, source: SyntheticStore, count: int) -> None:
    """Each piece of what is left holds keys."""
    keys = [source.key_at(index) for index in range(count)]
    left = [key for key in keys if report.cursor is None or key > report.cursor]
    ends = [bisect.bisect_right(left, cut) for cut in report.boundaries]
    assert all(start < end for start, end in pairwise([0, *ends, len(left)]))


@pytest.mark.usefixtures("_short")
async def test_a_task_that_is_to_be_shared_ends_early_and_tells_where_to_cut() -> None:
    source = numbered(50_000)
    report = await run(source, DiscardingStore(), replace(WANTING, budget_seconds=60.0))
    assert 1 <= len(report.boundaries) <= 3
    assert not report.finished
    assert 0 < report.counts.objects < 50_000
    check_cuts(report, source, 50_000)


@pytest.mark.usefixtures("_short")
async def test_listed_keys_that_nobody_has_begun_are_cut_by_their_number() -> None:
    source = numbered(1_000)
    report = await run(source, DiscardingStore(), replace(WANTING, budget_seconds=60.0))
    check_cuts(report, source, 1_000)
    assert len(report.boundaries) == 3
    assert report.boundaries[0] > (report.cursor or "")


@pytest.mark.usefixtures("_short")
async def test_a_slice_is_cut_inside_of_its_end() -> None:
    source = numbered(50_000)
    slice_ = KeyRange(source.key_at(9_999), source.key_at(19_999))
    task = replace(WANTING, slice=slice_, prefix="object-1", budget_seconds=60.0)
    report = await run(source, DiscardingStore(), task)
    assert report.boundaries
    assert all(cut in slice_ and cut != slice_.end_at for cut in report.boundaries)


async def test_a_task_that_is_not_to_be_shared_asks_nothing(source: MemoryStore) -> None:
    source.add("a")
    listed = 0
    listing = source.list_page

    async def counted(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        nonlocal listed
        listed += 1
        return await listing(**arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "list_page", counted)
        report = await run(source, MemoryStore())
    assert (listed, report.boundaries) == (2, ())  # the page, and that nothing comes after it


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("error", [RESET, BUSY, errors.AccessDenied("ListObjectsV2", status=403)])
async def test_a_question_that_fails_costs_the_cut_and_not_the_task(
    error: errors.SlurperError, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = numbered(3_000)
    listing = source.list_page

    async def list_pages_only(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        if arguments.get("max_keys") == 1:
            raise error
        return await listing(**arguments)

    monkeypatch.setattr(source, "list_page", list_pages_only)
    report = await run(source, DiscardingStore(), replace(WANTING, budget_seconds=60.0))
    assert (report.finished, report.halt, report.boundaries) == (True, None, ())
    assert report.counts.transferred == 3_000


@pytest.mark.usefixtures("_short")
async def test_a_store_that_lists_folder_by_folder_is_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = numbered(3_000)
    listing = source.list_page

    async def by_folder(**arguments: Any) -> ListingPage:  # noqa: ANN401 - passed through
        # It looks for no keys to cut at, only for what comes after the last one.
        assert arguments["max_keys"] == 1000 or arguments["start_after"] == source.key_at(2_999)
        page = await listing(**arguments)
        page.order = dialects.KeyOrder.FOLDERS
        return page

    monkeypatch.setattr(source, "list_page", by_folder)
    report = await run(source, DiscardingStore(), replace(WANTING, budget_seconds=60.0))
    assert (report.finished, report.boundaries) == (True, ())


@pytest.mark.usefixtures("_short")
async def test_a_task_that_halts_cuts_nothing() -> None:
    source = numbered(50_000)
    target = DiscardingStore()
    expired = errors.CredentialsRejected("PutObject", status=403, code="ExpiredToken")
    target.faults.fail(expired, operation="put", nth=500)
    target.faults.fail(expired, operation="create_upload", times=9)
    report = await run(source, target, replace(WANTING, budget_seconds=60.0))
    assert report.halt is not None or report.boundaries
    if report.halt is not None:
        assert report.boundaries == ()


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("overwrite", [True, False])
async def test_pieces_together_copy_every_key_once(*, overwrite: bool) -> None:
    source, target = numbered(5_000), MemoryStore()
    for index in range(0, 5_000, 7):
        target.add(source.key_at(index), b"found")
    left, settled, skipped = [KeyRange()], 0, 0
    while left:
        slice_ = left.pop()
        report = await run(
            source, target, replace(WANTING, slice=slice_, overwrite=overwrite, budget_seconds=0.1)
        )
        settled += report.counts.objects
        skipped += report.counts.skipped
        if not report.finished:
            rest = slice_.after(report.cursor)
            ends = (*report.boundaries, rest.end_at)
            left += [KeyRange(*part) for part in pairwise((rest.start_after, *ends))]
    assert (settled, skipped) == (5_000, 0 if overwrite else len(range(0, 5_000, 7)))
    assert len(target.keys) == 5_000


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_paced_task_asks_for_no_more_than_it_pays_for(
    source: MemoryStore, target: MemoryStore, *, named: bool, overwrite: bool
) -> None:
    keys = tuple(f"k{number:03}" for number in range(400))
    for key in keys:
        source.add(key, b"x")
    share = Share(requests_per_second=200.0)
    task = replace(
        TASK,
        keys=keys if named else None,
        share=share,
        overwrite=overwrite,
        budget_seconds=0.2,
    )
    began = time.monotonic()
    report = await run(source, target, task)
    paid_seconds = time.monotonic() - began + report.owed_seconds + BURST_SECONDS
    sent = sum(source.faults.requests.values()) + sum(target.faults.requests.values())
    assert not report.finished
    assert 0 < report.counts.transferred < 400
    assert sent <= paid_seconds * 200 + 1
    assert source.faults.requests["get"] == report.counts.transferred


async def test_a_paced_task_copies_something_however_long_its_listing_was_to_be_paid_for(
    source: MemoryStore, target: MemoryStore
) -> None:
    for number in range(9):
        source.add(f"k{number}", b"x")
    task = replace(TASK, share=Share(requests_per_second=20.0), budget_seconds=0.001)
    report = await run(source, target, task)
    assert (report.counts.transferred, report.finished) == (1, False)


async def test_a_paced_task_ends_with_its_last_object(
    source: MemoryStore, target: MemoryStore
) -> None:
    source.add("a", b"x" * 1000)
    task = replace(TASK, share=Share(bytes_per_second=0.01), budget_seconds=3600.0)
    report = await run(source, target, task)
    assert (report.finished, report.counts.transferred) == (True, 1)
    assert report.owed_seconds > 10_000
