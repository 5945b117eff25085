"""A stopped service takes its running jobs up again by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloudflare import Cloudflare

from slurper.demo.servers import S3Server
from tests.e2e.conftest import LARGE_COUNT, serve
from tests.e2e.sdk_requests import s3_source, s3_target, wait_for_end, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def test_a_restart_continues_where_the_job_was(
    tmp_path: Path,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    environment = {
        "SLURPER_ALLOW_HTTP": "true",
        "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "SLURPER_WORKERS": "1",
        "SLURPER_IN_FLIGHT_REQUESTS": "4",
        "SLURPER_TASK_SECONDS": "0.3",
    }
    target = make_bucket(ministack)
    with (
        serve(tmp_path, environment) as service,
        Cloudflare(base_url=service.base_url, api_token=service.token) as sdk,
    ):
        jobs = sdk.r2.super_slurper.jobs
        job = jobs.create(
            account_id=account,
            # Nothing may be overwritten, so an object copied twice would show as skipped.
            overwrite=False,
            source=s3_source(seaweedfs, large_bucket),
            target=s3_target(ministack, target),
        )
        assert job is not None
        job_id = str(job.id)
        wait_until(
            lambda: jobs.progress(job_id, account_id=account),
            lambda progress: bool(progress and progress.objects),
        )

    with (
        serve(tmp_path, environment) as service,
        Cloudflare(base_url=service.base_url, api_token=service.token) as sdk,
    ):
        progress = wait_for_end(sdk, account, job_id)
        assert progress.status == "completed"
        assert progress.objects == progress.transferred_objects == LARGE_COUNT
        types = [entry.log_type for entry in sdk.r2.super_slurper.jobs.logs.list(
            job_id, account_id=account
        )]  # fmt: skip
        assert types == ["migrationStart", "migrationComplete"]
    pages = boto(ministack).get_paginator("list_objects_v2").paginate(Bucket=target)
    assert sum(page["KeyCount"] for page in pages) == LARGE_COUNT
