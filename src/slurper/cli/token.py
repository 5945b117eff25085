"""`slurper token`: the API tokens of this machine's server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from slurper import errors
from slurper.cli import configuration, console
from slurper.cli.options import AsJson, DataDir
from slurper.job.access import Scope

if TYPE_CHECKING:
    from pathlib import Path

    from slurper.database.tokens import TokenInfo, TokenStore

Result = TypeVar("Result")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Tokens that open the API, kept as hashes.",
)

_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([hd])")


def _expiry(text: str) -> timedelta | datetime:
    """Read a time from now, such as 30d, or a date."""
    lifetime = _LIFETIME.fullmatch(text)
    if lifetime is not None:
        number = int(lifetime[1])
        return timedelta(hours=number) if lifetime[2] == "h" else timedelta(days=number)
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            "give hours, days or a date, as in 12h, 30d or 2030-12-31"
        ) from error
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


Name = Annotated[str, typer.Argument(help="What the token is listed and revoked by")]
Expiry = Annotated[
    str | None,
    typer.Option(
        "--expires",
        help="When it becomes void: in 12h or 30d, or when a date begins (UTC); never if not given",
        show_default=False,
    ),
]


@app.command()
def create(
    name: Name,
    *,
    account: Annotated[
        list[str] | None,
        typer.Option(
            "--account",
            help="Good for this account alone, not for all; may be given several times",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            help="read: look at jobs; write: also make and command them; admin: also see what "
            "concerns the whole service",
        ),
    ] = Scope.WRITE,
    expires: Expiry = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token and print it, this one time."""
    until = None if expires is None else _expiry(expires)
    accounts = tuple(account) if account else None
    token = _with_tokens(
        data_dir, lambda tokens: tokens.create(name, accounts, scope=scope, expires=until)
    )
    console.out().print(token, soft_wrap=True)


@app.command("list")
def list_tokens(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the tokens; they themselves cannot be shown again."""
    found = _with_tokens(data_dir, lambda tokens: tokens.list())
    if as_json:
        console.print_json([_as_json(token) for token in found])
        return
    table = console.table("name", "accounts", "scope", "created", "expires", "last used")
    for token in found:
        table.add_row(
            console.shown(token.name),
            "every account" if token.accounts is None else ", ".join(token.accounts),
            token.scope,
            _minute(token.created_at),
            _ending(token),
            _minute(token.used_at) or "not known",
        )
    if found:
        console.print_table(table)
    else:
        console.out().print("no tokens")


@app.command()
def revoke(
    name: Name,
    *,
    abort_jobs: Annotated[
        bool, typer.Option("--abort-jobs", help="Also abort the active jobs that it has made")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a token void at once."""
    revoked = _with_tokens(data_dir, lambda tokens: tokens.revoke(name, abort_jobs=abort_jobs))
    if revoked is None:
        raise errors.ConfigurationError(f"there is no token named {name!r}")
    count = revoked.aborted
    also = f", and aborted {count:,} {'job' if count == 1 else 'jobs'}" if abort_jobs else ""
    console.out().print(f"revoked {console.shown(name)}{also}")


def _as_json(token: TokenInfo) -> dict[str, object]:
    return {
        "name": token.name,
        "accounts": None if token.accounts is None else list(token.accounts),
        "scope": token.scope.value,
        "created": token.created_at.isoformat(),
        "expires": None if token.expires_at is None else token.expires_at.isoformat(),
        "expired": token.has_expired,
        "lastUsed": None if token.used_at is None else token.used_at.isoformat(),
    }


def _ending(token: TokenInfo) -> str:
    if token.expires_at is None:
        return "never"
    return f"{_minute(token.expires_at)}{' (expired)' if token.has_expired else ''}"


def _minute(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


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
