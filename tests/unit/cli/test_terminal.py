"""Whatever is printed, and however: the terminal gets only colours and movements of our own."""

from __future__ import annotations

import io
import re

import pytest
from rich.text import Text

from slurper import errors
from slurper.cli import console
from slurper.cli.progress import Display, Snapshot
from slurper.cli.terminal import Console, Table
from tests.unit.test_printable import HOSTILE

OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|[0-9]*[AK]|2K)|\r")
"""Colours, the cursor that is hidden, and the movements by which Rich draws a bar again."""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def acts(printed: str) -> list[str]:
    """What a terminal would obey, or what cannot be seen."""
    rest = OWN.sub("", printed).replace("\n", "")
    return [each for each in rest if not each.isprintable()]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_everything_that_rich_prints_is_harmless(text: str) -> None:
    terminal = Terminal()
    out = Console(file=terminal, force_terminal=True, color_system="standard", width=200)
    table = Table("a", text, title=text)
    table.add_row(text, Text(text, style="red"))
    for each in (text, Text(text), table, {text: [text]}, [text]):
        out.print(each)
        out.print(each, soft_wrap=True)
    assert acts(terminal.getvalue()) == []


def test_a_cell_and_an_error_cannot_make_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = console.table("a", "b")
    table.add_row("one\nerror: two", "x")
    console.print_table(table)
    console.complain(errors.ConfigurationError("bad\nerror: worse"))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err == "error: bad\\nerror: worse\n"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_progress_and_notes_are_harmless(text: str, stream: type[io.StringIO]) -> None:
    shown = stream()
    display = Display(shown, f"s3://bucket/{text}")
    display._next_line = 0
    with display.shown():
        display.note(f"the store said {text}")
        display.update(Snapshot(objects=1, waiting_for=[f"HTTP 503 {text}"]))
    assert acts(shown.getvalue()) == []
    assert "the store said" in shown.getvalue()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_keys_and_json_are_harmless(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"objectKey": text, text: "message"})
    console.out().print(console.shown(text))
    assert acts(capsys.readouterr().out) == []
