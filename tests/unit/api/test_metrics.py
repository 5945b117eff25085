from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from slurper.api.attempts import BURST
from slurper.api.envelope import Code
from slurper.api.metrics import create_metrics_app
from slurper.settings import Settings
from tests.unit.api.conftest import JOBS, Api, running, settings_in

TOKEN = "of-the-metrics"


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path) -> Settings:
    shutil.copy(empty_database, tmp_path)
    return settings_in(tmp_path)


async def test_they_need_no_token_by_default(api: Api) -> None:
    answer = await api.client.get("/metrics", headers={"authorization": ""})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        ("Bearer another", 401),
        ("Bearer static-token-of-the-tests", 401),
        ("Bearer \xe4", 401),
        ("", 401),
    ],
)
async def test_they_may_need_one_of_their_own(
    settings: Settings, authorization: str, status: int
) -> None:
    guarded = settings.model_copy(update={"metrics_token": SecretStr(TOKEN)})
    async with running(guarded) as api:
        sent = [(b"authorization", authorization.encode("latin-1"))]
        answer = await api.client.get("/metrics", headers=sent)
    assert answer.status_code == status
    if status == 401:
        assert "SLURPER_METRICS_TOKEN" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize("port", [None, 0], ids=["beside the API", "on a port of their own"])
async def test_guesses_at_their_token_are_limited(settings: Settings, port: int | None) -> None:
    """They count together with those at the API. The right token works all the time."""
    update = {"metrics_token": SecretStr(TOKEN), "metrics_port": port}
    async with running(settings.model_copy(update=update)) as api:
        app = create_metrics_app(api.app.state.backend) if port == 0 else api.app
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://slurper") as client:

            async def ask(token: str) -> httpx.Response:
                return await client.get("/metrics", headers={"authorization": f"Bearer {token}"})

            guesses = [await ask(f"guess-{number}") for number in range(BURST)]
            assert {answer.status_code for answer in guesses} == {401}
            limited = await ask("another")
            assert limited.status_code == 429
            assert limited.json()["errors"][0]["code"] == Code.AUTHENTICATION_LIMIT
            assert 1 <= int(limited.headers["retry-after"]) <= 3
            assert (await ask(TOKEN)).status_code == 200
        wrong = {"authorization": "Bearer wrong"}
        assert (await api.client.get(JOBS, headers=wrong)).status_code == 429


async def test_on_a_port_of_their_own_there_is_nothing_else(settings: Settings) -> None:
    async with running(settings.model_copy(update={"metrics_port": 0})) as api:
        assert (await api.client.get("/metrics")).status_code == 404
        app = create_metrics_app(api.app.state.backend)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://slurper") as client:
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/healthz")).status_code == 404
