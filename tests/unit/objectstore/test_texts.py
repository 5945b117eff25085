"""What stores write is made fit for people, logs and terminals."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slurper import errors
from slurper.http.messages import Response
from slurper.objectstore import texts
from slurper.objectstore.error_answers import to_error
from slurper.objectstore.texts import cleaned, quoted


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Access Denied.", "Access Denied."),
        ("  two\r\nlines\u2028and\x85more\t", "two lines and more"),
        ("wörter 日本語 😀", "wörter 日本語 😀"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]52;c;c2VjcmV0\x1b\\text", "text"),
        ("\x1bP1$r\x1b\\text", "text"),
        ("\x1bctext", "text"),
        ("\x1b(0text", "text"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x9b31mtext", "31mtext"),
        ("a\x90b\x9dc\x9cd", "abcd"),
        ("a\0b\x07c\x7fd", "abcd"),
        ("\u202eevil\u202c \u2066x\u2069 \u200e\u200f\u061c", "evil x"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        ("a\ud800b", "ab"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_dropped(text: str, seen: str) -> None:
    assert cleaned(text).strip() == seen


def test_a_long_text_is_cut() -> None:
    assert cleaned("x" * 128) == "x" * 128
    assert cleaned("x" * 60_000) == "x" * 127 + "…"
    assert cleaned("x" * 20, 10) == "x" * 9 + "…"
    assert quoted("k" * 60_000) == f"'{'k' * 127}…'"
    assert quoted("a\x1b[2J\u202e") == r"'a\x1b[2J\u202e'"


@given(st.text(max_size=400))
@example("0\x85\x08 0")  # what is dropped leaves no second blank
def test_the_result_is_short_visible_and_stays_as_it_is(text: str) -> None:
    found = cleaned(text)
    assert len(found) <= texts.MOST_CHARACTERS
    assert found.isprintable()
    assert cleaned(found) == found.strip()


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\u2066\n\r\0" + "A" * 60_000


def test_every_text_of_an_error_answer_is_cleaned() -> None:
    escaped = HOSTILE.replace("\0", "")
    body = (
        f"<Error><Code>{escaped}</Code><Message>{escaped}</Message><Region>{escaped}</Region>"
        f"<RequestId>{escaped}</RequestId><StorageClass>{escaped}</StorageClass></Error>"
    )
    of_headers = Response(
        403,
        {"x-amz-request-id": "\x9b31m" + "R" * 60_000, "x-amz-bucket-region": "\x85" + "r" * 999},
        [],
        0,
    )
    short = body.replace("A" * 60_000, "A" * 9_000).encode()
    for response in (Response(403, {}, [short], len(short)), of_headers):
        error = to_error(response, "GetObject", bucket="b", key="k")
        assert isinstance(error, errors.StoreError)
        for text in (error.code, error.request_id):
            assert len(text) <= texts.MOST_CHARACTERS
            assert text.isprintable()
        assert str(error).isprintable()
        assert len(str(error)) < 4 * texts.MOST_CHARACTERS
        assert "owned" not in str(error)


SECRET = "AKIA-of-the-machine"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"AccessKeyId": "%s"}', "JSON"),
        (b'{"message": "%s", "reason": "%s", "code": 403}', "JSON"),
        (b'["%s"]', "JSON"),
        (b"%s\n", "text of 20 bytes"),
        (b"<html><head><title>%s</title></head><body>%s</body></html>", "a web page"),
        (b"<!-- x --><!DOCTYPE html><title>%s</title>", "a web page"),
        (b"<Credentials><Code>%s</Code><Message>%s</Message></Credentials>", "an XML document"),
        (b"<?xml version='1.0'?><a><RequestId>%s</RequestId></a>", "an XML document"),
    ],
)
@pytest.mark.parametrize("status", [302, 400, 403, 404, 418, 500, 503])
def test_an_answer_that_is_no_stores_is_told_by_its_kind_alone(
    body: bytes, kind: str, status: int
) -> None:
    body = body.replace(b"%s", SECRET.encode())
    response = Response(status, {"server": SECRET}, [body], len(body))
    error = to_error(response, "ListObjectsV2", bucket="b", key=None, origin="http://h:80")
    assert isinstance(error, errors.StoreError)
    assert kind in str(error)
    assert SECRET not in str(error)
    assert SECRET in error.said, "the cause may be recognised by it"


BLANKS = (120, 295, 2_040, 4_090, 65_530)


@pytest.mark.parametrize(
    ("before", "spelt"),
    [
        *((letter * count, "s3cr3t+/=") for letter in "x " for count in BLANKS),
        ("", "s3cr3t+/="),
        ("", "s3cr\x003t+/="),
        ("x" * 120, "s3cr\u200b3t+/="),
    ],
)
def test_a_secret_that_a_store_repeats_is_hidden_wherever_the_text_is_cut(
    before: str, spelt: str
) -> None:
    body = f"<Error><Code>InvalidToken</Code><Message>{before}{spelt} no</Message></Error>".encode()
    for sent in (body, f"{before}{spelt}".encode()):
        error = to_error(
            Response(400, {}, [sent], len(sent)),
            "GetObject",
            bucket="b",
            key="k",
            hidden=["s3cr3t+/="],
        )
        assert isinstance(error, errors.StoreError)
        assert "s3cr" not in f"{error} {error.said}"
