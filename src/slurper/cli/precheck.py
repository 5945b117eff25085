"""`slurper precheck`: checks whether both sides can be used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from slurper import errors
from slurper.cli import configuration, console, options, sides
from slurper.cli.sides import GivenSides, Sides
from slurper.printable import printable

if TYPE_CHECKING:
    from slurper.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
@sides.given
def precheck(
    sides: GivenSides,
    *,
    allow_http: options.AllowHttp = None,
    allow_private: options.AllowPrivate = None,
    ca_file: options.CaFile = None,
) -> None:
    """Check that the source can be read and the target be written to; copy nothing.

    Exit code 0: both can; 2: one cannot, and why.
    """
    settings = configuration.load(
        options.LOCAL_DEFAULTS,
        allow_http=allow_http,
        allow_private_endpoints=allow_private,
        ca_file=ca_file,
    )
    asyncio.run(_check(sides.resolve(settings), settings))
    console.out().print("source and target can be used")


async def _check(sides: Sides, settings: Settings) -> None:
    from slurper.http.places import Owner
    from slurper.service.precheck import Precheck, Side

    check, source, target = Precheck(settings), sides.source, sides.target
    read_from, write_to = (
        check.resolve(side, Owner(sides.account_id), access.location, access.credentials)
        for side, access in ((Side.SOURCE, source), (Side.TARGET, target))
    )
    readable, writable = await asyncio.gather(
        check.source(source.location, read_from, prefix=source.prefix),
        check.target(target.location, write_to),
    )
    found = readable.problems + writable.problems
    for note in found:
        if not note.blocks:
            console.err().print(f"{note.side}: {printable(note.message)}")
    if any(problem.blocks for problem in found):
        raise errors.PrecheckFailed(tuple(problem for problem in found if problem.blocks))
