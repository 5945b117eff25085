"""What R2 does beyond S3, asked of the stub with our client and with an independent one."""

from __future__ import annotations

import base64
import email.header
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import botocore.exceptions
import pytest

from slurper import errors
from slurper.demo.servers import S3Server
from slurper.http.client import TransportOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import Body, ObjectHeaders, StoreAddress
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.s3.store import S3ObjectStore
from tests.conformance.conftest import pair_of
from tests.servers.r2.server import R2Stub

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.literals import ChecksumAlgorithmType, ChecksumTypeType

MIB = 1 << 20


@pytest.fixture
def client(r2_server: S3Server, boto: Callable[[S3Server], S3Client]) -> S3Client:
    return boto(r2_server)


@pytest.fixture
def bucket(r2_server: S3Server, make_bucket: Callable[[S3Server], str]) -> str:
    return make_bucket(r2_server)


@pytest.fixture
async def store(r2_server: S3Server, bucket: str) -> AsyncIterator[S3ObjectStore]:
    address = StoreAddress(
        origin=r2_server.endpoint,
        bucket=bucket,
        region="auto",
        dialect=dialects.R2,
        credentials=pair_of(r2_server),
        trusted=True,
    )
    opened = S3ObjectStore(address, TransportOptions(request_retries=1))
    yield opened
    await opened.close()


@pytest.fixture
def turned_clock(r2_stub: R2Stub, bucket: str) -> Iterator[Callable[[timedelta], None]]:
    """`turned_clock(by)` turns the bucket's clock forward."""
    kept = r2_stub.buckets[bucket]
    right = kept.now

    def turn(by: timedelta) -> None:
        kept.now = lambda: right() + by

    yield turn
    kept.now = right


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"Tagging": "a=b"}, "NotImplemented"),
        ({"ACL": "public-read"}, "NotImplemented"),
        ({"ServerSideEncryption": "aws:kms"}, "NotImplemented"),
        ({"StorageClass": "GLACIER"}, "NotImplemented"),
        ({"RequestPayer": "requester"}, "NotImplemented"),
        ({"WebsiteRedirectLocation": "/"}, "NotImplemented"),
        ({"ChecksumCRC32C": "AAAAAA=="}, "BadDigest"),
        ({"ContentMD5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        ({"ChecksumCRC32C": "AAAAAA==", "ChecksumCRC32": "AAAAAA=="}, "InvalidRequest"),
        ({"Metadata": {"m": "x" * 8192}}, "MetadataTooLarge"),
        ({"Key": "k" * 1025}, "KeyTooLongError"),
    ],
)
def test_what_r2_refuses(
    client: S3Client, bucket: str, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.put_object(**{"Bucket": bucket, "Key": "k", "Body": b"body", **arguments})
    assert refused.value.response["Error"]["Code"] == code
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_second_write_within_a_second_is_throttled(
    client: S3Client, bucket: str, r2_stub: R2Stub
) -> None:
    r2_stub.buckets[bucket].monotonic = lambda: 0.0
    client.put_object(Bucket=bucket, Key="u\u0308", Body=b"1")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.put_object(Bucket=bucket, Key="ü", Body=b"2")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429


def test_one_object_under_all_spellings_listed_as_last_written(
    client: S3Client, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="u\u0308", Body=b"1")
    assert client.get_object(Bucket=bucket, Key="ü")["Body"].read() == b"1"
    (listed,) = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert listed["Key"] == "u\u0308"


async def test_our_listings_show_the_form_that_is_unique(
    store: S3ObjectStore, client: S3Client, bucket: str
) -> None:
    for key in ("u\u0308/1", "u\u0308/2", "v"):
        client.put_object(Bucket=bucket, Key=key, Body=b"1")
    page = await store.list_page(max_keys=1)
    assert [meta.key for meta in page.objects] == ["v"]
    page = await store.list_page(start_after="v")
    assert [meta.key for meta in page.objects] == ["ü/1", "ü/2"]
    page = await store.list_page(prefix="u\u0308/")
    assert [meta.key for meta in page.objects] == ["ü/1", "ü/2"]


async def test_a_second_write_of_ours_waits(
    store: S3ObjectStore, r2_stub: R2Stub, bucket: str
) -> None:
    r2_stub.buckets[bucket].monotonic = iter((0.0, 0.5, 0.9, 1.1)).__next__
    await store.put("k", Body([b"1"]), ObjectHeaders())
    await store.put("k", Body([b"2"]), ObjectHeaders())
    assert bytes((await store.get("k")).body) == b"2"
    assert store.statistics.throttled == 2


async def test_metadata_is_text(store: S3ObjectStore, client: S3Client, bucket: str) -> None:
    text = "grün 😀 " * 20
    raw = text.encode().decode("latin-1")
    await store.put("k", Body([]), ObjectHeaders({}, {"text": raw}))
    shown = client.head_object(Bucket=bucket, Key="k")["Metadata"]["text"]
    assert str(email.header.make_header(email.header.decode_header(shown))) == text
    # From one store that decodes to another, words pass as they are.
    headers = (await store.head("k")).headers
    await store.put("copy", Body([]), headers)
    assert client.head_object(Bucket=bucket, Key="copy")["Metadata"]["text"] == shown


async def test_metadata_over_the_limit_is_told_before_the_upload(store: S3ObjectStore) -> None:
    headers = ObjectHeaders({}, {"m": "x" * 8191})
    await store.put("fits", Body([]), headers)
    before = store.statistics.requests
    too_much = ObjectHeaders({}, {"m": "x" * 8192})
    for attempt in (store.put("k", Body([]), too_much), store.create_upload("k", too_much)):
        with pytest.raises(errors.NotStorable, match="r2 holds at most 8192"):
            await attempt
    assert store.statistics.requests == before


async def test_unequal_parts_are_refused_at_completion(store: S3ObjectStore) -> None:
    upload = (await store.create_upload("k", ObjectHeaders())).upload_id
    sizes = (5 * MIB, 6 * MIB, 5)
    parts = [
        await store.put_part("k", upload, number, Body([bytes(size)]))
        for number, size in enumerate(sizes, 1)
    ]
    with pytest.raises(errors.StoreError, match="same length"):
        await store.complete_upload("k", upload, parts)
    with pytest.raises(errors.StoreError, match="same length"):
        await store.complete_upload("k", upload, [parts[0], parts[1]])
    await store.abort_upload("k", upload)


async def test_an_upload_ends_after_seven_days(
    store: S3ObjectStore, turned_clock: Callable[[timedelta], None]
) -> None:
    upload = (await store.create_upload("k", ObjectHeaders())).upload_id
    assert dialects.R2.upload_days is not None
    turned_clock(timedelta(days=dialects.R2.upload_days - 0.1))
    await store.put_part("k", upload, 1, Body([b"x"]))
    turned_clock(timedelta(days=dialects.R2.upload_days + 0.1))
    with pytest.raises(errors.NotFound, match="NoSuchUpload"):
        await store.put_part("k", upload, 1, Body([b"x"]))
    assert await store.list_uploads() == []


async def test_the_whole_checksum_of_an_upload_is_verified(
    store: S3ObjectStore, client: S3Client, bucket: str
) -> None:
    begun = await store.create_upload("k", ObjectHeaders())
    assert begun.whole_checked
    part = await store.put_part("k", begun.upload_id, 1, Body([b"12345"]))
    await store.complete_upload("k", begun.upload_id, [part], whole_checked=True)
    head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head["ChecksumCRC64NVME"] == Body([b"12345"]).checksum(Algorithm.CRC64NVME)
    assert head["ChecksumType"] == "FULL_OBJECT"


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("CRC64NVME", "COMPOSITE"), ("CRC32C", "FULL_OBJECT")]
)
def test_checksums_have_one_type_each(
    client: S3Client, bucket: str, algorithm: ChecksumAlgorithmType, kind: ChecksumTypeType
) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="NotImplemented"):
        client.create_multipart_upload(
            Bucket=bucket, Key="k", ChecksumAlgorithm=algorithm, ChecksumType=kind
        )


def test_the_region_is_auto(r2_server: S3Server, bucket: str) -> None:
    client = replace(r2_server, region="eu-west-1").client()
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidRegionName"):
        client.list_objects_v2(Bucket=bucket)
    client.close()
