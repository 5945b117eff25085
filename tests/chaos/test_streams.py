"""Faults met by an object that is passed on while it comes in, and what has to come of it.

The target is known to verify Content-MD5, and the source tells the MD5 of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from slurper.demo.servers import S3Server
from slurper.transfer.task import RangeReport
from tests.chaos import faults
from tests.chaos.cases import Case, as_parameters, play
from tests.chaos.conftest import LARGE, NewBucket
from tests.chaos.stage import HASTY, LEAST_PART, PART, Stage, stage
from tests.pairs.referee import S3Bucket

GET = f"^GET /[^?]*/{LARGE} "
PUT = f"^PUT /[^?]*/{LARGE} "
EARLY, MIDWAY, LATE = 1000, 3 << 20, 2 * PART + 69_000


@contextmanager
def opened(server: S3Server, source: S3Bucket, target: S3Bucket, threshold: int) -> Iterator[Stage]:
    """A stage whose target is known to verify MD5s."""
    changes = {"multipart_threshold_bytes": threshold, "stream_seconds": 15.0}
    settings = HASTY.model_copy(update=changes)
    with stage(server, source, server, target, settings=settings) as staged:
        task = staged.task
        knows = replace(task.target.dialect, verifies_md5=True)
        staged.task = replace(task, target=replace(task.target, dialect=knows))
        yield staged


@pytest.fixture(params=[1, 4], ids=["above-threshold", "below-threshold"])
def streamed(
    request: pytest.FixtureRequest,
    ministack: S3Server,
    filled: S3Bucket,
    new_bucket: NewBucket,
) -> Iterator[Stage]:
    """From the filled bucket to an empty one."""
    with opened(ministack, filled, new_bucket(ministack), request.param * PART) as staged:
        yield staged


@pytest.fixture(params=[1, 4], ids=["above-threshold", "below-threshold"])
def long_streamed(
    request: pytest.FixtureRequest,
    ministack: S3Server,
    long_filled: S3Bucket,
    new_bucket: NewBucket,
) -> Iterator[Stage]:
    """The same with an object that does not fit into a connection's buffers."""
    threshold = request.param * LEAST_PART
    with opened(ministack, long_filled, new_bucket(ministack), threshold) as staged:
        yield staged


def puts(staged: Stage) -> list[str]:
    """The requests that wrote the large object, or parts of it."""
    return [line for line in staged.target_proxy.requests if f"/{LARGE}" in line and "PUT " in line]


async def test_it_is_one_request_with_the_checksum_of_the_source(streamed: Stage) -> None:
    run = await streamed.run()
    streamed.check(run)
    assert len(puts(streamed)) == 1
    assert "partNumber" not in puts(streamed)[0]


SOURCE = [
    *(
        Case(name=f"{what} {where}", fault=fault(at), match=GET, times=1)
        for where, at in (("early", EARLY), ("midway", MIDWAY), ("late", LATE))
        for what, fault in (
            ("truncated", faults.truncated),
            ("reset", lambda at: faults.truncated(at, reset=True)),
            ("flipped", faults.corrupted),
        )
    ),
    Case(name="truncated twice", fault=faults.truncated(MIDWAY), match=GET, times=2),
    Case(name="stalled", fault=faults.stalled(10, after=MIDWAY), match=GET, times=1),
    Case(name="reset before", fault=faults.reset_before, match=GET, times=2),
    Case(name="503", fault=faults.status(503, "SlowDown", retry_after="0"), match=GET, times=2),
    Case(name="length too long", fault=faults.wrong_length(10), match=GET, times=1),
    Case(name="length too short", fault=faults.wrong_length(-10), match=GET, times=1),
    Case(name="in chunks", fault=faults.chunked, match=GET),
    Case(name="slow", fault=faults.slow(20 << 20), match=GET),
    Case(
        name="always flipped",
        fault=faults.corrupted(MIDWAY),
        match=GET,
        ends="failed",
        key=LARGE,
        says="MD5",
    ),
]


@as_parameters(SOURCE)
async def test_a_fault_of_the_source(streamed: Stage, case: Case) -> None:
    await play(streamed, case, "source")


TARGET = [
    Case(name="reset in the request", fault=faults.reset_in_request(MIDWAY), match=PUT, times=2),
    Case(name="request cut", fault=faults.cut_request(MIDWAY), match=PUT, times=2),
    Case(name="request flipped", fault=faults.corrupted_request(MIDWAY), match=PUT, times=1),
    Case(name="lost answer", fault=faults.lost_answer, match=PUT, times=2),
    Case(
        name="done, but says 500", fault=faults.done_but(500, "InternalError"), match=PUT, times=1
    ),
    Case(name="503 early", fault=faults.refused_early(503, "SlowDown"), match=PUT, times=2),
    Case(name="429", fault=faults.status(429, "TooMany", retry_after="0"), match=PUT, times=2),
    Case(name="says nothing", fault=faults.deaf(10), match=PUT, times=1),
    Case(name="400 RequestTimeout", fault=faults.status(400, "RequestTimeout"), match=PUT, times=1),
]


@pytest.mark.parametrize("overwrite", [True, False])
@as_parameters(TARGET)
async def test_a_fault_of_the_target(long_streamed: Stage, case: Case, *, overwrite: bool) -> None:
    await play(long_streamed, case, "target", overwrite=overwrite)


LIMITED = [
    Case(name="413", fault=faults.status(413, "EntityTooLarge"), match=PUT),
    Case(name="400", fault=faults.status(400, "EntityTooLarge"), match=PUT),
    Case(name="reset", fault=faults.reset_in_request(MIDWAY), match=PUT),
]


@as_parameters(LIMITED)
async def test_where_long_writes_are_refused_it_goes_in_parts(
    ministack: S3Server, long_filled: S3Bucket, new_bucket: NewBucket, case: Case
) -> None:
    with opened(ministack, long_filled, new_bucket(ministack), LEAST_PART) as staged:
        await play(staged, case, "target")
        assert "partNumber" in puts(staged)[-1]


async def test_one_refusal_says_nothing_of_other_etags(
    ministack: S3Server, new_bucket: NewBucket
) -> None:
    bucket = new_bucket(ministack)
    for key in (LARGE, "other"):
        bucket.put(key, key.encode() * (2 * PART // 4))
    with opened(ministack, bucket, new_bucket(ministack), PART) as staged:
        staged.source_proxy.add(faults.corrupted(MIDWAY), GET, times=1)
        run = await staged.run()
        staged.check(run)
        assert run.events == []
        found = [report.found for report in run.reports if isinstance(report, RangeReport)]
        assert all(one.source.etags_are_md5s is not False for one in found)


async def test_a_source_that_breaks_midway_is_read_on_from_there(streamed: Stage) -> None:
    streamed.source_proxy.add(faults.truncated(MIDWAY), GET, times=1)
    run = await streamed.run()
    streamed.check(run)
    assert len(puts(streamed)) == 1, "the write went on"


@pytest.mark.parametrize("threshold", [PART, 4 * PART])
@pytest.mark.parametrize("moment", ["before the rest is read", "before it is sent again"])
async def test_an_object_that_changes_midway_is_copied_in_its_new_version(
    ministack: S3Server, new_bucket: NewBucket, moment: str, threshold: int
) -> None:
    bucket, new = new_bucket(ministack), bytes(range(256)) * 20_000
    bucket.put(LARGE, new[::-1], ContentType="text/old")

    def change() -> None:
        bucket.put(LARGE, new, ContentType="text/new")

    with opened(ministack, bucket, new_bucket(ministack), threshold) as staged:
        if moment == "before the rest is read":
            staged.source_proxy.add(faults.preceded_by(change), GET, times=1, skip=1)
            staged.source_proxy.add(faults.truncated(MIDWAY), GET, times=1)
        else:
            staged.target_proxy.add(faults.followed_by(change, faults.lost_answer), PUT, times=1)
        run = await staged.run()
        assert run.last.halt is None
        staged.check(run)
        assert run.events == []
