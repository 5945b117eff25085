"""Metadata beyond ASCII as RFC 2047 words, read back by Python's own decoder."""

from __future__ import annotations

import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.objectstore import encoded_words


def _read(words: str) -> str:
    return str(email.header.make_header(email.header.decode_header(words)))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_text_comes_back(text: str) -> None:
    sent = encoded_words.encoded(text.encode().decode("latin-1"))
    assert sent.isascii()
    assert sent == text or _read(sent) == text
    assert all(len(word) <= 75 for word in sent.split(" ")) or sent == text


def test_bytes_that_are_no_utf_8_are_western_letters() -> None:
    assert _read(encoded_words.encoded("gr\xfcn")) == "grün"


def test_ascii_passes_as_it_is() -> None:
    for value in ("", "plain  text", "=?UTF-8?B?Z3LDvG4=?="):
        assert encoded_words.encoded(value) == value


@pytest.mark.parametrize(
    "value",
    [" value ", "value ", "\tvalue", "  ", "\t", "a\nb", "a\r\nb", "\x00", "\x7f", "\x1f" * 80],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_no_header_carries_becomes_words_for_every_store(
    value: str, *, ascii_only: bool
) -> None:
    assert not encoded_words.is_carried(value)
    sent = encoded_words.encoded(value, ascii_only=ascii_only)
    assert encoded_words.is_carried(sent)
    assert _read(sent) == value == encoded_words.decoded(sent)


@pytest.mark.parametrize("value", ["a\tb", "a  b", "", "gr\xc3\xbcn", "\xa0", "x\x85"])
def test_what_a_header_carries_stays_for_stores_that_keep_bytes(value: str) -> None:
    assert encoded_words.encoded(value, ascii_only=False) == value


def test_blanks_around_letters_beyond_ascii_stay_in_the_words() -> None:
    for ascii_only in (True, False):
        assert _read(encoded_words.encoded(" gr\xc3\xbcn ", ascii_only=ascii_only)) == " grün "


def test_what_words_stand_for() -> None:
    assert encoded_words.decoded("=?UTF-8?B?Z3LDvG4=?=") == "grün"
    assert encoded_words.decoded("plain") is None
    assert encoded_words.decoded("=?no-such-charset?B?AA==?=") is None
