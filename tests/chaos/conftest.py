"""Buckets between which a copy is disturbed."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from typing_extensions import override

from slurper.demo.servers import S3Server
from slurper.http import client
from slurper.objectstore import listings
from slurper.transfer import attempts
from tests.chaos.reading import QuickBucket, Reader
from tests.chaos.stage import LEAST_PART, PART, Stage, stage
from tests.pairs.referee import S3Bucket, Stored

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]
NewBucket = Callable[[S3Server], QuickBucket]

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
def new_bucket(boto: Boto, make_bucket: MakeBucket) -> Iterator[NewBucket]:
    """`new_bucket(server)` is an empty bucket."""
    readers: dict[S3Server, Reader] = {}

    def new(server: S3Server) -> QuickBucket:
        if server not in readers:
            readers[server] = Reader(server)
        return QuickBucket(boto(server), make_bucket(server), readers[server])

    yield new
    for reader in readers.values():
        reader.close()


def fill(bucket: S3Bucket, *, part: int = PART) -> None:
    """Put objects `k-00` ... with headers and metadata of their own, and one of three parts."""
    for key in bodies(part):
        fill_one(bucket, key, part=part)


def fill_one(bucket: S3Bucket, key: str, *, part: int = PART) -> None:
    """Put the object that `fill` puts under this key."""
    body = bodies(part)[key]
    if key == LARGE:
        bucket.put(key, body, ContentType="video/x", Metadata={"a": "b"})
        return
    number = int(key.removeprefix("k-"))
    bucket.put(
        key,
        body,
        ContentType=f"text/x-{number}",
        CacheControl=f"max-age={number}",
        Metadata={"number": str(number)},
        **({"ChecksumAlgorithm": "CRC32C"} if number < CHECKED else {}),
    )


@functools.cache
def bodies(part: int = PART) -> Mapping[str, bytes]:
    """The bodies that `fill` puts, by their keys. It takes long to make them."""
    chance = random.Random(1)  # noqa: S311 - repeatable bytes
    small = {f"k-{n:02}": chance.randbytes(n * n * 2_000) for n in range(SMALL)}
    return small | {LARGE: chance.randbytes(2 * part + 70_000)}


@dataclass(frozen=True, slots=True)
class FixedBucket(S3Bucket):
    """A bucket that no test changes, so its objects are read once."""

    contents: Mapping[str, Stored] = field(default_factory=dict)

    @override
    def get(self, key: str) -> Stored:
        return self.contents[key]

    @override
    def read_all(self) -> dict[str, Stored]:
        return dict(self.contents)

    @override
    def put(self, key: str, body: bytes, **more: Any) -> NoReturn:
        raise TypeError("other tests read this bucket too: take `changing`")

    @override
    def delete(self, key: str) -> NoReturn:
        raise TypeError("other tests read this bucket too: take `changing`")


@contextmanager
def fixed(bucket: S3Bucket) -> Iterator[FixedBucket]:
    """Read a bucket now, and see at the end of the block that nobody has changed it."""
    contents = bucket.read_all()
    yield FixedBucket(bucket.client, bucket.name, contents)
    assert bucket.read_all() == contents, "somebody has changed the source"


@dataclass(frozen=True, slots=True)
class RestoredBucket(QuickBucket):
    """A bucket that tests change one after the other, and that is restored between them."""

    changed: set[str] = field(default_factory=set)
    """Keys written and removed since the bucket was as `fill` makes it."""

    @override
    def put(self, key: str, body: bytes, **more: Any) -> None:
        self.changed.add(key)
        S3Bucket.put(self, key, body, **more)

    @override
    def delete(self, key: str) -> None:
        self.changed.add(key)
        S3Bucket.delete(self, key)

    def restore(self) -> None:
        """Make it what `fill` makes of it."""
        for key in sorted(self.changed):
            if key in bodies():
                fill_one(self, key)
            else:
                self.delete(key)
        self.changed.clear()

    def etags(self) -> dict[str, str]:
        """The ETag of each object."""
        listed = self.client.list_objects_v2(Bucket=self.name)
        return {item["Key"]: item["ETag"] for item in listed["Contents"]}


@pytest.fixture(scope="module")
def filled(ministack: S3Server, new_bucket: NewBucket) -> Iterator[FixedBucket]:
    """A source that no test changes."""
    bucket = new_bucket(ministack)
    fill(bucket)
    with fixed(bucket) as source:
        yield source


@pytest.fixture(scope="module")
def long_filled(ministack: S3Server, new_bucket: NewBucket) -> Iterator[FixedBucket]:
    """The same with parts that no store refuses, and that do not fit into a connection's buffers:
    a request with one of them is still being sent while it is answered."""
    bucket = new_bucket(ministack)
    fill(bucket, part=LEAST_PART)
    with fixed(bucket) as source:
        yield source


@pytest.fixture(scope="module")
def changeable(ministack: S3Server, new_bucket: NewBucket) -> RestoredBucket:
    """A source that tests may change."""
    bucket = new_bucket(ministack)
    fill(bucket)
    return RestoredBucket(bucket.client, bucket.name, bucket.reader)


@pytest.fixture
def staged(ministack: S3Server, filled: S3Bucket, new_bucket: NewBucket) -> Iterator[Stage]:
    """From the filled bucket to an empty one at ministack, which keeps closest to S3."""
    with stage(ministack, filled, ministack, new_bucket(ministack)) as staged:
        yield staged


@pytest.fixture
def long_staged(
    ministack: S3Server, long_filled: S3Bucket, new_bucket: NewBucket
) -> Iterator[Stage]:
    """The same with long parts."""
    target = new_bucket(ministack)
    with stage(ministack, long_filled, ministack, target, part=LEAST_PART) as staged:
        # A long part that breaks off late is to be sent again all the same.
        staged.settings = staged.settings.model_copy(update={"retry_deadline_seconds": 6.0})
        yield staged


@pytest.fixture
def changing(
    ministack: S3Server, changeable: RestoredBucket, new_bucket: NewBucket
) -> Iterator[Stage]:
    """The same from a bucket that the test may change."""
    etags = changeable.etags()
    with stage(ministack, changeable, ministack, new_bucket(ministack)) as staged:
        yield staged
    changeable.restore()
    assert changeable.etags() == etags, "a test has changed the source in a way nobody noticed"


@pytest.fixture
def to_seaweedfs(
    ministack: S3Server, seaweedfs: S3Server, long_filled: S3Bucket, new_bucket: NewBucket
) -> Iterator[Stage]:
    """From the filled bucket to an empty one at SeaweedFS, which keeps objects on disk."""
    target = new_bucket(seaweedfs)
    with stage(ministack, long_filled, seaweedfs, target, part=LEAST_PART) as staged:
        yield staged
