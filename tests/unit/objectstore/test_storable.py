"""Keys and metadata that a store cannot hold are told before they are sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import dialects, key_shapes, storable
from slurper.objectstore.base import ObjectHeaders
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.key_shapes import KeyShape


def _metadata(size: int) -> ObjectHeaders:
    return ObjectHeaders({}, {"n": "v" * (size - 1)})


@pytest.mark.parametrize(("dialect", "limit"), [(dialects.AWS, 2048), (dialects.R2, 8192)])
def test_metadata_up_to_the_limit(dialect: Dialect, limit: int) -> None:
    storable.check("k", _metadata(limit), dialect)
    with pytest.raises(errors.NotStorable, match=f"has {limit + 1} bytes.* at most {limit}"):
        storable.check("k", _metadata(limit + 1), dialect)


def test_a_store_without_a_known_limit_answers_for_itself() -> None:
    storable.check("k", _metadata(100_000), dialects.GENERIC)


def test_encoded_words_count_as_the_text_they_stand_for() -> None:
    words = " ".join(["=?UTF-8?B?w7zDvMO8?="] * 1000)  # 3 letters, 6 bytes each
    storable.check("k", ObjectHeaders({}, {"n": words}), dialects.R2)
    with pytest.raises(errors.NotStorable):
        storable.check("k", ObjectHeaders({}, {"n": words}), dialects.GOOGLE)


@pytest.mark.parametrize("key", ["k" * 1025, "ü" * 513, "😀" * 257])
def test_keys_are_measured_in_bytes(key: str) -> None:
    for dialect in (dialects.AWS, dialects.R2, dialects.GENERIC):
        with pytest.raises(errors.NotStorable, match="at most 1024"):
            storable.check(key, ObjectHeaders(), dialect)


@pytest.mark.parametrize("key", ["k" * 1024, "ü" * 512, "😀" * 256])
def test_the_longest_keys_pass(key: str) -> None:
    storable.check(key, ObjectHeaders(), dialects.R2)


def test_a_key_counts_in_the_form_in_which_it_is_kept() -> None:
    key = "u\u0308" * 400
    storable.check(key, ObjectHeaders(), dialects.R2)
    with pytest.raises(errors.NotStorable):
        storable.check(key, ObjectHeaders(), dialects.AWS)


IN_FOLDERS = replace(dialects.GENERIC, unkept_keys=key_shapes.KEPT_IN_FOLDERS)
paths = st.text(st.sampled_from("a.\\/"), min_size=1, max_size=8)


@pytest.mark.parametrize("key", ["a//b", "/lead", "x\\y", "a\\", "a///", "/"])
def test_a_key_that_folders_would_rewrite_is_told(key: str) -> None:
    storable.check_key(key, dialects.GENERIC, size=1)
    with pytest.raises(errors.KeyNotKept) as told:
        storable.check_key(key, IN_FOLDERS, size=0)
    assert f"it would change {key!a}" in str(told.value)
    with pytest.raises(errors.KeyNotKept):
        storable.check(key, ObjectHeaders(), IN_FOLDERS)


@pytest.mark.parametrize("size", [1, None])
def test_a_folder_has_no_bytes(size: int | None) -> None:
    storable.check_key("a/", IN_FOLDERS, size=0)
    storable.check_key("a/", dialects.GENERIC, size=size)
    with pytest.raises(errors.KeyNotKept, match="of objects with bytes"):
        storable.check_key("a/", IN_FOLDERS, size=size)


def test_a_folder_has_a_type_and_no_other_header() -> None:
    typed = {"content-type": "a/b"}
    storable.check("a/", ObjectHeaders(typed), IN_FOLDERS, size=0)
    for headers in (ObjectHeaders(typed, {"m": "1"}), ObjectHeaders({"cache-control": "no"})):
        storable.check("a", headers, IN_FOLDERS, size=0)
        with pytest.raises(errors.KeyNotKept, match="metadata or headers other than their type"):
            storable.check("a/", headers, IN_FOLDERS, size=0)


@given(paths, paths)
def test_keys_that_pass_are_different_paths(one: str, other: str) -> None:
    def path(key: str) -> list[str]:
        return [segment for segment in key.replace("\\", "/").split("/") if segment]

    for key in (one, other):
        try:
            storable.check_key(key, IN_FOLDERS, size=1)
        except errors.KeyNotKept:
            assert "/".join(path(key)) != key
            return
    assert (path(one) == path(other)) == (one == other)


OF_SHAPE = [
    (KeyShape.LEADING_SLASH, "/a", "a/"),
    (KeyShape.EMPTY_SEGMENT, "a//b", "a/b/"),
    (KeyShape.DOT_SEGMENT, "a/./b", "a/.b/b."),
    (KeyShape.DOT_SEGMENT, "./b", ".b"),
    (KeyShape.DOT_SEGMENT, "b/.", "b/.."),
    (KeyShape.DOUBLE_DOT_SEGMENT, "a/../b", "a/..b/b../..."),
    (KeyShape.DOUBLE_DOT_SEGMENT, "..", "."),
    (KeyShape.LONG_SEGMENT, "a/" + "b" * 256, "a/" + "b" * 255 + "/" + "c" * 255),
    (KeyShape.LONG_SEGMENT, "ü" * 128, "ü" * 127),
    (KeyShape.EDGE_SPACE, "a /b", "a b"),
    (KeyShape.EDGE_SPACE, "a/ b", "a/b b/c"),
    (KeyShape.EDGE_SPACE, " a", "a"),
    (KeyShape.EDGE_SPACE, "a ", "a"),
    (KeyShape.TRAILING_DOT, "a./b", ".a/../."),
    (KeyShape.TRAILING_DOT, "a..", "a..b"),
    (KeyShape.BACKSLASH, "a\\b", "a/b"),
    (KeyShape.CONTROL_CHARACTER, "a\x01", "a\n"),
    (KeyShape.CONTROL_CHARACTER, "a\tb", "a b"),
    (KeyShape.CONTROL_CHARACTER, "\x7f", "\x80"),
    (KeyShape.LINE_BREAK, "a\nb", "a\tb"),
    (KeyShape.LINE_BREAK, "a\r", "a"),
    (KeyShape.PERCENT, "a%41", "aA"),
    (KeyShape.PLUS, "a+b", "a b"),
    (KeyShape.COMPOSED, "\u00fc", "u\u0308"),
    (KeyShape.DECOMPOSED, "u\u0308", "\u00fc"),
    (KeyShape.BEYOND_BMP, "a\U0001f600", "a\uffff"),
    (KeyShape.FOLDER, "a/", "a/b"),
]


@pytest.mark.parametrize(("shape", "key", "other"), OF_SHAPE)
def test_a_key_of_a_shape_that_is_not_kept_is_told_and_no_other(
    shape: KeyShape, key: str, other: str
) -> None:
    dialect = replace(dialects.GENERIC, unkept_keys=(shape,))
    storable.check_key(other, dialect, size=0)
    storable.check_key(key, dialects.GENERIC, size=0)
    with pytest.raises(errors.KeyNotKept, match=r"the target does not keep keys") as told:
        storable.check_key(key, dialect, size=0)
    assert key_shapes.text_of(shape) in str(told.value)


def test_every_shape_that_a_key_shows_by_itself_is_in_the_table() -> None:
    by_more = {KeyShape.FOLDER_WITH_BYTES, KeyShape.FOLDER_WITH_HEADERS}
    assert {shape for shape, _, _ in OF_SHAPE} == set(KeyShape) - by_more


LOSES = [
    ("content-encoding", ObjectHeaders({"content-encoding": "gzip"})),
    ("expires", ObjectHeaders({"expires": "0"})),
    ("metadata", ObjectHeaders({}, {"m": "1"})),
    ("metadata-beyond-ascii", ObjectHeaders({}, {"m": "\xfc"})),
    ("long-metadata", ObjectHeaders({}, {"m": "m" * 256})),
    ("underscored-metadata", ObjectHeaders({}, {"a_b": "1"})),
]


@pytest.mark.parametrize(("name", "headers"), LOSES)
def test_an_object_with_a_required_header_that_the_target_loses_is_refused(
    name: str, headers: ObjectHeaders
) -> None:
    dialect = replace(dialects.GENERIC, refused_headers=frozenset({name}))
    storable.check("k", headers, dialects.GENERIC)
    storable.check("k", ObjectHeaders({"content-type": "a/b"}), dialect)
    with pytest.raises(errors.HeadersNotKept, match=f"without its {name}, which options.require"):
        storable.check("k", headers, dialect)


def test_what_may_be_required_names_all_that_can_be_lost() -> None:
    assert storable.required(["headers"]) == set(storable.HEADERS)
    assert storable.required(["metadata"]) == set(storable.HEADERS[6:])
    assert storable.required(["expires"]) == {"expires"}
    assert storable.required([]) == frozenset()
