"""ListMultipartUploads on the wire: keys, ages, pages, and answers that are none."""

from __future__ import annotations

import math

import pytest

from slurper import errors
from slurper.objectstore.base import UploadMeta
from tests.unit.http.scripted import answer
from tests.unit.objectstore.answers import Open, error, line_of

DATE = "Date: Wed, 21 Oct 2015 07:28:10 GMT"


def upload(key: str, upload_id: str, begun: str = "2015-10-21T07:28:00.000Z") -> str:
    initiated = f"<Initiated>{begun}</Initiated>" if begun else ""
    return f"<Upload><Key>{key}</Key><UploadId>{upload_id}</UploadId>{initiated}</Upload>"


def uploads(*rows: str, more: str = "<IsTruncated>false</IsTruncated>", date: str = DATE) -> bytes:
    xmlns = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    text = f"<ListMultipartUploadsResult {xmlns}>{more}{''.join(rows)}</ListMultipartUploadsResult>"
    return answer(text.encode(), date)


async def test_uploads_are_as_old_as_the_store_says(open_s3: Open) -> None:
    store, server = await open_s3(uploads(upload("p/a", "1"), upload("p/b", "2", begun="")))
    assert await store.list_uploads(prefix="p/") == [
        UploadMeta("p/a", "1", 10.0),
        UploadMeta("p/b", "2", math.inf),
    ]
    assert line_of(server) == "GET /bkt?prefix=p%2F&uploads= HTTP/1.1"


async def test_keys_are_decoded_once(open_s3: Open) -> None:
    more = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    store, _ = await open_s3(uploads(upload("a+b%2541%00%ff", "1"), more=more))
    assert [found.key for found in await store.list_uploads()] == ["a b%41\0\udcff"]
    plain, _ = await open_s3(uploads(upload("a+b%41", "1")))
    assert [found.key for found in await plain.list_uploads()] == ["a+b%41"]


async def test_pages_are_followed(open_s3: Open) -> None:
    more = (
        "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>"
        "<NextUploadIdMarker>2</NextUploadIdMarker>"
    )
    store, server = await open_s3(
        uploads(upload("k", "1"), upload("k", "2"), more=more), uploads(upload("l", "3"))
    )
    assert [found.upload_id for found in await store.list_uploads()] == ["1", "2", "3"]
    assert "key-marker=k&upload-id-marker=2" in line_of(server)


@pytest.mark.parametrize("rows", [(), ("k",)])
async def test_pages_without_end_or_anything_new_end(open_s3: Open, rows: tuple[str, ...]) -> None:
    more = "<IsTruncated>true</IsTruncated>"
    store, _ = await open_s3(uploads(*(upload(key, key) for key in rows), more=more))
    assert len(await store.list_uploads()) == len(rows)


async def test_other_keys_are_left_out(open_s3: Open) -> None:
    store, _ = await open_s3(uploads(upload("a", "1"), upload("b", "2")))
    assert [found.key for found in await store.list_uploads(prefix="b")] == ["b"]


async def test_without_a_date_our_clock_tells_ages(open_s3: Open) -> None:
    store, _ = await open_s3(uploads(upload("a", "1"), date="X-Nothing: 1"))
    (found,) = await store.list_uploads()
    assert found.age_seconds > 0


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (answer(b"<html>"), errors.ListingError),
        (answer(b"<ListBucketResult></ListBucketResult>"), errors.ListingError),
        (uploads(more=""), errors.ListingError),
        (error("403 Forbidden", "AccessDenied"), errors.AccessDenied),
        (error("501 Not Implemented", "NotImplemented"), errors.StoreError),
    ],
)
async def test_what_is_no_listing_is_said(
    open_s3: Open, response: bytes, kind: type[Exception]
) -> None:
    store, _ = await open_s3(response)
    with pytest.raises(kind):
        await store.list_uploads()
