"""Bar charts as SVG, written by hand: a bar is the median, the line across its end the spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.figures import Figure

_WIDTH, _LABELS, _BARS, _ROW, _HEAD = 780, 230, 450, 22, 40
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}"
    ".own{fill:#0969da}.other{fill:#afb8c1}.spread{stroke:#57606a;stroke-width:1.5}"
)


@dataclass(frozen=True)
class Bar:
    """One row of a chart."""

    label: str
    figure: Figure
    text: str
    is_own: bool


@dataclass(frozen=True)
class Panel:
    """Bars that share a scale."""

    title: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> int:
        """In pixels."""
        return _HEAD + _ROW * len(self.bars)


def chart(panels: Iterable[Panel]) -> str:
    """Draw the panels below each other."""
    top = 0
    drawn: list[str] = []
    for panel in panels:
        drawn += _panel(panel, top)
        top += panel.height
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 12}">',
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *drawn,
            "</svg>\n",
        )
    )


def _panel(panel: Panel, top: int) -> list[str]:
    scale = _BARS / max((bar.figure.high for bar in panel.bars), default=1)
    drawn = [f'<text class="title" x="12" y="{top + 26}">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        drawn += _bar(bar, top + _HEAD + number * _ROW, scale)
    return drawn


def _bar(bar: Bar, top: int, scale: float) -> list[str]:
    median, low, high = (
        value * scale for value in (bar.figure.median, bar.figure.low, bar.figure.high)
    )
    middle = top + 8
    kind = "own" if bar.is_own else "other"
    return [
        f'<text x="{_LABELS - 8}" y="{top + 12}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{kind}" x="{_LABELS}" y="{top}" width="{median:.1f}" height="16"/>',
        f'<path class="spread" d="M{_LABELS + low:.1f} {middle}H{_LABELS + high:.1f}"/>',
        f'<text x="{_LABELS + high + 6:.1f}" y="{top + 12}">{escape(bar.text)}</text>',
    ]
