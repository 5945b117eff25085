"""Large objects in progress: found with a cursor, counted once, begun again, gone when settled."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import exc, func, insert, select, update

from slurper.database import in_batches, job_row, schema, work
from slurper.job.lifecycle import Command
from slurper.job.model import Job, JobStatus, LogType
from slurper.transfer.task import Halt, PartsReport, Upload
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store


async def created(store: Store, *keys: str, finished: bool = True) -> tuple[Job, list[Upload]]:
    job = values.job()
    await values.create(store, job)
    return job, await values.find_large(store, job, *keys, finished=finished)


async def commit(store: Store, report: PartsReport) -> job_row.CommitResult:
    return await store.work.commit(report, values.now())


async def count(store: Store, table: str) -> int:
    query = select(func.count()).select_from(schema.metadata.tables[table])
    return await store.database.read(lambda connection: connection.scalar(query)) or 0


async def test_what_a_range_finds_is_kept_and_not_counted(store: Store) -> None:
    job, uploads = await created(store, "a", "b/ü")
    assert [upload.meta for upload in uploads] == [values.large("a"), values.large("b/ü")]
    assert {(upload.attempt, upload.begun) for upload in uploads} == {(1, None)}
    progress = await store.progress(ACCOUNT, job.id)
    assert (progress.counts.objects, progress.status) == (0, JobStatus.RUNNING)


async def test_a_stale_report_of_a_range_brings_no_large_objects(store: Store) -> None:
    job = values.job()
    (open_range,) = [await values.create(store, job)]
    found = replace(values.report(job, open_range, "a"), large=(values.large("a"),))
    assert (await store.work.commit(found, values.now())).applied
    again = replace(values.report(job, open_range, "b"), large=(values.large("b"),))
    assert not (await store.work.commit(again, values.now())).applied
    assert [one.meta.key for one in await values.unsettled(store, job)] == ["a"]


async def test_a_key_that_is_listed_twice_has_one_upload(store: Store) -> None:
    job, _ = await created(store, "a", finished=False)
    assert len(await values.find_large(store, job, "a", "b")) == 2


async def test_an_upload_survives_with_its_parts(store: Store) -> None:
    job, (upload,) = await created(store, "a")
    first = PartsReport(
        job_id=job.id, upload=upload, begun=values.begun(), parts=(values.part(2),), retries=3
    )
    outcome = await commit(store, first)
    assert (outcome.applied, outcome.still_open) == (True, True)
    (kept,) = await values.unsettled(store, job)
    assert kept == replace(upload, begun=values.begun())
    second = PartsReport(job_id=job.id, upload=kept, parts=(values.part(1),))
    assert (await commit(store, second)).applied
    assert await store.work.parts(kept) == (values.part(1), values.part(2))


async def test_a_settled_object_is_counted_and_leaves_nothing(store: Store) -> None:
    job, (upload, other) = await created(store, "a", "b")
    await commit(
        store,
        PartsReport(job_id=job.id, upload=upload, begun=values.begun(), parts=(values.part(1),)),
    )
    upload = replace(upload, begun=values.begun())
    assert not (await commit(store, values.settled(job, upload))).still_open
    progress = await store.progress(ACCOUNT, job.id)
    assert (progress.counts.transferred, progress.status) == (1, JobStatus.RUNNING)
    assert progress.counts.transferred_bytes == upload.meta.size
    assert await count(store, "upload_parts") == 0
    outcome = await commit(store, values.settled(job, other, transferred=False))
    assert outcome.status is JobStatus.COMPLETED
    assert await count(store, "uploads") == 0
    told = [entry.log_type for entry in await store.logs(ACCOUNT, job.id, limit=9, offset=0)]
    assert told[-2:] == [LogType.IMPORT_ERROR_RETRY_EXHAUSTION, LogType.MIGRATION_COMPLETE]


async def test_a_job_with_an_open_range_is_not_completed_by_its_last_upload(store: Store) -> None:
    job, (upload,) = await created(store, "a", finished=False)
    assert (await commit(store, values.settled(job, upload))).status is JobStatus.RUNNING


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_report_counts_once(store: Store, *, at_once: bool) -> None:
    job, (upload, _) = await created(store, "a", "b")
    reports = [values.settled(job, upload, retries=1)] * 3
    if at_once:
        outcomes = await asyncio.gather(*(commit(store, report) for report in reports))
    else:
        outcomes = [await commit(store, report) for report in reports]
    assert sum(outcome.applied for outcome in outcomes) == 1
    assert (await store.progress(ACCOUNT, job.id)).counts.objects == 1


async def test_parts_are_taken_in_once(store: Store) -> None:
    job, (upload,) = await created(store, "a")
    begun = PartsReport(job_id=job.id, upload=upload, begun=values.begun())
    assert (await commit(store, begun)).applied
    assert not (await commit(store, begun)).applied
    upload = replace(upload, begun=values.begun())
    parts = PartsReport(job_id=job.id, upload=upload, parts=(values.part(1), values.part(2)))
    assert (await commit(store, parts)).applied
    assert not (await commit(store, parts)).applied
    assert len(await store.work.parts(upload)) == 2


async def test_an_object_begun_again_forgets_its_upload_and_ignores_reports_of_it(
    store: Store,
) -> None:
    job, (upload,) = await created(store, "a")
    await commit(store, PartsReport(job_id=job.id, upload=upload, begun=values.begun()))
    old = replace(upload, begun=values.begun())
    parts = PartsReport(job_id=job.id, upload=old, parts=(values.part(1),))
    assert (await commit(store, parts)).applied
    newer = values.large("a", size=7, etag='"newer"')
    again = PartsReport(job_id=job.id, upload=old, restarted=newer, attempts=1, seen="other-2")
    assert (await commit(store, again)).still_open
    (new,) = await values.unsettled(store, job)
    assert new == replace(upload, meta=newer, attempt=2, seen="other-2")
    assert await store.work.parts(new) == ()
    for late in (again, replace(parts, parts=(values.part(2),)), values.settled(job, old)):
        assert not (await commit(store, late)).applied
    assert (await values.unsettled(store, job)) == [new]


async def test_a_report_of_a_paused_job_counts_and_resume_completes_it(store: Store) -> None:
    job, (upload,) = await created(store, "a")
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    assert await values.unsettled(store, job) == []
    assert (await commit(store, values.settled(job, upload))).status is JobStatus.PAUSED
    assert (await store.apply(ACCOUNT, job.id, Command.RESUME)).status is JobStatus.COMPLETED


async def test_a_paused_job_goes_on_with_its_upload(store: Store) -> None:
    job, (upload,) = await created(store, "a")
    halt = Halt(log_type=LogType.MIGRATION_ERROR, message="expired")
    halted = PartsReport(
        job_id=job.id, upload=upload, begun=values.begun(), parts=(values.part(1),), halt=halt
    )
    assert (await commit(store, halted)).status is JobStatus.PAUSED
    assert (await store.apply(ACCOUNT, job.id, Command.RESUME)).status is JobStatus.RUNNING
    (kept,) = await values.unsettled(store, job)
    assert await store.work.parts(kept) == (values.part(1),)


async def test_a_driver_sees_the_first_of_many_and_their_number(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "UPLOADS_READ", 2)
    job, _ = await created(store, *"abcd")
    (running,) = await store.work.running_jobs()
    assert [upload.meta.key for upload in running.uploads] == ["a", "b"]
    assert running.unsettled == 4
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    (unswept,) = await store.work.unswept()
    assert len(unswept.uploads) == 4, "all are swept"


async def test_an_aborted_job_is_deleted_with_its_uploads_piece_by_piece(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_batches, "PIECE_ROWS", 10)
    job, uploads = await created(store, "a", "b")
    kept, (other,) = await created(store, "c")
    for upload in (*uploads, other):
        owner = kept if upload is other else job
        begun = PartsReport(job_id=owner.id, upload=upload, begun=values.begun())
        assert (await commit(store, begun)).applied
        upload = replace(upload, begun=values.begun())
        parts = tuple(map(values.part, range(1, 18)))
        assert (
            await commit(store, PartsReport(job_id=owner.id, upload=upload, parts=parts))
        ).applied
    await values.abort(store, job)
    await store.delete_job(ACCOUNT, job.id)
    pieces = 1
    while await values.housekeeping(store.work).tidy():
        pieces += 1
    assert pieces >= 3
    assert (await count(store, "uploads"), await count(store, "upload_parts")) == (1, 17)


BROKEN = [
    {"upload_id": "u"},
    {"whole_checked": True},
    {"attempt": 0},
    {"size": -1},
    {"upload_id": "u", "part_size": 0, "begun_at": values.now()},
]


@pytest.mark.parametrize("change", BROKEN)
async def test_the_database_refuses_what_no_upload_can_be(
    store: Store, change: dict[str, object]
) -> None:
    await created(store, "a")
    with pytest.raises(exc.IntegrityError):
        await store.database.write(
            lambda connection: connection.execute(update(schema.uploads).values(change))
        )


@pytest.mark.parametrize("change", [{"number": 0}, {"size": -1}, {"upload": 10**6}])
async def test_the_database_refuses_what_no_part_can_be(
    store: Store, change: dict[str, object]
) -> None:
    _, (upload,) = await created(store, "a")
    row = {"upload": upload.id, "number": 1, "size": 1, "etag": "", "checksum": ""}
    with pytest.raises(exc.IntegrityError):
        await store.database.write(
            lambda connection: connection.execute(insert(schema.upload_parts).values(row | change))
        )
