"""The envelope around everything that is no operation, and around faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import Counter

from slurper import errors
from slurper.api import request_body
from slurper.api.envelope import Code
from tests.unit.api import bodies
from tests.unit.api.conftest import ACCOUNT, JOBS, Api

JOB = f"{JOBS}/{'a' * 64}"


def failure(answer: httpx.Response, status: int, code: Code) -> str:
    """The first message of a failure, once the envelope has been checked."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"success", "errors", "messages", "result"}
    assert (body["success"], body["result"], body["messages"]) == (False, None, [])
    assert all(isinstance(item["code"], int) and item["code"] >= 1000 for item in body["errors"])
    assert body["errors"][0]["code"] == code
    message: str = body["errors"][0]["message"]
    return message


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/client/v4",
        "/client/v4/user/tokens/verify",
        f"{JOBS}/",
        f"/client/v5/accounts/{ACCOUNT}/slurper/jobs",
        f"{JOB}/progress/x",
        f"{JOBS}/a%2Fb",
        "/redoc",
    ],
)
async def test_no_route(api: Api, path: str) -> None:
    assert failure(await api.client.get(path), 404, Code.NO_ROUTE) == "No route for the URI"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", JOBS, "GET, POST"),
        ("PUT", JOB, "DELETE, GET, PATCH"),
        ("DELETE", JOB.replace("/client/v4", "") + "/pause", "PUT"),
        ("GET", f"/accounts/{ACCOUNT}/slurper/source/connectivity-precheck", "PUT"),
        ("OPTIONS", JOBS, "GET, POST"),
        ("POST", "/healthz", "GET"),
    ],
)
async def test_a_method_that_is_not_there(api: Api, method: str, path: str, allowed: str) -> None:
    answer = await api.client.request(method, path)
    assert method in failure(answer, 405, Code.METHOD_NOT_AVAILABLE)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("method", "path", "retry"), [("GET", JOBS, None), ("POST", JOBS, "false")]
)
async def test_a_fault_shows_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, retry: str | None
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2 in /srv/slurper/store.py")

    service = api.app.state.backend.service
    monkeypatch.setattr(api.store, "list_jobs", broken)
    monkeypatch.setattr(service, "create", broken)
    answer = await api.client.request(method, path, json=bodies.create())
    assert failure(answer, 500, Code.INTERNAL).startswith("Internal Server Error")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    # Both SDKs send a request that met a 500 again; a second POST could make a second job.
    assert answer.headers.get("x-should-retry") == retry


async def test_a_database_that_is_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object, **__: object) -> None:
        raise errors.DatabaseUnavailable("the database cannot be used: disk I/O error at /srv")

    monkeypatch.setattr(api.store, "list_jobs", away)
    answer = await api.client.get(JOBS)
    assert "try again" in failure(answer, 503, Code.UNAVAILABLE)
    assert "/srv" not in answer.text


async def test_too_many_checks_are_told_when_to_try_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crowded(*_: object, **__: object) -> None:
        raise errors.TooManyChecks("8 checks of stores may be under way")

    monkeypatch.setattr(api.app.state.backend.service, "create", crowded)
    answer = await api.client.post(JOBS, json=bodies.create())
    assert "8 checks" in failure(answer, 429, Code.TOO_MANY_REQUESTS)
    assert answer.headers["retry-after"] == "5"
    assert "x-should-retry" not in answer.headers, "the SDKs send it again by themselves"


async def test_a_body_announced_too_large_is_not_read(api: Api) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{"

    size = str(request_body.MAX_BODY_BYTES + 1)
    headers = {"content-type": "application/json", "content-length": size}
    answer = await api.client.post(JOBS, content=body(), headers=headers)
    assert "10000 keys" in failure(answer, 413, Code.ENTITY_TOO_LARGE)
    assert answer.headers["connection"] == "close"
    assert read == 0


async def test_a_body_that_grows_too_large_is_cut_off(api: Api) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 2 * request_body.MAX_BODY_BYTES:
            sent += 1 << 20
            yield bytes(1 << 20)

    headers = {"content-type": "application/json"}
    answer = await api.client.post(JOBS, content=body(), headers=headers)
    failure(answer, 413, Code.ENTITY_TOO_LARGE)
    assert sent < request_body.MAX_BODY_BYTES + (4 << 20)


async def test_the_largest_list_of_keys_is_accepted(api: Api) -> None:
    # Written with escapes, as Python's json does it: 3 bytes on the wire for 1 byte of the key.
    keys = [f"{number:04}" + "ü" * 510 for number in range(10_000)]
    answer = await api.client.post(
        JOBS,
        content=json.dumps(bodies.from_s3(keys=keys)),
        headers={"content-type": "application/json"},
    )
    # Past validation: only the endpoint, where nothing listens, is in the way.
    failure(answer, 403, Code.PRECHECK_FAILED)


async def test_healthz(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    anonymous = httpx.AsyncClient(transport=httpx.ASGITransport(api.app), base_url="http://slurper")
    async with anonymous as client:
        healthy = await client.get("/healthz")
        assert healthy.status_code == 200
        assert healthy.json() == {
            "success": True,
            "errors": [],
            "messages": [],
            "result": {"status": "ok"},
        }

        async def broken(*_: object, **__: object) -> None:
            raise errors.DatabaseUnavailable("gone")

        monkeypatch.setattr(type(api.store), "list_jobs", broken)
        failure(await client.get("/healthz"), 503, Code.UNAVAILABLE)


async def test_metrics_are_those_of_the_registry(api: Api) -> None:
    Counter("seen", "For this test.", registry=api.app.state.backend.registry).inc(3)
    answer = await api.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "seen_total 3.0" in answer.text


async def test_docs_and_openapi_are_served(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    assert [server["url"] for server in document["servers"]] == ["/client/v4", "/"]
    assert len(document["paths"]) == 11
    page = await api.client.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
