"""Rich, with one barrier: what others have written cannot make the terminal do anything.

Rich escapes few control characters, and lets ESC and C1 through. Every text that is printed passes
`Console.render`, whatever it is a part of. Only Rich's own colours and movements are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import console as rich_console
from rich import table as rich_table
from rich.segment import Segment
from rich.text import Text

from slurper.printable import printable, printable_lines


class Console(rich_console.Console):
    """Prints text as it is: without markup, highlighting or emoji codes, and with escapes."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Rich's own
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - Rich's own
        """Escape before the text is measured, so that columns and lines have the right width."""
        return super().render_str(printable_lines(text), **options)

    def render(
        self,
        renderable: Any,  # noqa: ANN401 - Rich's own
        options: rich_console.ConsoleOptions | None = None,
    ) -> Iterable[Segment]:
        """Escape everything but control segments. Only Rich itself makes those."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable_lines(text), style, control)


class Table(rich_table.Table):
    """A table with one line per row, whatever a cell holds."""

    def add_row(self, *cells: Any, **options: Any) -> None:  # noqa: ANN401 - what Rich can show
        """Add a row. Line breaks in its texts are escaped."""
        in_line = (printable(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*in_line, **options)
