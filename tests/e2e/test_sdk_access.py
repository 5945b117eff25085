"""Both base paths and every way to authenticate, with the official SDK and without it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from cloudflare import Cloudflare

from tests.e2e.conftest import Service


@pytest.mark.parametrize("base", ["/client/v4", "", "/client/v4/"])
@pytest.mark.parametrize("way", ["token", "key and email", "service key"])
def test_every_way_in(service: Service, account: str, base: str, way: str) -> None:
    credentials: dict[str, Any] = {
        "token": {"api_token": service.token},
        "key and email": {"api_key": service.token, "api_email": "someone@example.com"},
        "service key": {"user_service_key": service.token},
    }[way]
    with Cloudflare(base_url=f"{service.origin}{base}", **credentials) as sdk:
        assert sdk.r2.super_slurper.jobs.list(account_id=account).result == []
        assert sdk.r2.super_slurper.jobs.abort_all(account_id=account) == "All jobs aborted"


def test_what_needs_no_token(service: Service) -> None:
    health = httpx.get(f"{service.origin}/healthz")
    assert health.json()["result"] == {"status": "ok"}
    metrics = httpx.get(f"{service.origin}/metrics")
    assert metrics.status_code == 200
    assert "slurper_jobs_running" in metrics.text
    document = httpx.get(f"{service.origin}/openapi.json").json()
    assert "/accounts/{account_id}/slurper/jobs" in document["paths"]
    assert httpx.get(f"{service.origin}/docs").status_code == 200


def test_refusals_on_the_wire(service: Service, account: str) -> None:
    headers = {"authorization": f"Bearer {service.token}"}
    with httpx.Client(headers=headers) as client:
        absent = client.get(f"{service.base_url}/nowhere")
        assert absent.status_code == 404
        assert absent.json()["errors"] == [{"code": 7003, "message": "No route for the URI"}]
        wrong = client.patch(service.jobs_url(account))
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "GET, POST"
        assert wrong.json()["errors"][0]["code"] == 7001
        broken = client.post(
            service.jobs_url(account),
            content=b'{"source": ',
            headers={"content-type": "application/json"},
        )
        assert broken.status_code == 400
        assert broken.json()["errors"][0]["code"] == 14000
        assert broken.headers["content-type"] == "application/json"
        assert "server" not in broken.headers
