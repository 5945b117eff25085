"""Compares two buckets with boto3. It uses none of the code that copied them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

THREADS = 8
CHUNK_BYTES = 1 << 20

HEADERS = {
    "cache-control": "Cache-Control",
    "content-disposition": "Content-Disposition",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-length": "Content-Length",
    "content-type": "Content-Type",
    "expires": "Expires",
}
"""Response headers that must be equal, as the user metadata must be."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket as boto3 sees it."""

    client: S3Client
    name: str

    def keys(self) -> set[str]:
        """Every key of the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found about one key. `difference` is empty if both sides are equal."""

    key: str
    difference: str = ""


@dataclass(frozen=True, slots=True)
class _Facts:
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    sha256: str


def compare(source: Bucket, target: Bucket) -> Iterator[Comparison]:
    """Read every object of both buckets, and yield one comparison for each key."""
    at_source, at_target = source.keys(), target.keys()
    for key in sorted(at_source ^ at_target):
        yield Comparison(key, "missing at the target" if key in at_source else "not at the source")

    def check(key: str) -> Comparison:
        return Comparison(key, _difference(_read(source, key), _read(target, key)))

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(check, sorted(at_source & at_target))


def _read(bucket: Bucket, key: str) -> _Facts:
    answer = bucket.client.get_object(Bucket=bucket.name, Key=key)
    digest = hashlib.sha256()
    for chunk in iter(lambda: answer["Body"].read(CHUNK_BYTES), b""):
        digest.update(chunk)
    sent: dict[str, Any] = answer["ResponseMetadata"]["HTTPHeaders"]
    return _Facts(
        headers={label: sent[name] for name, label in HEADERS.items() if name in sent},
        metadata=answer["Metadata"],
        sha256=digest.hexdigest(),
    )


def _difference(source: _Facts, target: _Facts) -> str:
    found = [
        f"{name}: {source.headers.get(name)!r} became {target.headers.get(name)!r}"
        for name in HEADERS.values()
        if source.headers.get(name) != target.headers.get(name)
    ]
    if source.metadata != target.metadata:
        found.append(f"metadata: {source.metadata!r} became {target.metadata!r}")
    if source.sha256 != target.sha256:
        found.append("the bytes differ")
    return "; ".join(found)
