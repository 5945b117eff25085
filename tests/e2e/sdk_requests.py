"""What the tests ask of the SDK: sides of a job in its own types, and waiting for a status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar, cast

from cloudflare import Cloudflare
from cloudflare.types.r2.super_slurper import JobProgressResponse
from cloudflare.types.r2.super_slurper.job_create_params import (
    SourceR2SlurperGcsSourceSchema,
    SourceR2SlurperGcsSourceSchemaSecret,
    SourceR2SlurperR2SourceSchema,
    SourceR2SlurperS3SourceSchema,
    Target,
    TargetSecret,
)

from slurper.demo.servers import S3Server
from tests.servers.gcs.tokens import ACCOUNT

WAIT_SECONDS = 150
ENDED = frozenset({"completed", "aborted"})

Answer = TypeVar("Answer")


def secret(server: S3Server) -> TargetSecret:
    return {
        "access_key_id": server.access_key_id,
        "secret_access_key": server.secret_access_key,
    }


def s3_source(server: S3Server, bucket: str) -> SourceR2SlurperS3SourceSchema:
    return {
        "vendor": "s3",
        "bucket": bucket,
        "endpoint": server.endpoint,
        "region": server.region,
        "secret": {**secret(server)},
    }


def gcs_source(bucket: str, **changes: str) -> SourceR2SlurperGcsSourceSchema:
    account = {"client_email": ACCOUNT.client_email, "private_key": ACCOUNT.private_key}
    secret = cast("SourceR2SlurperGcsSourceSchemaSecret", {**account, **changes})
    return {"vendor": "gcs", "bucket": bucket, "secret": secret}


def gcs_target(bucket: str) -> Target:
    """As `s3_target`, no type of the SDK's; which spells only names in the API's way it knows."""
    secret = {"clientEmail": ACCOUNT.client_email, "privateKey": ACCOUNT.private_key}
    return cast("Target", {"vendor": "gcs", "bucket": bucket, "secret": secret})


def r2_source(server: S3Server, bucket: str) -> SourceR2SlurperR2SourceSchema:
    return {"vendor": "r2", "bucket": bucket, "secret": {**secret(server)}}


def r2_target(server: S3Server, bucket: str) -> Target:
    return {"vendor": "r2", "bucket": bucket, "secret": secret(server)}


def s3_target(server: S3Server, bucket: str) -> Target:
    """Upstream copies to R2 only, so the SDK's type has no such target; its transport does."""
    return cast("Target", s3_source(server, bucket))


def wait_until(read: Callable[[], Answer], done: Callable[[Answer], bool]) -> Answer:
    """Read until `done`; for the last thing read to be worth looking at, fail after a minute."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not done(answer := read()):
        assert time.monotonic() < deadline, f"still {answer}"
        time.sleep(0.05)
    return answer


def wait_for_end(sdk: Cloudflare, account: str, job_id: str) -> JobProgressResponse:
    """Wait until the job is completed or aborted; return its progress then."""

    def read() -> JobProgressResponse:
        progress = sdk.r2.super_slurper.jobs.progress(job_id, account_id=account)
        assert progress is not None
        return progress

    return wait_until(read, lambda progress: progress.status in ENDED)
