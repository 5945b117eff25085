from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from slurper.planning.keyspace import (
    MAX_KEY_BYTES,
    KeyRange,
    between,
    encode_key,
    following,
    is_text,
)

keys = st.text(st.characters(codec="utf-8"), max_size=8)
odd_keys = st.text(
    st.sampled_from(
        "\0\t\x1f\x7f\x85 /09aZz~é\ud7ff\ue000\ufffe\uffff\U00010000\U0010ffff\udc80\udcff"
    ),
    max_size=8,
)
any_keys = keys | odd_keys | st.tuples(st.sampled_from(["", "p/" * 400]), keys).map("".join)
alphabets = st.lists(st.characters(codec="utf-8"), unique=True, max_size=20).map(sorted)


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


@given(start=st.none() | any_keys, end=st.none() | any_keys, key=any_keys)
def test_a_slice_holds_what_a_listing_of_bytes_would_show(
    start: str | None, end: str | None, key: str
) -> None:
    after = start is None or encode_key(key) > encode_key(start)
    up_to = end is None or encode_key(key) <= encode_key(end)
    assert (key in KeyRange(start, end)) == (after and up_to)


@given(low=any_keys, high=any_keys, alphabet=alphabets)
def test_what_is_between_two_keys_is_a_key_that_every_store_takes(
    low: str, high: str, alphabet: list[str]
) -> None:
    found = between(low, high, alphabet)
    if found is not None:
        assert low < found < high
        assert len(found.encode()) <= MAX_KEY_BYTES  # which also shows that it is UTF-8


@given(low=any_keys, high=any_keys)
@example(low="i", high="\x95")
def test_there_is_nothing_between_only_where_little_can_be(low: str, high: str) -> None:
    """What begins with the lower key and a usual character would be between them."""
    usual = low + "!"
    possible = low < usual < high and is_text(usual) and len(usual.encode()) < MAX_KEY_BYTES - 40
    if possible and high[: len(low)] != low:
        assert between(low, high) is not None


def test_half_way_is_meant_in_characters_that_are_used() -> None:
    assert between("a", "e", "abcde") == "c"
    digits = between("object-0", "object-8", "0123456789")
    assert digits is not None
    assert digits.startswith("object-4")


@given(st.characters(codec="utf-8"))
def test_the_following_character_is_a_plain_one(character: str) -> None:
    found = following(character)
    if found is None:
        assert character >= "\U0010fffd"
    else:
        assert found > character
        assert found.isprintable() or found >= "\xa0"
        assert is_text(found)
