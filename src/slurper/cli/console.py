"""Prints for the commands: results to standard output, everything else to standard error.

Everything is printed through here, so what others have written is always made harmless
(`terminal`, `printable`). Rich is loaded only when something is printed with it. JSON is printed
without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

from slurper import errors
from slurper.printable import is_printable, printable, printable_json

if TYPE_CHECKING:
    from rich.text import Text

    from slurper.cli.terminal import Console, Table

JsonValue = Any
"""What an answer of the API holds. It is shown, but not checked against the API's models."""

_UNLIMITED = 10_000


def out() -> Console:
    """Return standard output, for results."""
    from slurper.cli.terminal import Console

    return Console()


def err() -> Console:
    """Return standard error, for progress and errors."""
    from slurper.cli.terminal import Console

    return Console(stderr=True)


def complain(error: errors.SlurperError) -> None:
    """Print an error and its advice, if it has one."""
    console = err()
    for line in _lines(error):
        console.print(f"error: {printable(line)}", soft_wrap=True)
    if error.advice:
        console.print(f"       {printable(error.advice)}", soft_wrap=True)


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
    print(printable_json(value, indent=2))  # noqa: T201 - Rich would wrap the lines


def print_plain(line: str, stream: TextIO) -> None:
    """Print a line on a stream that is no terminal, such as a log file."""
    print(printable(line), file=stream, flush=True)


def shown(key: str) -> str:
    """Return a key for people: in quotes and with JSON's escapes, if not all of it can be seen."""
    return key if is_printable(key) else json.dumps(key)


def print_table(made: Table) -> None:
    """Print a table in its full width. So ids and keys stay whole, and can be copied."""
    from slurper.cli.terminal import Console

    wide = Console(width=_UNLIMITED)
    wide.print(made, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table. A column whose name ends with a colon holds numbers."""
    from slurper.cli.terminal import Table

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
    return Text(printable(status), style=colours.get(status, ""))
