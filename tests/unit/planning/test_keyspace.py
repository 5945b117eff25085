from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slurper.planning.keyspace import KeyRange

keys = st.text(st.characters(codec="utf-8"), max_size=8)


@given(a=keys, b=keys)
def test_str_order_is_utf8_byte_order(a: str, b: str) -> None:
    assert (a < b) == (a.encode() < b.encode())


@given(start=st.none() | keys, cursor=keys, end=st.none() | keys, key=keys)
def test_after_keeps_exactly_what_lies_beyond_the_cursor(
    start: str | None, cursor: str, end: str | None, key: str
) -> None:
    whole = KeyRange(start, end)
    if cursor in whole:
        assert (key in whole.after(cursor)) == (key in whole and key > cursor)


def test_start_is_exclusive_and_end_inclusive() -> None:
    part = KeyRange("b", "d")
    assert [key for key in "abcde" if key in part] == ["c", "d"]


def test_no_cursor_leaves_the_range_as_it_is() -> None:
    assert KeyRange("a", "b").after(None) == KeyRange("a", "b")
