"""The running service: HTTP and the driver run side by side and end together."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from slurper import descriptors, telemetry
from slurper.api.app import create_app
from slurper.api.backend import Backend
from slurper.api.metrics import create_metrics_app
from slurper.cli import console
from slurper.database.tokens import TokenStore
from slurper.node import Node, assembled, driven_in_turn
from slurper.server import exposure
from slurper.server.limits import Limits
from slurper.server.server import Options, Server, Site
from slurper.server.tls import Certificate
from slurper.settings import Settings

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where clients come in."""

    listener: socket.socket
    metrics_listener: socket.socket | None = None
    certificate: Certificate | None = None
    proxies: Sequence[str] = ()


async def serve(settings: Settings, door: Door, *, access_log: bool) -> None:
    """Serve until a signal comes. Then answer open requests, and finish and commit work under way.

    Several servers may share one database. One of them drives the jobs, and all serve the API.

    Raises:
        ConfigurationError: the database, data folder or key cannot be used, or a token of the
            settings is too short for a service that others can reach.
    """
    host = door.listener.getsockname()[0]
    exposure.check_tokens(settings, host, proxied=bool(door.proxies))
    _reload_on_hangup(door.certificate)
    metrics = telemetry.Metrics(CollectorRegistry())
    async with assembled(settings, metrics=metrics) as node, driven_in_turn(node) as driving:
        server = _server(node, settings, door, access_log=access_log)
        _stop_on_signals(server)
        _announce(door, settings)
        serving = asyncio.create_task(server.serve(), name="http")
        await asyncio.wait((serving, driving), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if driving.done():
            driving.result()  # raises the error that ended the driver, and so ends the service


def _server(node: Node, settings: Settings, door: Door, *, access_log: bool) -> Server:
    backend = Backend(
        jobs=node.store,
        service=node.service,
        tokens=TokenStore(node.store.database),
        settings=settings,
        registry=node.metrics.registry,
    )
    sites = [Site(listener=door.listener, app=create_app(backend))]
    if door.metrics_listener is not None:
        sites.append(Site(listener=door.metrics_listener, app=create_metrics_app(backend)))
    connections = descriptors.for_clients(settings.max_connections, descriptors.limit())
    options = Options(
        limits=Limits(connections=connections),
        certificate=door.certificate,
        proxies=door.proxies,
        access_log=access_log,
        stop_grace_seconds=settings.stop_grace_seconds,
    )
    return Server(sites, options)


def _stop_on_signals(server: Server) -> None:
    """Finish work under way at the first signal, and end at once at the second."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this runs inside one

    def stop() -> None:
        if server.should_exit:
            task.cancel()
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)


def _reload_on_hangup(certificate: Certificate | None) -> None:
    """Read the certificate again at SIGHUP. Without one the signal must not end the service."""

    def reload() -> None:
        if certificate is None:
            _log.info("SIGHUP came, and there is nothing to reload: no certificate is in use")
        else:
            certificate.reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _announce(door: Door, settings: Settings) -> None:
    out = console.out()
    scheme = "http" if door.certificate is None else "https"
    out.print(f"slurper listens on {scheme}://{_shown(door.listener)}", soft_wrap=True)
    if door.metrics_listener is not None:
        metrics = f"{scheme}://{_shown(door.metrics_listener)}/metrics"
        out.print(f"metrics are at {metrics}", soft_wrap=True)
    if settings.api_token is None:
        out.print("clients need a token: slurper token create NAME", soft_wrap=True)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
