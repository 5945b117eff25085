"""The application around a real service and a real database, without any worker."""

from __future__ import annotations

import asyncio
import shutil
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
from slurper.service.jobs import JobService
from slurper.settings import Settings

TOKEN = "static-token-of-the-tests"
ACCOUNT = "0123456789abcdef0123456789abcdef"
JOBS = f"/client/v4/accounts/{ACCOUNT}/slurper/jobs"


@dataclass(slots=True)
class Api:
    """An application and what stands behind it."""

    app: FastAPI
    store: JobStore
    tokens: TokenStore
    client: httpx.AsyncClient
    """Sends a valid token unless told otherwise."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Api]:
    """Run the application of `settings` in this loop."""
    sealer = data_folder.prepare(settings)
    store = await JobStore.open(settings.resolved_database_url)
    tokens = TokenStore(store.database)
    backend = Backend(
        jobs=store,
        service=JobService(store, sealer, settings, wake=lambda: None),
        tokens=tokens,
        settings=settings,
        registry=CollectorRegistry(),
    )
    app = create_app(backend)
    # A server would log what the application raises again; here the answer is what counts.
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://slurper", headers=headers
    ) as client:
        yield Api(app=app, store=store, tokens=tokens, client=client)
    await store.close()


def settings_in(directory: Path) -> Settings:
    """Settings with a static token, for endpoints on this machine."""
    return Settings.model_validate(
        {"api_token": TOKEN, "data_dir": directory, "allow_private_endpoints": True}
    )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without jobs, to be copied: faster than the migrations for each test."""
    path = tmp_path_factory.mktemp("database") / "slurper.db"

    async def make() -> None:
        await (await JobStore.open(f"sqlite:///{path}")).close()

    asyncio.run(make())
    return path


@pytest.fixture
async def api(tmp_path: Path, empty_database: Path) -> AsyncIterator[Api]:
    shutil.copy(empty_database, tmp_path)
    async with running(settings_in(tmp_path)) as api:
        yield api
