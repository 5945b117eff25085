"""Uvicorn, with limits for connections and with TLS that can be replaced while it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from slurper.server.acceptor import Acceptor
from slurper.server.admission import Admission
from slurper.server.connections import Connections
from slurper.server.http_protocol import HttpProtocol
from slurper.server.limits import Limits
from slurper.server.tls import Certificate, TlsProtocol

HEADERS = (
    ("cache-control", "no-store"),
    ("content-security-policy", "frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
"""On every answer. The policy says no more, because `/docs` shows scripts of another site."""
TLS_HEADERS = (("strict-transport-security", "max-age=31536000"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An application, and where it is reached."""

    listener: socket.socket
    app: ASGIApp


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the sites of a server are served."""

    limits: Limits
    certificate: Certificate | None = None
    """With it, everything is served by TLS."""
    proxies: Sequence[str] = ()
    """Addresses and networks of proxies. `X-Forwarded-For` and `X-Forwarded-Proto` count only if
    they come from one of these."""
    access_log: bool = False
    stop_grace_seconds: float = 30.0


class Server(uvicorn.Server):
    """Serves one or more sites. They share the limits."""

    def __init__(self, sites: Sequence[Site], options: Options) -> None:
        self._options = options
        self.connections = Connections(options.limits)
        admission = Admission(self.connections)
        self._sites = [
            (site.listener, _config(admission.guarding(site.app), options)) for site in sites
        ]
        super().__init__(self._sites[0][1])
        self.servers = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let uvicorn handle no signals. It would raise them again when HTTP has ended.

        That would kill the process before the driver has finished and committed its work.
        """
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self._acceptors():
            acceptor.start()
            self.servers.append(cast("asyncio.Server", acceptor))
        self.connections.start()
        self.started = True

    def _acceptors(self) -> Iterator[Acceptor]:
        for listener, config in self._sites:
            if not config.loaded:
                config.load()
            yield Acceptor(listener, partial(self._protocol, config), self.connections)

    def _protocol(self, config: uvicorn.Config) -> asyncio.BaseProtocol:
        certificate = self._options.certificate
        encrypted = certificate is not None
        http = HttpProtocol(config, self.server_state, self.connections, encrypted=encrypted)
        if certificate is None:
            return http
        return TlsProtocol(http, certificate.context, self._options.limits.head_seconds)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.connections.drop_unopened()
        await super().shutdown(sockets)
        self.connections.stop()


def _config(app: ASGIApp, options: Options) -> uvicorn.Config:
    limits = options.limits
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=options.access_log,
        server_header=False,
        headers=[*HEADERS, *(TLS_HEADERS if options.certificate else ())],
        proxy_headers=bool(options.proxies),
        forwarded_allow_ips=list(options.proxies),
        timeout_keep_alive=int(limits.idle_seconds),
        timeout_graceful_shutdown=int(options.stop_grace_seconds),
    )
