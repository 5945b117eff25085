"""A target that breaks off, forgets to answer, refuses, or takes bytes that were changed."""

from __future__ import annotations

import pytest

from tests.chaos import faults
from tests.chaos.cases import (
    COMPLETE,
    CREATE,
    PUT,
    PUT_PART,
    PUT_PART_2,
    Case,
    as_parameters,
    play,
)
from tests.chaos.conftest import LARGE
from tests.chaos.faults import Fault
from tests.chaos.stage import CALM, HASTY, PART, Stage

ERROR = b"\n <Error><Code>%s</Code><Message>late</Message></Error>"
XML = "200 OK\r\nContent-Type: application/xml"
PAGE = b"<html><body>Please sign in</body></html>"


@pytest.fixture
def staged(staged: Stage) -> Stage:
    """The same, but silence is one of the faults."""
    staged.settings = HASTY
    return staged


def late(code: str) -> Fault:
    """200, and then an error: the store began to answer before it had done anything."""
    body = b'<?xml version="1.0" encoding="UTF-8"?>' + ERROR % code.encode()
    return faults.answer(XML, body)


PASSING: list[tuple[str, Fault, str, int]] = [
    # name, fault, which requests, how often
    ("lost answer", faults.lost_answer, PUT, 1),
    ("lost answers, a whole attempt", faults.lost_answer, PUT, 2),
    ("lost answers of everything", faults.lost_answer, "^PUT /[^?]*/k-", 9),
    ("answer lost in its head", faults.reset_in_head, PUT, 1),
    ("says nothing", faults.deaf(10), PUT, 1),
    ("done, but says 500", faults.done_but(500, "InternalError"), PUT, 1),
    ("done, but says 500 twice", faults.done_but(500, "InternalError"), PUT, 2),
    ("done, but says 503", faults.done_but(503, "SlowDown"), PUT, 1),
    ("reset before", faults.reset_before, PUT, 2),
    ("reset in the request", faults.reset_in_request(30_000), PUT, 2),
    ("request cut", faults.cut_request(30_000), PUT, 2),
    ("request flipped", faults.corrupted_request(30_000), PUT, 1),
    ("503 before the body is read", faults.refused_early(503, "SlowDown"), PUT, 2),
    ("500", faults.status(500, "InternalError"), PUT, 2),
    ("429", faults.status(429, "TooManyRequests", retry_after="0"), PUT, 3),
    ("400 RequestTimeout", faults.status(400, "RequestTimeout"), PUT, 1),
    ("409 conflict", faults.status(409, "ConditionalRequestConflict"), PUT, 1),
    ("409 aborted", faults.status(409, "OperationAborted"), COMPLETE, 1),
    ("late error", late("InternalError"), PUT, 1),
    ("late errors, a whole attempt", late("InternalError"), PUT, 2),
    ("late error to a part", late("InternalError"), PUT_PART_2, 2),
    ("page of a portal once", faults.answer("200 OK", PAGE), PUT, 1),
    ("page of a portal once for a part", faults.answer("200 OK", PAGE), PUT_PART_2, 1),
    ("part: lost answer", faults.lost_answer, PUT_PART, 2),
    ("part: lost answers, a whole attempt", faults.lost_answer, PUT_PART_2, 2),
    ("part: request flipped", faults.corrupted_request(PART // 2), PUT_PART_2, 1),
    ("part: request cut", faults.cut_request(PART // 2), PUT_PART_2, 1),
    ("part: says nothing", faults.deaf(10), PUT_PART_2, 1),
    ("part: the upload is gone", faults.status(404, "NoSuchUpload"), PUT_PART_2, 1),
    ("creation: lost answer", faults.lost_answer, CREATE, 1),
    ("creation: says nothing", faults.deaf(10), CREATE, 1),
    ("creation: done, but says 500", faults.done_but(500, "InternalError"), CREATE, 1),
    ("creation: reset before", faults.reset_before, CREATE, 1),
    ("creation: 500", faults.status(500, "InternalError"), CREATE, 1),
    ("creation: late error", late("InternalError"), CREATE, 1),
    ("creation: page of a portal", faults.answer("200 OK", PAGE), CREATE, 1),
    ("completion: lost answer", faults.lost_answer, COMPLETE, 1),
    ("completion: lost answers, a whole attempt", faults.lost_answer, COMPLETE, 2),
    ("completion: says nothing", faults.deaf(10), COMPLETE, 1),
    ("completion: done, but says 500", faults.done_but(500, "InternalError"), COMPLETE, 2),
    ("completion: reset before", faults.reset_before, COMPLETE, 2),
    ("completion: 500", faults.status(500, "InternalError"), COMPLETE, 2),
    ("completion: late error", late("InternalError"), COMPLETE, 1),
    ("completion: late errors, a whole attempt", late("InternalError"), COMPLETE, 2),
    ("completion: the upload is gone", faults.status(404, "NoSuchUpload"), COMPLETE, 1),
]


@pytest.mark.parametrize("overwrite", [True, False])
@as_parameters(
    [
        Case(name=name, fault=fault, match=match, times=times)
        for name, fault, match, times in PASSING
    ]
)
async def test_what_passes_is_gone_through(staged: Stage, case: Case, overwrite: bool) -> None:
    await play(staged, case, "target", overwrite=overwrite)


LASTING = [
    Case(
        name="every request flipped",
        fault=faults.corrupted_request(30_000),
        match=PUT,
        ends="failed",
        says=r"PutObject: the store refused the bytes: .*\(after 2 attempts\)",
    ),
    Case(
        name="every request of a part flipped",
        fault=faults.corrupted_request(PART // 2),
        match=PUT_PART_2,
        ends="failed",
        key=LARGE,
        says=r"UploadPart: the store refused the bytes: .*\(after 2 attempts\)",
    ),
    Case(
        name="every request cut",
        fault=faults.cut_request(30_000),
        match=PUT,
        ends="failed",
        says="closed|reset",
    ),
    Case(
        name="every answer lost",
        fault=faults.lost_answer,
        match=PUT,
        ends="failed",
        says="closed|reset",
    ),
    Case(
        name="one key is forbidden",
        fault=faults.status(403, "AccessDenied"),
        match=PUT,
        ends="failed",
        says="PutObject answered HTTP 403 AccessDenied: injected; grant",
    ),
    Case(
        name="the signature for one object is refused",
        fault=faults.status(403, "SignatureDoesNotMatch"),
        match=PUT,
        ends="failed",
        says="PutObject answered HTTP 403 SignatureDoesNotMatch: injected; other requests with",
    ),
    Case(
        name="the signature of a completion is refused",
        fault=faults.status(403, "SignatureDoesNotMatch"),
        match=COMPLETE,
        ends="failed",
        key=LARGE,
        says="CompleteMultipartUpload answered HTTP 403 SignatureDoesNotMatch: injected; other",
    ),
    Case(
        name="always 500",
        fault=faults.status(500, "InternalError"),
        match=PUT,
        ends="failed",
        says=r"PutObject answered HTTP 500 InternalError: injected \(after 2 attempts\)",
    ),
    Case(
        name="always a late error",
        fault=late("InternalError"),
        match=PUT,
        ends="failed",
        says=r"PutObject answered HTTP 200 InternalError: late \(after 2 attempts\)",
    ),
    Case(
        name="always a late refusal",
        fault=late("AccessDenied"),
        match=PUT,
        ends="failed",
        says=r"PutObject answered HTTP 200 AccessDenied: late; grant",
    ),
    Case(
        name="always a page of a portal",
        fault=faults.answer("200 OK", PAGE),
        match=PUT,
        ends="failed",
        says="PutObject.*names no ETag",
    ),
    Case(
        name="always a page of a portal for a part",
        fault=faults.answer("200 OK", PAGE),
        match=PUT_PART_2,
        ends="failed",
        key=LARGE,
        says="UploadPart.*names no ETag",
    ),
    *(
        Case(
            name=f"{name} for {operation}",
            fault=fault,
            match=match,
            ends="failed",
            key=key,
            says=rf"{operation} answered HTTP {name[:3]}.*other requests .* this (object|key)",
        )
        for name, fault in faults.ELSEWHERE.items()
        for operation, match, key in (
            ("PutObject", PUT, "k-05"),
            ("CreateMultipartUpload", rf"^POST /[^?]*/{LARGE}\?uploads", LARGE),
            ("UploadPart", rf"^PUT /[^?]*/{LARGE}\?partNumber=2", LARGE),
        )
    ),
    *(
        Case(
            name=f"{name} for every write from some time on",
            fault=fault,
            match="^(PUT|POST) /",
            skip=5,
            ends="halted",
            says="^at '.*nothing can be written to the target any more: PutObject answered HTTP "
            f"{name[:3]}.*check the bucket's name.*resume",
        )
        for name, fault in faults.ELSEWHERE.items()
    ),
    Case(
        name="creation is forbidden",
        fault=faults.status(403, "AccessDenied"),
        match=rf"^POST /[^?]*/{LARGE}\?uploads",
        ends="failed",
        key=LARGE,
        says="CreateMultipartUpload answered HTTP 403 AccessDenied: injected; grant",
    ),
    Case(
        name="every creation is forbidden",
        fault=faults.status(403, "AccessDenied"),
        match=CREATE,
        ends="halted",
        says="nothing can be written to the target any more: CreateMultipartUpload answered",
    ),
    Case(
        name="writing is forbidden from some time on",
        fault=faults.status(403, "AccessDenied"),
        match="^(PUT|POST) /",
        skip=5,
        ends="halted",
        says="nothing can be written to the target any more: PutObject answered HTTP 403 Access",
    ),
    Case(
        name="every answer to a creation lost",
        fault=faults.lost_answer,
        match=CREATE,
        ends="failed",
        key=LARGE,
        says="closed|reset",
    ),
    Case(
        name="creations done, but always said 500",
        fault=faults.done_but(500, "InternalError"),
        match=CREATE,
        ends="failed",
        key=LARGE,
        says="CreateMultipartUpload answered HTTP 500",
    ),
    Case(
        name="creation without an id",
        fault=faults.answer(XML, b"<InitiateMultipartUploadResult/>"),
        match=CREATE,
        ends="failed",
        key=LARGE,
        says="CreateMultipartUpload.*names no upload id",
    ),
    Case(
        name="completion always a late error",
        fault=late("InternalError"),
        match=COMPLETE,
        ends="failed",
        key=LARGE,
        says="CompleteMultipartUpload answered HTTP 200 InternalError: late",
    ),
    Case(
        name="completion always 500",
        fault=faults.status(500, "InternalError"),
        match=COMPLETE,
        ends="failed",
        key=LARGE,
        says="CompleteMultipartUpload answered HTTP 500 InternalError",
    ),
    Case(
        name="completion refused",
        fault=faults.status(400, "InvalidPart"),
        match=COMPLETE,
        ends="failed",
        key=LARGE,
        says="CompleteMultipartUpload answered HTTP 400 InvalidPart",
    ),
    Case(
        name="completion a page of a portal",
        fault=faults.answer("200 OK", PAGE),
        match=COMPLETE,
        ends="failed",
        key=LARGE,
        says="CompleteMultipartUpload.*names no ETag",
    ),
    Case(
        name="the upload is always gone",
        fault=faults.status(404, "NoSuchUpload"),
        match=PUT_PART_2,
        ends="failed",
        key=LARGE,
        says=r"UploadPart answered HTTP 404 NoSuchUpload: injected \(after 2 attempts\)",
    ),
]


@pytest.mark.parametrize("overwrite", [True, False])
@as_parameters(LASTING)
async def test_what_lasts_fails_the_object_and_no_other(
    staged: Stage, case: Case, overwrite: bool
) -> None:
    await play(staged, case, "target", overwrite=overwrite)
    kept = case.key in staged.target.read_all()
    assert kept == (case.ends == "halted" or case.name == "every answer lost")


WHILE_IT_IS_SENT = [
    Case(
        name="500 before the body is read",
        fault=faults.refused_early(500, "InternalError"),
        match=PUT_PART,
        times=2,
    ),
    Case(
        name="part: reset in the request",
        fault=faults.reset_in_request(3 << 20),
        match=PUT_PART_2,
        times=2,
    ),
    Case(
        name="refused before the body is read",
        fault=faults.refused_early(403, "AccessDenied"),
        match=PUT_PART,
        ends="failed",
        key=LARGE,
        says="UploadPart answered HTTP 403 AccessDenied",
    ),
]


@pytest.mark.parametrize("overwrite", [True, False])
@as_parameters(WHILE_IT_IS_SENT)
async def test_a_part_that_ends_while_it_is_sent(
    long_staged: Stage, case: Case, overwrite: bool
) -> None:
    await play(long_staged, case, "target", overwrite=overwrite)
    assert (LARGE in long_staged.target.read_all()) == (case.ends == "copied")


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(
    ("name", "fault", "match"),
    [
        ("expired", faults.status(400, "ExpiredToken"), "^(PUT|POST) "),
        ("unsigned", faults.status(403, "SignatureDoesNotMatch"), "^(PUT|POST) "),
        ("bucket gone", faults.status(404, "NoSuchBucket"), "^(PUT|POST) "),
        ("down", faults.reset_before, "k-0[4-9]|k-1|large|list-type"),
        ("down after the deed", faults.lost_answer, "k-0[4-9]|k-1|large|max-keys=1[& ]"),
        ("503 for all", faults.status(503, "SlowDown"), "k-0[4-9]|k-1|large|max-keys=1[& ]"),
    ],
)
async def test_a_target_that_is_down_pauses_the_job_and_counts_stay_exact(
    staged: Stage, name: str, fault: Fault, match: str, overwrite: bool
) -> None:
    listed = 0 if overwrite else 1  # its first page
    skip = {"expired": 4, "unsigned": 4, "bucket gone": 4, "down": listed}.get(name, 0)
    staged.settings = CALM  # nobody is silent, so nothing is tried for long
    case = Case(name=name, fault=fault, match=match, skip=skip, ends="halted")
    run = await play(staged, case, "target", overwrite=overwrite)
    assert run.reports[0].halt is not None


async def test_seaweedfs_refuses_changed_bytes_too(to_seaweedfs: Stage) -> None:
    to_seaweedfs.target_proxy.add(faults.corrupted_request(100), PUT, times=1)
    to_seaweedfs.target_proxy.add(faults.corrupted_request(100), PUT_PART_2, times=1)
    run = await to_seaweedfs.run()
    to_seaweedfs.check(run)
    assert (run.events, sum(report.attempts for report in run.reports)) == ([], 2)


async def test_seaweedfs_loses_answers(to_seaweedfs: Stage) -> None:
    for match, times in ((PUT, 2), (CREATE, 1), (PUT_PART_2, 1), (COMPLETE, 1)):
        to_seaweedfs.target_proxy.add(faults.lost_answer, match, times=times)
    run = await to_seaweedfs.run(overwrite=False)
    to_seaweedfs.check(run)
    assert (run.events, run.counts.skipped) == ([], 0)
