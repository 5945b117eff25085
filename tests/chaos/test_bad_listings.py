"""A store whose listings repeat, end, grow, lie, or are none."""

from __future__ import annotations

import gzip
import itertools
import re
from urllib.parse import quote

import pytest

from slurper.job.model import LogType
from tests.chaos import faults
from tests.chaos.cases import CONTINUATION, EVERYTHING, LIST, Case, as_parameters, play
from tests.chaos.conftest import SMALL
from tests.chaos.faults import Fault
from tests.chaos.listings import (
    ROW,
    TRUNCATED,
    XML,
    MixedUp,
    cut_to,
    duplicated,
    emptied,
    in_turn,
    paged,
    reordered,
    rewritten_rows,
    silent,
    without_echoes,
)
from tests.chaos.stage import HASTY, PART, Stage
from tests.chaos.wire import Exchange

BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>'
    b"<ListBucketResult><IsTruncated>false</IsTruncated><Name>&d;</Name></ListBucketResult>"
)
BUCKETS = b"<ListAllMyBucketsResult><IsTruncated>false</IsTruncated></ListAllMyBucketsResult>"


@pytest.fixture
def staged(staged: Stage) -> Stage:
    """The same, but silence is one of the faults."""
    staged.settings = HASTY
    return staged


def repeating(count: int, first: int) -> Fault:
    """Pages that begin anew with the `first` key over and over: start-after is not understood."""
    pages: list[bytes] = []

    def again(body: bytes) -> bytes:
        if not pages:
            body = TRUNCATED.sub(b"<IsTruncated>true</IsTruncated>", without_echoes(body))
            pages.append(rewritten_rows(body, lambda found: found[:count]))
            return pages[0]
        return rewritten_rows(pages[0], lambda found: found[first:])

    return faults.rewritten(again)


def listing(old: bytes, new: bytes) -> Fault:
    """Listings in which something is replaced."""
    return faults.rewritten(lambda body: re.sub(old, new, body, count=1, flags=re.DOTALL))


HALTING: list[tuple[str, Fault, str]] = [
    # name, fault, what the log says
    ("start-after ignored", repeating(5, 0), "goes on with the same token"),
    ("page repeats its last key for ever", repeating(5, 4), "shows no key"),
    (
        "out of order",
        reordered(lambda r: [*r[:3], *r[4:5], *r[3:4], *r[5:]]),
        "'k-03' after 'k-04'",
    ),
    (
        "truncated without keys",
        faults.answer(
            XML,
            b"<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated></ListBucketResult>",
        ),
        "says that there is more, but shows no key",
    ),
    ("truncated or not is not said", listing(rb"<IsTruncated>.*?</IsTruncated>", b""), "truncated"),
    ("cut off", faults.rewritten(lambda body: body[:-30]), "not complete XML"),
    ("cut in half", faults.rewritten(lambda body: body[: len(body) // 2]), "not complete XML"),
    ("cut without a length", faults.close_delimited(after=1500), "not complete XML"),
    ("enormous", faults.answer(XML, b" " * (17 << 20)), "too large"),
    ("enormous by announcement", faults.Flood(f"{XML}\r\nContent-Length: {1 << 40}"), "too large"),
    (
        "enormous in chunks",
        faults.Flood(f"{XML}\r\nTransfer-Encoding: chunked", chunks=True),
        "too large",
    ),
    ("entity bomb", faults.answer(XML, BOMB), "document type declaration"),
    ("entity bomb in another encoding", faults.answer(XML, BOMB.decode().encode("utf-16")), "UTF"),
    ("undeclared entity", listing(rb"<Name>", b"<Name>&bomb;"), "not complete XML"),
    (
        "page of a portal",
        faults.answer("200 OK", b"<!DOCTYPE html><html><title>Sign in!</title></html>"),
        "not a store's but a web page; .*check the endpoint's host and port",
    ),
    ("JSON", faults.answer("200 OK\r\nContent-Type: application/json", b"{}"), "speaks JSON"),
    ("nothing", faults.answer("200 OK"), "not complete XML"),
    ("noise", faults.answer("200 OK", bytes(range(256))), "not UTF-8"),
    ("another document", faults.answer(XML, BUCKETS), "got 'ListAllMyBucketsResult'"),
    (
        "gzip nobody asked for, damaged",
        faults.rewritten(lambda body: gzip.compress(body)[:-9]),
        "compressed, though that was not asked for",
    ),
    (
        "a coding nobody asked for",
        faults.answer(f"{XML}\r\nContent-Encoding: br", b"\x8b\x0c\x80abc"),
        r"is compressed \(Content-Encoding br\), though that was not asked for",
    ),
    ("a key is empty", listing(rb"<Key>.*?<", b"<Key><"), "without a key"),
    ("no key", listing(rb"<Key>.*?</Key>", b""), "without a key"),
    ("bytes that are no text", listing(rb"<Key>k", b"<Key>\xff\xfe"), "not UTF-8"),
    ("forbidden", faults.status(403, "AccessDenied"), "HTTP 403 AccessDenied"),
    ("forbidden in gzip", faults.status(403, "AccessDenied", zipped=True), "403 AccessDenied"),
    ("bucket gone", faults.status(404, "NoSuchBucket"), "HTTP 404 NoSuchBucket"),
    ("expired", faults.status(400, "ExpiredToken"), "400 ExpiredToken.*renew the credentials"),
    ("always 500", faults.status(500, "InternalError"), "HTTP 500 InternalError"),
    ("always 503", faults.status(503, "SlowDown", retry_after="0"), "HTTP 503 SlowDown"),
    ("error page", faults.answer("502 Bad Gateway", b"<html>oh</html>"), "HTTP 502: a web page"),
    ("late error", faults.answer(XML, b"<Error><Code>InternalError</Code></Error>"), "Internal"),
    ("redirect", faults.answer("301 Moved\r\nLocation: http://127.0.0.1:1/"), "HTTP 301"),
    (
        "redirect to a region",
        faults.answer(
            "307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/",
            b"<Error><Code>TemporaryRedirect</Code><Region>eu-x-1</Region></Error>",
        ),
        "HTTP 307 TemporaryRedirect.*region eu-x-1",
    ),
    ("unreachable", faults.reset_before, "closed|reset"),
    ("says nothing", faults.deaf(10), "nothing moved for 2 s"),
]


UNORDERED = {"out of order"}


@as_parameters(
    [
        Case(name=name, fault=fault, match=LIST, ends="halted", says=says, halt=CONTINUATION)
        for name, fault, says in HALTING
    ]
)
async def test_a_source_that_cannot_be_listed_pauses_the_job(staged: Stage, case: Case) -> None:
    await play(staged, case, "source")


@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_source_whose_pages_are_all_in_disorder_is_copied_in_full(
    staged: Stage, overwrite: bool
) -> None:
    staged.source_proxy.add(reordered(lambda r: r[::-1]), LIST)
    run = await staged.run(overwrite=overwrite)
    staged.check(run)


@as_parameters(
    [
        Case(name=name, fault=fault, match=LIST, ends="halted", says=says)
        for name, fault, says in HALTING
        # A page that repeats is wrong only for one who asks for more.
        if name not in {"start-after ignored", "page repeats its last key for ever", *UNORDERED}
    ]
)
async def test_a_target_that_cannot_be_listed_pauses_the_job(staged: Stage, case: Case) -> None:
    found = {f"k-{number:02}": b"foreign" for number in range(SMALL)}
    for key, body in found.items():
        staged.target.put(key, body)
    rule = staged.target_proxy.add(case.fault, case.match)
    run = await staged.run(overwrite=False)
    assert rule.hits > 0
    assert run.last.halt is not None
    assert run.last.halt.log_type is LogType.MIGRATION_ERROR
    assert re.search(case.says, run.last.halt.message), run.last.halt.message
    assert (run.counts.objects, run.events) == (0, [])
    staged.target_proxy.clear()
    run = await staged.run(overwrite=False, went_before=run)
    staged.check(run, found=found)
    assert (run.counts.transferred, run.counts.skipped) == (1, SMALL)


@as_parameters(
    [Case(name=name, fault=fault, match=LIST) for name, fault, _ in HALTING if name in UNORDERED]
)
async def test_a_target_in_another_order_is_asked_key_by_key(staged: Stage, case: Case) -> None:
    found = {f"k-{number:02}": b"foreign" for number in range(0, SMALL, 2)}
    for key, body in found.items():
        staged.target.put(key, body)
    staged.target_proxy.add(case.fault, case.match)
    run = await staged.run(overwrite=False)
    staged.check(run, found=found)
    assert (run.counts.skipped, run.events) == (len(found), [])


PASSING: list[tuple[str, Fault, int | None]] = [
    ("two 500", faults.status(500, "InternalError"), 1),
    ("truncated", faults.truncated(900), 1),
    ("truncated and reset", faults.truncated(900, reset=True), 1),
    ("lost", faults.lost_answer, 1),
    ("stalled", faults.stalled(10, after=900), 1),
    ("throttled", faults.status(503, "SlowDown", retry_after="0"), 3),
    ("late error", faults.answer(XML, b"<Error><Code>InternalError</Code></Error>"), 1),
    ("chunked", faults.chunked, None),
    ("close-delimited", faults.close_delimited(), None),
    ("pages of one key", paged(1), None),
    ("pages of five keys", paged(5), None),
    ("other fields", listing(rb"<Size>", b"<Colour>red</Colour><Size>"), None),
    ("no dates", faults.replaced(rb"<LastModified>[^<]*</LastModified>", b""), None),
    ("no ETags", faults.replaced(rb"<ETag>[^<]*</ETag>", b""), None),
    ("odd dates", faults.replaced(rb"<LastModified>[^<]*<", b"<LastModified>99999999999<"), None),
    ("every key twice in a row", duplicated(), None),
    ("the same key twice", reordered(lambda r: [*r[:4], *r[3:]]), None),
    ("nothing is repeated of the question", silent(), None),
    ("pages of five keys, silent", faults.rewritten(in_turn(cut_to(5), without_echoes)), None),
    ("pages of one key, silent", faults.rewritten(in_turn(cut_to(1), without_echoes)), None),
    ("a page without keys first", emptied(), None),
    ("pages without keys first", emptied(pages=3), None),
    ("size is no number", listing(rb"<Size>\d+<", b"<Size>many<"), None),
    ("negative size", listing(rb"<Size>\d+<", b"<Size>-1<"), None),
    ("empty size", listing(rb"<Size>\d+<", b"<Size><"), None),
    ("no size", listing(rb"<Size>\d+</Size>", b""), None),
    ("no sizes at all", faults.replaced(rb"<Size>\d+</Size>", b""), None),
    ("a blank line before it", faults.rewritten(lambda body: b"\n" + body), None),
    ("a byte order mark", faults.rewritten(lambda body: b"\xef\xbb\xbf" + body), None),
    ("gzip nobody asked for", faults.rewritten(gzip.compress), None),
    ("another bucket's name", listing(rb"<Name>[^<]*<", b"<Name>alias<"), None),
    ("another bucket's name once", listing(rb"<Name>[^<]*<", b"<Name>other<"), 1),
    ("rows are missing once", listing(ROW.pattern, b""), 1),
    ("cut off once", faults.rewritten(lambda body: body[:-30]), 1),
    ("a web page once", faults.answer("200 OK", b"<!doctype html><title>x</title>"), 1),
    ("another document once", faults.answer(XML, BUCKETS), 1),
    ("out of order once", reordered(lambda r: r[::-1]), 1),
]


@pytest.mark.parametrize("side", ["source", "target"])
@as_parameters(
    [Case(name=name, fault=fault, match=LIST, times=times) for name, fault, times in PASSING]
)
async def test_what_is_unusual_or_passes_is_no_obstacle(
    staged: Stage, case: Case, side: str
) -> None:
    await play(staged, case, "source" if side == "source" else "target", overwrite=False)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("tells", [True, False], ids=["told", "silent"])
@pytest.mark.parametrize("few", [True, False], ids=["few", "many"])
@pytest.mark.parametrize("place", range(4))
async def test_a_page_of_another_place_hides_no_key(
    staged: Stage, place: int, few: bool, tells: bool, side: str
) -> None:
    """The pages of a first copy come in the place of those of a second."""
    change = cut_to(5) if tells else in_turn(cut_to(5), without_echoes)
    mixed_up = MixedUp(change)
    proxy = staged.source_proxy if side == "source" else staged.target_proxy
    found = {key: stored.body for key, stored in staged.source.read_all().items()}
    for key, body in found.items():
        staged.target.put(key, body)
    proxy.add(mixed_up.heard, LIST)
    run = await staged.run(overwrite=False)
    assert (run.counts.transferred, run.counts.skipped) == (0, EVERYTHING)
    # Two wrong answers in a row that agree cannot be told at a store that repeats nothing.
    times = 2 if tells else 1
    proxy.add(mixed_up.later(few=few), LIST, times=times, skip=place, first=True)
    run = await staged.run(overwrite=False)
    assert run.last.halt is None, run.last.halt
    assert (run.counts.transferred, run.counts.skipped) == (0, EVERYTHING)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("seed", range(8))
async def test_pages_mixed_up_at_random_hide_no_key(staged: Stage, seed: int, side: str) -> None:
    mixed_up = MixedUp(in_turn(cut_to(3), without_echoes) if seed % 2 else cut_to(3), seed=seed)
    proxy = staged.source_proxy if side == "source" else staged.target_proxy
    proxy.add(mixed_up.heard, LIST)
    await staged.run(overwrite=False)
    proxy.add(mixed_up, LIST, chance=0.3, times=4, first=True)
    run = await staged.run(overwrite=False)
    if run.last.halt is not None:  # three wrong pages in a row: nothing is counted that is not so
        assert run.last.halt.log_type in (CONTINUATION, LogType.MIGRATION_ERROR)
        proxy.clear()
        run = await staged.run(overwrite=False, went_before=run)
    assert mixed_up.mixed_up > 0
    assert (run.counts.transferred, run.counts.skipped) == (0, EVERYTHING)


async def test_a_page_of_another_place_that_lasts_pauses_the_job(staged: Stage) -> None:
    mixed_up = MixedUp(cut_to(5))
    staged.source_proxy.add(mixed_up.heard, LIST)
    await staged.run()
    staged.source_proxy.add(mixed_up.later(few=False), f"{LIST}(?!.*start-after)", first=True)
    run = await staged.run()
    assert run.last.halt is not None
    assert run.last.halt.log_type is CONTINUATION
    assert "another place: asked was ''" in run.last.halt.message
    assert (run.counts.objects, mixed_up.mixed_up) == (0, 3)


@pytest.mark.parametrize("code", [403, 401, 307, 500])
async def test_an_object_whose_size_nobody_tells_fails_alone(staged: Stage, code: int) -> None:
    def unsized(body: bytes) -> bytes:
        return re.sub(rb"(<Key>k-05</Key>.*?)<Size>\d+<", rb"\1<Size><", body, flags=re.DOTALL)

    staged.source_proxy.add(faults.rewritten(unsized), LIST)
    staged.source_proxy.add(faults.answer(f"{code} Injected"), "^(HEAD|GET) /[^?]*/k-05 ")
    run = await staged.run()
    staged.check(run)
    assert [event.key for event in run.events] == ["k-05"]
    assert f"HTTP {code}" in run.events[0].message
    assert (run.counts.transferred, run.counts.failed) == (EVERYTHING - 1, 1)


UNENCODED = ("a+b", "a b", "c%41", "cA", "d%2B", "e+%20", "100%", "m+large", "z")
"""Keys; some are another key when they are decoded."""


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("raw", [UNENCODED, *((key,) for key in UNENCODED)])
async def test_a_key_that_is_listed_without_its_encoding_is_copied(
    changing: Stage, raw: tuple[str, ...], overwrite: bool
) -> None:
    """Under encoding-type=url: all of them, or one among others that are encoded."""

    def decoded(body: bytes) -> bytes:
        for key in raw:
            body = body.replace(f"<Key>{quote(key)}<".encode(), f"<Key>{key}<".encode())
        return body

    for number, key in enumerate(UNENCODED):
        body = b"x" * (PART + 1 if key == "m+large" else number)
        changing.source.put(key, body, ContentType=f"text/x-{number}")
    changing.source_proxy.add(faults.rewritten(decoded), LIST)
    run = await changing.run(overwrite=overwrite)
    assert run.last.halt is None, run.last.halt
    changing.check(run)
    assert run.events == []


async def test_an_object_that_is_gone_is_not_taken_for_another_of_a_like_name(
    changing: Stage,
) -> None:
    changing.source.put("a b", b"gone")
    changing.source.put("a+b", b"stays")
    changing.source_proxy.add(
        faults.preceded_by(lambda: changing.source.delete("a b")), r"^GET /[^?]*/a%20b ", times=1
    )
    run = await changing.run()
    assert [event.key for event in run.events] == ["a b"]
    assert "HTTP 404" in run.events[0].message
    changing.source.put("a b", b"gone")
    changing.check(run)


@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_listing_that_breaks_half_way_goes_on_from_there(
    staged: Stage, overwrite: bool
) -> None:
    broken = staged.source_proxy.add(
        faults.status(403, "AccessDenied"), "start-after=k-0[56]&|start-after=k-0[56] "
    )
    staged.source_proxy.add(paged(7), LIST)
    run = await staged.run(overwrite=overwrite)
    assert run.last.halt is not None
    assert run.last.halt.log_type is CONTINUATION
    assert (run.last.cursor, run.counts.transferred) == ("k-06", 7)
    staged.source_proxy.clear()
    run = await staged.run(overwrite=overwrite, went_before=run)
    staged.check(run)
    assert (run.counts.transferred, run.counts.skipped, broken.hits) == (13, 0, 1)


async def test_a_listing_without_end_does_not_keep_a_task_from_ending(staged: Stage) -> None:
    """New keys for ever, as a store might make up: the job goes on, and can be paused."""
    numbers = itertools.count()

    async def invented(exchange: Exchange) -> bool:
        keys = [f"made-up-{next(numbers):09}" for _ in range(20)]
        contents = "".join(
            f'<Contents><Key>{key}</Key><Size>1</Size><ETag>"{key}"</ETag></Contents>'
            for key in keys
        )
        body = f"<ListBucketResult><IsTruncated>true</IsTruncated>{contents}</ListBucketResult>"
        await exchange.answer(XML, body.encode())
        return True

    staged.source_proxy.add(invented, LIST)
    report = await staged.once(budget_seconds=0.5)
    assert (report.finished, report.halt) == (False, None)
    assert report.counts.failed == report.counts.objects > 0
    assert "HTTP 404 NoSuchKey" in report.events[0].message
