from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from slurper.api.metrics import create_metrics_app
from slurper.settings import Settings
from tests.unit.api.conftest import Api, running, settings_in

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


async def test_on_a_port_of_their_own_there_is_nothing_else(settings: Settings) -> None:
    async with running(settings.model_copy(update={"metrics_port": 0})) as api:
        assert (await api.client.get("/metrics")).status_code == 404
        app = create_metrics_app(api.app.state.backend)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://slurper") as client:
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/healthz")).status_code == 404
