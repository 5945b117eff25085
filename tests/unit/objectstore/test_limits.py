"""Keys and metadata that a store cannot hold are told before they are sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.objectstore import dialects, limits
from slurper.objectstore.base import ObjectHeaders
from slurper.objectstore.dialects import Dialect


def _metadata(size: int) -> ObjectHeaders:
    return ObjectHeaders({}, {"n": "v" * (size - 1)})


@pytest.mark.parametrize(("dialect", "limit"), [(dialects.AWS, 2048), (dialects.R2, 8192)])
def test_metadata_up_to_the_limit(dialect: Dialect, limit: int) -> None:
    limits.check("k", _metadata(limit), dialect)
    with pytest.raises(errors.NotStorable, match=f"has {limit + 1} bytes.* at most {limit}"):
        limits.check("k", _metadata(limit + 1), dialect)


def test_a_store_without_a_known_limit_answers_for_itself() -> None:
    limits.check("k", _metadata(100_000), dialects.GENERIC)


def test_encoded_words_count_as_the_text_they_stand_for() -> None:
    words = " ".join(["=?UTF-8?B?w7zDvMO8?="] * 1000)  # 3 letters, 6 bytes each
    limits.check("k", ObjectHeaders({}, {"n": words}), dialects.R2)
    with pytest.raises(errors.NotStorable):
        limits.check("k", ObjectHeaders({}, {"n": words}), dialects.GOOGLE)


@pytest.mark.parametrize("key", ["k" * 1025, "ü" * 513, "😀" * 257])
def test_keys_are_measured_in_bytes(key: str) -> None:
    for dialect in (dialects.AWS, dialects.R2, dialects.GENERIC):
        with pytest.raises(errors.NotStorable, match="at most 1024"):
            limits.check(key, ObjectHeaders(), dialect)


@pytest.mark.parametrize("key", ["k" * 1024, "ü" * 512, "😀" * 256])
def test_the_longest_keys_pass(key: str) -> None:
    limits.check(key, ObjectHeaders(), dialects.R2)


def test_a_key_counts_in_the_form_in_which_it_is_kept() -> None:
    key = "u\u0308" * 400
    limits.check(key, ObjectHeaders(), dialects.R2)
    with pytest.raises(errors.NotStorable):
        limits.check(key, ObjectHeaders(), dialects.AWS)


IN_FOLDERS = replace(dialects.GENERIC, keeps_folders=True)
paths = st.text(st.sampled_from("a.\\/"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("a//b", "a/b"),
        ("/lead", "lead"),
        ("x\\y", "x/y"),
        ("a\\", "a/"),
        ("a///", "a/"),
        ("/", ""),
    ],
)
def test_a_key_that_folders_would_rewrite_is_told(key: str, kept: str) -> None:
    limits.check_key(key, dialects.GENERIC, size=1)
    with pytest.raises(errors.NotStorableInFolders) as told:
        limits.check_key(key, IN_FOLDERS, size=0)
    assert f"would keep {key!a} as {kept!a}" in str(told.value)
    with pytest.raises(errors.NotStorableInFolders):
        limits.check(key, ObjectHeaders(), IN_FOLDERS)


@pytest.mark.parametrize("size", [1, None])
def test_a_folder_has_no_bytes(size: int | None) -> None:
    limits.check_key("a/", IN_FOLDERS, size=0)
    limits.check_key("a/", dialects.GENERIC, size=size)
    with pytest.raises(errors.NotStorableInFolders, match="without its bytes"):
        limits.check_key("a/", IN_FOLDERS, size=size)


def test_a_folder_has_a_type_and_no_other_header() -> None:
    typed = {"content-type": "a/b"}
    limits.check("a/", ObjectHeaders(typed), IN_FOLDERS, size=0)
    for headers in (ObjectHeaders(typed, {"m": "1"}), ObjectHeaders({"cache-control": "no"})):
        limits.check("a", headers, IN_FOLDERS, size=0)
        with pytest.raises(errors.NotStorableInFolders, match=r"without its (m|cache-control)$"):
            limits.check("a/", headers, IN_FOLDERS, size=0)


@given(paths, paths)
def test_keys_that_pass_are_different_paths(one: str, other: str) -> None:
    def path(key: str) -> list[str]:
        return [segment for segment in key.replace("\\", "/").split("/") if segment]

    for key in (one, other):
        try:
            limits.check_key(key, IN_FOLDERS, size=1)
        except errors.NotStorableInFolders:
            assert "/".join(path(key)) != key
            return
    assert (path(one) == path(other)) == (one == other)
