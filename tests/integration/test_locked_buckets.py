"""A bucket whose rule of retention wants Content-MD5, at a server that enforces it (moto)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

from slurper.demo.servers import S3Server
from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import PartsReport, PartsTask, RangeTask
from slurper.transfer.worker import Worker
from tests.chain import first_task, folded, settle
from tests.pairs.referee import S3Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MIB = 1 << 20
IN_PARTS = Settings(multipart_threshold_bytes=5 * MIB, part_bytes=5 * MIB, stream_seconds=0)


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(endpoint=f"http://{host}:{port}", access_key_id="a", secret_access_key="b")
    server.stop()


@pytest.fixture
def locked(moto: S3Server) -> S3Bucket:
    client = moto.client()
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}},
        },
    )
    return S3Bucket(client, "locked")


async def test_a_locked_bucket_that_wants_content_md5_takes_every_object(
    ministack: S3Server,
    moto: S3Server,
    locked: S3Bucket,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    source = S3Bucket(boto(ministack), make_bucket(ministack))
    for number in range(20):
        source.put(f"k-{number:02}", bytes(number * 100), ContentType="text/plain")
    source.put("large", bytes(range(256)) * (45 * 1024), ContentType="video/x")
    addresses = (
        StoreAddress(
            origin=server.endpoint,
            bucket=bucket.name,
            region=server.region,
            dialect=dialects.GENERIC,
            credentials=S3Credentials(
                access_key_id=server.access_key_id, secret_access_key=server.secret_access_key
            ),
            trusted=True,
        )
        for server, bucket in ((ministack, source), (moto, locked))
    )
    worker = Worker(IN_PARTS)

    async def run(parts: PartsTask) -> PartsReport:
        return await worker.run(parts)

    source_at, target_at = addresses
    task = RangeTask(job_id="j", range_id=1, source=source_at, target=target_at, slice=KeyRange())
    found = await worker.run(task)
    large, _ = await settle([first_task(task, meta) for meta in found.large], run)
    await worker.close()
    report = folded(found, large)
    assert (report.counts.transferred, report.attempts, report.events) == (21, 0, ())
    assert locked.read_all() == source.read_all()
