"""Prints for the commands: results to standard output, everything else to standard error.

Rich is loaded only when something is printed with it. JSON is printed without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from slurper import errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

JsonValue = Any
"""What an answer of the API holds. It is shown, but not checked against the API's models."""

_UNLIMITED = 10_000


def out() -> Console:
    """Return standard output, for results."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Return standard error, for progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def complain(error: errors.SlurperError) -> None:
    """Print an error and its advice, if it has one."""
    console = err()
    for line in _lines(error):
        console.print(f"error: {line}", soft_wrap=True)
    if error.advice:
        console.print(f"       {error.advice}", soft_wrap=True)


def _lines(error: errors.SlurperError) -> list[str]:
    if isinstance(error, errors.PrecheckFailed):
        return [f"{_in_words(problem.pointer)}: {problem.message}" for problem in error.problems]
    if isinstance(error, errors.InvalidField):
        return [f"{_in_words(error.pointer)}: {error.message}"]
    return [str(error)]


def _in_words(pointer: str) -> str:
    """Return a JSON pointer into a job as words: `/source/bucket` is "source bucket"."""
    return pointer.strip("/").replace("/", " ")


def print_json(value: object) -> None:
    """Print one JSON document on standard output, for other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - Rich would wrap the lines


def shown(key: str) -> str:
    """Return a key for people. It has escapes if it is not printable: it could move the cursor."""
    return key if key.isprintable() else json.dumps(key)


def print_table(made: Table) -> None:
    """Print a table in its full width. So ids and keys stay whole, and can be copied."""
    from rich.console import Console

    wide = Console(width=_UNLIMITED, highlight=False, markup=False, emoji=False)
    wide.print(made, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table. A column whose name ends with a colon holds numbers."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column.endswith(":")
        made.add_column(
            column.rstrip(":"),
            justify="right" if numeric else "left",
            no_wrap=True,
        )
    return made


def status_text(status: str) -> Text:
    """Return a job's status in its colour."""
    from rich.text import Text

    colours = {"running": "cyan", "paused": "yellow", "completed": "green", "aborted": "red"}
    return Text(status, style=colours.get(status, ""))
