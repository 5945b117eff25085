"""`slurper serve`: runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from slurper import errors
from slurper.cli import configuration
from slurper.cli.options import DataDir, Verbose

if TYPE_CHECKING:
    from slurper.server.tls import Certificate
    from slurper.settings import Settings

BACKLOG = 128

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    *,
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; other machines reach it only with TLS or a proxy"),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = 8080,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of the certificate; SIGHUP reads it again")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key")] = None,
    behind_proxy: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESSES",
            help="Addresses and networks of the proxies in front, separated by commas. "
            "X-Forwarded-For counts only if it comes from one of them",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve /metrics on this port, and only there"),
    ] = None,
    data_dir: DataDir = None,
    verbose: Verbose = False,
) -> None:
    """Serve the API and move its jobs. SIGTERM and Ctrl-C let work under way end first."""
    from slurper import telemetry
    from slurper.cli import serving
    from slurper.http import resolver
    from slurper.server import exposure

    settings = configuration.load(
        data_dir=data_dir,
        tls_cert=tls_cert,
        tls_key=tls_key,
        behind_proxy=behind_proxy,
        metrics_port=metrics_port,
    )
    certificate = _certificate(settings)
    proxies = exposure.proxies(settings.behind_proxy)
    telemetry.configure_logging("debug" if verbose else "info")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    resolver.limit_system_time_outs()  # `host` may be a name
    where, own = _resolved(host, port), settings.metrics_port
    exposure.require_cover(
        host, where.address[0], tls=certificate is not None, proxied=bool(proxies)
    )
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(where))
        metrics = None if own is None else stack.enter_context(_listen(_resolved(host, own)))
        door = serving.Door(
            listener=listener, metrics_listener=metrics, certificate=certificate, proxies=proxies
        )
        asyncio.run(serving.serve(settings, door, access_log=verbose))


def _certificate(settings: Settings) -> Certificate | None:
    """Read the certificate, if there is to be one.

    Raises:
        ConfigurationError: one of the two files is not given, or they cannot be used.
    """
    from slurper.server.tls import Certificate

    certificate, key = settings.tls_cert, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-cert" if certificate is None else "--tls-key"
        raise errors.ConfigurationError(
            f"{missing} is missing: a certificate and its key go together"
        )
    return Certificate(certificate, key)


class _Address(NamedTuple):
    """Where to listen, as `getaddrinfo` tells it."""

    family: int
    kind: int
    protocol: int
    name: str
    address: tuple[Any, ...]


def _resolved(host: str, port: int) -> _Address:
    """Look up where to listen. Raises ConfigurationError: the host has no address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise errors.ConfigurationError(f"--host {host}: {error.strerror}") from error
    return _Address(*found[0])


def _listen(where: _Address) -> socket.socket:
    """Listen on the address, before anything else is begun.

    Raises:
        ConfigurationError: the address is in use, or is not one of this machine.
    """
    listener = socket.socket(where.family, where.kind, where.protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where.address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        host, port = where.address[:2]
        raise errors.ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port"
        ) from error
    return listener
