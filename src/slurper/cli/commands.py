"""The commands by name, and what they share: `--version`, and how errors end a command."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from slurper import descriptors, errors, telemetry
from slurper.cli import console

EXIT_UNUSABLE = 2

_NAMES = ("serve", "copy", "precheck", "demo", "jobs", "token", "keys", "compact")
"""The commands in the order of the help. Each is a module of this package with a Typer `app`."""


class _Commands(Mapping[str, Any]):
    """Imports each command when it is looked up. The help looks up all of them."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - Typer's own class is private
        if name not in _NAMES:
            raise KeyError(name)
        command = get_command(import_module(f"slurper.cli.{name}").app)
        command.name = name
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class _Group(TyperGroup):
    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 - Typer's own
        super().__init__(**attributes | {"commands": _Commands()})


app = typer.Typer(
    name="slurper",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Move whole buckets between object stores, byte-exact and crash-safe.",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        console.out().print(f"slurper {metadata.version('slurper')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has acted on it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None:
    descriptors.raise_limit()  # every process that is started later inherits it
    gc.freeze()
    gc.enable()  # some commands run for a long time


def run() -> None:
    """Run a command. A SlurperError is printed, and the exit code is then 2."""
    sys.excepthook = telemetry.print_traceback
    try:
        app()
    except errors.SlurperError as error:
        console.complain(error)
        sys.exit(EXIT_UNUSABLE)
