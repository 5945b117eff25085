"""`slurper serve`: runs the service until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Annotated

import typer

from slurper import errors
from slurper.cli import configuration
from slurper.cli.options import DataDir, Verbose

BACKLOG = 128

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one")] = 8080,
    data_dir: DataDir = None,
    verbose: Verbose = False,
) -> None:
    """Serve the API and move its jobs. SIGTERM and Ctrl-C let work under way end first."""
    from slurper import telemetry
    from slurper.cli import serving

    settings = configuration.load(data_dir=data_dir)
    telemetry.configure_logging("debug" if verbose else "info")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with _listen(host, port) as listener:
        asyncio.run(serving.serve(settings, listener, access_log=verbose))


def _listen(host: str, port: int) -> socket.socket:
    """Listen on the address, before anything else is begun.

    Raises:
        ConfigurationError: the address is in use, or is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise errors.ConfigurationError(f"--host {host}: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise errors.ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    return listener
