"""Fixtures of the transport's tests, which all run on both event loops."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme
import uvloop

from slurper.http import client as http_client
from slurper.http.client import HttpClient, TransportOptions
from slurper.http.messages import Request, Response
from slurper.settings import TlsLibrary
from tests.unit.http.scripted import Script, ScriptedServer

LoopFactories = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories() -> LoopFactories:
    """The loop of production, and the standard one, which differs in when it calls what."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the tests' own."""

    ca: trustme.CA
    file: Path

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.ca.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(file)
    return Authority(ca, file)


SECURED = (
    "test_failures",
    "test_pool",
    "test_requests",
    "test_responses",
    "test_retries",
    "test_streams",
)
"""What these show must hold over TLS as well."""


WAYS = {"plain": (False, "openssl"), "tls": (True, "openssl"), "stdlib": (True, "stdlib")}
LIBRARIES: tuple[TlsLibrary, ...] = ("openssl", "stdlib")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play the same with each TLS: ours, and the one that is the way out."""
    module = metafunc.module.__name__
    if "serve" in metafunc.fixturenames and module.endswith(SECURED):
        both = ("secured", "library")
        metafunc.parametrize(both, WAYS.values(), ids=WAYS.keys(), indirect=True)
    elif "library" in metafunc.fixturenames and module.endswith("test_tls"):
        metafunc.parametrize("library", LIBRARIES, indirect=True)


@pytest.fixture
def library(request: pytest.FixtureRequest) -> TlsLibrary:
    """What does TLS on our side."""
    chosen: TlsLibrary = getattr(request, "param", "openssl")
    return chosen


@pytest.fixture
def secured(request: pytest.FixtureRequest, authority: Authority) -> ssl.SSLContext | None:
    """What a server of this test secures its connections with, unless it brings its own."""
    return authority.server("127.0.0.1") if getattr(request, "param", False) else None


class Serve(Protocol):
    """Starts a scripted server."""

    def __call__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        buffer_bytes: int = 1 << 20,
        port: int = 0,
    ) -> Awaitable[ScriptedServer]: ...


class Connect(Protocol):
    """Makes a client of a server or origin; keywords replace transport options."""

    def __call__(
        self,
        server: ScriptedServer | str,
        *,
        sign: Callable[[Request], str] | None = None,
        trusted: bool = True,
        should_retry: Callable[[Response], bool] | None = None,
        asks_to_slow_down: Callable[[Response], bool] = lambda response: response.status == 503,
        serves_others: Callable[[Request, float, int], Awaitable[bool]] | None = None,
        **options: Any,  # noqa: ANN401 - fields of TransportOptions
    ) -> HttpClient: ...


OPTIONS = TransportOptions(connect_timeout_seconds=10, idle_timeout_seconds=10, request_retries=0)


def unsigned(_: Request) -> str:
    return ""


@pytest.fixture
async def serve(secured: ssl.SSLContext | None) -> AsyncIterator[Serve]:
    servers: list[ScriptedServer] = []

    async def start(
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        buffer_bytes: int = 1 << 20,
        port: int = 0,
    ) -> ScriptedServer:
        server = ScriptedServer(*scripts)
        await server.start(tls or secured, buffer_bytes=buffer_bytes, port=port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()
    assert [failure for server in servers for failure in server.failures] == []


@pytest.fixture
async def connect(
    secured: ssl.SSLContext | None, library: TlsLibrary, authority: Authority
) -> AsyncIterator[Connect]:
    clients: list[HttpClient] = []

    def make(
        server: ScriptedServer | str,
        *,
        sign: Callable[[Request], str] | None = None,
        trusted: bool = True,
        should_retry: Callable[[Response], bool] | None = None,
        asks_to_slow_down: Callable[[Response], bool] = lambda response: response.status == 503,
        serves_others: Callable[[Request, float, int], Awaitable[bool]] | None = None,
        **options: Any,  # noqa: ANN401 - fields of TransportOptions
    ) -> HttpClient:
        trusted_file = authority.file if secured else None
        client = HttpClient(
            server if isinstance(server, str) else server.origin,
            replace(OPTIONS, **{"ca_file": trusted_file, "tls": library, **options}),
            sign=sign or unsigned,
            trusted=trusted,
            should_retry=should_retry,
            asks_to_slow_down=asks_to_slow_down,
            serves_others=serves_others,
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
