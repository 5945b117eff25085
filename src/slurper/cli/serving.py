"""The running service: HTTP and the driver run side by side and end together."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CollectorRegistry

from slurper import descriptors, telemetry
from slurper.api.app import create_app
from slurper.api.backend import Backend
from slurper.cli import console
from slurper.database.tokens import TokenStore
from slurper.node import Node, assembled, driven_in_turn
from slurper.settings import Settings


async def serve(settings: Settings, listener: socket.socket, *, access_log: bool) -> None:
    """Serve until a signal comes. Then answer open requests, and finish and commit work under way.

    Several servers may share one database. One of them drives the jobs, and all serve the API.

    Raises:
        ConfigurationError: the database, data folder or key cannot be used.
    """
    metrics = telemetry.Metrics(CollectorRegistry())
    descriptors.tell_of_refused_clients(asyncio.get_running_loop())
    async with assembled(settings, metrics=metrics) as node, driven_in_turn(node) as driving:
        server = _server(node, settings, access_log=access_log)
        _stop_on_signals(server)
        _announce(listener, settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        await asyncio.wait((serving, driving), return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if driving.done():
            driving.result()  # raises the error that ended the driver, and so ends the service


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let uvicorn handle no signals. It would raise them again when HTTP has ended.

        That would kill the process before the driver has finished and committed its work.
        """
        yield


def _server(node: Node, settings: Settings, *, access_log: bool) -> _Server:
    backend = Backend(
        jobs=node.store,
        service=node.service,
        tokens=TokenStore(node.store.database),
        settings=settings,
        registry=node.metrics.registry,
    )
    config = uvicorn.Config(
        create_app(backend),
        lifespan="off",
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_graceful_shutdown=int(settings.stop_grace_seconds),
    )
    return _Server(config)


def _stop_on_signals(server: _Server) -> None:
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


def _announce(listener: socket.socket, settings: Settings) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    out = console.out()
    out.print(f"slurper listens on http://{shown}:{port}", soft_wrap=True)
    if settings.api_token is None:
        out.print("clients need a token: slurper token create NAME", soft_wrap=True)
