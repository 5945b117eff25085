"""One parts task over stores in memory: what is copied, kept for the next, begun again, settled."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from slurper import errors
from slurper.job.model import JobOptions, LogType
from slurper.objectstore.base import ByteRange, CreatedUpload, Download, ObjectHeaders
from slurper.objectstore.dialects import GENERIC
from slurper.settings import Settings
from slurper.transfer import attempts, leftovers
from slurper.transfer.copy import CopyMeans
from slurper.transfer.etags import SourceEtags
from slurper.transfer.pacing import ByteBudget
from slurper.transfer.parts_run import PartsRun
from slurper.transfer.route import Route
from slurper.transfer.task import PartsReport, PartsTask, SweepTask
from tests.chain import first_task, next_task
from tests.memory.store import MemoryStore
from tests.unit.transfer.test_range_run import LARGE, TASK, Encrypting

BODY = bytes(range(256)) * (45 * 1024)
"""11.25 MiB: three parts."""
DENIED = errors.AccessDenied("UploadPart", status=403)
GONE = errors.NotFound("UploadPart", status=404, code="NoSuchUpload")
BUSY = errors.UnavailableStore("UploadPart", status=503)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.0)


class Source(MemoryStore):
    """A store that knows which bytes were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_ranges: Counter[ByteRange] = Counter()

    async def get(
        self,
        key: str,
        *,
        byte_range: ByteRange | None = None,
        **more: Any,  # noqa: ANN401 - as it is
    ) -> Download:
        if byte_range is not None:
            self.read_ranges[byte_range] += 1
        return await super().get(key, byte_range=byte_range, **more)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def target() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def task(source: Source) -> PartsTask:
    return first_task(TASK, source.add("film", BODY, ObjectHeaders({"content-type": "video/mp4"})))


async def run(
    task: PartsTask, source: MemoryStore, target: MemoryStore, settings: Settings = LARGE
) -> PartsReport:
    budget = ByteBudget(settings.in_flight_bytes)
    means = CopyMeans(settings, budget, SourceEtags(source.dialect))
    report = await PartsRun(task, source, target, means).report()
    assert budget.used == 0
    return report


def logged(report: PartsReport) -> list[LogType]:
    return [event.log_type for event in report.events]


async def test_an_object_that_fits_into_one_task_is_settled_by_it(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    report = await run(task, source, target)
    assert target.read("film") == (BODY, ObjectHeaders({"content-type": "video/mp4"}))
    assert report.settled
    assert report.counts.transferred_bytes == len(BODY)
    assert target.faults.requests["put_part"] == 3


async def test_what_a_task_has_no_time_for_is_left_to_the_next(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    one_lane = LARGE.model_copy(update={"in_flight_requests": 1})
    task, tasks = replace(task, budget_seconds=0.0), 0
    while not (report := await run(task, source, target, one_lane)).settled:
        assert (len(report.parts), target.keys) == (1, ())
        task, tasks = next_task(task, report), tasks + 1
    assert tasks == 2
    assert target.read("film")[0] == BODY
    assert set(source.read_ranges.values()) == {1}, "no part is read again"
    assert target.faults.requests["create_upload"] == 1


async def test_tasks_side_by_side_share_an_upload(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    begun = await run(replace(task, numbers=()), source, target)
    assert (begun.parts, begun.settled) == ((), False)
    task = next_task(task, begun)
    shares = await asyncio.gather(
        run(replace(task, numbers=(1, 3), done=None), source, target),
        run(replace(task, numbers=(2,), done=None), source, target),
    )
    assert [[part.number for part in share.parts] for share in shares] == [[1, 3], [2]]
    assert target.keys == ()
    for share in shares:
        task = next_task(task, share)
    assert task.numbers == ()
    last = await run(task, source, target)
    assert last.settled
    assert target.read("film")[0] == BODY
    assert set(source.read_ranges.values()) == {1}


async def test_a_passing_failure_costs_an_attempt_of_one_part(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    target.faults.fail(BUSY, operation="put_part", nth=2)
    report = await run(task, source, target)
    assert (report.settled, report.attempts) == (True, 1)
    assert sorted(source.read_ranges.values()) == [1, 1, 2]


async def test_an_outage_halts_and_keeps_what_is_finished(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    one_lane = LARGE.model_copy(update={"in_flight_requests": 1})
    target.faults.fail(BUSY, operation="put_part", nth=2, times=2)
    target.faults.fail(BUSY, operation="list_page")
    report = await run(task, source, target, one_lane)
    assert report.halt is not None
    assert (report.settled, len(report.parts)) == (False, 1)
    last = await run(next_task(task, report), source, target)
    assert (last.settled, last.counts.transferred) == (True, 1)


async def test_a_broken_object_fails_while_both_stores_answer(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    source.faults.fail(errors.IntegrityError("damaged"), operation="get", times=20)
    report = await run(task, source, target)
    assert (report.counts.failed, report.halt) == (1, None)
    assert logged(report) == [LogType.IMPORT_ERROR_RETRY_EXHAUSTION]
    assert "damaged (after 2 attempts)" in report.events[0].message
    assert target.open_uploads == ()


async def test_an_object_that_is_denied_fails_alone(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    target.faults.fail(DENIED, operation="put_part", nth=2)
    report = await run(task, source, target)
    assert (report.counts.failed, report.halt, target.open_uploads) == (1, None, ())


async def test_when_everything_is_denied_the_job_halts(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    target.faults.fail(DENIED, operation="create_upload", times=9)
    report = await run(task, source, target)
    assert (report.settled, report.halt is not None) == (False, True)


async def test_an_explicit_key_that_is_denied_fails_alone_where_nothing_may_be_listed(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    source.add("other", b"x")
    source.faults.fail(errors.AccessDenied("HeadObject", status=403), operation="head")
    source.faults.fail(errors.AccessDenied("ListObjectsV2", status=403), operation="list_page")
    report = await run(replace(task, sample=("film", "other")), source, target)
    assert (report.counts.failed, report.halt) == (1, None)


OPTIONS = [
    (JobOptions(exclude_content_types=("video/*",)), LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE),
    (JobOptions(validate_media=True), LogType.IMPORT_SKIPPED_INVALID_MEDIA),
]


@pytest.mark.parametrize(("options", "log_type"), OPTIONS)
async def test_what_is_left_out_for_its_content_is_never_begun(
    task: PartsTask, source: Source, target: MemoryStore, options: JobOptions, log_type: LogType
) -> None:
    report = await run(replace(task, options=options), source, target)
    assert logged(report) == [log_type]
    assert "create_upload" not in target.faults.requests


async def test_an_object_archived_out_of_sight_is_skipped_and_its_upload_aborted(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    archived = errors.RequiresRetrieval("GetObject", status=403, code="InvalidObjectState")
    source.faults.fail(archived, operation="get", nth=2)
    report = await run(task, source, target)
    assert logged(report) == [LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL]
    assert target.open_uploads == ()


async def test_an_object_that_head_shows_in_an_archive_tier_is_never_begun(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    """The listing has named a class that can be read."""
    source.add("film", BODY, storage_class="ARCHIVE_ACCESS")
    report = await run(task, source, target)
    assert logged(report) == [LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL]
    assert not {"create_upload", "put"} & target.faults.requests.keys()


async def test_another_version_of_the_source_is_begun_again(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    one_lane = LARGE.model_copy(update={"in_flight_requests": 1})
    first = await run(replace(task, budget_seconds=0.0), source, target, one_lane)
    newer = source.add("film", BODY[::-1])
    changed = await run(next_task(task, first), source, target)
    assert (changed.restarted, changed.attempts, changed.settled) == (newer, 1, False)
    assert target.open_uploads == ()
    last = await run(next_task(task, changed), source, target)
    assert last.settled
    assert target.read("film")[0] == BODY[::-1]


async def test_a_source_without_conditions_shows_another_version_by_its_parts(
    task: PartsTask, source: Source, target: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    getting = source.get

    async def unconditional(key: str, **arguments: Any) -> Download:  # noqa: ANN401 - passed on
        return await getting(key, **arguments | {"if_match": None})

    monkeypatch.setattr(source, "get", unconditional)
    begun = await run(replace(task, numbers=()), source, target)
    newer = source.add("film", BODY[::-1])
    changed = await run(next_task(task, begun), source, target)
    assert changed.restarted == newer


async def test_a_new_version_that_is_small_is_copied_whole(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    begun = await run(replace(task, numbers=()), source, target)
    source.add("film", b"")
    changed = await run(next_task(task, begun), source, target)
    last = await run(next_task(task, changed), source, target)
    assert (last.settled, target.read("film")[0], target.open_uploads) == (True, b"", ())


async def test_a_source_that_is_gone_fails(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    begun = await run(replace(task, numbers=()), source, target)
    source.remove("film")
    report = await run(next_task(task, begun), source, target)
    assert (report.counts.failed, target.open_uploads) == (1, ())
    assert "removed after it was listed" in report.events[0].message


@pytest.mark.parametrize("operation", ["put_part", "complete_upload"])
async def test_an_upload_that_is_gone_is_begun_again_until_the_attempts_are_used_up(
    task: PartsTask, source: Source, target: MemoryStore, operation: str
) -> None:
    one_lane = LARGE.model_copy(update={"in_flight_requests": 1})
    target.faults.fail(GONE, operation=operation, times=2)
    first = await run(task, source, target, one_lane)
    assert first.restarted == task.upload.meta
    second = await run(next_task(task, first), source, target, one_lane)
    assert (second.counts.failed, second.restarted) == (1, None)
    assert "NoSuchUpload (after 2 attempts)" in second.events[0].message
    assert target.open_uploads == ()


@pytest.mark.parametrize(
    "failure",
    [
        errors.StoreError("CompleteMultipartUpload", status=400, code="InvalidPart"),
        errors.IntegrityError("the parts make another object"),
    ],
)
async def test_an_upload_that_does_not_make_the_object_is_begun_again(
    task: PartsTask, source: Source, target: MemoryStore, failure: errors.SlurperError
) -> None:
    target.faults.fail(failure, operation="complete_upload")
    assert (await run(task, source, target)).restarted == task.upload.meta
    assert target.open_uploads == ()


@pytest.mark.parametrize("days", [7, None])
async def test_an_upload_that_its_store_has_dropped_is_begun_again(
    task: PartsTask, source: Source, days: float | None
) -> None:
    target = MemoryStore(dialect=replace(GENERIC, upload_days=days))
    following = next_task(task, await run(replace(task, numbers=()), source, target))
    assert following.upload.begun is not None
    aged = replace(following.upload.begun, begun_at=datetime.now(UTC) - timedelta(days=7))
    report = await run(
        replace(following, upload=replace(following.upload, begun=aged)), source, target
    )
    assert (report.restarted, report.settled) == (
        (task.upload.meta, False) if days else (None, True)
    )
    assert target.open_uploads == ()
    assert ("put_part" in target.faults.requests) == (days is None)


async def test_a_creation_whose_answer_is_lost_leaves_nothing(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    lost = errors.TransportError("reset")
    target.faults.fail(lost, operation="create_upload", takes_effect=True)
    report = await run(task, source, target)
    assert (report.settled, target.open_uploads) == (True, ())


async def test_such_a_creation_leaves_nothing_beside_an_upload_that_goes_on(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    lost = errors.TransportError("reset")
    target.faults.fail(lost, operation="create_upload", takes_effect=True)
    report = await run(replace(task, numbers=()), source, target)
    assert report.begun is not None
    assert list(target._uploads) == [report.begun.upload_id]


async def cancelled(task: PartsTask, source: Source, target: MemoryStore) -> None:
    """Cancel a task while it copies parts."""
    source.faults.latency_seconds = 0.02
    budget = ByteBudget(LARGE.in_flight_bytes)
    means = CopyMeans(LARGE, budget, SourceEtags(source.dialect))
    running = asyncio.create_task(PartsRun(task, source, target, means).report())
    reads = source.faults.requests.get("get", 0)
    while source.faults.requests.get("get", 0) == reads:  # noqa: ASYNC110 - it has no event for it
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (target.keys, budget.used) == ((), 0)


async def test_a_cancelled_task_aborts_the_upload_that_nobody_knows(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    await cancelled(task, source, target)
    assert target.faults.requests["create_upload"] == 1
    assert target.open_uploads == ()


async def test_a_cancelled_task_keeps_an_upload_that_was_reported(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    begun = await run(replace(task, numbers=()), source, target)
    await cancelled(next_task(task, begun), source, target)
    assert target.open_uploads == ("film",)


async def test_what_somebody_else_wrote_before_the_task_is_kept(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    target.add("film", BODY)
    report = await run(replace(task, overwrite=False), source, target)
    assert (report.counts.skipped, logged(report)) == (1, [])
    assert "create_upload" not in target.faults.requests


@pytest.mark.parametrize("put", [True, False])
@pytest.mark.parametrize("completion", [True, False])
async def test_what_somebody_else_wrote_during_the_task_is_kept(
    task: PartsTask, source: Source, *, put: bool, completion: bool
) -> None:
    dialect = replace(GENERIC, conditional_put=put, conditional_completion=completion)
    target = MemoryStore(dialect=dialect)
    begun = await run(replace(task, numbers=(), overwrite=False), source, target)
    target.add("film", b"theirs")
    report = await run(replace(next_task(task, begun), overwrite=False), source, target)
    assert (report.counts.skipped, target.open_uploads) == (1, ())
    assert target.read("film")[0] == b"theirs"


async def test_a_completion_whose_answer_is_lost_counts_as_transferred(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    """The upload is gone then, and the object is there: it is compared byte by byte."""
    lost = errors.TransportError("reset")
    target.faults.fail(lost, operation="complete_upload", takes_effect=True)
    task = replace(task, overwrite=False)
    first = await run(task, source, target)
    assert first.restarted == task.upload.meta
    second = await run(next_task(task, first), source, target)
    assert second.counts.transferred == 1
    assert target.faults.requests["create_upload"] == 1


@pytest.mark.parametrize(("age_seconds", "transferred"), [(-10, 0), (10, 1)])
async def test_a_replay_recognises_what_lost_work_has_completed(
    task: PartsTask, source: Source, age_seconds: int, transferred: int
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=60)
    moment = since + timedelta(seconds=age_seconds)
    target = MemoryStore(now=lambda: moment)
    target.add("film", BODY)
    moment = datetime.now(UTC)
    report = await run(replace(task, replayed_since=since, overwrite=False), source, target)
    assert (report.counts.transferred, report.counts.skipped) == (transferred, 1 - transferred)


@pytest.mark.parametrize("store", [MemoryStore, Encrypting])
@pytest.mark.parametrize(("there", "transferred"), [(BODY, 1), (b"?" + BODY[1:], 0)])
async def test_in_a_replay_a_large_object_is_told_by_its_bytes(
    task: PartsTask, source: Source, store: type[MemoryStore], there: bytes, transferred: int
) -> None:
    target = store()
    target.add("film", there)
    since = datetime.now(UTC) - timedelta(seconds=60)
    report = await run(replace(task, replayed_since=since, overwrite=False), source, target)
    assert (report.counts.transferred, report.counts.skipped) == (transferred, 1 - transferred)
    assert target.read("film")[0] == there
    assert target.open_uploads == ()


async def test_in_a_replay_what_the_parts_make_is_told_without_a_read(
    task: PartsTask, source: Source
) -> None:
    """The lost task had completed the upload, and the target knows no condition."""
    target = MemoryStore(dialect=replace(GENERIC, conditional_completion=False))
    task = replace(task, overwrite=False)
    task = next_task(task, await run(replace(task, numbers=()), source, target))
    shared = await run(replace(task, numbers=(1, 2, 3), done=None), source, target)
    task = next_task(task, shared)
    assert (await run(task, source, target)).counts.transferred == 1
    since = datetime.now(UTC) - timedelta(seconds=60)
    report = await run(replace(task, replayed_since=since), source, target)
    assert report.counts.transferred == 1
    assert target.faults.requests.get("get", 0) == 0
    assert set(source.read_ranges.values()) == {1}


async def test_a_sweep_aborts_the_upload_that_is_known_and_those_that_are_not(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    begun = await run(replace(task, numbers=()), source, target)
    for key in ("film", "film2"):
        await target.create_upload(key, ObjectHeaders())
    now = datetime.now(UTC)
    sweep = SweepTask(
        job_id=task.job_id,
        upload=next_task(task, begun).upload,
        source=task.source,
        target=task.target,
        prefix=task.prefix,
        options=task.options,
        since=now - timedelta(minutes=1),
        until=now,
    )
    await leftovers.run(sweep, Route.of(sweep, target, target))
    assert target.open_uploads == ("film2",)
    assert target.faults.requests.get("put_part") is None


class Promising(MemoryStore):
    """Promises to check the whole object, and remembers what it is told at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bool | None] = []

    async def create_upload(self, key: str, headers: ObjectHeaders) -> CreatedUpload:
        created = await super().create_upload(key, headers)
        return replace(created, whole_checked=True)

    async def complete_upload(self, *arguments: Any, **more: Any) -> str:  # noqa: ANN401 - passed
        self.told.append(more["whole_checked"])
        return await super().complete_upload(*arguments, **more)


async def test_the_stores_promise_reaches_the_task_that_completes(
    task: PartsTask, source: Source
) -> None:
    target = Promising()
    begun = await run(replace(task, numbers=()), source, target)
    assert (await run(next_task(task, begun), source, target)).settled
    assert target.told == [True]


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    size=st.integers(1, 40),
    seed=st.lists(st.sampled_from(["", "get", "put_part", "complete_upload"]), max_size=8),
    slow=st.booleans(),
)
def test_whatever_fails_the_object_arrives_whole(size: int, seed: list[str], *, slow: bool) -> None:
    """With attempts enough, any number of tasks, and parts of one byte."""
    tiny = Settings(in_flight_requests=2, object_attempts=9).model_copy(
        update={"multipart_threshold_bytes": 0, "part_bytes": 1}
    )

    async def scenario() -> None:
        source = Source()
        target = MemoryStore(dialect=replace(GENERIC, min_part_bytes=1))
        body = bytes(range(size))
        task = first_task(TASK, source.add("film", body))
        task = replace(task, budget_seconds=0.0 if slow else 8.0)
        for nth, operation in enumerate(seed, start=1):
            if operation:
                store = source if operation == "get" else target
                lost = errors.TransportError("reset")
                store.faults.fail(lost, operation=operation, nth=nth, takes_effect=True)
        for _ in range(100):
            report = await run(task, source, target, tiny)
            if report.settled:
                break
            task = next_task(task, report)
        assert target.read("film")[0] == body
        assert (target.open_uploads, report.counts.transferred) == ((), 1)

    asyncio.run(scenario())


async def test_a_listing_may_be_more_exact_than_a_head(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    """Of most stores it tells milliseconds, and the header Last-Modified whole seconds."""
    meta = task.upload.meta
    assert meta.last_modified is not None
    exact = meta._replace(last_modified=meta.last_modified + timedelta(milliseconds=3))
    begun = await run(
        replace(task, numbers=(), upload=replace(task.upload, meta=exact)), source, target
    )
    assert (await run(next_task(task, begun), source, target)).settled


NO_UPLOADS = [
    errors.StoreError("CreateMultipartUpload", status=501, code="NotImplemented"),
    errors.StoreError("CreateMultipartUpload", status=405),
    errors.StoreError("CreateMultipartUpload", status=400, code="NotImplemented"),
    errors.StoreError("CreateMultipartUpload", status=400, code="UnsupportedOperation"),
]


@pytest.mark.parametrize("refusal", NO_UPLOADS, ids=str)
@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_target_that_knows_no_uploads_gets_the_object_in_one_request(
    task: PartsTask,
    source: Source,
    target: MemoryStore,
    refusal: errors.StoreError,
    *,
    overwrite: bool,
) -> None:
    target.faults.fail(refusal, operation="create_upload", times=9)
    report = await run(replace(task, overwrite=overwrite), source, target)
    assert (report.counts.transferred, report.attempts, report.events) == (1, 0, ())
    assert target.read("film") == (BODY, ObjectHeaders({"content-type": "video/mp4"}))
    assert target.faults.requests["put"] == 1
    assert "list_uploads" not in target.faults.requests


async def test_what_does_not_fit_into_memory_fails_alone_where_there_are_no_uploads(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    target.faults.fail(NO_UPLOADS[0], operation="create_upload")
    small = LARGE.model_copy(update={"in_flight_bytes": 8 << 20})
    report = await run(task, source, target, small)
    assert (report.counts.failed, report.halt) == (1, None)
    assert "SLURPER_IN_FLIGHT_BYTES" in report.events[0].message
    assert "HTTP 501 NotImplemented" in report.events[0].message
    assert target.keys == ()


async def test_another_refusal_to_begin_an_upload_fails_the_object(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    refusal = errors.StoreError("CreateMultipartUpload", status=400, code="InvalidArgument")
    target.faults.fail(refusal, operation="create_upload", times=9)
    report = await run(task, source, target)
    assert (report.counts.failed, target.keys) == (1, ())


async def test_another_version_told_by_the_etag_of_an_answer_begins_the_object_again(
    task: PartsTask, source: Source, target: MemoryStore
) -> None:
    """Where If-Match is not sent any more, the answer that tells is a success."""
    other = errors.PreconditionFailed("GetObject", status=206, detail='it has the ETag "x"')
    source.faults.fail(other, operation="get")
    report = await run(task, source, target)
    assert (report.attempts, report.events) == (1, ())
    assert report.restarted is not None
    assert target.open_uploads == ()
