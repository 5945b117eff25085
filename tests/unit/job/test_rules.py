"""Rules that other tests do not reach through the API."""

from __future__ import annotations

import pytest

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
