"""`slurper keys`: the keys that seal stored credentials."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from slurper import errors
from slurper.cli import configuration, console
from slurper.cli.options import DataDir

if TYPE_CHECKING:
    from slurper.service.resealing import Resealed
    from slurper.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="The keys that seal the credentials of this machine's server.",
)

_FROM_THE_ENVIRONMENT = (
    "the keys come from SLURPER_SECRET_KEY, which this command cannot change. "
    "(1) make a key: slurper keys new. (2) put it first: SLURPER_SECRET_KEY=NEW,OLD for every "
    "server of this database, and restart them. (3) run: slurper keys reseal. "
    "(4) remove the old key, and restart them again"
)


@app.command()
def rotate(*, data_dir: DataDir = None) -> None:
    """Make a new key, seal everything with it, and forget the older ones. The server may run.

    If it is stopped on its way, nothing is lost: run it again, or `slurper keys reseal`.
    """
    from slurper import data_folder

    settings = configuration.load(data_dir=data_dir)
    if settings.secret_key is not None:
        raise errors.ConfigurationError(_FROM_THE_ENVIRONMENT)
    data_folder.prepare(settings)
    file = data_folder.key_file(settings)
    with file.alone():
        file.put_first(_new_key())
        found = asyncio.run(_reseal(settings))
        dropped = file.drop_all_but_first()
    _say(found)
    console.out().print(f"a new key seals now; {dropped} older ones are gone from {file.path}")


@app.command()
def reseal(*, data_dir: DataDir = None) -> None:
    """Seal everything with the first key, and forget the others. The server may run.

    Keys in SLURPER_SECRET_KEY are not changed. They are yours to remove after this.
    """
    from slurper import data_folder

    settings = configuration.load(data_dir=data_dir)
    data_folder.prepare(settings)
    if settings.secret_key is not None:
        _say(asyncio.run(_reseal(settings)))
        console.out().print("only the first key in SLURPER_SECRET_KEY is needed now")
        return
    file = data_folder.key_file(settings)
    with file.alone():
        found = asyncio.run(_reseal(settings))
        dropped = file.drop_all_but_first()
    _say(found)
    console.out().print(f"the first key seals; {dropped} older ones are gone from {file.path}")


@app.command()
def new() -> None:
    """Print a new key, for SLURPER_SECRET_KEY. It is stored nowhere."""
    console.out().print(_new_key(), soft_wrap=True)


def _new_key() -> str:
    from slurper.secrets import new_key

    return new_key()


async def _reseal(settings: Settings) -> Resealed:
    from slurper import data_folder
    from slurper.database.connection import Database
    from slurper.service import resealing

    sealer = data_folder.prepare(settings)
    database = await Database.open(settings.resolved_database_url)
    try:
        return await resealing.reseal(database, sealer)
    finally:
        await database.close()


def _say(found: Resealed) -> None:
    console.out().print(f"sealed again: {found.changed:,}")
    if found.unopened:
        console.err().print(
            f"note: no key opens the credentials of {found.unopened:,} jobs; "
            "`slurper jobs resume` takes new ones",
            soft_wrap=True,
        )
