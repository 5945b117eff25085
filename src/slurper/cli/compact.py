"""`slurper compact`: writes SQLite's file anew, without the space that nothing uses."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from slurper import errors
from slurper.cli import configuration, console
from slurper.cli.options import DataDir

if TYPE_CHECKING:
    from slurper.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
def compact(*, data_dir: DataDir = None) -> None:
    """Make SQLite's file smaller, once, while no service runs. Later it shrinks by itself."""
    from slurper.database import sqlite_file

    settings = configuration.load(data_dir=data_dir)
    path = _file(settings)
    asyncio.run(_check_idle(settings))
    try:
        before, after = sqlite_file.compact(path)
    except sqlite3.Error as error:
        raise errors.ConfigurationError(
            f"cannot compact {path}: {error}; end whatever uses it, and see that the disk has "
            "space for a second file of its size"
        ) from error
    console.out().print(f"{before:,} bytes before, {after:,} bytes now")


def _file(settings: Settings) -> Path:
    from sqlalchemy import make_url

    url = make_url(settings.resolved_database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        text = (
            "SLURPER_DATABASE_URL names PostgreSQL, which gives space back by itself (autovacuum)"
        )
        raise errors.ConfigurationError(text)
    path = Path(url.database)
    if not path.exists():
        raise errors.ConfigurationError(f"there is no database file {path}")
    return path


async def _check_idle(settings: Settings) -> None:
    """Raise ConfigurationError while a service moves jobs: it would wait for the end."""
    from slurper.database.connection import Database
    from slurper.database.leases import LeaseStore
    from slurper.driver.leadership import DRIVER

    database = await Database.open(settings.resolved_database_url)
    try:
        holder = await LeaseStore(database).holder(DRIVER)
    finally:
        await database.close()
    if holder is not None:
        raise errors.ConfigurationError(f"the file is in use by {holder}; stop it first")
