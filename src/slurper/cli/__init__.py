"""The command line. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from slurper import errors
from slurper.cli import console, copy, demo, jobs, precheck, serve, token

EXIT_UNUSABLE = 2

app = typer.Typer(
    name="slurper",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Move whole buckets between object stores, byte-exact and crash-safe.",
)
app.command()(serve.serve)
app.command()(copy.copy)
app.command()(precheck.precheck)
app.add_typer(jobs.app, name="jobs")
app.add_typer(token.app, name="token")
app.command()(demo.demo)


def _print_version(asked: bool) -> None:
    if asked:
        console.out().print(f"slurper {metadata.version('slurper')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. What can be foreseen ends with one clear text and exit code 2."""
    try:
        app()
    except errors.SlurperError as error:
        console.complain(error)
        sys.exit(EXIT_UNUSABLE)
