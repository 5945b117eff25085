"""Fixtures of the transport's tests, all of which run on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol

import pytest
import uvloop

from slurper.http import client as http_client
from slurper.http.client import HttpClient, Request, Response, TransportOptions
from tests.unit.http.scripted import Script, ScriptedServer

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories() -> LoopFactories:
    """The loop of production, and the standard one, which differs in when it calls what."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Serve(Protocol):
    """Starts a scripted server."""

    def __call__(
        self, *scripts: Script, tls: ssl.SSLContext | None = None, buffer_bytes: int = 1 << 20
    ) -> Awaitable[ScriptedServer]: ...


class Connect(Protocol):
    """Makes a client of a server or origin; keywords replace transport options."""

    def __call__(
        self,
        server: ScriptedServer | str,
        *,
        sign: Callable[[Request], dict[str, str]] | None = None,
        trusted: bool = True,
        should_retry: Callable[[Response], bool] | None = None,
        **options: Any,  # noqa: ANN401 - fields of TransportOptions
    ) -> HttpClient: ...


OPTIONS = TransportOptions(connect_timeout_seconds=10, idle_timeout_seconds=10, request_retries=0)


def unsigned(request: Request) -> dict[str, str]:
    return dict(request.headers)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[ScriptedServer] = []

    async def start(
        *scripts: Script, tls: ssl.SSLContext | None = None, buffer_bytes: int = 1 << 20
    ) -> ScriptedServer:
        server = ScriptedServer(*scripts)
        await server.start(tls, buffer_bytes=buffer_bytes)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()
    assert [failure for server in servers for failure in server.failures] == []


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    clients: list[HttpClient] = []

    def make(
        server: ScriptedServer | str,
        *,
        sign: Callable[[Request], dict[str, str]] | None = None,
        trusted: bool = True,
        should_retry: Callable[[Response], bool] | None = None,
        **options: Any,  # noqa: ANN401 - fields of TransportOptions
    ) -> HttpClient:
        client = HttpClient(
            server if isinstance(server, str) else server.origin,
            replace(OPTIONS, **options),
            sign=sign or unsigned,
            trusted=trusted,
            should_retry=should_retry,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.close()


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BACKOFF_BASE_SECONDS", 0.001)


def get(target: str = "/b/k", **headers: str) -> Request:
    return Request("GET", target, headers)


def put(*chunks: bytes, target: str = "/b/k", idempotent: bool = True) -> Request:
    return Request("PUT", target, {}, chunks, idempotent)
