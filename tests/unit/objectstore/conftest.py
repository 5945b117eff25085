"""A store whose server follows a script."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import pytest

from slurper.http import client as http_client
from slurper.http.client import TransportOptions
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import Dialect
from slurper.objectstore.s3.store import S3ObjectStore
from tests.unit.http.scripted import Script, ScriptedServer
from tests.unit.objectstore.answers import OPTIONS, PAIR, PLAIN, Open, in_turn


@pytest.fixture
async def open_s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    """`open_s3(*responses, dialect=…)` opens a store whose server gives these answers in turn."""
    monkeypatch.setattr(http_client, "BACKOFF_BASE_SECONDS", 0.001)
    opened: list[tuple[S3ObjectStore, ScriptedServer]] = []

    async def start(
        *responses: bytes,
        dialect: Dialect = PLAIN,
        script: Script | None = None,
        clock: Callable[[], float] = time.time,
        options: TransportOptions = OPTIONS,
        requester_pays: bool = False,
    ) -> tuple[S3ObjectStore, ScriptedServer]:
        server = ScriptedServer(script or in_turn(*responses))
        await server.start()
        address = StoreAddress(
            origin=server.origin,
            bucket="bkt",
            region="us-east-1",
            dialect=dialect,
            credentials=PAIR,
            requester_pays=requester_pays,
            trusted=True,
        )
        opened.append((S3ObjectStore(address, options, clock=clock), server))
        return opened[-1]

    yield start
    for store, server in opened:
        await store.close()
        await server.stop()
        assert server.failures == []
