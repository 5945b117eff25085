"""The reader of bodies agrees with Python's parser, wherever a text is cut.

What it refuses, it refuses with a text that says what is wrong, and where.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.api.envelope import Refusal
from slurper.api.json_reader import MAX_ENTRIES, MAX_MEMBERS, JsonReader

TEXT = st.text(st.characters(), max_size=12)
SCALAR = (
    st.none() | st.booleans() | st.integers() | TEXT | st.floats(allow_nan=False, width=64)
)  # infinity is written as a word that is no JSON, and refused
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
BLANK = st.sampled_from(["", " ", "\n", "\t\r\n "])
MARKS = st.sampled_from(
    ["{", "}", "[", "]", ":", ",", '"', "\\", "tr", "ue", "null", "-", "1", "0", ".5", "e9", "\n"]
)
CUTS = st.lists(st.integers(0, 60))


def read(text: str, cuts: Iterable[int] = ()) -> Any:  # noqa: ANN401 - any JSON
    reader = JsonReader()
    places = [0, *sorted(cuts), len(text)]
    for begin, end in pairwise(places):
        reader.feed(text[begin : max(begin, end)])
    return reader.finish()


def pythons(text: str) -> object:
    """What Python's parser makes of it; an object with a member given twice is no value."""

    def members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    def refuse(_name: str) -> None:
        raise ValueError

    return json.loads(text, object_pairs_hook=members, parse_constant=refuse)


@given(value=VALUE, cuts=CUTS, before=BLANK, after=BLANK, escapes=st.booleans())
def test_what_is_json_is_read(
    value: object, cuts: list[int], before: str, after: str, escapes: bool
) -> None:
    try:
        text = json.dumps(value, ensure_ascii=escapes, allow_nan=False, indent=len(before) or None)
    except ValueError:
        return
    assert read(f"{before}{text}{after}", cuts) == value


@given(text=st.lists(MARKS, max_size=12).map("".join) | TEXT, cuts=CUTS)
def test_what_is_no_json_is_refused(text: str, cuts: list[int]) -> None:
    try:
        value = pythons(text)
    except ValueError:
        with pytest.raises(Refusal):
            read(text, cuts)
    else:
        assert read(text, cuts) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value at line 1, column 1"),
        ('{"a": 1', "Expecting ',' delimiter at line 1, column 8"),
        ('{\n "a" 1}', "Expecting ':' delimiter at line 2, column 6"),
        ('{"a": 1,}', "Expecting property name enclosed in double quotes at line 1, column 9"),
        ('{"a": [1,]}', "Expecting value at line 1, column 10"),
        ('{"a": 01}', "Expecting value at line 1, column 7"),
        ('{"a": tru}', "Expecting value at line 1, column 7"),
        ('{"a": "b', "Unterminated string starting at line 1, column 7"),
        ('{"a": "\\x"}', "Invalid \\escape"),
        ('{"a": "\n"}', "Invalid control character at line 1, column 8"),
        ("{}\n{}", "Extra data at line 2, column 1"),
        ("\ufeff{}", "byte order mark (BOM)"),
        ('{"a": Infinity}', "Infinity is not a JSON number"),
        ('{"a": 1, "a": 2}', 'the member "a" is given more than once'),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(text: str, says: str) -> None:
    for cuts in ((), range(len(text))):
        with pytest.raises(Refusal) as refused:
            read(text, cuts)
        assert says in refused.value.problem.message


@pytest.mark.parametrize(
    ("text", "says", "pointer"),
    [
        ('{"a":{"b":[%s1]}}' % ("1," * MAX_ENTRIES), "a.b: has more than 10000 entries", "/a/b"),
        ('{"a":[0,[%s1]]}' % ("1," * MAX_ENTRIES), "a.1: has more than 10000", "/a/1"),
        ('{"a":[%s[]]}' % ("[1,1]," * 9_000), "the body holds more than 12000 values", None),
        ("[%s1]" % ("1," * MAX_ENTRIES), "the body must be a JSON object", None),
        ('{"a":["b","%s"]}' % ("x" * 200_000), "a.1: is longer than 131072 bytes", "/a/1"),
        ('{"a":["b","%s' % ("x" * 200_000), "a.1: is longer than 131072 bytes", "/a/1"),
        ('{"%s":1}' % ("x" * 200_000), "no member has so long a name", f"/{'x' * 64}…"),
        ('{"a":%s}' % ("9" * 1_001), "the body holds a number that is too long", None),
        ('{"a":-%s' % ("9" * 200_000), "the body holds a number that is too long", None),
        ("[" * 17, "the body is nested too deeply", None),
        (
            json.dumps(dict.fromkeys(map(str, range(MAX_MEMBERS + 1)))),
            "an object in the body has more than 100 members",
            None,
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_no_request_needs_ends_the_reading(text: str, says: str, pointer: str | None) -> None:
    for cuts in ((), range(0, len(text), 1000)):
        with pytest.raises(Refusal) as refused:
            read(text, cuts)
        assert says in refused.value.problem.message
        assert refused.value.problem.pointer == pointer


def test_the_largest_list_is_read() -> None:
    keys = [f"{number}" for number in range(MAX_ENTRIES)]
    assert read(json.dumps({"keys": keys}), range(0, 60_000, 77)) == {"keys": keys}
