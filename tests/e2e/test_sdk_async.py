"""The asynchronous client of the official SDK: every operation, and the errors once more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import cloudflare
import pytest
from cloudflare import AsyncCloudflare

from slurper.demo.servers import S3Server
from tests.e2e.conftest import LARGE_COUNT, Service
from tests.e2e.sdk_requests import ENDED, WAIT_SECONDS, r2_target, s3_source

ABSENT = "0" * 64


@pytest.fixture
async def sdk(service: Service) -> AsyncIterator[AsyncCloudflare]:
    async with AsyncCloudflare(base_url=service.base_url, api_token=service.token) as client:
        yield client


async def end_of(sdk: AsyncCloudflare, account: str, job_id: str) -> str:
    """Wait until the job has ended; return how."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            progress = await sdk.r2.super_slurper.jobs.progress(job_id, account_id=account)
            assert progress is not None
            assert progress.status is not None
            if progress.status in ENDED:
                return progress.status
            await asyncio.sleep(0.05)


async def test_every_operation(
    sdk: AsyncCloudflare,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    source = s3_source(seaweedfs, large_bucket)
    target = r2_target(ministack, make_bucket(ministack))

    checks = sdk.r2.super_slurper.connectivity_precheck
    for check in await asyncio.gather(
        checks.source(account_id=account, **source), checks.target(account_id=account, **target)
    ):
        assert check is not None
        assert check.connectivity_status == "success"

    job = await jobs.create(account_id=account, source=source, target=target)
    assert job is not None
    assert job.id is not None
    assert await jobs.pause(job.id, account_id=account) == "Job paused"
    assert await jobs.resume(job.id, account_id=account) == "Job resumed"
    assert await end_of(sdk, account, job.id) == "completed"

    progress = await jobs.progress(job.id, account_id=account)
    assert progress is not None
    assert (progress.objects, progress.transferred_objects) == (LARGE_COUNT, LARGE_COUNT)
    shown = await jobs.get(job.id, account_id=account)
    assert shown is not None
    assert shown.status == "completed"
    listed = [one async for one in jobs.list(account_id=account)]
    assert [one.id for one in listed] == [job.id]
    logs = [entry.log_type async for entry in jobs.logs.list(job.id, account_id=account)]
    assert logs[0] == "migrationStart"
    assert logs[-1] == "migrationComplete"

    second = await jobs.create(account_id=account, source=source, target=target)
    assert second is not None
    assert second.id is not None
    assert await jobs.abort(second.id, account_id=account) == "Job aborted"
    assert await jobs.abort_all(account_id=account) == "All jobs aborted"


async def test_many_jobs_at_once_keep_to_themselves(
    sdk: AsyncCloudflare,
    account: str,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    source = make_bucket(ministack)
    fill(ministack, source, {f"{number}/object": b"x" * number for number in range(3)})

    async def copy(number: int) -> tuple[str, int | None]:
        job = await jobs.create(
            account_id=account,
            source={**s3_source(ministack, source), "path_prefix": f"{number}/"},
            target=r2_target(ministack, make_bucket(ministack)),
        )
        assert job is not None
        assert job.id is not None
        status = await end_of(sdk, account, job.id)
        progress = await jobs.progress(job.id, account_id=account)
        assert progress is not None
        return status, progress.transferred_objects

    assert await asyncio.gather(*map(copy, range(3))) == [("completed", 1)] * 3


async def test_every_error_class(sdk: AsyncCloudflare, service: Service, account: str) -> None:
    jobs = sdk.r2.super_slurper.jobs
    with pytest.raises(cloudflare.BadRequestError):
        await jobs.create(account_id=account)
    with pytest.raises(cloudflare.NotFoundError):
        await jobs.get(ABSENT, account_id=account)
    unreachable = S3Server(endpoint="http://127.0.0.1:9", access_key_id="A", secret_access_key="s")
    with pytest.raises(cloudflare.PermissionDeniedError, match="Preconnectivity failed"):
        await jobs.create(
            account_id=account,
            source=s3_source(unreachable, "some-bucket"),
            target=r2_target(unreachable, "some-bucket"),
        )
    async with AsyncCloudflare(base_url=service.base_url, api_token="wrong") as stranger:
        with pytest.raises(cloudflare.AuthenticationError):
            await stranger.r2.super_slurper.jobs.list(account_id=account)
