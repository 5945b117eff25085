"""The objects that the demonstration copies: usual ones, and some that break other tools.

Everything is made from `SEED`, so that each run copies the same bytes.
"""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SEED = 2022
ORDINARY_OBJECTS = 2_000
LARGEST_ORDINARY_BYTES = 48 << 10
LARGE_SIZES = tuple(size << 20 for size in (20, 32, 50))
FILL_THREADS = 8

HOSTILE_KEYS = (
    "a//b",
    "/lead",
    "dir",
    "dir/",
    "dir/below",
    "a/../b",
    "a/./b",
    "..",
    "x y+%25&=?#",
    "tail.",
    "quotes'\"<>",
    "back\\slash",
    "percent%2Fencoded",
    "nfc-\u00fc",
    "nfd-u\u0308",
    "emoji-\N{PARTY POPPER}\N{FAMILY}",
    "control-\u0001",
    "new\nline",
    "tab\there",
    "long/" + "k" * 1_019,
)
"""Keys that a client loses, merges or renames if it normalises paths or URLs. The last one has
1,024 bytes, the most that a store takes."""

_HEADERS: tuple[dict[str, str], ...] = (
    {"ContentType": "application/octet-stream"},
    {"ContentType": "text/html; charset=utf-8", "ContentLanguage": "de, en"},
    {"ContentType": "image/webp", "CacheControl": "public, max-age=31536000, immutable"},
    {"ContentType": "application/pdf", "ContentDisposition": 'attachment; filename="r port.pdf"'},
    {"ContentType": "application/json", "CacheControl": "no-store"},
)
_EXPIRES = "Wed, 21 Oct 2065 07:28:00 GMT"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoObject:
    """An object to write. Its body is made only when needed, so that few are in memory at once."""

    key: str
    size: int
    """Bytes of the body before it is compressed."""
    headers: Mapping[str, str]
    """Arguments of boto3's `put_object`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    compressed: bool = False
    """Whether the body is stored as gzip, with a Content-Encoding."""

    def body(self) -> bytes:
        """Return the bytes to store. They are always the same for the same key."""
        plain = random.Random(f"{SEED}/{self.key}").randbytes(self.size)  # noqa: S311 - test data
        return gzip.compress(plain, mtime=0) if self.compressed else plain


def objects() -> Iterator[DemoObject]:
    """Every object of the demonstration: ordinary, empty, hostile and large ones."""
    return itertools.chain(_ordinary(), _hostile(), _large())


def fill(client: S3Client, bucket: str) -> Iterator[DemoObject]:
    """Write every object into `bucket`, several at a time. Yield each one when it is written."""

    def put(item: DemoObject) -> DemoObject:
        arguments: dict[str, Any] = dict(item.headers) | {"Metadata": dict(item.metadata)}
        client.put_object(Bucket=bucket, Key=item.key, Body=item.body(), **arguments)
        return item

    with ThreadPoolExecutor(FILL_THREADS) as pool:
        yield from pool.map(put, objects())


def _ordinary() -> Iterator[DemoObject]:
    dice = random.Random(SEED)  # noqa: S311 - test data
    for number in range(ORDINARY_OBJECTS):
        headers = dict(_HEADERS[number % len(_HEADERS)])
        if number % 7 == 0:
            headers["Expires"] = _EXPIRES
        compressed = number % 11 == 0
        if compressed:
            headers["ContentEncoding"] = "gzip"
        yield DemoObject(
            key=f"photos/{2015 + number % 9}/{number % 31:02}/img-{number:05}.bin",
            size=0 if number % 50 == 0 else int(LARGEST_ORDINARY_BYTES * dice.random() ** 3) + 1,
            headers=headers,
            metadata={"sequence": str(number), "camera-model": "X-100 / mk II"},
            compressed=compressed,
        )


def _hostile() -> Iterator[DemoObject]:
    for number, key in enumerate(HOSTILE_KEYS):
        yield DemoObject(
            key=key,
            size=0 if key.endswith("/") else 100 + number,
            headers=_HEADERS[number % len(_HEADERS)],
            metadata={"hostile": str(number)},
        )


def _large() -> Iterator[DemoObject]:
    for size in LARGE_SIZES:
        yield DemoObject(
            key=f"video/{size >> 20}-mib.mp4",
            size=size,
            headers={"ContentType": "video/mp4", "CacheControl": "max-age=60"},
            metadata={"codec": "none: random bytes"},
        )
