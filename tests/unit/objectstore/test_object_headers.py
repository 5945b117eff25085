"""Headers of an object: what travels, what does not, and how dates are read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from slurper import errors
from slurper.objectstore.base import ObjectHeaders
from slurper.objectstore.checksums import Algorithm, Told
from slurper.objectstore.object_headers import from_response, to_request

TRAVELLING = {
    "cache-control": "max-age=60",
    "content-disposition": 'attachment; filename="a  b"',
    "content-encoding": "gzip",
    "content-language": "de",
    "content-type": "text/x; charset=utf-8",
    "expires": "0",
}


def test_everything_a_store_keeps_is_read_and_written_again() -> None:
    answered = {
        **TRAVELLING,
        "x-amz-meta-owner": "Ã¼",
        "x-amz-meta-empty": "",
        "content-length": "5",
        "date": "Wed, 21 Oct 2015 07:28:00 GMT",
        "etag": '"x"',
        "last-modified": "Wed, 21 Oct 2015 07:28:00 GMT",
        "server": "s",
        "x-amz-request-id": "r",
        "x-amz-storage-class": "STANDARD_IA",
    }
    stored = from_response("k", 5, answered)
    assert stored.headers == ObjectHeaders(TRAVELLING, {"owner": "Ã¼", "empty": ""})
    assert stored.meta == (
        "k",
        5,
        '"x"',
        datetime(2015, 10, 21, 7, 28, tzinfo=UTC),
        "STANDARD_IA",
    )
    assert to_request(stored.headers) == {
        **TRAVELLING,
        "x-amz-meta-owner": "Ã¼",
        "x-amz-meta-empty": "",
    }


@pytest.mark.parametrize("name", ["", "a b", "a:b", "\xfc", "a\nb", "a,b", "a/b", "{a}"])
def test_a_name_of_metadata_that_no_header_can_have_is_named(name: str) -> None:
    with pytest.raises(errors.NotStorable, match="HTTP header's name") as refused:
        to_request(ObjectHeaders({}, {"fine": "1", name: "2"}))
    assert ascii(name) in str(refused.value)


def test_an_object_without_a_content_type_gains_none() -> None:
    assert to_request(from_response("k", 0, {}).headers) == {}


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("aws-chunked", None),
        ("AWS-Chunked", None),
        ("gzip,aws-chunked", "gzip"),
        ("aws-chunked, gzip", "gzip"),
        ("gzip, aws-chunked, br", "gzip, br"),
        ("gzip,br", "gzip,br"),
        ("x-aws-chunked", "x-aws-chunked"),
    ],
)
def test_only_the_token_of_the_transfer_is_dropped(stored: str, sent: str | None) -> None:
    read = from_response("k", 0, {"content-encoding": stored}).headers
    assert read.content.get("content-encoding") == sent
    written = to_request(ObjectHeaders({"content-encoding": stored}))
    assert written.get("content-encoding") == sent


@pytest.mark.parametrize(
    ("restore", "storage_class"),
    [
        ({}, "GLACIER"),
        ({"x-amz-restore": 'ongoing-request="true"'}, "GLACIER"),
        ({"x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2012 GMT"'}, ""),
    ],
)
def test_a_restored_object_is_no_longer_of_a_class_that_cannot_be_read(
    restore: dict[str, str], storage_class: str
) -> None:
    stored = from_response("k", 1, {"x-amz-storage-class": "GLACIER", **restore})
    assert stored.meta.storage_class == storage_class


def test_an_archive_tier_is_told_in_the_place_of_the_class() -> None:
    told = {"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "ARCHIVE_ACCESS"}
    assert from_response("k", 1, told).meta.storage_class == "ARCHIVE_ACCESS"
    on_its_way = {**told, "x-amz-restore": 'ongoing-request="true"'}
    assert from_response("k", 1, on_its_way).meta.storage_class == "ARCHIVE_ACCESS"


def test_a_checksum_that_a_store_leaves_empty_tells_nothing() -> None:
    told = {"x-amz-checksum-crc32c": "", "x-amz-checksum-sha256": "c3Vt"}
    assert from_response("k", 1, told).told == Told(Algorithm.SHA256, "c3Vt")
    assert from_response("k", 1, {"x-amz-checksum-crc32c": ""}).told is None
