"""Buckets between which a copy is disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from slurper.demo.servers import S3Server
from slurper.http import client
from slurper.objectstore import listings
from slurper.transfer import attempts
from tests.chaos.stage import PART, Stage, stage
from tests.pairs.referee import S3Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]
NewBucket = Callable[[S3Server], S3Bucket]

SMALL = 12
CHECKED = 6
"""So many of them are kept with a checksum."""
LARGE = "large"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BACKOFF_BASE_SECONDS", 0.01)
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(listings, "AGAIN_PAUSE_SECONDS", 0.01)


@pytest.fixture(scope="session")
def new_bucket(boto: Boto, make_bucket: MakeBucket) -> NewBucket:
    """`new_bucket(server)` is an empty bucket."""
    return lambda server: S3Bucket(boto(server), make_bucket(server))


def fill(bucket: S3Bucket, *, large: bool = True, seed: int = 1) -> None:
    """Objects `k-00` ... with headers and metadata of their own, and one of three parts."""
    chance = random.Random(seed)  # noqa: S311 - repeatable bytes
    for number in range(SMALL):
        bucket.put(
            f"k-{number:02}",
            chance.randbytes(number * number * 2_000),
            ContentType=f"text/x-{number}",
            CacheControl=f"max-age={number}",
            Metadata={"number": str(number)},
            **({"ChecksumAlgorithm": "CRC32C"} if number < CHECKED else {}),
        )
    if large:
        body = chance.randbytes(2 * PART + 70_000)
        bucket.put(LARGE, body, ContentType="video/x", Metadata={"a": "b"})


@pytest.fixture(scope="module")
def filled(ministack: S3Server, new_bucket: NewBucket) -> S3Bucket:
    """A source that no test changes."""
    bucket = new_bucket(ministack)
    fill(bucket)
    return bucket


@pytest.fixture
def staged(ministack: S3Server, filled: S3Bucket, new_bucket: NewBucket) -> Iterator[Stage]:
    """From the filled bucket to an empty one at ministack, which keeps closest to S3."""
    with stage(ministack, filled, ministack, new_bucket(ministack)) as staged:
        yield staged


@pytest.fixture
def changing(ministack: S3Server, new_bucket: NewBucket) -> Iterator[Stage]:
    """The same from a bucket that the test may change."""
    bucket = new_bucket(ministack)
    fill(bucket)
    with stage(ministack, bucket, ministack, new_bucket(ministack)) as staged:
        yield staged


@pytest.fixture
def to_seaweedfs(
    ministack: S3Server, seaweedfs: S3Server, filled: S3Bucket, new_bucket: NewBucket
) -> Iterator[Stage]:
    """From the filled bucket to an empty one at SeaweedFS, which keeps objects on disk."""
    with stage(ministack, filled, seaweedfs, new_bucket(seaweedfs)) as staged:
        yield staged
