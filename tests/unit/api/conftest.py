"""The application around a real service and a real database, without any worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from slurper import data_folder
from slurper.api.app import create_app
from slurper.api.backend import Backend
from slurper.database.store import JobStore
from slurper.database.tokens import TokenStore
from slurper.jobs.service import JobService
from slurper.settings import Settings

TOKEN = "static-token-of-the-tests"
ACCOUNT = "0123456789abcdef0123456789abcdef"
JOBS = f"/client/v4/accounts/{ACCOUNT}/slurper/jobs"


@dataclass(slots=True)
class Api:
    """A running application and what stands behind it."""

    app: FastAPI
    store: JobStore
    tokens: TokenStore
    client: httpx.AsyncClient
    """Sends a valid token unless told otherwise."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Api]:
    """Run the application of `settings` in this loop, its lifespan included."""

    sealer = data_folder.prepare(settings)
    store = await JobStore.open(settings.resolved_database_url)
    tokens = TokenStore(store.database)

    async def check_health() -> None:
        await store.list_jobs("", limit=1, offset=0)

    @asynccontextmanager
    async def open_backend(settings: Settings) -> AsyncIterator[Backend]:
        yield Backend(
            service=JobService(store, sealer, settings, wake=lambda: None),
            tokens=tokens,
            settings=settings,
            registry=CollectorRegistry(),
            check_health=check_health,
        )
        await store.close()

    app = create_app(settings, open_backend=open_backend)
    async with app.router.lifespan_context(app):
        # The server would log what it raises again; here the answer is what counts.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://slurper",
            headers={"authorization": f"Bearer {TOKEN}"},
        ) as client:
            yield Api(app=app, store=store, tokens=tokens, client=client)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "api_token": TOKEN,
            "data_dir": tmp_path / "data",
            "max_concurrent_jobs": 3,
            "allow_private_endpoints": True,
        }
    )


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with running(settings) as api:
        yield api
