"""Faults met by parts that are passed on while they come in, and what has to come of it.

The target is known to verify a checksum that comes behind the bytes of a part.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import faults
from tests.chaos.cases import Case, as_parameters, play
from tests.chaos.conftest import LARGE, NewBucket
from tests.chaos.faults import Fault
from tests.chaos.stage import HASTY, LEAST_PART, Stage, stage
from tests.chaos.test_flips import FILM, READ_FILM, describe_part, upload
from tests.chaos.wire import Exchange
from tests.pairs.referee import S3Bucket

GET = f"^GET /[^?]*/{LARGE} "
PUT = f"^PUT /[^?]*/{LARGE}\\?.*partNumber=1"
EARLY, MIDWAY, LATE = 1000, 3 << 20, LEAST_PART - 1000


@contextmanager
def opened(
    server: S3Server,
    source: S3Bucket,
    target: S3Bucket,
    *,
    verifies: bool = True,
    lanes: int = HASTY.in_flight_requests,
) -> Iterator[Stage]:
    """A stage whose target is known to verify trailing checksums, or no checksums at all."""
    changes = {"stream_seconds": 15.0, "in_flight_requests": lanes}
    settings = HASTY.model_copy(update=changes)
    with stage(server, source, server, target, settings=settings, part=LEAST_PART) as staged:
        address = staged.task.target
        knows = replace(address.dialect, trailing_checksum=True)
        if not verifies:
            knows = replace(address.dialect, checksum=None)
        staged.task = replace(staged.task, target=replace(address, dialect=knows))
        yield staged


@pytest.fixture
def streamed(ministack: S3Server, long_filled: S3Bucket, new_bucket: NewBucket) -> Iterator[Stage]:
    """From the filled bucket to an empty one."""
    with opened(ministack, long_filled, new_bucket(ministack)) as staged:
        yield staged


def writes(staged: Stage, number: int) -> int:
    """How often a part was written."""
    part = re.compile(f"^PUT /[^?]*/{LARGE}\\?.*partNumber={number}&")
    return sum(1 for line in staged.target_proxy.requests if part.match(line))


def reads(staged: Stage) -> int:
    """How often the large object was read, in part or as a whole."""
    return sum(1 for line in staged.source_proxy.requests if re.match(GET, line))


@pytest.mark.parametrize("verifies", [True, False], ids=["trailing", "bare"])
async def test_parts_arrive(
    ministack: S3Server, long_filled: S3Bucket, new_bucket: NewBucket, *, verifies: bool
) -> None:
    with opened(ministack, long_filled, new_bucket(ministack), verifies=verifies) as staged:
        run = await staged.run()
        staged.check(run)
        assert run.events == []
        assert [writes(staged, number) for number in (1, 2, 3)] == [1, 1, 1]
        assert reads(staged) == 3


async def test_a_source_that_breaks_midway_is_read_on_from_there(streamed: Stage) -> None:
    streamed.source_proxy.add(faults.truncated(MIDWAY), GET, times=1)
    run = await streamed.run()
    streamed.check(run)
    assert [writes(streamed, number) for number in (1, 2, 3)] == [1, 1, 1], "the write went on"
    assert reads(streamed) == 4


@pytest.fixture(params=["crc32c", "md5"])
def film(
    request: pytest.FixtureRequest, ministack: S3Server, new_bucket: NewBucket
) -> Iterator[Stage]:
    """Objects whose checksum, or only whose ETag, the source has made of its parts."""
    bucket = new_bucket(ministack)
    more = {} if request.param == "md5" else {"ChecksumAlgorithm": request.param.upper()}
    # The other object shows that the source's ETags are made of MD5s.
    sizes = {FILM: (LEAST_PART, LEAST_PART, 70_000), "other": (LEAST_PART, 1)}
    for key in sizes:
        upload(bucket, key, sizes[key], **more)
    with opened(ministack, bucket, new_bucket(ministack)) as staged:
        for key in sizes:
            describe_part(staged, key, LEAST_PART, len(sizes[key]))
        yield staged


@pytest.mark.parametrize("times", [1, None], ids=["once", "each time"])
async def test_a_byte_flipped_at_the_source_is_noticed(film: Stage, times: int | None) -> None:
    flip = film.source_proxy.add(faults.corrupted(MIDWAY), READ_FILM, times=times)
    run = await film.run()
    film.check(run)
    assert flip.hits > 0
    if times is None:
        assert [event.key for event in run.events] == [FILM]
        assert "the parts read make an object with" in run.events[0].message
        assert FILM not in film.target.read_all()
    else:
        assert (run.counts.transferred, run.events) == (2, [])


SOURCE = [
    *(
        Case(name=f"{what} {where}", fault=fault(at), match=GET, times=1)
        for where, at in (("early", EARLY), ("midway", MIDWAY), ("late", LATE))
        for what, fault in (
            ("truncated", faults.truncated),
            ("reset", lambda at: faults.truncated(at, reset=True)),
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
]


@as_parameters(SOURCE)
async def test_a_fault_of_the_source(streamed: Stage, case: Case) -> None:
    await play(streamed, case, "source")


TARGET = [
    Case(name="reset in the request", fault=faults.reset_in_request(MIDWAY), match=PUT, times=2),
    Case(name="request cut", fault=faults.cut_request(MIDWAY), match=PUT, times=2),
    Case(name="request flipped", fault=faults.corrupted_request(MIDWAY), match=PUT, times=1),
    Case(
        name="trailer flipped", fault=faults.corrupted_request(LEAST_PART + 75), match=PUT, times=1
    ),
    Case(name="lost answer", fault=faults.lost_answer, match=PUT, times=2),
    Case(
        name="done, but says 500", fault=faults.done_but(500, "InternalError"), match=PUT, times=1
    ),
    Case(name="503 early", fault=faults.refused_early(503, "SlowDown"), match=PUT, times=2),
    Case(name="429", fault=faults.status(429, "TooMany", retry_after="0"), match=PUT, times=2),
    Case(name="says nothing", fault=faults.deaf(10), match=PUT, times=1),
    Case(name="400 RequestTimeout", fault=faults.status(400, "RequestTimeout"), match=PUT, times=1),
    Case(
        name="always 503",
        fault=faults.status(503, "SlowDown", retry_after="0"),
        match=PUT,
        ends="failed",
        key=LARGE,
        says="503",
    ),
    Case(name="501", fault=faults.status(501, "NotImplemented"), match=PUT, times=1),
    Case(name="400", fault=faults.status(400, "InvalidArgument"), match=PUT, times=1),
    Case(name="411", fault=faults.status(411, "MissingContentLength"), match=PUT, times=1),
]


@pytest.mark.parametrize("overwrite", [True, False])
@as_parameters(TARGET)
async def test_a_fault_of_the_target(streamed: Stage, case: Case, *, overwrite: bool) -> None:
    await play(streamed, case, "target", overwrite=overwrite)


def dated(cut: int | None = None, before: Callable[[], object] | None = None) -> Fault:
    """A store that knows no If-Match and tells no ETag, so that only dates show versions.

    `cut`: the answer ends after so many bytes. `before` happens before the store answers.
    """

    async def fault(exchange: Exchange) -> bool:
        if before is not None:
            await asyncio.to_thread(before)
        reply = await exchange.forward(request=exchange.request.without("if-match"))
        head = reply.head.without("etag")
        if cut is None:
            await exchange.pass_back(reply, head=head)
            return True
        await exchange.write(head.raw)
        left = cut
        async for piece in reply.body(framed=True):
            await exchange.write(piece[:left])
            left -= len(piece[:left])
        return False

    return fault


async def test_versions_that_only_dates_show_are_not_mixed(
    ministack: S3Server, new_bucket: NewBucket
) -> None:
    bucket, new = new_bucket(ministack), bytes(range(256)) * 40_000
    bucket.put(LARGE, new[::-1])
    changes = [lambda: bucket.put(LARGE, new)]
    await asyncio.sleep(1.1)  # dates are in whole seconds

    def change() -> None:
        if changes:
            changes.pop()()

    with opened(ministack, bucket, new_bucket(ministack), lanes=1) as staged:
        staged.source_proxy.add(dated(), GET, times=1)
        staged.source_proxy.add(dated(cut=1 << 20), GET, times=1)
        staged.source_proxy.add(dated(before=change), GET)
        run = await staged.run()
        assert not changes
        staged.check(run)
        assert run.events == []


async def test_a_success_before_all_bytes_were_sent_is_none(streamed: Stage) -> None:
    streamed.target_proxy.add(faults.done_early, PUT, times=1)
    run = await streamed.run()
    streamed.check(run)
    assert run.events == []
    assert streamed.target_proxy.count(f"^POST /[^?]*/{LARGE}\\?uploads") == 1, "no new upload"


@pytest.mark.parametrize("moment", ["before a part", "in a part"])
async def test_an_object_that_changes_midway_is_copied_in_its_new_version(
    ministack: S3Server, new_bucket: NewBucket, moment: str
) -> None:
    bucket, new = new_bucket(ministack), bytes(range(256)) * 30_000
    bucket.put(LARGE, new[::-1], ContentType="text/old")

    def change() -> None:
        bucket.put(LARGE, new, ContentType="text/new")

    with opened(ministack, bucket, new_bucket(ministack)) as staged:
        staged.source_proxy.add(faults.preceded_by(change), GET, times=1, skip=1)
        if moment == "in a part":
            staged.source_proxy.add(faults.truncated(MIDWAY), GET, times=1)
        run = await staged.run()
        assert run.last.halt is None
        staged.check(run)
        assert run.events == []
