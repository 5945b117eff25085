from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from slurper.job.model import JobOptions, LogType
from slurper.objectstore import dialects
from slurper.objectstore.base import ObjectMeta
from slurper.planning import selection
from slurper.planning.selection import COMPARE, DONE, EXISTS, TRANSFER, Rules, Skip

BEGIN = datetime(2026, 3, 19, 15, 46, 20, tzinfo=UTC)


def meta(
    size: int = 10, storage_class: str = "STANDARD", at: datetime | None = BEGIN
) -> ObjectMeta:
    return ObjectMeta("key", size, '"etag"', at, storage_class)


def rules(
    *, overwrite: bool = True, since: datetime | None = None, options: JobOptions | None = None
) -> Rules:
    return Rules(
        source=dialects.AWS,
        target=dialects.R2,
        overwrite=overwrite,
        options=options or JobOptions(),
        replayed_since=since,
    )


def reason(decision: selection.Decision) -> LogType | None:
    assert isinstance(decision, Skip)
    return decision.log_type


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_missing_object_is_transferred(overwrite: bool) -> None:
    assert selection.from_listing(meta(), None, rules(overwrite=overwrite)) == TRANSFER


def test_an_existing_object_is_replaced_or_left() -> None:
    assert selection.from_listing(meta(), meta(), rules()) == TRANSFER
    assert selection.from_listing(meta(), meta(), rules(overwrite=False)) == EXISTS


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_archived_objects_are_skipped_with_advice(storage_class: str) -> None:
    decision = selection.from_listing(meta(storage_class=storage_class), None, rules())
    assert reason(decision) is LogType.IMPORT_SKIPPED_STORAGE_CLASS
    assert isinstance(decision, Skip)
    assert storage_class in decision.message
    assert "restore" in decision.message


@pytest.mark.parametrize("tier", ["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"])
def test_objects_in_an_archive_tier_require_retrieval(tier: str) -> None:
    decision = selection.from_listing(meta(storage_class=tier), None, rules())
    assert reason(decision) is LogType.IMPORT_SKIPPED_REQUIRES_RETRIEVAL
    assert isinstance(decision, Skip)
    assert f"archive tier {tier}" in decision.message
    assert "restore" in decision.message


@pytest.mark.parametrize("storage_class", ["", "STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"])
def test_readable_classes_are_transferred(storage_class: str) -> None:
    assert selection.from_listing(meta(storage_class=storage_class), None, rules()) == TRANSFER


def test_the_smaller_of_target_limit_and_option_decides() -> None:
    limit = dialects.R2.max_object_bytes
    assert selection.from_listing(meta(limit), None, rules()) == TRANSFER
    oversized = selection.from_listing(meta(limit + 1), None, rules())
    assert reason(oversized) is LogType.IMPORT_SKIPPED_OVERSIZED
    small = rules(options=JobOptions(max_object_bytes=9))
    assert reason(selection.from_listing(meta(10), None, small)) is LogType.IMPORT_SKIPPED_OVERSIZED
    assert selection.from_listing(meta(9), None, small) == TRANSFER


def test_empty_objects_are_copied_unless_asked_otherwise() -> None:
    assert selection.from_listing(meta(0), None, rules()) == TRANSFER
    skipping = rules(options=JobOptions(skip_empty=True))
    decision = selection.from_listing(meta(0), None, skipping)
    assert reason(decision) is LogType.IMPORT_SKIPPED_EMPTY_OBJECT


@pytest.mark.parametrize(
    ("size", "age", "expected"),
    [
        (10, timedelta(0), COMPARE),
        (10, timedelta(seconds=5), COMPARE),
        (10, timedelta(seconds=-1), EXISTS),
        (11, timedelta(seconds=5), EXISTS),
    ],
)
def test_in_a_replayed_slice_what_may_be_our_own_lost_work_is_compared(
    size: int, age: timedelta, expected: selection.Decision
) -> None:
    existing = meta(size, at=BEGIN + age)
    replayed = rules(overwrite=False, since=BEGIN)
    assert selection.from_listing(meta(10), existing, replayed) == expected


MD5, OTHER = "d41d8cd98f00b204e9800998ecf8427e", "0cc175b9c0f1b6a831c399e269772661"


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (f'"{MD5}"', f'"{MD5}"', DONE),
        (f'"{MD5}"', MD5.upper(), DONE),
        (f'W/"{MD5}"', f'"{MD5}"', DONE),
        (f'"{MD5}-3"', f'"{MD5}-3"', DONE),
        (f'"{MD5}"', f'"{OTHER}"', COMPARE),  # one of them may be of encrypted bytes
        (f'"{MD5}"', f'"{MD5}-1"', COMPARE),
        (f'"{MD5}-2"', f'"{MD5}-3"', COMPARE),
        ('"17"', '"17"', COMPARE),
        ("", "", COMPARE),
    ],
)
def test_equal_etags_that_are_made_of_md5s_settle_a_replayed_object(
    ours: str, theirs: str, expected: selection.Decision
) -> None:
    replayed = rules(overwrite=False, since=BEGIN)
    mine, found = meta()._replace(etag=ours), meta()._replace(etag=theirs)
    assert selection.from_listing(mine, found, replayed) == expected
    assert selection.from_listing(mine, found, rules(overwrite=False)) == EXISTS


def test_without_a_time_at_the_target_nothing_is_claimed() -> None:
    replayed = rules(overwrite=False, since=BEGIN)
    assert selection.from_listing(meta(), meta(at=None), replayed) == EXISTS


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.mark.parametrize(
    ("content_type", "first", "options", "expected"),
    [
        ("text/plain", b"x", JobOptions(), None),
        ("image/png", PNG, JobOptions(include_content_types=("image/*",)), None),
        ("IMAGE/PNG; q=1", PNG, JobOptions(include_content_types=("image/png",)), None),
        (
            "text/plain",
            b"x",
            JobOptions(include_content_types=("image/*",)),
            LogType.IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE,
        ),
        (
            "",
            b"x",
            JobOptions(include_content_types=("image/*",)),
            LogType.IMPORT_SKIPPED_UNSUPPORTED_CONTENT_TYPE,
        ),
        (
            "text/html; charset=utf-8",
            b"x",
            JobOptions(exclude_content_types=("text/html",)),
            LogType.IMPORT_SKIPPED_EXCLUDED_CONTENT_TYPE,
        ),
        ("text/plain", b"x", JobOptions(exclude_content_types=("text/html",)), None),
        ("image/png", PNG, JobOptions(validate_media=True), None),
        (
            "image/png",
            b"<html>",
            JobOptions(validate_media=True),
            LogType.IMPORT_SKIPPED_INVALID_MEDIA,
        ),
        ("image/png", b"<html>", JobOptions(), None),
        ("image/x-unheard-of", b"<html>", JobOptions(validate_media=True), None),
        ("image/webp", b"RIFF\0\0\0\0WEBPVP8 ", JobOptions(validate_media=True), None),
        ("video/mp4", b"\0\0\0\x18ftypmp42", JobOptions(validate_media=True), None),
        (
            "image/jpeg",
            b"",
            JobOptions(validate_media=True),
            LogType.IMPORT_SKIPPED_INVALID_MEDIA,
        ),
    ],
)
def test_content_rules(
    content_type: str, first: bytes, options: JobOptions, expected: LogType | None
) -> None:
    decision = selection.from_content(content_type, first, options)
    if expected is None:
        assert decision == TRANSFER
    else:
        assert reason(decision) is expected
