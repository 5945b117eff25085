"""A report counts once, whole, and whatever happens around it."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, exc, insert, select, update

from slurper import errors
from slurper.database import schema
from slurper.database.job_row import CommitResult, RangeWork
from slurper.job.lifecycle import Command
from slurper.job.model import (
    Capabilities,
    Counts,
    Job,
    JobCapabilities,
    JobStatus,
    LogEntry,
    LogType,
    Progress,
)
from slurper.objectstore.base import ObjectMeta
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import Halt
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT, Store

HALT = Halt(
    log_type=LogType.MIGRATION_ERROR_FAILED_CONTINUATION,
    message="LIST answered HTTP 404 NoSuchBucket; check the bucket name",
)


async def _see(store: Store, job: Job) -> tuple[Progress, list[LogEntry], tuple[RangeWork, ...]]:
    """Everything of a job that a commit may change."""
    return (
        await store.progress(ACCOUNT, job.id),
        await store.logs(ACCOUNT, job.id, limit=100_000, offset=0),
        await values.open_ranges(store, job),
    )


async def _split(store: Store, job: Job, *ends: str) -> tuple[RangeWork, ...]:
    """Cut a new job's one range at `ends`."""

    def cut(connection: Connection) -> None:
        number = connection.scalar(select(schema.jobs.c.number).where(schema.jobs.c.id == job.id))
        whole = schema.ranges.c.job_number == number
        connection.execute(update(schema.ranges).where(whole).values(end_at=ends[0]))
        for start, end in zip(ends, (*ends[1:], None), strict=True):
            row = {
                "job_number": number,
                "start_after": start,
                "end_at": end,
                "committed_at": job.created_at,
            }
            connection.execute(insert(schema.ranges), [row])

    await store.database.write(cut)
    return await values.open_ranges(store, job)


async def test_a_report_moves_cursor_counters_and_log_together(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    failed = ("b\n", "a//b", "ü", "\U0001f600")
    at = values.now()
    outcome = await store.work.commit(
        values.report(job, work, "\U0001f600", transferred=5, skipped=2, failed=failed), at
    )
    assert outcome == CommitResult(applied=True, status=JobStatus.RUNNING, still_open=True)
    progress, logs, ranges = await _see(store, job)
    assert progress.counts == Counts(
        objects=11, transferred=5, skipped=2, failed=4, transferred_bytes=5000
    )
    assert [entry.object_key for entry in logs] == [None, "a//b", "b\n", "ü", "\U0001f600"]
    assert {entry.created_at for entry in logs[1:]} == {at}
    assert logs[1].message == "GET answered HTTP 500 InternalError for a//b"
    assert [one.slice for one in ranges] == [KeyRange("\U0001f600", None)]
    query = select(schema.jobs.c.retries, schema.jobs.c.attempts, schema.jobs.c.throttled)
    row = await store.database.read(lambda connection: connection.execute(query).one())
    assert tuple(row) == (1, 2, 3)


async def test_a_report_committed_twice_changes_nothing(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "m", transferred=3, failed=("k",))
    assert (await store.work.commit(report, values.now())).applied
    seen = await _see(store, job)
    again = await store.work.commit(report, values.now())
    assert again == CommitResult(applied=False, status=JobStatus.RUNNING, still_open=True)
    assert await _see(store, job) == seen


async def test_the_last_report_committed_twice_changes_nothing(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, None, finished=True)
    first = await store.work.commit(report, values.now())
    assert first == CommitResult(applied=True, status=JobStatus.COMPLETED, still_open=False)
    seen = await _see(store, job)
    again = await store.work.commit(report, values.now())
    assert again == CommitResult(applied=False, status=JobStatus.COMPLETED, still_open=False)
    assert await _see(store, job) == seen


async def test_a_replay_that_stops_elsewhere_counts_once(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.work.commit(values.report(job, work, "m", transferred=3), values.now())
    stale = await store.work.commit(values.report(job, work, "z", transferred=9), values.now())
    assert not stale.applied
    assert (await store.progress(ACCOUNT, job.id)).counts.objects == 3
    assert (await values.open_ranges(store, job))[0].slice.start_after == "m"


async def test_a_report_of_another_jobs_range_changes_nothing(store: Store) -> None:
    mine, other = values.job(), values.job()
    work = await values.create(store, mine)
    await values.create(store, other)
    outcome = await store.work.commit(values.report(other, work, "m", transferred=1), values.now())
    assert outcome == CommitResult(applied=False, status=JobStatus.RUNNING, still_open=False)
    assert (await store.progress(ACCOUNT, mine.id)).counts == Counts()
    assert (await store.progress(ACCOUNT, other.id)).counts == Counts()


async def test_the_job_completes_with_its_last_range(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    first, second, third = await _split(store, job, "h", "p")
    assert [one.slice for one in (first, second, third)] == [
        KeyRange(None, "h"),
        KeyRange("h", "p"),
        KeyRange("p", None),
    ]
    for work, cursor in ((third, "z"), (first, "h")):
        done = values.report(job, work, cursor, transferred=1, finished=True)
        outcome = await store.work.commit(done, values.now())
        assert outcome == CommitResult(applied=True, status=JobStatus.RUNNING, still_open=False)
    at = values.now()
    last = values.report(job, second, "j", transferred=1, finished=True)
    assert (await store.work.commit(last, at)).status is JobStatus.COMPLETED
    progress, logs, ranges = await _see(store, job)
    assert (progress.status, progress.finished_at) == (JobStatus.COMPLETED, at)
    assert progress.counts.objects == 3
    assert [entry.log_type for entry in logs] == [
        LogType.MIGRATION_START,
        LogType.MIGRATION_COMPLETE,
    ]
    assert ranges == ()


async def test_a_halt_pauses_with_its_own_words_and_keeps_what_was_settled(
    store: Store,
) -> None:
    job = values.job()
    work = await values.create(store, job)
    outcome = await store.work.commit(
        values.report(job, work, "m", transferred=2, halt=HALT), values.now()
    )
    assert outcome == CommitResult(applied=True, status=JobStatus.PAUSED, still_open=True)
    progress, logs, _ = await _see(store, job)
    assert progress.counts.transferred == 2
    assert (logs[-1].log_type, logs[-1].message) == (HALT.log_type, HALT.message)
    await store.apply(ACCOUNT, job.id, Command.RESUME)
    assert (await values.open_ranges(store, job))[0].slice == KeyRange("m", None)


async def test_the_ranges_of_a_halted_job_do_not_repeat_its_cause(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    first, second = await _split(store, job, "h")
    await store.work.commit(values.report(job, first, None, halt=HALT), values.now())
    outcome = await store.work.commit(values.report(job, second, "h", halt=HALT), values.now())
    assert outcome == CommitResult(applied=True, status=JobStatus.PAUSED, still_open=True)
    logs = await store.logs(ACCOUNT, job.id, limit=50, offset=0)
    assert [entry.log_type for entry in logs] == [LogType.MIGRATION_START, HALT.log_type]


async def test_a_paused_job_counts_what_was_under_way_and_completes_on_resume(
    store: Store,
) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    last = values.report(job, work, "z", transferred=4, finished=True)
    outcome = await store.work.commit(last, values.now())
    assert outcome == CommitResult(applied=True, status=JobStatus.PAUSED, still_open=False)
    progress = await store.progress(ACCOUNT, job.id)
    assert (progress.status, progress.counts.transferred) == (JobStatus.PAUSED, 4)
    resumed = await store.apply(ACCOUNT, job.id, Command.RESUME)
    assert resumed.status is JobStatus.COMPLETED
    assert resumed.finished_at is not None
    logs = await store.logs(ACCOUNT, job.id, limit=50, offset=0)
    assert [entry.log_type for entry in logs][-2:] == [
        LogType.MIGRATION_RESUME,
        LogType.MIGRATION_COMPLETE,
    ]


async def test_an_aborted_job_counts_what_was_under_way_and_stays_aborted(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    aborted = await store.apply(ACCOUNT, job.id, Command.ABORT)
    last = values.report(job, work, "z", transferred=4, failed=("q",), finished=True, halt=HALT)
    outcome = await store.work.commit(last, values.now())
    assert outcome == CommitResult(applied=True, status=JobStatus.ABORTED, still_open=False)
    progress, logs, _ = await _see(store, job)
    assert (progress.counts.objects, progress.finished_at) == (5, aborted.finished_at)
    assert logs[-1].object_key == "q"


async def test_a_report_of_a_deleted_job_is_dropped(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.ABORT)
    await store.delete_job(ACCOUNT, job.id)
    outcome = await store.work.commit(values.report(job, work, "m", transferred=1), values.now())
    assert outcome == CommitResult(applied=False, status=JobStatus.ABORTED, still_open=False)


@pytest.mark.parametrize(("cursor", "objects"), [("l", 1), (None, 1), ("m", 1)])
async def test_a_report_that_contradicts_itself_is_refused(
    store: Store, cursor: str | None, objects: int
) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.work.commit(values.report(job, work, "m", transferred=1), values.now())
    (work,) = await values.open_ranges(store, job)
    seen = await _see(store, job)
    with pytest.raises(ValueError, match="cursor"):
        await store.work.commit(values.report(job, work, cursor, transferred=objects), values.now())
    assert await _see(store, job) == seen


async def test_a_cursor_moves_in_the_order_in_which_its_source_lists(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    first = replace(values.report(job, work, "a/b", transferred=1), order=KeyOrder.FOLDERS)
    assert (await store.work.commit(first, values.now())).applied
    (work,) = await values.open_ranges(store, job)
    then = replace(values.report(job, work, "a.b", transferred=1), order=KeyOrder.FOLDERS)
    assert (await store.work.commit(then, values.now())).applied
    (work,) = await values.open_ranges(store, job)
    assert work.slice.start_after == "a.b"
    back = replace(values.report(job, work, "a/c", transferred=1), order=KeyOrder.FOLDERS)
    with pytest.raises(ValueError, match="moved its cursor back"):
        await store.work.commit(back, values.now())


async def test_the_database_itself_refuses_counts_that_do_not_add_up(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    seen = await _see(store, job)
    wrong = replace(values.report(job, work, "m"), counts=Counts(objects=3, transferred=2))
    with pytest.raises(exc.IntegrityError, match="every_object_settled_once"):
        await store.work.commit(wrong, values.now())
    assert await _see(store, job) == seen


async def test_the_database_itself_refuses_a_cursor_outside_its_range(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    first, _ = await _split(store, job, "h")
    seen = await _see(store, job)
    with pytest.raises(exc.IntegrityError, match="cursor_inside"):
        await store.work.commit(values.report(job, first, "i", transferred=1), values.now())
    assert await _see(store, job) == seen


async def test_of_many_equal_reports_at_once_one_counts(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    report = values.report(job, work, "m", transferred=3, failed=("k",))
    outcomes = await asyncio.gather(*(store.work.commit(report, values.now()) for _ in range(12)))
    assert [one.applied for one in outcomes].count(True) == 1
    progress, logs, _ = await _see(store, job)
    assert (progress.counts.objects, len(logs)) == (4, 2)


async def _drive(store: Store, job: Job, work: RangeWork, steps: int) -> int:
    """Commit `steps` reports of one range, one after the other; return how many applied."""
    applied = 0
    for number in range(steps):
        key = f"{work.slice.end_at or 'zz'}"[0]
        cursor = chr(ord(key) - 1) + f"{number:03}"
        finished = number == steps - 1
        report = values.report(job, work, cursor, transferred=1, skipped=1, finished=finished)
        applied += (await store.work.commit(report, values.now())).applied
        rest = KeyRange(cursor, work.slice.end_at)
        work = replace(work, slice=rest)
    return applied


async def _command(store: Store, job: Job, rounds: int) -> None:
    for number in range(rounds):
        command = Command.PAUSE if number % 2 else Command.RESUME
        try:
            await store.apply(ACCOUNT, job.id, command)
        except errors.JobConflict:
            await asyncio.sleep(0)


async def test_commits_and_commands_from_many_tasks_keep_every_count(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    ranges = await _split(store, job, "f", "k", "p", "u")
    drives = [_drive(store, job, work, 12) for work in ranges]
    commands = [_command(store, job, 15) for _ in range(3)]
    applied, *_ = await asyncio.gather(asyncio.gather(*drives), *commands)
    assert applied == [12] * 5
    progress, logs, _ = await _see(store, job)
    assert progress.counts == Counts(
        objects=120, transferred=60, skipped=60, transferred_bytes=60_000
    )
    if progress.status is JobStatus.PAUSED:
        await store.apply(ACCOUNT, job.id, Command.RESUME)
        progress, logs, _ = await _see(store, job)
    assert progress.status is JobStatus.COMPLETED
    types = [entry.log_type for entry in logs]
    pauses_and_resumes = types[1:-1]
    expected = [LogType.MIGRATION_PAUSE, LogType.MIGRATION_RESUME] * (len(types) // 2)
    assert pauses_and_resumes == expected[: len(pauses_and_resumes)]
    assert types[-1] is LogType.MIGRATION_COMPLETE


async def test_a_cancelled_commit_is_whole_or_absent_and_blocks_nobody(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    keys = tuple(f"k{number:03}" for number in range(200))
    for number in range(30):
        before, logs, _ = await _see(store, job)
        report = values.report(job, work, f"m{number:03}", failed=keys)
        task = asyncio.create_task(store.work.commit(report, values.now()))
        for _ in range(number):
            await asyncio.sleep(0.0002)
        task.cancel()
        await asyncio.wait([task])
        after, entries, (work,) = await _see(store, job)
        counted = after.counts.failed - before.counts.failed
        assert counted in {0, 200}
        assert len(entries) - len(logs) == counted
        assert (work.slice.start_after == f"m{number:03}") == (counted == 200)
    assert (
        await store.work.commit(values.report(job, work, "z", transferred=1), values.now())
    ).applied


def _copy_database(source: Path, target: Path) -> None:
    for file in source.glob("slurper.db*"):
        shutil.copy(file, target)


async def test_a_crash_loses_no_commit_and_keeps_no_half(
    sqlite_store: Store, tmp_path: Path
) -> None:
    """The files as a killed process leaves them hold the last commit, and nothing after it."""
    job = values.job()
    work = await values.create(sqlite_store, job)
    await sqlite_store.work.commit(values.report(job, work, "m", failed=("k",)), values.now())
    seen = await _see(sqlite_store, job)
    crashed = tmp_path / "crashed"
    crashed.mkdir()

    def crash(connection: Connection) -> None:
        connection.execute(update(schema.jobs).values(transferred=7, objects=8))
        _copy_database(tmp_path, crashed)

    await sqlite_store.database.write(crash)
    recovered = await Store.open(f"sqlite:///{crashed / 'slurper.db'}", sqlite_store.lease)
    try:
        assert await _see(recovered, job) == seen
        replay = values.report(job, work, "m", failed=("k",))
        assert not (await recovered.work.commit(replay, values.now())).applied
        assert await _see(recovered, job) == seen
    finally:
        await recovered.close()


async def test_a_report_cuts_what_is_left_of_its_range(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    report = replace(
        values.report(job, work, "d", transferred=2), boundaries=("ü", "m", "m", "d", "a")
    )
    at = values.now()
    outcome = await store.work.commit(report, at)
    first, *others = await values.open_ranges(store, job)
    assert (first.range_id, first.slice) == (work.range_id, KeyRange("d", "m"))
    assert [one.slice for one in others] == [KeyRange("m", "ü"), KeyRange("ü", None)]
    assert outcome == CommitResult(
        applied=True,
        status=JobStatus.RUNNING,
        still_open=True,
        end_at="m",
        cut_off=tuple(others),
    )


async def test_a_range_is_cut_once_even_where_its_cursor_stays(store: Store) -> None:
    """The answer to the first commit may be lost; the second tells where the range ends now."""
    job = values.job()
    work = await values.create(store, job)
    report = replace(values.report(job, work, None), boundaries=("h", "p"))
    first = await store.work.commit(report, values.now())
    seen = await _see(store, job)
    again = await store.work.commit(report, values.now())
    assert len(first.cut_off) == 2
    assert (again.end_at, again.cut_off) == ("h", ())
    assert [one.slice for one in (await _see(store, job))[2]] == [one.slice for one in seen[2]]


async def test_a_stale_report_cuts_nothing(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.work.commit(values.report(job, work, "d", transferred=1), values.now())
    stale = replace(values.report(job, work, "c", transferred=1), boundaries=("m",))
    outcome = await store.work.commit(stale, values.now())
    assert (outcome.applied, outcome.cut_off) == (False, ())
    assert [one.slice for one in await values.open_ranges(store, job)] == [KeyRange("d", None)]


async def test_a_job_with_cut_ranges_completes_with_the_last_of_them(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    cutting = replace(values.report(job, work, "d", transferred=1), boundaries=("m",))
    await store.work.commit(cutting, values.now())
    statuses = []
    for left in await values.open_ranges(store, job):
        done = values.report(job, left, left.slice.end_at or "z", transferred=1, finished=True)
        statuses.append((await store.work.commit(done, values.now())).status)
    assert statuses == [JobStatus.RUNNING, JobStatus.COMPLETED]
    assert (await store.progress(ACCOUNT, job.id)).counts.transferred == 3


async def test_no_range_of_a_paused_job_is_cut(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    await store.apply(ACCOUNT, job.id, Command.PAUSE)
    report = replace(values.report(job, work, "d", transferred=1), boundaries=("m",))
    outcome = await store.work.commit(report, values.now())
    assert (outcome.applied, outcome.cut_off) == (True, ())
    await store.apply(ACCOUNT, job.id, Command.RESUME)
    assert [one.slice for one in await values.open_ranges(store, job)] == [KeyRange("d", None)]


async def test_explicit_keys_are_cut_by_their_number(store: Store) -> None:
    keys = tuple(f"k{number:03}" for number in range(100))
    job = values.job(keys=keys)
    await values.create(store, job)

    async def cuts(slice_: KeyRange, pieces: int, least: int) -> tuple[str, ...]:
        return await store.work.key_boundaries(job.id, slice_, pieces=pieces, min_keys=least)

    assert await cuts(KeyRange(), 4, 1) == ("k024", "k049", "k074")
    assert await cuts(KeyRange("k049", "k069"), 2, 10) == ("k059",)
    assert await cuts(KeyRange("k049", "k069"), 4, 10) == ("k059",)
    assert await cuts(KeyRange("k049", "k069"), 4, 11) == ()
    assert await cuts(KeyRange("z"), 4, 1) == ()
    assert await store.work.key_boundaries("gone", KeyRange(), pieces=2, min_keys=1) == ()


# What is found out of the stores while they are copied


async def test_what_a_task_finds_out_of_the_stores_is_kept_with_the_job(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    found = JobCapabilities(
        source=Capabilities(obeys_if_match=False), target=Capabilities(wants_md5=True)
    )
    report = replace(values.report(job, work, "d", transferred=2), found=found)
    outcome = await store.work.commit(report, values.now())
    kept = JobCapabilities(
        source=replace(values.CAPABILITIES.source, obeys_if_match=False),
        target=replace(values.CAPABILITIES.target, wants_md5=True),
    )
    assert outcome.capabilities == kept
    (known,) = await store.work.running_jobs()
    assert known.job.capabilities == kept
    assert (await store.get_job(ACCOUNT, job.id)).capabilities == kept
    again = replace(values.report(job, known.ranges[0], "e", transferred=1), found=found)
    assert (await store.work.commit(again, values.now())).capabilities is None


async def test_so_is_what_a_task_for_a_large_object_finds_out(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    (upload,) = await values.find_large(store, job, "k", finished=False)
    found = JobCapabilities(source=Capabilities(etags_of_parts_are_md5s=False))
    report = replace(values.settled(job, upload), found=found)
    assert (await store.work.commit(report, values.now())).applied
    (known,) = await store.work.running_jobs()
    assert known.job.capabilities.source.etags_of_parts_are_md5s is False


async def test_the_order_of_a_source_and_what_else_was_found_are_kept_together(
    store: Store,
) -> None:
    job = values.job()
    work = await values.create(store, job)
    report = replace(
        values.report(job, work, "d", transferred=2),
        order=KeyOrder.OWN,
        disorder=DISORDER,
        found=JobCapabilities(source=Capabilities(obeys_if_match=False)),
    )
    await store.work.commit(report, values.now())
    (known,) = await store.work.running_jobs()
    source = known.job.capabilities.source
    assert (source.key_order, source.obeys_if_match) == ("own", False)


# A source that lists in an order of its own

DISORDER = "the listing shows 'b' after 'd'"


async def test_a_source_found_to_list_in_its_own_order_is_gone_on_with_in_it(store: Store) -> None:
    job = values.job()
    work = await values.create(store, job)
    found = replace(
        values.report(job, work, "d", transferred=2), order=KeyOrder.OWN, disorder=DISORDER
    )
    outcome = await store.work.commit(found, values.now())
    (known,) = await store.work.running_jobs()
    assert outcome == CommitResult(
        applied=True,
        status=JobStatus.RUNNING,
        still_open=True,
        capabilities=known.job.capabilities,
    )
    assert known.job.capabilities.source.key_order == "own"
    assert known.job.capabilities.source.list_version == 2
    assert [one.slice for one in known.ranges] == [KeyRange("d", None)]
    following = replace(values.report(job, known.ranges[0], "b", transferred=1), order=KeyOrder.OWN)
    assert (await store.work.commit(following, values.now())).applied
    assert (await store.progress(ACCOUNT, job.id)).counts.transferred == 3
    stuck = replace(
        values.report(job, known.ranges[0], "b", transferred=1),
        order=KeyOrder.OWN,
        started_after="b",
    )
    with pytest.raises(ValueError, match="without moving its cursor"):
        await store.work.commit(stuck, values.now())


async def test_a_job_in_pieces_pauses_and_begins_anew_in_one(store: Store) -> None:
    job = values.job()
    await values.create(store, job)
    first, second, third = await _split(store, job, "m", "t")
    await store.work.commit(
        values.report(job, first, "c", transferred=4, failed=("a",)), values.now()
    )
    large = replace(
        values.report(job, second, "n", transferred=1),
        large=(ObjectMeta("n", 1 << 30, '"n"', None, ""),),
    )
    await store.work.commit(large, values.now())
    found = replace(
        values.report(job, third, "u", transferred=2), order=KeyOrder.OWN, disorder=DISORDER
    )
    outcome = await store.work.commit(found, values.now())
    assert (outcome.applied, outcome.status) == (True, JobStatus.PAUSED)
    progress, logs, _ = await _see(store, job)
    assert progress.counts == Counts()
    assert DISORDER in (logs[-1].message or "")
    assert "begins anew" in (logs[-1].message or "")
    late = await store.work.commit(values.report(job, second, "o", transferred=9), values.now())
    assert (late.applied, late.still_open) == (False, False)
    await store.apply(ACCOUNT, job.id, Command.RESUME)
    (known,) = await store.work.running_jobs()
    assert known.job.capabilities.source.key_order == "own"
    assert (known.uploads, [one.slice for one in known.ranges]) == ((), [KeyRange()])
    last = replace(
        values.report(job, known.ranges[0], "c", transferred=7, finished=True), order=KeyOrder.OWN
    )
    assert (await store.work.commit(last, values.now())).status is JobStatus.COMPLETED
    assert (await store.progress(ACCOUNT, job.id)).counts.objects == 7
