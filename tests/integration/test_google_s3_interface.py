"""Google's S3 interface unpacks what is stored with gzip unless gzip is accepted.

fake-gcs-server does the same for a client that reads an object by its path.
"""

from __future__ import annotations

import gzip
from dataclasses import replace

from slurper.http.client import TransportOptions
from slurper.objectstore import dialects
from slurper.objectstore.base import Download, StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.factory import open_store
from slurper.secrets import S3Credentials
from tests.servers.gcs.fake import Guard

PLAIN = b"packed " * 1000
PACKED = gzip.compress(PLAIN)


async def read(fakegcs: Guard, bucket: str, dialect: Dialect) -> Download:
    address = StoreAddress(
        origin=str(fakegcs._upstream).rstrip("/"),
        bucket=bucket,
        region="auto",
        dialect=dialect,
        credentials=S3Credentials(access_key_id="a", secret_access_key="b"),
        trusted=True,
    )
    store = open_store(address, TransportOptions())
    try:
        return await store.get("k", max_bytes=len(PACKED))
    finally:
        await store.close()


async def test_what_google_stores_with_gzip_arrives_as_it_is_stored(fakegcs: Guard) -> None:
    bucket = fakegcs.make_bucket()
    described = {"name": "k", "contentType": "text/plain", "contentEncoding": "gzip"}
    fakegcs._insert(bucket, described, PACKED)
    download = await read(fakegcs, bucket, dialects.GOOGLE)
    assert bytes(download.body) == PACKED
    assert download.stored.headers.content["content-encoding"] == "gzip"
    otherwise = await read(fakegcs, bucket, replace(dialects.GOOGLE, accept_encoding="identity"))
    assert bytes(otherwise.body) == PLAIN
