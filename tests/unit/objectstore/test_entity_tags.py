"""One entity tag in all the ways in which stores write it."""

from __future__ import annotations

import pytest

from slurper.objectstore import entity_tags

MD5 = "9e107d9d372bb6826bd81d3542a419d6"


@pytest.mark.parametrize(
    "written",
    [
        f'"{MD5}"',
        MD5,
        f'W/"{MD5}"',
        f'w/"{MD5}"',
        f"W/{MD5}",
        f"&quot;{MD5}&quot;",
        f"&#34;{MD5}&#34;",
        f"W/&quot;{MD5}&quot;",
        f'""{MD5}""',
        f' "{MD5}" ',
    ],
)
def test_one_tag_however_it_is_written(written: str) -> None:
    assert entity_tags.opaque(written) == MD5
    assert entity_tags.same(written, f'"{MD5}"')
    assert entity_tags.same(MD5, written)
    assert not entity_tags.same(written, f'"{MD5}-2"')
    assert entity_tags.opaque(entity_tags.condition(written)) == MD5


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ('"abc-2"', '"abc-2"'),
        ("abc-2", '"abc-2"'),
        ('W/"abc-2"', '"abc-2"'),
        ("&quot;abc-2&quot;", '"abc-2"'),
        ('"a&amp;b"', '"a&amp;b"'),  # in quotes already: the store's own words
        ("W/", ""),
        ('""', ""),
        ('W/""', ""),
        ("", ""),
    ],
)
def test_a_condition_names_a_strong_tag_in_quotes_or_none(written: str, asked: str) -> None:
    assert entity_tags.condition(written) == asked


@pytest.mark.parametrize(
    ("written", "listed"), [('W/"a"', '"a"'), ("w/a", '"a"'), ('"a"', '"a"'), ("a", "a")]
)
def test_a_list_of_parts_names_tags_as_written_and_never_weak(written: str, listed: str) -> None:
    assert entity_tags.strong(written) == listed


@pytest.mark.parametrize(
    ("one", "other"), [('"a"', '"b"'), ('"a"', '"A"'), ("", '"a"'), ('W/"a"', 'W/"a-gzip"')]
)
def test_other_tags_are_others(one: str, other: str) -> None:
    assert not entity_tags.same(one, other)
