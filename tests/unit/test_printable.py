"""What others have written cannot act on a terminal, and cannot be mistaken for another text."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.printable import is_printable, printable, printable_json, printable_lines

HOSTILE = {
    "C0": "a\x00\x07\x08\x0b\x7f",
    "a line that was not printed": "one\r\nerror: two",
    "colours and movements": "\x1b[2J\x1b[31mred",
    "a title, a link, the clipboard": "\x1b]0;t\x07\x1b]8;;http://x\x1b\\\x1b]52;c;aGk=\x07",
    "C1": "\x9b2J\x9d0;t\x9c\x90q\x85",
    "direction": "\u202egpj.exe\u2066\u2069\u200f\u061c",
    "unseen": "\u200b\u200c\u200d\u2060\ufeff\u00ad\u180e\u034f\u3164\ufe0f\U000e0041\U000e0100",
    "separators": "\u2028\u2029",
    "no characters": "\udc80\ud800\uffff\ufdd0",
}
"""By what they would do."""


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_become_escapes(text: str) -> None:
    assert not is_printable(text)
    for shown in (printable(text), printable_lines(text).replace("\n", "")):
        assert is_printable(shown)
        assert shown.isascii()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("photos/ä b/日本/😀.jpg", "photos/ä b/日本/😀.jpg"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b", "\\x9b"),
        ("a\u202eb", "a\\u202eb"),
        ("\U000e0041", "\\U000e0041"),
        ("a\tb\nc", "a\\tb\\nc"),
    ],
)
def test_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_character_without_a_picture_is_left() -> None:
    unseen = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    every = map(chr, range(0x110000))
    assert [
        each for each in every if unicodedata.category(each) in unseen if is_printable(each)
    ] == []


@given(st.text(st.characters(exclude_categories=[]) | st.sampled_from("\x1b\x9b\u202e\n")))
def test_json_means_the_same(text: str) -> None:
    value = {text: [text, 1, None]}
    document = printable_json(value, indent=2)
    assert json.loads(document) == json.loads(json.dumps(value))
    assert all(is_printable(line) for line in document.split("\n"))
