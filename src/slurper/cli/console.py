"""What the commands print: results to standard output, everything else to standard error.

Rich is loaded by the first thing that is printed with it; JSON needs none of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from slurper import errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_UNLIMITED = 10_000


def out() -> Console:
    """Standard output, for what was asked for."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Standard error, for progress and complaints."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def complain(error: errors.SlurperError) -> None:
    """Say what went wrong and, where the error knows, what can be done."""
    console = err()
    for line in _lines(error):
        console.print(f"error: {line}", soft_wrap=True)
    if error.advice:
        console.print(f"       {error.advice}", soft_wrap=True)


def _lines(error: errors.SlurperError) -> list[str]:
    if isinstance(error, errors.PrecheckFailed):
        return [f"{side_of(problem.pointer)}: {problem.message}" for problem in error.problems]
    if isinstance(error, errors.InvalidField):
        return [f"{error.pointer.strip('/').replace('/', ' ')}: {error.message}"]
    return [str(error)]


def side_of(pointer: str) -> str:
    """What a JSON pointer into a job means, in words: `/source/bucket` is the source bucket."""
    return pointer.strip("/").replace("/", " ")


def print_json(value: object) -> None:
    """Print one JSON document on standard output, for other programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - Rich would wrap the lines


def shown(key: str) -> str:
    """A key for people: with escapes unless it is printable, so that it cannot move the cursor."""
    return key if key.isprintable() else json.dumps(key)


def print_table(made: Table) -> None:
    """Print a table as wide as it is: ids and keys stay whole, and can be searched and copied."""
    from rich.console import Console

    wide = Console(width=_UNLIMITED, highlight=False, markup=False, emoji=False)
    wide.print(made, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; columns whose name ends in a colon hold numbers."""
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
    """A job's status in its colour."""
    from rich.text import Text

    colours = {"running": "cyan", "paused": "yellow", "completed": "green", "aborted": "red"}
    return Text(status, style=colours.get(status, ""))
