"""`slurper token`: the API tokens of this machine's server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from slurper import errors
from slurper.cli import configuration, console
from slurper.cli.options import AsJson, DataDir

if TYPE_CHECKING:
    from pathlib import Path

    from slurper.database.tokens import TokenStore

Result = TypeVar("Result")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Tokens that open the API, kept as hashes.",
)

Name = Annotated[str, typer.Argument(help="What the token is listed and revoked by")]


@app.command()
def create(
    name: Name,
    *,
    account: Annotated[
        str | None, typer.Option("--account", help="Good for this account alone, not for all")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token and print it, this one time."""
    token = _with_tokens(data_dir, lambda tokens: tokens.create(name, account))
    console.out().print(token, soft_wrap=True)


@app.command("list")
def list_tokens(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the tokens; they themselves cannot be shown again."""
    found = _with_tokens(data_dir, lambda tokens: tokens.list())
    rows = [(token.name, token.account_id, token.created_at.isoformat()) for token in found]
    if as_json:
        names = ("name", "account", "created")
        console.print_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    table = console.table("name", "account", "created")
    for name, account, created in rows:
        table.add_row(name, account or "every account", created)
    if rows:
        console.print_table(table)
    else:
        console.out().print("no tokens")


@app.command()
def revoke(name: Name, *, data_dir: DataDir = None) -> None:
    """Make a token void at once."""
    if not _with_tokens(data_dir, lambda tokens: tokens.revoke(name)):
        raise errors.ConfigurationError(f"there is no token named {name!r}")
    console.out().print(f"revoked {name}")


def _with_tokens(data_dir: Path | None, act: Callable[[TokenStore], Awaitable[Result]]) -> Result:
    from slurper import data_folder
    from slurper.database.connection import Database
    from slurper.database.tokens import TokenStore

    settings = configuration.load(data_dir=data_dir)
    data_folder.prepare(settings)

    async def run() -> Result:
        database = await Database.open(settings.resolved_database_url)
        try:
            return await act(TokenStore(database))
        finally:
            await database.close()

    return asyncio.run(run())
