"""Rules that other tests do not reach through the API."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.job import rules
from slurper.objectstore.base import CONTENT_HEADERS


def test_keys_are_taken_once_and_in_byte_order() -> None:
    hostile = ["z", "a//b", "/lead", "..", "a/../b", "\x01", "\n", "ü", "u\u0308", "\U0001f30d",
               "\uffff", "k" * 1_024, "ü" * 512, "z", " ", "%00", "\udc80"]  # fmt: skip
    keys = rules.selected_keys(hostile, "")
    assert list(keys) == sorted(
        set(hostile), key=lambda key: key.encode("utf-8", "surrogateescape")
    )
    assert rules.selected_keys(["in/b", "in/"], "in/") == ("in/", "in/b")


def test_a_key_outside_the_prefix_is_named() -> None:
    with (
        pytest.raises(errors.InvalidField, match="pathPrefix") as caught,
        rules.below("/source/keys"),
    ):
        rules.selected_keys(["in/a", "out/b"], "in/")
    assert caught.value.pointer == "/source/keys/1"


def test_every_content_header_can_be_required() -> None:
    assert set(rules.REQUIRABLE) == CONTENT_HEADERS | {"metadata", "headers"}


ALPHABET = "ab0-_A./ ü\n"


@given(st.text(ALPHABET, max_size=70))
def test_an_account_is_a_label_of_a_host_name(text: str) -> None:
    ends = text[:1].isalnum() and text[-1:].isalnum() and len(text) <= 63
    fits = ends and re.fullmatch("[ab0A_-]+", text) is not None
    if fits:
        assert rules.account_id(text) == text
    else:
        with pytest.raises(errors.InvalidField, match="1 to 63 letters"):
            rules.account_id(text)


@given(st.text())
def test_a_token_has_a_name_that_is_safe_to_show(text: str) -> None:
    try:
        rules.token_name(text)
    except errors.InvalidField:
        return
    assert 1 <= len(text) <= 100
    assert text.isprintable()
    assert text == text.strip()
    text.encode()  # as JSON and logs do
