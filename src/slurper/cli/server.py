"""The options that name a command's server and account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from slurper.cli.options import as_value

if TYPE_CHECKING:
    from slurper.cli.client import Client

DEFAULT = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The options that name a server. None: not given."""

    address: str
    account_id: str | None
    token: str | None = field(repr=False)

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """Open a client. Raises ConfigurationError: as `client.connect` says."""
        from slurper.cli.client import connect

        with connect(self.address, self.account_id, self.token) as client:
            yield client


def _server(
    server: Annotated[
        str, typer.Option("--server", envvar="SLURPER_SERVER", help="Address of `slurper serve`")
    ] = DEFAULT,
    account: Annotated[
        str | None,
        typer.Option("--account", envvar="CLOUDFLARE_ACCOUNT_ID", help="Account of the jobs"),
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", envvar="SLURPER_API_TOKEN", help="Token of the API")
    ] = None,
) -> Server:
    return Server(address=server, account_id=account, token=token)


given = as_value("server", _server)
"""Gives a command the parameter `server`."""


def job_path(job_id: str, *rest: str) -> str:
    """Return the path of a job, or of something that belongs to it."""
    return "/".join(("jobs", quote(job_id, safe=""), *rest))
