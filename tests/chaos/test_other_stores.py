"""Stores whose answers are other than S3's although nothing is wrong: no object fails for it.

Each answer is given to every request of its kind, for the whole copy; it costs no attempt and no
retry. The same answers with something wrong in them stand beside them, or in the unit tests.
"""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from slurper.http.client import TransportOptions
from slurper.job.model import LogType
from slurper.objectstore import factory
from slurper.transfer.attempts import SourceChangedError
from slurper.transfer.route import Route
from slurper.transfer.versions import Versions
from tests.chaos import faults
from tests.chaos.cases import (
    CREATE,
    EVERYTHING,
    LIST,
    ONE,
    PARTS,
    PUT_PART,
    Case,
    as_parameters,
    play,
)
from tests.chaos.faults import Fault
from tests.chaos.stage import Run, Stage

GETS = "^GET /[^?]*/(k-|large)"
HEADS = "^HEAD /[^?]*/(k-|large)"
READS = "^(GET|HEAD) /[^?]*/(k-|large)"
PUTS = "^PUT /[^?]*/k-[^?]* "


def listed_as(pattern: bytes) -> Fault:
    """The ETags of a listing are written otherwise."""
    return faults.replaced(rb'<ETag>(?:&quot;|&#34;|")?([^<&"]*)(?:&quot;|&#34;|")?<', pattern)


REFUSED = faults.status(412, "PreconditionFailed")
LOCKED = faults.status(400, "MissingContentMD5")
NO_LENGTH = faults.with_headers(without=("content-length",))
IN_CHUNKS = faults.with_headers("Transfer-Encoding: chunked", without=("content-length",))

SOURCES: list[tuple[str, Fault, str]] = [
    # name, answer, to which requests
    ("a ranged GET answered 200", faults.with_status("200 OK"), PARTS),
    ("ETags listed without quotes", listed_as(rb"<ETag>\1<"), LIST),
    ("ETags listed as weak", listed_as(rb'<ETag>W/"\1"<'), LIST),
    ("ETags listed with escaped quotes", listed_as(rb"<ETag>&amp;quot;\1&amp;quot;<"), LIST),
    ("ETags shown without quotes", faults.with_etag("{}"), READS),
    ("ETags shown as weak", faults.with_etag('W/"{}"'), READS),
    ("ETags shown in listings alone", faults.with_headers(without=("etag",)), READS),
    ("an If-Match that never holds", faults.with_header("if-match", REFUSED), GETS),
    ("a HEAD without a length", NO_LENGTH, HEADS),
    ("no HEAD", faults.answer("405 Method Not Allowed"), HEADS),
    ("a HEAD in chunks", IN_CHUNKS, HEADS),
    ("GETs in chunks", faults.chunked, GETS),
    (
        "bodies compressed unless they are to be as they are",
        faults.unless("accept-encoding", "identity", faults.compressed()),
        GETS,
    ),
]

TARGETS: list[tuple[str, Fault, str]] = [
    ("a PUT without an ETag", faults.with_etag(""), PUTS),
    ("a PUT with an empty ETag", faults.with_headers('ETag: ""', without=("etag",)), PUTS),
    ("a PUT with a weak ETag", faults.with_etag('W/"{}"'), PUTS),
    ("a part with a weak ETag", faults.with_etag('W/"{}"'), PUT_PART),
    ("a part with an ETag without quotes", faults.with_etag("{}"), PUT_PART),
    ("a part without an ETag", faults.with_etag(""), PUT_PART),
    ("a rule that wants Content-MD5", faults.unless("content-md5", None, LOCKED), PUTS),
    ("no uploads in parts, 501", faults.status(501, "NotImplemented"), CREATE),
    ("no uploads in parts, 405", faults.status(405, "MethodNotAllowed"), CREATE),
]


def assert_untroubled(run: Run) -> None:
    troubles = [(report.attempts, report.retries) for report in run.reports]
    assert troubles == [(0, 0)] * len(troubles)


def cases(rows: list[tuple[str, Fault, str]]) -> pytest.MarkDecorator:
    return as_parameters([Case(name=name, fault=fault, match=match) for name, fault, match in rows])


@pytest.mark.parametrize("overwrite", [True, False])
@cases(SOURCES)
async def test_a_source_that_answers_otherwise(
    staged: Stage, case: Case, *, overwrite: bool
) -> None:
    assert_untroubled(await play(staged, case, "source", overwrite=overwrite))


@pytest.mark.parametrize("overwrite", [True, False])
@cases(TARGETS)
async def test_a_target_that_answers_otherwise(
    staged: Stage, case: Case, *, overwrite: bool
) -> None:
    assert_untroubled(await play(staged, case, "target", overwrite=overwrite))


async def test_a_write_that_was_answered_without_an_etag_is_looked_at_once(staged: Stage) -> None:
    case = Case(name="", fault=faults.with_etag(""), match=PUTS)
    began = time.monotonic()
    await play(staged, case, "target")
    assert time.monotonic() - began < 10
    small = EVERYTHING - 1
    assert staged.target_proxy.count(PUTS) == staged.target_proxy.count("^HEAD ") == small


async def test_of_an_if_match_that_never_holds_a_source_is_asked_about_once(staged: Stage) -> None:
    await play(
        staged, Case(name="", fault=faults.with_header("if-match", REFUSED), match=GETS), "source"
    )
    lanes = staged.settings.in_flight_requests
    heads_of_large = 2
    assert staged.source_proxy.count("^HEAD ") <= lanes + heads_of_large


@pytest.mark.parametrize("weak", [True, False])
async def test_what_is_compressed_all_the_same_is_told_and_not_written(
    staged: Stage, *, weak: bool
) -> None:
    case = Case(
        name="",
        fault=faults.compressed(weak=weak),
        match=ONE,
        ends="failed",
        says=r"read \d+ bytes of an object listed with 50000.*Content-Encoding gzip.*compresses "
        r"\(after 2 attempts\); switch off what compresses",
    )
    await play(staged, case, "source")
    assert case.key not in staged.target.read_all()


FOLDER = "k-00/"
ROW = f"<Contents><Key>{FOLDER}</Key><Size>0</Size></Contents>"
ONLY_ROW = f"<ListBucketResult><IsTruncated>false</IsTruncated>{ROW}</ListBucketResult>"


@pytest.mark.parametrize("overwrite", [True, False])
async def test_a_folder_that_is_no_object_is_skipped_and_nothing_fails(
    staged: Stage, *, overwrite: bool
) -> None:
    """As gateways list what is a folder in the file system behind them."""
    after_k_00 = faults.replaced(rb"(<Key>k-00</Key>.*?</Contents>)", rb"\1" + ROW.encode())
    staged.source_proxy.add(
        faults.answer("200 OK", ONLY_ROW.encode()), "list-type=2.*prefix=k-00%2F"
    )
    staged.source_proxy.add(after_k_00, LIST)
    run = await staged.run(overwrite=overwrite)
    assert_untroubled(run)
    assert (run.last.finished, run.last.halt) == (True, None)
    counts = run.counts
    assert (counts.transferred, counts.skipped, counts.failed) == (EVERYTHING, 1, 0)
    (event,) = run.events
    assert (event.key, event.log_type) == (FOLDER, LogType.IMPORT_SKIPPED_EMPTY_OBJECT)
    assert FOLDER not in staged.target.read_all()


async def test_a_tag_that_only_listings_show_is_kept_for_conditions(staged: Stage) -> None:
    staged.source_proxy.add(faults.with_headers(without=("etag",)), READS)
    store = factory.open_store(staged.task.source, TransportOptions.from_settings(staged.settings))
    route = Route.of(staged.task, store, store)
    versions = Versions(route, route.rules(staged.task))
    try:
        listed = (await store.list_page(prefix="k-05")).objects[0]
        assert listed.etag
        assert listed.last_modified is not None
        assert (await store.head(listed.key)).meta.etag == ""
        assert (await versions.head(listed)).meta.etag == listed.etag
        earlier = listed.last_modified - timedelta(seconds=1)
        for other in ({"last_modified": earlier}, {"last_modified": None}, {"size": 1}):
            with pytest.raises(SourceChangedError):
                await versions.head(listed._replace(**other))
    finally:
        await store.close()
