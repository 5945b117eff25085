"""Options that several commands share, and `as_value`, which makes one value of several options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

LOCAL_DEFAULTS = {"allow_http": True, "allow_private_endpoints": True}
"""Defaults of commands that a person runs. The endpoints are that person's own choice."""

Result = TypeVar("Result")


def keyword(name: str, kind: Any, option: object) -> inspect.Parameter:  # noqa: ANN401 - any type
    """Return an option that may be left out, as a parameter of a function."""
    annotation = Annotated[kind, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def as_value(
    name: str, make: Callable[..., object], more: Iterable[inspect.Parameter] = ()
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Return a decorator that fills one parameter of a command from several options.

    On the command line, the parameters of `make` replace the command's parameter `name`. If `make`
    has `**options`, those in `more` replace it. `make` is called with the options, and the command
    gets the result as `name`.
    """
    taken: list[inspect.Parameter] = []
    for parameter in inspect.signature(make, eval_str=True).parameters.values():
        taken += more if parameter.kind is inspect.Parameter.VAR_KEYWORD else (parameter,)

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(command)
        def run(**given: Any) -> Result:  # noqa: ANN401 - whatever the options hold
            values = {option.name: given.pop(option.name) for option in taken}
            return command(**given, **{name: make(**values)})

        shown: list[inspect.Parameter] = []
        signature = inspect.signature(command, eval_str=True)
        for parameter in signature.parameters.values():
            shown += taken if parameter.name == name else (parameter,)
        shown = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in shown]
        vars(run)["__signature__"] = signature.replace(parameters=shown)
        run.__annotations__ = {}  # Typer reads the signature
        return run

    return decorate


def _allow(name: str, variable: str, text: str) -> Any:  # noqa: ANN401 - Typer's own return type
    return typer.Option(
        f"--allow-{name}/--no-allow-{name}",
        envvar=variable,
        help=text,
        metavar="",
        show_default="on",
        rich_help_panel="Addresses that may be used",
    )


_HTTP = "Endpoints with http://"
_PRIVATE = (
    "Endpoints on loopback and private addresses. Those of metadata services must be listed in "
    "SLURPER_ALLOWED_ENDPOINTS"
)

AllowHttp = Annotated[bool | None, _allow("http", "SLURPER_ALLOW_HTTP", _HTTP)]
AllowPrivate = Annotated[
    bool | None, _allow("private", "SLURPER_ALLOW_PRIVATE_ENDPOINTS", _PRIVATE)
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="SLURPER_CA_FILE",
        help="PEM certificates to trust beside the system's",
        exists=True,
        dir_okay=False,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="SLURPER_DATA_DIR",
        help="Where jobs are kept, ~/.local/share/slurper if not given",
        file_okay=False,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr")]
