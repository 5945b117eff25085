"""The log says who asked for which change, and who could not authenticate; and no secret."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from slurper.api.attempts import BURST
from slurper.job.access import Scope
from slurper.service.jobs import JobService
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, TOKEN, Api

JOB = "0" * 64


@pytest.fixture
def audit(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="slurper.audit")
    return caplog


def lines(audit: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The events since the last look, without what every log line has."""
    found = [dict(record.msg) for record in audit.records if record.name == "slurper.audit"]  # type: ignore[arg-type]
    audit.clear()
    for line in found:
        del line["timestamp"], line["logger"]
    return found


def line(level: str, event: str, operation: str, **changes: object) -> dict[str, object]:
    return {
        "level": level,
        "event": event,
        "operation": f"slurper-{operation}",
        "who": "static",
        "account": ACCOUNT,
        "job": None,
        "address": "127.0.0.1",
        "status": 200,
    } | changes


async def test_a_change_is_told_with_what_came_of_it(
    api: Api, audit: pytest.LogCaptureFixture
) -> None:
    await api.client.put(f"{JOBS}/abortAll")
    await api.client.put(f"{JOBS}/{JOB}/abort")
    await api.client.put(f"{JOBS}/{'x' * 5000}/abort")
    await api.client.post(JOBS, json={})
    assert lines(audit) == [
        line("info", "change", "abort-all-jobs"),
        line("info", "change", "abort-job", job=JOB, status=404),
        line("info", "change", "abort-job", status=404),
        line("info", "change", "create-job", status=400),
    ]


async def test_the_job_that_was_made_is_told(
    api: Api, audit: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    creators: list[object] = []

    async def make(*_: object, created_by: str | None, **__: object) -> str:
        creators.append(created_by)
        return "f" * 64

    monkeypatch.setattr(JobService, "create", make)
    monkeypatch.setattr(JobService, "retry_failed", make)
    token = await api.tokens.create("laptop", (ACCOUNT,))
    headers = {"authorization": f"Bearer {token}"}
    assert (await api.client.post(JOBS, json=bodies.create(), headers=headers)).status_code == 201
    assert (await api.client.put(f"{JOBS}/{JOB}/retryFailed", headers=headers)).status_code == 201
    assert creators == ["laptop", "laptop"]
    made = {"who": "laptop", "job": "f" * 64, "status": 201}
    assert lines(audit) == [
        line("info", "change", "create-job", **made),
        line("info", "change", "retry-failed", **made),
    ]


async def test_a_read_is_told_only_to_those_who_look_for_it(
    api: Api, audit: pytest.LogCaptureFixture
) -> None:
    await api.client.get(JOBS)
    assert lines(audit) == [line("debug", "read", "list-jobs")]


async def test_a_fault_of_ours_is_told_too(
    api: Api, audit: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> str:
        raise RuntimeError("a fault")

    monkeypatch.setattr(JobService, "abort_all", fail)
    assert (await api.client.put(f"{JOBS}/abortAll")).status_code == 500
    assert lines(audit) == [line("info", "change", "abort-all-jobs", status=500)]


async def test_who_could_not_authenticate_is_told_by_name_if_it_has_one(
    api: Api, audit: pytest.LogCaptureFixture
) -> None:
    named = await api.tokens.create("laptop", ("another",), scope=Scope.READ)
    for token in ("wrong", named):
        await api.client.get(JOBS, headers={"authorization": f"Bearer {token}"})
    failed = line("warning", "authentication failed", "list-jobs", status=401)
    reason = "the token is not valid for this account"
    assert lines(audit) == [
        failed | {"who": None, "reason": reason},
        failed | {"who": "laptop", "reason": reason},
    ]
    path = f"{JOBS.replace(ACCOUNT, 'another')}/abortAll"
    await api.client.put(path, headers={"authorization": f"Bearer {named}"})
    (refused,) = lines(audit)
    assert refused.pop("reason").startswith("the token has the scope read")
    assert refused == line(
        "warning",
        "authentication failed",
        "abort-all-jobs",
        who="laptop",
        account="another",
        status=403,
    )


async def test_a_flood_of_failures_is_no_flood_of_lines(
    api: Api, audit: pytest.LogCaptureFixture
) -> None:
    for _ in range(5 * BURST):
        await api.client.get(JOBS, headers={"authorization": "Bearer wrong"})
    found = lines(audit)
    warnings = [one for one in found if one["level"] == "warning"]
    assert BURST <= len(warnings) < 2 * BURST  # some seconds may have passed
    assert {one["level"] for one in found} == {"warning", "debug"}


async def test_no_token_and_no_body_is_in_any_line(
    api: Api, audit: pytest.LogCaptureFixture
) -> None:
    token = await api.tokens.create("laptop")
    for headers in ({}, {"authorization": f"Bearer {token}"}, {"x-auth-key": "mistyped-secret"}):
        await api.client.post(JOBS, json={"secret": "hush"}, headers=headers)
        await api.client.get(f"{JOBS}?limit=hush", headers=headers)
    text = str(lines(audit))
    for secret in (TOKEN, token, "mistyped-secret", "hush"):
        assert secret not in text


async def test_what_is_no_operation_is_not_told(api: Api, audit: pytest.LogCaptureFixture) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.app), base_url="http://slurper"
    ) as client:
        for path in ("/healthz", "/metrics", "/nowhere", "/openapi.json"):
            await client.get(path)
        await client.get(JOBS.replace(ACCOUNT, "a b"))
        await client.delete(JOBS)
    assert lines(audit) == []
