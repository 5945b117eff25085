"""All spellings of a text are found, and no other text."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.planning import spellings


def all_of(key: str) -> set[str]:
    return set(map("".join, itertools.product(*spellings.pieces(key))))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("plain/a.txt", {"plain/a.txt"}),
        ("ü", {"ü", "u\u0308"}),
        ("u\u0308", {"ü", "u\u0308"}),
        ("a\u0323\u0307", {"a\u0323\u0307", "a\u0307\u0323", "ạ\u0307", "ȧ\u0323"}),
        ("\u212b", {"\u212b", "Å", "A\u030a"}),
        ("\uac01", {"\uac01", "\uac00\u11a8", "\u1100\u1161\u11a8"}),
        ("\u0958", {"\u0958", "\u0915\u093c"}),
        ("\u0308", {"\u0308"}),
    ],
)
def test_every_spelling_is_found(key: str, expected: set[str]) -> None:
    assert all_of(key) == expected


LETTERS = "aeuåAṩ각\u1100\u1161\u11a8\u0301\u0307\u0308\u0323\u030aΩ\u2126क\u0958\u093c/."


@given(st.text(LETTERS, max_size=5))
def test_spellings_are_one_text_and_hold_the_usual_forms(key: str) -> None:
    found = all_of(key)
    assert {spellings.stored(text) for text in found} == {spellings.stored(key)}
    assert {key, unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key)} <= found


@given(st.text(LETTERS, max_size=4), st.text(LETTERS, max_size=4))
def test_two_keys_of_one_text_find_each_other(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (other in all_of(one)) == same


@given(st.text(LETTERS, min_size=1, max_size=4))
def test_one_spelling_outranks_all_others(key: str) -> None:
    found = sorted(all_of(key))
    best = [text for text in found if not any(spellings.outranks(o, text) for o in found)]
    assert best == [spellings.stored(key)]


def test_a_letter_with_many_marks_is_looked_for_in_the_usual_forms() -> None:
    key = "a" + "\u0301\u0302\u0303\u0304\u0305\u0306"
    assert all_of(key) == {unicodedata.normalize(form, key) for form in ("NFC", "NFD")}
