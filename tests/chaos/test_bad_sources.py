"""A source that breaks off, stalls, lies or answers nonsense when objects are read."""

from __future__ import annotations

import pytest

from slurper.job.model import LogType
from tests.chaos import faults
from tests.chaos.cases import FIRST, HEAD, ONE, PARTS, PLAIN, Case, as_parameters, play
from tests.chaos.conftest import LARGE
from tests.chaos.stage import CALM, HASTY, PART, Stage
from tests.chaos.wire import Exchange

HTML = b"<html><head><style>p{}</style></head><body><h1>Bad Gateway</h1></body></html>"
GARBAGE = b"\x00\x01 not HTTP at all \r\n\r\n"


@pytest.fixture
def staged(staged: Stage) -> Stage:
    """The same, but silence is one of the faults."""
    staged.settings = HASTY
    return staged


async def _garbage(exchange: Exchange) -> bool:
    await exchange.write(GARBAGE)
    return False


PASSING = [
    # name, fault, which requests, how often
    ("truncated", faults.truncated(1000), ONE, 1),
    ("truncated and reset", faults.truncated(1000, reset=True), ONE, 1),
    ("truncated before the first byte", faults.truncated(0), ONE, 1),
    ("truncated part", faults.truncated(PART // 2), PARTS, 1),
    ("truncated part and reset", faults.truncated(PART // 2, reset=True), PARTS, 1),
    ("length too long", faults.wrong_length(10), ONE, 1),
    ("length too long and kept open", faults.wrong_length(10, then_close=False), ONE, 1),
    ("length too short", faults.wrong_length(-10), ONE, 1),
    ("length too short and kept open", faults.wrong_length(-10, then_close=False), ONE, 1),
    ("length of a part too short", faults.wrong_length(-10), PARTS, 1),
    ("flipped byte", faults.corrupted(40_000), ONE, 1),
    ("reset before", faults.reset_before, ONE, 2),
    ("reset after", faults.lost_answer, ONE, 2),
    ("reset in the head", faults.reset_in_head, ONE, 2),
    ("reset before a part", faults.reset_before, PARTS, 2),
    ("reset before HEAD", faults.reset_before, HEAD, 2),
    ("reset of everything now and then", faults.reset_before, "^GET /[^?]*/k-", 5),
    ("stalled", faults.stalled(10, after=1000), ONE, 1),
    ("stalled part", faults.stalled(10, after=PART // 2), PARTS, 1),
    ("trickles", faults.slow(50, piece_bytes=1), ONE, 1),
    ("says nothing", faults.deaf(10), ONE, 1),
    ("says nothing to HEAD", faults.deaf(10), HEAD, 1),
    ("500", faults.status(500, "InternalError"), ONE, 2),
    ("502 page", faults.answer("502 Bad Gateway\r\nContent-Type: text/html", HTML), ONE, 2),
    ("503 with Retry-After", faults.status(503, "SlowDown", retry_after="0"), ONE, 2),
    ("429 with Retry-After", faults.status(429, "TooManyRequests", retry_after="1"), ONE, 1),
    ("400 RequestTimeout", faults.status(400, "RequestTimeout"), ONE, 1),
    ("500 to HEAD", faults.status(500, "InternalError"), HEAD, 1),
    ("garbage", _garbage, ONE, 1),
    ("whole object for a part", faults.without_request_headers("range"), PARTS, 1),
]


@as_parameters(
    [
        Case(name=name, fault=fault, match=match, times=times)
        for name, fault, match, times in PASSING
    ]
)
async def test_what_passes_is_gone_through(staged: Stage, case: Case) -> None:
    await play(staged, case, "source")


FRAMINGS = {
    "chunked": faults.chunked,
    "close-delimited": faults.close_delimited(),
    "slow": faults.slow(40 << 20),
    "checksum of unknown kind": faults.with_headers("x-amz-checksum-newest: AAAA="),
    "composite checksum": faults.with_headers(
        "x-amz-checksum-crc32: AAAAAA==-2", "x-amz-checksum-type: COMPOSITE"
    ),
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_unusual_answers_are_answers(staged: Stage, name: str) -> None:
    match = "^GET /[^?]*/(k-|large)"
    await play(staged, Case(name=name, fault=FRAMINGS[name], match=match), "source")


LASTING = [
    Case(
        name="always truncated",
        fault=faults.truncated(1000),
        match=ONE,
        ends="failed",
        says=r"after 1000 of 50000 body bytes.*\(after 2 attempts\); check endpoint",
    ),
    Case(
        name="always a truncated part",
        fault=faults.truncated(1 << 20),
        match=PARTS,
        ends="failed",
        key=LARGE,
        says=r"after 1048576 of \d+ body bytes.*\(after 2 attempts\)",
    ),
    Case(
        name="always cut without a length",
        fault=faults.close_delimited(after=1000),
        match=PLAIN,
        ends="failed",
        key="k-07",
        says="read 1000 bytes of an object listed with 98000",
    ),
    Case(
        name="always cut parts without a length",
        fault=faults.close_delimited(after=1000),
        match=PARTS,
        ends="failed",
        key=LARGE,
        says="1000 bytes came for bytes",
    ),
    Case(
        name="always flipped",
        fault=faults.corrupted(40_000),
        match=ONE,
        ends="failed",
        says="the bytes read have x-amz-checksum-crc32c .*, the source announces",
    ),
    Case(
        name="always too short",
        fault=faults.wrong_length(-10),
        match=PLAIN,
        ends="failed",
        key="k-07",
        says="read 97990 bytes of an object listed with 98000",
    ),
    Case(
        name="always trickles",
        fault=faults.slow(50, piece_bytes=1),
        match=ONE,
        ends="failed",
        says=r"fewer than 128 bytes per second moved while reading the response, after \d+ of "
        r"50000 body bytes; gave up after 1 retry \(after 2 attempts\); check endpoint",
    ),
    Case(
        name="always stalled",
        fault=faults.stalled(10, after=1000),
        match=ONE,
        ends="failed",
        says="nothing moved for 2 s while reading the response, after 1000 of 50000",
    ),
    Case(
        name="always 500",
        fault=faults.status(500, "InternalError"),
        match=ONE,
        ends="failed",
        says=r"GetObject answered HTTP 500 InternalError: injected \(after 2 attempts\); try",
    ),
    Case(
        name="always 503",
        fault=faults.status(503, "SlowDown", retry_after="0"),
        match=ONE,
        ends="failed",
        says=r"GetObject answered HTTP 503 SlowDown: injected \(after 2 attempts\)",
    ),
    Case(
        name="one object is forbidden",
        fault=faults.status(403, "AccessDenied"),
        match=ONE,
        ends="failed",
        says="GetObject answered HTTP 403 AccessDenied: injected; grant",
    ),
    Case(
        name="the signature for one object is refused",
        fault=faults.status(403, "SignatureDoesNotMatch"),
        match=ONE,
        ends="failed",
        says="GetObject answered HTTP 403 SignatureDoesNotMatch: injected; other requests with",
    ),
    Case(
        name="401 for one object",
        fault=faults.answer("401 Unauthorized"),
        match=ONE,
        ends="failed",
        says="GetObject answered HTTP 401; other requests with the same credentials succeed",
    ),
    Case(
        name="one object is forbidden, said in gzip",
        fault=faults.status(403, "AccessDenied", zipped=True),
        match=ONE,
        ends="failed",
        says="GetObject answered HTTP 403 AccessDenied: injected; grant",
    ),
    Case(
        name="reading is forbidden from some time on",
        fault=faults.status(403, "AccessDenied"),
        match=r"^(GET|HEAD) /[^?]*/(k-|large)",
        skip=5,
        ends="halted",
        says="no object of the source can be read any more: GetObject answered HTTP 403 AccessD",
    ),
    Case(
        name="HEAD is forbidden",
        fault=faults.answer("403 Forbidden"),
        match=HEAD + f"|{PARTS}",
        ends="failed",
        key=LARGE,
        says="answered HTTP 403",
    ),
    Case(
        name="error page",
        fault=faults.answer("404 Not Found\r\nContent-Type: text/html", HTML),
        match=ONE,
        ends="failed",
        says="GetObject answered HTTP 404: a web page answers at .*; .* one object",
    ),
    Case(
        name="page of a portal",
        fault=faults.answer("200 OK\r\nContent-Type: text/html", HTML),
        match=ONE,
        ends="failed",
        says="read 77 bytes of an object listed with 50000",
    ),
    Case(
        name="page of a portal for a part",
        fault=faults.answer("200 OK\r\nContent-Type: text/html", HTML),
        match=PARTS,
        ends="failed",
        key=LARGE,
        says=r"asked for bytes \d+-\d+, got HTTP 200",
    ),
    *(
        Case(
            name=f"{name} for {what}",
            fault=fault,
            match=match,
            ends="failed",
            key=key,
            says=rf"{operation} answered HTTP {name[:3]}.*other requests .* this (object|key)",
        )
        for name, fault in faults.ELSEWHERE.items()
        for what, operation, match, key in (
            ("one object", "GetObject", ONE, "k-05"),
            ("the first object", "GetObject", FIRST, "k-00"),
            ("a part", "GetObject", PARTS, LARGE),
            ("HEAD", "HeadObject", HEAD, LARGE),
        )
        if (name, what) != ("404 NoSuchBucket", "HEAD")  # where nothing tells it from NoSuchKey
    ),
    *(
        Case(
            name=f"{name} for all objects from some time on",
            fault=fault,
            match=r"^(GET|HEAD) /[^?]*/(k-|large)",
            skip=5,
            ends="halted",
            says=f"^at '.*no object of the source can be read any more: GetObject answered HTTP "
            f"{name[:3]}.*check the bucket's name.*resume",
        )
        for name, fault in faults.ELSEWHERE.items()
    ),
    Case(
        name="always the whole object for a part",
        fault=faults.without_request_headers("range"),
        match=PARTS,
        ends="failed",
        key=LARGE,
        says=r"exceeds \d+ body bytes|got HTTP 200",
    ),
    Case(
        name="another part",
        fault=faults.with_headers(f"Content-Range: bytes 0-{PART - 1}/{2 * PART + 70_000}"),
        match=PARTS,
        ends="failed",
        key=LARGE,
        says="content-range|got HTTP 206 with",
    ),
    Case(
        name="metadata lost on the way",
        fault=faults.with_headers("x-amz-missing-meta: 2"),
        match=ONE,
        ends="failed",
        says="2 of its metadata fit into no HTTP header",
    ),
    Case(
        name="head without end",
        fault=faults.with_headers(*(f"x-{number}: {'y' * 1000}" for number in range(80))),
        match=ONE,
        ends="failed",
        says="headers exceed 65536 bytes",
    ),
    Case(
        name="unknown transfer coding",
        fault=faults.with_headers("Transfer-Encoding: gzip", without=("content-length",)),
        match=ONE,
        ends="failed",
        says="transfer-encoding|not HTTP/1.1",
    ),
    Case(
        name="garbage for ever",
        fault=_garbage,
        match=ONE,
        ends="failed",
        says="not HTTP/1.1",
    ),
]


@as_parameters(LASTING)
async def test_what_lasts_fails_the_object_and_no_other(staged: Stage, case: Case) -> None:
    if case.name == "always 503":
        staged.settings = CALM  # it is asked again until the deadline
    await play(staged, case, "source")
    if case.ends == "failed":
        assert not case.key.startswith("k") or case.key not in staged.target.read_all()


@pytest.mark.parametrize("name", faults.ELSEWHERE)
async def test_of_explicit_keys_one_that_leads_elsewhere_fails_alone(
    staged: Stage, name: str
) -> None:
    staged.source_proxy.add(faults.ELSEWHERE[name], "^(GET|HEAD) /[^?]*/k-00 ")
    run = await staged.run(keys=sorted(staged.source.read_all()))
    staged.check(run)
    assert run.last.halt is None
    assert [event.key for event in run.events] == ["k-00"]


@pytest.mark.parametrize("match", [PLAIN, PARTS])
@pytest.mark.parametrize("chunks", [False, True])
async def test_an_answer_without_end_is_given_up_before_it_fills_the_memory(
    staged: Stage, match: str, chunks: bool
) -> None:
    length = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {1 << 40}"
    status = "206 Partial Content" if match is PARTS else "200 OK"
    flood = faults.Flood(f'{status}\r\nETag: "x"\r\n{length}', chunks=chunks)
    key = LARGE if match is PARTS else "k-07"
    case = Case(name="", fault=flood, match=match, ends="failed", key=key, says="exceeds")
    await play(staged, case, "source")
    # Each of three attempts takes a part, and what the kernel's buffers hold besides.
    assert flood.taken < 40 << 20


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
async def test_credentials_that_end_pause_the_job(staged: Stage, code: str) -> None:
    case = Case(
        name=code,
        fault=faults.status(403, code),
        match=r"^(GET|HEAD) /[^?]*/(k-|large)",
        skip=5,
        ends="halted",
        says=f"at 'k-.*HTTP 403 {code}: injected; .*renew the credentials",
    )
    await play(staged, case, "source", overwrite=False)


async def test_a_source_that_is_down_pauses_the_job(staged: Stage) -> None:
    case = Case(
        name="down",
        fault=faults.reset_before,
        match=r"^(GET|HEAD) /[^?]*/(k-0[4-9]|large)|max-keys=1[& ]",
        ends="halted",
        says="closed|reset",
    )
    run = await play(staged, case, "source", overwrite=False)
    assert run.reports[0].halt is not None
    assert run.reports[0].counts.objects < 5


async def test_an_archived_object_is_skipped(staged: Stage) -> None:
    staged.source_proxy.add(faults.status(403, "InvalidObjectState"), ONE)
    run = await staged.run()
    staged.check(run)
    assert [(event.key, event.log_type) for event in run.events] == [
        ("k-05", LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL)
    ]
    assert "HTTP 403 InvalidObjectState" in run.events[0].message


IN_A_TIER = (
    b"<Error><Code>InvalidObjectState</Code><Message>The operation is not valid for the object's "
    b"access tier</Message><StorageClass>INTELLIGENT_TIERING</StorageClass>"
    b"<AccessTier>DEEP_ARCHIVE_ACCESS</AccessTier></Error>"
)


async def test_an_object_in_an_archive_tier_is_skipped(staged: Stage) -> None:
    """A listing names its class, which can be read else; HEAD names the tier, and GET refuses."""
    tier = faults.with_headers("x-amz-archive-status: DEEP_ARCHIVE_ACCESS")
    staged.source_proxy.add(tier, "^HEAD [^ ]*/large")
    staged.source_proxy.add(faults.answer("403 Forbidden", IN_A_TIER), ONE)
    run = await staged.run()
    staged.check(run)
    assert [(event.key, event.log_type) for event in run.events] == [
        ("k-05", LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL),
        ("large", LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL),
    ]
    assert all("DEEP_ARCHIVE_ACCESS" in event.message for event in run.events)
    assert all("restore the object" in event.message for event in run.events)


async def test_missing_etags_are_no_obstacle(staged: Stage) -> None:
    staged.source_proxy.add(faults.with_headers(without=("etag",)), "^(GET|HEAD) /[^?]*/(k-|large)")
    staged.source_proxy.add(faults.replaced(rb"<ETag>[^<]*</ETag>", b""), "list-type")
    run = await staged.run()
    staged.check(run)
    assert run.events == []
    assert run.counts.transferred_bytes > PART
