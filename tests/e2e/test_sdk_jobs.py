"""Jobs from create to delete through the official SDK, on real stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cloudflare
import httpx
import pytest
from cloudflare import Cloudflare
from cloudflare.types.r2.super_slurper import JobCreateResponse

from slurper.demo.servers import S3Server
from tests.e2e import sdk_requests
from tests.e2e.conftest import LARGE_COUNT, Service
from tests.e2e.sdk_requests import r2_target, s3_source, wait_for_end, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
JOB_ID = re.compile(r"[0-9a-f]{64}")

OBJECTS = {
    "plain.txt": b"text",
    "empty": b"",
    "dir/a b+c%25&=?#.bin": bytes(range(256)) * 40,
    "dir/ü-é-\U0001f30d": "ü".encode() * 1_000,
    "dir/large": b"0123456789abcdef" * (1 << 16),
}
HEADERS = (
    "ContentType",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "Metadata",
)


@dataclass(frozen=True, slots=True)
class Store:
    """A bucket of a server, as its independent client sees it."""

    client: S3Client
    bucket: str

    def keys(self) -> set[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", ())}

    def read(self, key: str) -> tuple[bytes, Mapping[str, object]]:
        """An object's bytes and what travels with them."""
        found = self.client.get_object(Bucket=self.bucket, Key=key)
        headers = {name: found.get(name) for name in HEADERS}
        with found["Body"] as body:
            return body.read(), headers


def created(job: JobCreateResponse | None) -> str:
    assert job is not None
    assert job.id is not None
    assert JOB_ID.fullmatch(job.id)
    return job.id


def settled(sdk: Cloudflare, account: str, job_id: str) -> int:
    """How many objects are settled by now."""
    progress = sdk.r2.super_slurper.jobs.progress(job_id, account_id=account)
    assert progress is not None
    return progress.objects or 0


PAIRS = {
    "seaweedfs to ministack": ("seaweedfs", "ministack"),
    "ministack to seaweedfs": ("ministack", "seaweedfs"),
    "over TLS": ("ministack_tls", "seaweedfs_tls"),
    "over TLS back": ("seaweedfs_tls", "ministack_tls"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_a_bucket_arrives_byte_for_byte(
    sdk: Cloudflare,
    account: str,
    pair: tuple[str, str],
    request: pytest.FixtureRequest,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> None:
    servers: list[S3Server] = [request.getfixturevalue(name) for name in pair]
    source, target = (Store(boto(server), make_bucket(server)) for server in servers)
    for key, body in OBJECTS.items():
        source.client.put_object(
            Bucket=source.bucket,
            Key=key,
            Body=body,
            Metadata={"owner": "ana"},
            ContentType="text/x-special; charset=utf-8",
            CacheControl="max-age=60",
            ContentDisposition='attachment; filename="x"',
            ContentEncoding="x-own",
            ContentLanguage="de",
        )

    job_id = created(
        sdk.r2.super_slurper.jobs.create(
            account_id=account,
            source=s3_source(servers[0], source.bucket),
            target=sdk_requests.s3_target(servers[1], target.bucket),
        )
    )
    progress = wait_for_end(sdk, account, job_id)

    assert progress.status == "completed"
    assert progress.objects == progress.transferred_objects == len(OBJECTS)
    assert (progress.skipped_objects, progress.failed_objects) == (0, 0)
    assert target.keys() == OBJECTS.keys()
    for key, body in OBJECTS.items():
        assert source.read(key) == target.read(key)
        assert target.read(key)[0] == body
        assert target.read(key)[1]["ContentLanguage"] == "de"


def test_what_a_finished_job_looks_like(
    service: Service,
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    source, target = make_bucket(seaweedfs), make_bucket(ministack)
    fill(seaweedfs, source, {"in/a": b"a", "in/b": b"bb", "out/c": b"ccc"})
    job_id = created(
        jobs.create(
            account_id=account,
            overwrite=False,
            source={**s3_source(seaweedfs, source), "path_prefix": "in/", "keys": None},
            target={**r2_target(ministack, target), "jurisdiction": "eu"},
        )
    )
    progress = wait_for_end(sdk, account, job_id)
    assert (progress.id, progress.status) == (job_id, "completed")
    extensions = progress.to_dict()
    assert extensions["transferredBytes"] == 3
    assert extensions["estimatedSecondsLeft"] == 0
    assert extensions["throttledShare"] == {"source": 0, "target": 0}
    assert extensions["activeWorkers"] == 0
    assert progress.created_at is not None
    assert TIME.fullmatch(progress.created_at)

    job = jobs.get(job_id, account_id=account)
    assert job is not None
    assert (job.id, job.status, job.overwrite) == (job_id, "completed", False)
    assert job.created_at == progress.created_at
    assert job.to_dict()["createdBy"] == "static"
    assert job.finished_at is not None
    assert TIME.fullmatch(job.finished_at)
    assert job.source is not None
    assert job.source.to_dict() == {
        "vendor": "s3",
        "bucket": source,
        "endpoint": seaweedfs.endpoint,
        "keys": None,
        "pathPrefix": "in/",
    }
    assert job.target is not None
    assert job.target.to_dict() == {"vendor": "r2", "bucket": target, "jurisdiction": "eu"}
    assert seaweedfs.secret_access_key not in job.to_json()

    logs = list(jobs.logs.list(job_id, account_id=account))
    assert [entry.log_type for entry in logs] == ["migrationStart", "migrationComplete"]
    assert all(entry.job == job_id and entry.object_key is None for entry in logs)
    assert jobs.logs.list(job_id, account_id=account, limit=1, offset=1).result == logs[1:]

    # The SDK has no delete yet.
    headers = {"authorization": f"Bearer {service.token}"}
    url = f"{service.jobs_url(account)}/{job_id}"
    answer = httpx.delete(url, headers=headers)
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "errors": [],
        "messages": [],
        "result": "Job deleted",
    }
    with pytest.raises(cloudflare.NotFoundError):
        jobs.get(job_id, account_id=account)
    assert httpx.delete(url, headers=headers).status_code == 404


def test_r2_to_r2_with_keys_and_nothing_overwritten(
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> None:
    source, target = make_bucket(ministack), make_bucket(ministack)
    fill(ministack, source, {"a": b"new a", "b": b"new b", "c": b"new c", "d": b"new d"})
    fill(ministack, target, {"b": b"old b"})
    job_id = created(
        sdk.r2.super_slurper.jobs.create(
            account_id=account,
            overwrite=False,
            source={
                **sdk_requests.r2_source(ministack, source),
                "keys": ["c", "b", "a", "b", "absent"],
            },
            target=r2_target(ministack, target),
        )
    )
    progress = wait_for_end(sdk, account, job_id)
    assert (progress.objects, progress.transferred_objects) == (4, 2)
    assert (progress.skipped_objects, progress.failed_objects) == (1, 1)
    copied = Store(boto(ministack), target)
    assert copied.keys() == {"a", "b", "c"}
    assert copied.read("b")[0] == b"old b"
    logs = sdk.r2.super_slurper.jobs.logs.list(job_id, account_id=account).result
    failures = [entry for entry in logs if entry.log_type == "importErrorRetryExhaustion"]
    assert [entry.object_key for entry in failures] == ["absent"]
    assert failures[0].message
    job = sdk.r2.super_slurper.jobs.get(job_id, account_id=account)
    assert job is not None
    assert job.source is not None
    assert job.source.keys == ["a", "absent", "b", "c"]


def test_pause_and_resume_lose_nothing(
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    target = Store(boto(ministack), make_bucket(ministack))
    job_id = created(
        jobs.create(
            account_id=account,
            source=s3_source(seaweedfs, large_bucket),
            target=r2_target(ministack, target.bucket),
        )
    )
    assert jobs.pause(job_id, account_id=account) == "Job paused"
    job = jobs.get(job_id, account_id=account)
    assert job is not None
    assert (job.status, job.finished_at) == ("paused", None)
    with pytest.raises(cloudflare.ConflictError):
        jobs.pause(job_id, account_id=account)

    assert jobs.resume(job_id, account_id=account) == "Job resumed"
    with pytest.raises(cloudflare.ConflictError):
        jobs.resume(job_id, account_id=account)
    wait_until(lambda: settled(sdk, account, job_id), lambda objects: objects > 0)
    assert jobs.pause(job_id, account_id=account) == "Job paused"
    assert 0 < settled(sdk, account, job_id) < LARGE_COUNT
    assert jobs.resume(job_id, account_id=account) == "Job resumed"
    progress = wait_for_end(sdk, account, job_id)

    assert progress.status == "completed"
    assert progress.objects == progress.transferred_objects == LARGE_COUNT
    assert len(target.keys()) == LARGE_COUNT
    types = [entry.log_type for entry in jobs.logs.list(job_id, account_id=account)]
    twice = ["migrationPause", "migrationResume"] * 2
    assert types == ["migrationStart", *twice, "migrationComplete"]


def test_an_aborted_job_stays_aborted(
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    job_id = created(
        jobs.create(
            account_id=account,
            source=s3_source(seaweedfs, large_bucket),
            target=r2_target(ministack, make_bucket(ministack)),
        )
    )
    assert jobs.abort(job_id, account_id=account) == "Job aborted"
    for command in (jobs.abort, jobs.pause, jobs.resume):
        with pytest.raises(cloudflare.ConflictError):
            command(job_id, account_id=account)
    job = jobs.get(job_id, account_id=account)
    assert job is not None
    assert job.status == "aborted"
    assert job.finished_at is not None
    types = [entry.log_type for entry in jobs.logs.list(job_id, account_id=account)]
    assert types == ["migrationStart", "migrationAbort"]


def test_listing_limit_and_abort_all(
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    assert jobs.list(account_id=account).result == []
    target = r2_target(ministack, make_bucket(ministack))

    def create() -> str:
        source = s3_source(seaweedfs, large_bucket)
        return created(jobs.create(account_id=account, source=source, target=target))

    ids = [create() for _ in range(3)]
    jobs.pause(ids[0], account_id=account)
    # A paused job is active as well, so a fourth is one too many.
    with pytest.raises(cloudflare.ConflictError, match="concurrent jobs"):
        create()

    assert [job.id for job in jobs.list(account_id=account)] == ids[::-1]
    second = jobs.list(account_id=account, limit=1, offset=1).result
    assert [job.id for job in second] == ids[1:2]
    assert jobs.list(account_id=account, offset=3).result == []

    assert jobs.abort_all(account_id=account) == "All jobs aborted"
    assert [job.status for job in jobs.list(account_id=account)] == ["aborted"] * 3
    assert jobs.abort_all(account_id=account) == "All jobs aborted"


def test_options_are_taken_from_an_extra_body(
    sdk: Cloudflare,
    account: str,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    boto: Callable[[S3Server], S3Client],
    fill: Callable[[S3Server, str, Mapping[str, bytes]], None],
) -> None:
    source, target = make_bucket(ministack), make_bucket(ministack)
    fill(ministack, source, {"in/a": b"a", "in/empty": b"", "in/long": b"x" * 101})
    job_id = created(
        sdk.r2.super_slurper.jobs.create(
            account_id=account,
            source={**s3_source(ministack, source), "path_prefix": "in/"},
            target=r2_target(ministack, target),
            extra_body={
                "options": {
                    "skipEmpty": True,
                    "stripPrefix": True,
                    "maxObjectSize": 100,
                    "bandwidthLimit": 1_000_000,
                    "requestRateLimit": 1_000,
                    "serverSideCopy": False,
                    "countObjects": True,
                }
            },
        )
    )
    progress = wait_for_end(sdk, account, job_id)
    assert (progress.transferred_objects, progress.skipped_objects) == (1, 2)
    assert Store(boto(ministack), target).keys() == {"a"}
    logs = sdk.r2.super_slurper.jobs.logs.list(job_id, account_id=account).result
    skipped = {entry.object_key: entry.log_type for entry in logs if entry.object_key}
    assert skipped == {
        "in/empty": "importSkippedEmptyObject",
        "in/long": "importSkippedOversized",
    }


def test_a_prefix_in_snake_case_as_older_sdks_send_it_selects(
    sdk: Cloudflare, account: str, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    """Up to 4.3.1 the SDK has no alias for `pathPrefix`; the whole bucket was copied."""
    secret = {
        "accessKeyId": ministack.access_key_id,
        "secretAccessKey": ministack.secret_access_key,
    }
    source = {
        "vendor": "s3",
        "bucket": buckets[0],
        "endpoint": ministack.endpoint,
        "region": ministack.region,
        "path_prefix": "item-00",
        "secret": secret,
    }
    target = {"vendor": "r2", "bucket": buckets[1], "secret": secret}
    made = sdk.post(
        f"/accounts/{account}/slurper/jobs",
        body={"source": source, "target": target},
        cast_to=httpx.Response,
    )
    progress = wait_for_end(sdk, account, made.json()["result"]["id"])
    assert (progress.status, progress.objects, progress.transferred_objects) == (
        "completed",
        10,
        10,
    )
