"""A real web server before a store that compresses whatever it may: objects come as stored."""

from __future__ import annotations

import gzip
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

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
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
CONFIGURATION = """
daemon off; master_process off; error_log stderr; pid {folder}/pid;
events {{}}
http {{
  access_log off; client_max_body_size 0; merge_slashes off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {upstream}; proxy_set_header Host $http_host; proxy_http_version 1.1;
    }}
  }}
}}
"""


@pytest.fixture
def compressing(ministack: S3Server, tmp_path: Path) -> Iterator[str]:
    """An nginx before ministack that compresses whatever it may."""
    if NGINX is None:
        pytest.skip("no nginx here")
    port = _free_port()
    text = CONFIGURATION.format(folder=tmp_path, port=port, upstream=ministack.endpoint)
    (tmp_path / "nginx.conf").write_text(text)
    command = [NGINX, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _await_port(endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await_port(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex((parts.hostname or "", parts.port or 0)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("nginx did not start")


def _does_compress(server: S3Server, bucket: S3Bucket, endpoint: str) -> bool:
    """Whether a client that accepts it gets this bucket's objects compressed."""
    front = replace(server, endpoint=endpoint).client()
    url = front.generate_presigned_url(
        "get_object", Params={"Bucket": bucket.name, "Key": "text"}, ExpiresIn=60
    )
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    target = f"{parts.path}?{parts.query}"
    connection.request("GET", target, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    etag = answer.headers.get("ETag") or ""
    return answer.headers.get("Content-Encoding") == "gzip" and etag.startswith("W/")


async def test_a_proxy_that_compresses_gives_objects_as_they_are_stored(
    ministack: S3Server,
    compressing: str,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    source, target = (S3Bucket(boto(ministack), make_bucket(ministack)) for _ in range(2))
    source.put("text", b"abc" * 10_000, ContentType="text/plain")
    packed = gzip.compress(b"packed" * 1_000)
    source.put("packed", packed, ContentType="text/plain", ContentEncoding="gzip")
    source.put("large", b"0123456789" * MIB, ContentType="text/plain")
    assert _does_compress(ministack, source, compressing)
    front, direct = (
        StoreAddress(
            origin=origin,
            bucket=bucket.name,
            region=ministack.region,
            dialect=dialects.GENERIC,
            credentials=S3Credentials(
                access_key_id=ministack.access_key_id,
                secret_access_key=ministack.secret_access_key,
            ),
            trusted=True,
        )
        for origin, bucket in ((compressing, source), (ministack.endpoint, target))
    )
    worker = Worker(IN_PARTS)

    async def run(parts: PartsTask) -> PartsReport:
        return await worker.run(parts)

    task = RangeTask(job_id="j", range_id=1, source=front, target=direct, slice=KeyRange())
    found = await worker.run(task)
    large, _ = await settle([first_task(task, meta) for meta in found.large], run)
    await worker.close()
    report = folded(found, large)
    assert (report.counts.transferred, report.attempts, report.events) == (3, 0, ())
    assert target.read_all() == source.read_all()
