"""What a worker finds out of a store while it copies: the workers that follow begin with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from slurper.demo.servers import S3Server
from slurper.job.model import (
    Capabilities,
    JobCapabilities,
    JobOptions,
    JobSpec,
    JobStatus,
    Location,
    Vendor,
)
from slurper.secrets import JobSecrets, S3Credentials
from tests.chaos import faults
from tests.chaos.faults import Fault, passed_on
from tests.chaos.proxy import FaultProxy
from tests.integration.test_driver_s3 import ACCOUNT, Served, served, until
from tests.pairs.referee import S3Bucket, Stored

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

KEYS = [f"k-{number:03}" for number in range(100)]
SLOWLY = JobOptions(request_rate_limit=50, server_side_copy=False)
"""So that there is much left to copy when a first task has reported."""

READS = "^GET /[^?]*/k-"
WRITES = "^PUT /[^?]*/k-"
"""Of the job, and not of the check before it."""

ENCRYPTED = "x-amz-server-side-encryption: aws:kms"
"""An object whose ETag is no MD5."""

WANTS_MD5 = faults.status(400, "MissingContentMD5")
IF_MATCH_NEVER_HOLDS = faults.status(412, "PreconditionFailed")


@dataclass
class Buckets:
    source: S3Bucket
    held: Mapping[str, Stored]
    """What is in it."""
    target: S3Bucket
    before_source: FaultProxy
    before_target: FaultProxy
    server: S3Server

    def spec(self) -> JobSpec:
        def at(proxy: FaultProxy, bucket: S3Bucket) -> Location:
            return Location(vendor=Vendor.S3, bucket=bucket.name, endpoint=proxy.endpoint)

        return JobSpec(
            source=at(self.before_source, self.source),
            target=at(self.before_target, self.target),
            options=SLOWLY,
        )

    @property
    def secrets(self) -> JobSecrets:
        same = S3Credentials(
            access_key_id=self.server.access_key_id,
            secret_access_key=self.server.secret_access_key,
        )
        return JobSecrets(source=same, target=same)


@pytest.fixture(scope="module")
def filled(
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> tuple[S3Bucket, Mapping[str, Stored]]:
    """A bucket that no test changes, and what is in it."""
    source = S3Bucket(boto(ministack), make_bucket(ministack))
    for number, key in enumerate(KEYS):
        source.put(key, bytes([number]) * (number + 1), ContentType="text/plain")
    return source, source.read_all()


@pytest.fixture
def buckets(
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    filled: tuple[S3Bucket, Mapping[str, Stored]],
) -> Iterator[Buckets]:
    target = S3Bucket(boto(ministack), make_bucket(ministack))
    with _before(ministack) as before_source, _before(ministack) as before_target:
        yield Buckets(*filled, target, before_source, before_target, ministack)


@contextmanager
def _before(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint).running() as proxy:
        yield proxy


def without_md5(lines: list[str]) -> Fault:
    return faults.unless("content-md5", None, faults.noting(lines, WANTS_MD5))


def with_if_match(lines: list[str]) -> Fault:
    return faults.with_header("if-match", faults.noting(lines, IF_MATCH_NEVER_HOLDS))


def with_md5(lines: list[str]) -> Fault:
    """A write that tells the source's ETag, which is no MD5."""
    return faults.with_header("content-md5", faults.noting(lines, passed_on))


@pytest.mark.parametrize(
    ("side", "match", "vain", "found"),
    [
        (
            "target",
            WRITES,
            without_md5,
            JobCapabilities(target=Capabilities(wants_md5=True)),
        ),
        (
            "source",
            READS,
            with_if_match,
            JobCapabilities(source=Capabilities(obeys_if_match=False)),
        ),
        (
            "target",
            WRITES,
            with_md5,
            JobCapabilities(source=Capabilities(etags_are_md5s=False)),
        ),
    ],
    ids=["wants Content-MD5", "refuses If-Match", "ETags that are no MD5s"],
)
async def test_after_a_restart_no_request_is_sent_in_vain(
    buckets: Buckets,
    tmp_path: Path,
    side: str,
    match: str,
    vain: Callable[[list[str]], Fault],
    found: JobCapabilities,
) -> None:
    in_vain: list[str] = []
    proxy = buckets.before_target if side == "target" else buckets.before_source
    proxy.add(vain(in_vain), match)
    if found.source.etags_are_md5s is False:
        buckets.before_source.add(faults.other_etags())
    if found.target.wants_md5:  # which nothing but a refusal makes us send then
        buckets.before_source.add(faults.with_headers(ENCRYPTED), READS)
    key = Fernet.generate_key().decode()
    async with served(tmp_path, key) as server:
        job_id = await server.service.create(ACCOUNT, buckets.spec(), buckets.secrets)
        before = (await server.store.get_job(ACCOUNT, job_id)).capabilities
        await until(server, job_id, lambda progress: progress.counts.objects > 0)
        await server.service.pause(ACCOUNT, job_id)
        await _until_idle(server)
        known = (await server.store.get_job(ACCOUNT, job_id)).capabilities
    assert known == before.with_found(found) != before
    seen = len(in_vain)
    assert seen > 0
    async with served(tmp_path, key) as server:
        await server.service.resume(ACCOUNT, job_id)
        left = len(KEYS) - (await server.service.progress(ACCOUNT, job_id)).counts.objects
        progress = await until(
            server, job_id, lambda progress: progress.status is not JobStatus.RUNNING
        )
    assert left > 0
    assert (progress.status, progress.counts.transferred) == (JobStatus.COMPLETED, len(KEYS))
    assert in_vain[seen:] == []
    assert buckets.target.read_all() == buckets.held


async def test_what_the_check_before_a_job_is_refused_for_is_known_to_its_first_task(
    buckets: Buckets, tmp_path: Path
) -> None:
    in_vain: list[str] = []
    buckets.before_target.add(without_md5(in_vain), "^PUT ")
    buckets.before_source.add(faults.with_headers(ENCRYPTED), READS)
    async with served(tmp_path, Fernet.generate_key().decode()) as server:
        job_id = await server.service.create(ACCOUNT, buckets.spec(), buckets.secrets)
        found = (await server.store.get_job(ACCOUNT, job_id)).capabilities.target
        progress = await until(
            server, job_id, lambda progress: progress.status is not JobStatus.RUNNING
        )
    assert found.wants_md5 is True
    assert progress.counts.transferred == len(KEYS)
    assert in_vain
    assert [line for line in in_vain if re.search(WRITES, line)] == []


async def _until_idle(server: Served) -> None:
    """Wait until no task is under way: all that were have reported."""
    while under_way := list(server.driver._tasks):
        await asyncio.wait(under_way)
