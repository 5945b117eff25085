"""Small documents are searched in linear time, whatever they hold."""

from __future__ import annotations

import pytest

from slurper.http.messages import Response
from slurper.objectstore import documents

MANY = 200_000
"""A search that takes quadratic time would not end within the time of a test."""


def test_parts_are_read_by_number() -> None:
    rows = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;e&quot;</ETag><Size>5</Size></Part>"
        for number in (1, 2)
    )
    document = f"<ListPartsResult><PartNumberMarker>0</PartNumberMarker>{rows}</ListPartsResult>"
    assert documents.parts(document.encode()) == {1: ('"e"', 5), 2: ('"e"', 5)}
    assert documents.parts(document.replace("Part>", "s3:Part>").encode()).keys() == {1, 2}


@pytest.mark.parametrize("tag", [b"<Part>", b"<s3:Part>", b"<Part><Part></Part>", b"<Part"])
def test_parts_without_end(tag: bytes) -> None:
    assert documents.parts(tag * MANY) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"<!---->" * MANY,
        b"<html>" + b"<title>" * MANY,
        b"<html>" + b"<title" * MANY,
        b"<html>" + b"<style>" * MANY,
        b"<" * MANY,
        b"<a:" * MANY,
        b'"reason":' * MANY,
        b"<Code>" + b"&" * MANY,
    ],
    ids=lambda body: body[:20].decode(),
)
def test_answers_that_repeat_one_beginning(body: bytes) -> None:
    response = Response(403, {}, [body], len(body))
    text = documents.text_of(response)
    documents.is_web_page(body)
    documents.words(text)
    documents.holds_error(response)
    documents.element(text, "Code")
    documents.member(text, "reason")


def test_a_web_page_is_known_by_its_beginning() -> None:
    assert documents.is_web_page(b"<!-- one --><!-- two -->\n<HTML><head><title lang='en'>No")
    assert not documents.is_web_page(b"<!-- one -->text")
    assert documents.words("<html><style>a {}</style>seen<style>b").split() == ["seen"]


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("9" * 5000, None), ("-1", None)],
)
def test_a_count_fits_into_the_database(text: str, count: int | None) -> None:
    assert documents.count_of(text) == count


def test_a_character_whose_number_nobody_can_read() -> None:
    for digits in (4090, 5000, 9000):
        assert documents.element(f"<Code>&#{'9' * digits};</Code>", "Code") == "\ufffd"
    assert documents.element("<Code>a&#98;c</Code>", "Code") == "abc"
