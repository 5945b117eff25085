"""The official SDK sends a request again when no answer comes: of a create only one job is made."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import cloudflare
import httpx
import pytest
from cloudflare import Cloudflare

from slurper.demo.servers import S3Server
from tests.chaos import faults
from tests.chaos.faults import Fault
from tests.chaos.proxy import FaultProxy
from tests.e2e.conftest import Service
from tests.e2e.sdk_requests import r2_target, s3_source

CREATE = "^POST /client/v4/accounts/[0-9a-f]+/slurper/jobs "


@pytest.fixture
def front(service: Service) -> Iterator[FaultProxy]:
    """A bad network between the SDK and the service."""
    with FaultProxy(service.origin).running() as front:
        yield front


@pytest.fixture
def sdk(service: Service, front: FaultProxy) -> Iterator[Cloudflare]:
    base_url = f"{front.endpoint}/client/v4"
    with Cloudflare(base_url=base_url, api_token=service.token, timeout=2.0) as client:
        yield client


def jobs_of(sdk: Cloudflare, account: str) -> list[str | None]:
    return [job.id for job in sdk.r2.super_slurper.jobs.list(account_id=account)]


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (faults.lost_answer, 1),
        (faults.lost_answer, 2),
        (faults.reset_in_head, 1),
        (faults.done_but(503, "Unavailable"), 2),
        (faults.deaf(10), 1),
    ],
    ids=["lost", "lost twice", "cut off", "said to have failed", "in silence"],
)
def test_a_create_whose_answer_is_lost_makes_one_job(
    sdk: Cloudflare,
    front: FaultProxy,
    account: str,
    ministack: S3Server,
    buckets: tuple[str, str],
    fault: Fault,
    times: int,
) -> None:
    front.add(fault, CREATE, times=times)
    source, target = buckets
    made = sdk.r2.super_slurper.jobs.create(
        account_id=account,
        source=s3_source(ministack, source),
        target=r2_target(ministack, target),
    )
    assert made is not None
    assert front.count(CREATE) == times + 1
    assert jobs_of(sdk, account) == [made.id]


def test_a_create_that_is_sent_again_while_the_first_still_checks_makes_one_job(
    sdk: Cloudflare,
    front: FaultProxy,
    account: str,
    ministack: S3Server,
    buckets: tuple[str, str],
) -> None:
    source, target = buckets
    with FaultProxy(ministack.endpoint).running() as slow:
        slow.add(faults.delayed(2.5), "^GET /[^?]*\\?.*list-type")
        made = sdk.with_options(max_retries=5, timeout=1.5).r2.super_slurper.jobs.create(
            account_id=account,
            source=s3_source(replace(ministack, endpoint=slow.endpoint), source),
            target=r2_target(ministack, target),
        )
    assert made is not None
    assert front.count(CREATE) > 1
    assert jobs_of(sdk, account) == [made.id]


def test_a_command_whose_answer_is_lost_is_carried_out_once(
    sdk: Cloudflare,
    front: FaultProxy,
    account: str,
    ministack: S3Server,
    slow: S3Server,
    buckets: tuple[str, str],
) -> None:
    jobs = sdk.r2.super_slurper.jobs
    source, target = s3_source(slow, buckets[0]), r2_target(ministack, buckets[1])
    made = jobs.create(account_id=account, source=source, target=target)
    assert made is not None
    job_id = str(made.id)
    front.add(faults.lost_answer, "^PUT .*/pause ", times=1)
    front.add(faults.lost_answer, "^PUT .*/resume ", times=1)
    front.add(faults.lost_answer, "^PUT .*/abort ", times=1)
    assert jobs.pause(job_id, account_id=account) == "Job paused"
    assert jobs.resume(job_id, account_id=account) == "Job resumed"
    assert jobs.abort(job_id, account_id=account) == "Job aborted"
    assert front.count("^PUT .*/(pause|resume|abort) ") == 6
    with pytest.raises(cloudflare.ConflictError):
        jobs.abort(job_id, account_id=account)
    log = [entry.log_type for entry in jobs.logs.list(job_id, account_id=account)]
    assert log == ["migrationStart", "migrationPause", "migrationResume", "migrationAbort"]


def test_two_creates_that_are_alike_are_two_jobs(
    sdk: Cloudflare, account: str, ministack: S3Server, buckets: tuple[str, str]
) -> None:
    create = sdk.r2.super_slurper.jobs.create
    sides = (s3_source(ministack, buckets[0]), r2_target(ministack, buckets[1]))
    ids = []
    for _ in range(2):
        made = create(account_id=account, source=sides[0], target=sides[1])
        assert made is not None
        ids.append(made.id)
    assert len(set(ids)) == 2


def test_an_idempotency_key_makes_one_job_of_one_request(
    sdk: Cloudflare,
    service: Service,
    account: str,
    ministack: S3Server,
    buckets: tuple[str, str],
) -> None:
    create = sdk.r2.super_slurper.jobs.create
    source, target = s3_source(ministack, buckets[0]), r2_target(ministack, buckets[1])
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [
        create(account_id=account, source=source, target=target, extra_headers=headers)
        for _ in range(2)
    ]
    assert answers[0] is not None
    assert answers[0] == answers[1]
    with pytest.raises(cloudflare.UnprocessableEntityError) as caught:
        create(
            account_id=account,
            source={**source, "path_prefix": "other/"},
            target=target,
            extra_headers=headers,
        )
    assert caught.value.errors
    (error,) = caught.value.errors
    assert error.code == 14012
    assert error.source is not None
    assert error.source.pointer == "/header/Idempotency-Key"
    assert jobs_of(sdk, account) == [answers[0].id]
    # Written in another way it is the same request.
    body = {
        "target": {
            "secret": {
                "secretAccessKey": ministack.secret_access_key,
                "accessKeyId": ministack.access_key_id,
            },
            "bucket": buckets[1],
            "vendor": "r2",
        },
        "overwrite": True,
        "source": {
            "path_prefix": None,
            "vendor": "s3",
            "bucket": buckets[0],
            "endpoint": f"{ministack.endpoint}/",
            "region": ministack.region,
            "secret": {
                "accessKeyId": ministack.access_key_id,
                "secretAccessKey": ministack.secret_access_key,
            },
        },
    }
    headers["authorization"] = f"Bearer {service.token}"
    answer = httpx.post(service.jobs_url(account), json=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["result"]) == (201, {"id": answers[0].id})
