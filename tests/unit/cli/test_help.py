from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from slurper.cli import commands


def _paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - Typer's own class is private
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from _paths(below, (*path, name))


@pytest.mark.parametrize("path", list(_paths(get_command(commands.app))), ids=" ".join)
def test_the_help_cuts_nothing_short_in_eighty_columns(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(commands.app, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Usage: " in shown.output
    assert "…" not in shown.output
