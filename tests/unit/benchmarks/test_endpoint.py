"""What the light endpoint answers beside nginx; a wrong answer would make wrong figures."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from benchmarks.datasets import Dataset, write
from benchmarks.listing import Listing
from benchmarks.uploads import PARTS_FOLDER, Uploads

DATASET = Dataset(25, 10)


def _all_keys(listing: Listing, **query: str) -> list[str]:
    keys: list[str] = []
    while True:
        page = listing.page(query).decode()
        keys += re.findall(r"<(?:Key|CommonPrefixes><Prefix)>([^<]*)<", page)
        token = re.search(r"<NextContinuationToken>([^<]*)<", page)
        if token is None:
            return keys
        query["continuation-token"] = token[1]


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    return Listing(write(DATASET, tmp_path))


@pytest.mark.parametrize("limit", ["1", "7", "1000"])
def test_pages_together_hold_every_key_once(listing: Listing, limit: str) -> None:
    assert _all_keys(listing, **{"max-keys": limit}) == list(DATASET.keys)


@pytest.mark.parametrize("limit", ["1", "3", "1000"])
def test_a_delimiter_folds_what_is_below_a_folder(listing: Listing, limit: str) -> None:
    folders = sorted({f"{key.partition('/')[0]}/" for key in DATASET.keys})
    query = {"max-keys": limit, "delimiter": "/"}
    assert _all_keys(listing, **query) == folders
    below = [key for key in DATASET.keys if key.startswith("p01/")]
    assert _all_keys(listing, **query, prefix="p01/") == below


def test_a_listing_begins_after_a_key(listing: Listing) -> None:
    keys = list(DATASET.keys)
    assert _all_keys(listing, **{"start-after": keys[4]}) == keys[5:]


def test_keys_that_xml_cannot_hold_are_listed_in_their_encoding(tmp_path: Path) -> None:
    keys = ["a \x01\n+%41", "b&<ü"]
    for key in keys:
        (tmp_path / key).write_bytes(b"x")
    listing = Listing(tmp_path)
    encoded = _all_keys(listing, **{"encoding-type": "url"})
    assert [unquote(key) for key in encoded] == keys
    assert all(key.isascii() and key.isprintable() for key in encoded)
    assert b"<EncodingType>url</EncodingType>" in listing.page({"encoding-type": "url"})


def test_a_bucket_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert _all_keys(Listing(tmp_path / "none")) == []


def test_an_upload_becomes_the_object_that_its_parts_make(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    found = re.search(rb"<UploadId>(\w+)<", uploads.create())
    assert found is not None
    upload_id = found[1].decode()
    folder = tmp_path / PARTS_FOLDER / upload_id
    parts = {number: bytes([number]) * 100_000 for number in (1, 2, 3, 10)}
    for number, content in parts.items():
        (folder / str(number)).write_bytes(content)
    rows = "".join(f"<Part><PartNumber>{number}</PartNumber></Part>" for number in parts)
    answer = uploads.complete("/bucket/a/key", upload_id, rows.encode())
    assert f"{upload_id}-4".encode() in answer
    assert (tmp_path / "bucket/a/key").read_bytes() == b"".join(parts.values())
    assert not folder.exists()


def test_an_upload_with_a_missing_part_is_refused(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    with pytest.raises(FileNotFoundError):
        uploads.complete("/bucket/key", "none", b"<PartNumber>1</PartNumber>")
