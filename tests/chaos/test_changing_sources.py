"""Objects that are replaced, deleted or grow while they are copied, and targets that change too."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from slurper.job.model import LogType
from tests.chaos import faults
from tests.chaos.cases import (
    COMPLETE,
    CREATE,
    EVERYTHING,
    LIST,
    ONE,
    PARTS,
    PUT,
    PUT_PART_2,
)
from tests.chaos.conftest import LARGE, SMALL
from tests.chaos.faults import Fault
from tests.chaos.stage import PART, Run, Stage

Change = Callable[[Stage, str], None]


def _bytes(size: int, seed: int = 9) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - repeatable bytes


def _replace(stage: Stage, key: str) -> None:
    """Other bytes of the same length."""
    size = len(stage.source.get(key).body)
    stage.source.put(key, _bytes(size), ContentType="text/x-new", Metadata={"new": "yes"})


def _grow(stage: Stage, key: str) -> None:
    body = stage.source.get(key).body
    stage.source.put(key, body + body[:1000] + b"more", ContentType="text/x-longer")


def _grow_into_parts(stage: Stage, key: str) -> None:
    stage.source.put(key, _bytes(2 * PART + 1))


def _shrink(stage: Stage, key: str) -> None:
    stage.source.put(key, b"short", ContentType="text/x-short")


def _empty(stage: Stage, key: str) -> None:
    stage.source.put(key, b"")


CHANGES: list[Change] = [_replace, _grow, _grow_into_parts, _shrink, _empty]
IGNORED = faults.without_request_headers("if-match")
"""A store that knows nothing of If-Match."""


def _named(change: Change) -> str:
    return change.__name__.strip("_")


async def _copy(stage: Stage, *, overwrite: bool = True) -> Run:
    run = await stage.run(overwrite=overwrite)
    stage.check(run)
    assert (run.counts.transferred, run.counts.skipped, run.events) == (EVERYTHING, 0, [])
    return run


@pytest.mark.parametrize("then", [faults.passed_on, IGNORED], ids=["if-match", "no if-match"])
@pytest.mark.parametrize("key", ["k-05", "k-07", LARGE])
@pytest.mark.parametrize("change", CHANGES, ids=_named)
async def test_a_change_between_listing_and_reading(
    changing: Stage, change: Change, key: str, then: Fault
) -> None:
    if then is IGNORED:
        changing.source_proxy.add(IGNORED, rf"^GET /[^?]*/{key} ", skip=1)
    once = faults.preceded_by(lambda: change(changing, key), then)
    changing.source_proxy.add(once, rf"^(GET|HEAD) /[^?]*/{key} ", times=1)
    await _copy(changing, overwrite=False)


@pytest.mark.parametrize("then", [faults.passed_on, IGNORED], ids=["if-match", "no if-match"])
@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("change", CHANGES, ids=_named)
async def test_a_change_between_two_parts(
    changing: Stage, change: Change, part: int, then: Fault
) -> None:
    once = faults.preceded_by(lambda: change(changing, LARGE), then)
    changing.source_proxy.add(once, PARTS, skip=part, times=1)
    if then is IGNORED:
        changing.source_proxy.add(IGNORED, PARTS)
    run = await _copy(changing)
    assert run.last.attempts >= 1


async def test_a_change_between_parts_shows_by_the_date_where_there_is_no_etag(
    changing: Stage,
) -> None:
    _wait_for_the_next_second(changing)
    bare = faults.with_headers(without=("etag",))
    replacing = faults.preceded_by(lambda: _replace(changing, LARGE), bare)
    changing.source_proxy.add(faults.replaced(rb"<ETag>[^<]*</ETag>", b""), LIST)
    changing.source_proxy.add(replacing, PARTS, skip=1, times=1)
    changing.source_proxy.add(bare, f"^(GET|HEAD) /[^?]*/{LARGE} ")
    await _copy(changing)


def _wait_for_the_next_second(stage: Stage) -> None:
    """Until a new object gets a later Last-Modified header than the ones there are."""
    probe = "probe-of-the-clock"
    latest = stage.source.client.head_object(Bucket=stage.source.name, Key=LARGE)["LastModified"]
    while True:
        stage.source.put(probe, b"")
        now = stage.source.client.head_object(Bucket=stage.source.name, Key=probe)["LastModified"]
        stage.source.delete(probe)
        if now > latest:
            return


@pytest.mark.parametrize(("key", "match"), [("k-05", ONE), (LARGE, "^HEAD"), (LARGE, PARTS)])
async def test_a_deleted_object_fails_and_says_so(changing: Stage, key: str, match: str) -> None:
    gone = faults.preceded_by(lambda: changing.source.delete(key))
    changing.source_proxy.add(gone, match, skip=int(match is PARTS), times=1)
    run = await changing.run()
    assert [(event.key, event.log_type) for event in run.events] == [
        (key, LogType.IMPORT_ERROR_RETRY_EXHAUSTION)
    ]
    assert "HTTP 404" in run.events[0].message
    assert "removed after it was listed" in run.events[0].message
    assert key not in changing.target.read_all()
    assert changing.target.uploads() == []
    assert (run.counts.objects, run.counts.transferred) == (EVERYTHING, EVERYTHING - 1)


@pytest.mark.parametrize("key", ["k-05", LARGE])
async def test_an_object_that_never_rests_fails(changing: Stage, key: str) -> None:
    changing.source_proxy.add(
        faults.preceded_by(
            lambda: changing.source.put(key, _bytes(2 * PART + 5, seed=next(seeds)))
        ),
        rf"^GET /[^?]*/{key} ",
    )
    seeds = iter(range(1000))
    run = await changing.run()
    (event,) = run.events
    assert (event.key, event.log_type) == (key, LogType.IMPORT_ERROR_RETRY_EXHAUSTION)
    assert "changed during each of 2 attempts" in event.message
    assert changing.target.uploads() == []
    assert key not in changing.target.read_all()


async def test_new_objects_behind_the_cursor_do_no_harm(changing: Stage) -> None:
    changing.source_proxy.add(
        faults.preceded_by(lambda: changing.source.put("a-new", b"new")), ONE, times=1
    )
    run = await changing.run()
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    assert "a-new" not in changing.target.read_all()


# The target changes meanwhile


@pytest.mark.parametrize(
    ("first", "times"),
    [
        (faults.passed_on, 1),
        (faults.status(500, "InternalError"), 1),
        (faults.reset_before, 1),
        (faults.reset_before, 2),
    ],
)
@pytest.mark.parametrize("equal_size", [True, False])
async def test_somebody_elses_object_is_kept_and_is_no_copy_of_ours(
    staged: Stage, first: Fault, times: int, equal_size: bool
) -> None:
    """It appears after the listing; our own first write may or may not be what is refused."""
    size = len(staged.source.get("k-05").body)
    theirs = _bytes(size if equal_size else size + 1)
    appear = faults.preceded_by(lambda: staged.target.put("k-05", theirs), first)
    staged.target_proxy.add(appear, PUT, times=times)
    run = await staged.run(overwrite=False)
    staged.check(run, found={"k-05": theirs})
    assert (run.counts.transferred, run.counts.skipped) == (EVERYTHING - 1, 1)


@pytest.mark.parametrize("equal_size", [True, False])
@pytest.mark.parametrize("first", [faults.passed_on, faults.status(500, "InternalError")])
async def test_somebody_elses_large_object_is_kept(
    staged: Stage, first: Fault, equal_size: bool
) -> None:
    theirs = _bytes(2 * PART + (70_000 if equal_size else 70_001))
    appear = faults.preceded_by(lambda: staged.target.put(LARGE, theirs), first)
    staged.target_proxy.add(appear, COMPLETE, times=1)
    run = await staged.run(overwrite=False)
    staged.check(run, found={LARGE: theirs})
    assert (run.counts.transferred, run.counts.skipped) == (EVERYTHING - 1, 1)


async def test_somebody_elses_object_of_our_size_is_no_copy_of_ours_in_a_replay(
    staged: Stage,
) -> None:
    """All of a first run is lost; meanwhile somebody has stored two objects of the same sizes."""
    since = datetime.now(UTC) - timedelta(minutes=1)
    await staged.run(overwrite=False)
    theirs = {key: _bytes(len(staged.source.get(key).body)) for key in ("k-05", LARGE)}
    for key, body in theirs.items():
        staged.target.put(key, body)
    run = await staged.run(overwrite=False, replayed_since=since)
    staged.check(run, found=theirs)
    assert (run.counts.transferred, run.counts.skipped) == (EVERYTHING - 2, 2)


async def test_a_refused_object_that_is_gone_again_is_written(staged: Stage) -> None:
    staged.target_proxy.add(faults.status(412, "PreconditionFailed"), PUT, times=1)
    run = await _copy(staged, overwrite=False)
    assert run.last.attempts == 1


@pytest.mark.parametrize("match", [PUT_PART_2, COMPLETE])
async def test_an_upload_that_somebody_aborts_is_begun_anew(staged: Stage, match: str) -> None:
    def abort_all() -> None:
        client, name = staged.target.client, staged.target.name
        for upload in client.list_multipart_uploads(Bucket=name)["Uploads"]:
            client.abort_multipart_upload(
                Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
            )

    staged.target_proxy.add(faults.preceded_by(abort_all), match, times=1)
    run = await _copy(staged)
    assert (run.last.attempts, staged.target_proxy.count(CREATE)) == (1, 2)


async def test_a_foreign_upload_is_left_alone(staged: Stage) -> None:
    """Even where we look for lost uploads of our own, and even for keys that we copy."""
    client, name = staged.target.client, staged.target.name
    for key in ("k-05", "not ours", LARGE):
        client.create_multipart_upload(Bucket=name, Key=key)
    await asyncio.sleep(2.2)  # by so much they can be told from those begun now
    staged.target_proxy.add(faults.lost_answer, CREATE, times=1)
    run = await staged.run()
    assert (run.counts.transferred, run.events) == (EVERYTHING, [])
    assert sorted(staged.target.uploads()) == ["k-05", LARGE, "not ours"]
    assert len(staged.target.read_all()) == SMALL + 1
