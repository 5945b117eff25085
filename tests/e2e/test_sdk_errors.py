"""What the official SDK raises, with what inside, and how often it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import cloudflare
import httpx
import pytest
from cloudflare import Cloudflare

from slurper.demo.servers import S3Server
from tests.e2e.conftest import Service
from tests.e2e.sdk_requests import r2_target, s3_source, s3_target

ABSENT = "0" * 64


class Counted:
    """An SDK client that counts the requests it sends."""

    def __init__(self, service: Service, api_token: str) -> None:
        self.requests: list[httpx.Request] = []
        transport = httpx.Client(event_hooks={"request": [self.requests.append]})
        self.sdk = Cloudflare(base_url=service.base_url, api_token=api_token, http_client=transport)


@pytest.fixture
def counted(service: Service) -> Iterator[Counted]:
    counted = Counted(service, service.token)
    with counted.sdk:
        yield counted


def pointers(error: cloudflare.APIStatusError) -> list[str | None]:
    """Where each item of the error points."""
    return [item.source.pointer if item.source else None for item in error.errors or ()]


def codes(error: cloudflare.APIStatusError) -> Sequence[int | None]:
    return [item.code for item in error.errors or ()]


def test_a_bad_request_names_its_fields(counted: Counted, account: str) -> None:
    jobs = counted.sdk.r2.super_slurper.jobs
    with pytest.raises(cloudflare.BadRequestError) as caught:
        jobs.create(account_id=account)
    assert caught.value.status_code == 400
    assert pointers(caught.value) == ["/source", "/target"]
    assert codes(caught.value) == [14002, 14002]
    with pytest.raises(cloudflare.BadRequestError) as caught:
        jobs.list(account_id=account, limit=51)
    assert pointers(caught.value) == ["/query/limit"]
    with pytest.raises(cloudflare.BadRequestError) as caught:
        jobs.logs.list(ABSENT, account_id=account, offset=-1)
    assert pointers(caught.value) == ["/query/offset"]
    assert len(counted.requests) == 3
    assert jobs.list(account_id=account).result == []


def test_an_absent_job_is_not_found_at_once(counted: Counted, account: str) -> None:
    jobs = counted.sdk.r2.super_slurper.jobs
    calls: list[Callable[[], object]] = [
        lambda: jobs.get(ABSENT, account_id=account),
        lambda: jobs.get("a/b", account_id=account),
        lambda: jobs.abort(ABSENT, account_id=account),
        lambda: jobs.pause(ABSENT, account_id=account),
        lambda: jobs.resume(ABSENT, account_id=account),
        lambda: jobs.progress(ABSENT, account_id=account),
        lambda: jobs.logs.list(ABSENT, account_id=account),
    ]
    for call in calls:
        with pytest.raises(cloudflare.NotFoundError) as caught:
            call()
        assert caught.value.errors
    assert len(counted.requests) == len(calls)


def test_a_wrong_token_is_an_authentication_error(service: Service, account: str) -> None:
    counted = Counted(service, api_token="wrong")
    with counted.sdk, pytest.raises(cloudflare.AuthenticationError, match="not valid") as caught:
        counted.sdk.r2.super_slurper.jobs.list(account_id=account)
    assert codes(caught.value) == [10000]
    assert len(counted.requests) == 1


def test_a_stray_email_in_the_environment_is_named(
    service: Service, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDFLARE_EMAIL", "someone@example.com")
    counted = Counted(service, service.token)
    with counted.sdk, pytest.raises(cloudflare.AuthenticationError, match="CLOUDFLARE_EMAIL"):
        counted.sdk.r2.super_slurper.jobs.list(account_id=account)
    assert "authorization" not in counted.requests[0].headers


def test_a_conflict_is_asked_for_once(
    counted: Counted,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
    large_bucket: str,
) -> None:
    jobs = counted.sdk.r2.super_slurper.jobs
    job = jobs.create(
        account_id=account,
        source=s3_source(seaweedfs, large_bucket),
        target=r2_target(ministack, make_bucket(ministack)),
    )
    assert job is not None
    assert job.id is not None
    counted.requests.clear()
    with pytest.raises(cloudflare.ConflictError) as caught:
        jobs.resume(job.id, account_id=account)
    assert len(counted.requests) == 1
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert codes(caught.value) == [14009]
    jobs.abort(job.id, account_id=account)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"secret": {"access_key_id": "AKIAWRONG", "secret_access_key": "wrong"}}, "secret"),
        ({"bucket": "no-such-bucket-anywhere"}, "bucket"),
        ({"endpoint": "http://127.0.0.1:9"}, "endpoint"),
        ({"endpoint": "https://127.0.0.1:9"}, "endpoint"),
    ],
    ids=["credentials", "bucket", "endpoint", "endpoint with TLS"],
)
def test_a_side_that_cannot_be_used_is_a_permission_error(
    counted: Counted,
    account: str,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
    side: str,
    change: dict[str, Any],
    field: str,
) -> None:
    bucket = make_bucket(ministack)
    sides: Any = {"source": s3_source(ministack, bucket), "target": s3_target(ministack, bucket)}
    sides[side] = {**sides[side], **change}
    jobs = counted.sdk.r2.super_slurper.jobs
    with pytest.raises(cloudflare.PermissionDeniedError) as caught:
        jobs.create(account_id=account, **sides)
    assert len(counted.requests) == 1
    assert caught.value.errors is not None
    first, cause = caught.value.errors
    assert first.message == "Preconnectivity failed, please verify tokens and try again"
    assert pointers(caught.value) == [None, f"/{side}/{field}"]
    assert bucket in str(cause.message) or "no-such-bucket" in str(cause.message)
    assert ministack.secret_access_key not in caught.value.response.text
    assert jobs.list(account_id=account).result == []


def test_prechecks_answer_with_a_status_and_reasons(
    counted: Counted,
    account: str,
    ministack: S3Server,
    seaweedfs: S3Server,
    make_bucket: Callable[[S3Server], str],
) -> None:
    precheck = counted.sdk.r2.super_slurper.connectivity_precheck
    source = s3_source(seaweedfs, make_bucket(seaweedfs))
    target = r2_target(ministack, make_bucket(ministack))
    good = precheck.source(account_id=account, **source)
    assert good is not None
    assert good.connectivity_status == "success"
    good_target = precheck.target(account_id=account, **target)
    assert good_target is not None
    assert good_target.connectivity_status == "success"

    renamed = s3_source(seaweedfs, "no-such-bucket-anywhere")
    wrong = precheck.with_raw_response.source(account_id=account, **renamed)
    assert wrong.status_code == 200
    parsed = wrong.parse()
    assert parsed is not None
    assert parsed.connectivity_status == "error"
    (reason,) = (parsed.model_extra or {})["reasons"]
    assert (reason["pointer"], reason["blocks"]) == ("/bucket", True)
    assert "no-such-bucket-anywhere" in reason["message"]
    assert wrong.http_response.json()["messages"] == [f"bucket: {reason['message']}"]

    stranger = replace(ministack, access_key_id="AKIAWRONG", secret_access_key="wrong")
    refused = precheck.with_raw_response.target(
        account_id=account, **r2_target(stranger, target["bucket"])
    )
    parsed_target = refused.parse()
    assert parsed_target is not None
    assert parsed_target.connectivity_status == "error"
    (reason,) = (parsed_target.model_extra or {})["reasons"]
    assert (reason["pointer"], reason["blocks"]) == ("/secret", True)

    with pytest.raises(cloudflare.BadRequestError) as caught:
        precheck.target(account_id=account, **r2_target(ministack, "NOT A NAME"))
    assert pointers(caught.value) == ["/bucket"]
    assert codes(caught.value) == [10005]


def test_a_body_beyond_any_request_is_refused_over_a_real_socket(
    counted: Counted, account: str, ministack: S3Server
) -> None:
    keys = [f"{number:05}" + "k" * 1_100 for number in range(32_000)]
    with pytest.raises(cloudflare.APIStatusError) as caught:
        counted.sdk.r2.super_slurper.jobs.create(
            account_id=account,
            source={**s3_source(ministack, "source-bucket"), "keys": keys},
            target=r2_target(ministack, "target-bucket"),
        )
    assert caught.value.status_code == 413
    assert codes(caught.value) == [100100]
    assert len(counted.requests) == 1


def test_ten_thousand_keys_are_accepted_and_one_more_is_not(
    counted: Counted,
    account: str,
    ministack: S3Server,
    make_bucket: Callable[[S3Server], str],
) -> None:
    jobs = counted.sdk.r2.super_slurper.jobs
    source = s3_source(ministack, make_bucket(ministack))
    target = r2_target(ministack, make_bucket(ministack))
    keys = [f"{number:05}" for number in range(10_001)]
    source["keys"] = keys
    with pytest.raises(cloudflare.BadRequestError) as caught:
        jobs.create(account_id=account, source=source, target=target)
    assert pointers(caught.value) == ["/source/keys"]
    source["keys"] = keys[1:]
    job = jobs.create(account_id=account, source=source, target=target)
    assert job is not None
    jobs.abort_all(account_id=account)
    shown = jobs.get(str(job.id), account_id=account)
    assert shown is not None
    assert shown.source is not None
    assert shown.source.keys == keys[1:]
