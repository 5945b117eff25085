"""Make the tables and plots of docs/performance.md from the results file.

    python -m benchmarks.report [--results FILE]

Whatever was measured so far is shown; what was not is left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from benchmarks import figures, machine, plots, results
from benchmarks.contenders import PLACES, Contender
from benchmarks.figures import Column
from benchmarks.results import Run
from benchmarks.sets import SETS, Measure, Set

DOCS = machine.ROOT / "docs"
RESULTS = DOCS / "performance.jsonl"
PAGE = "performance.md"
PLOTS = "plots"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

_OWN = "slurper"
_CHARTS_OF_SPEED = {Measure.RATE: "latency", Measure.THROUGHPUT: "lines"}
_PLACES_AND_SECRETS = ("AWS_", "RCLONE_CONFIG", "SLURPER_API_TOKEN")
"""Variables that every user sets differently."""


def write(path: Path, docs: Path = DOCS) -> None:
    """Replace what stands between the page's marker comments, and the plots it shows."""
    runs = results.read(path)
    folder = docs / PLOTS
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    drawn = _charts(runs)
    for name, svg in drawn.items():
        (folder / name).write_text(svg)
    images = "\n".join(f"![{Path(name).stem}]({PLOTS}/{name})" for name in drawn)
    page = docs / PAGE
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{images}\n\n{rendered(runs)}\n{END}{after}")


def rendered(runs: list[Run]) -> str:
    """Every table, and then on what and how they were measured."""
    sections = [section for each in SETS.values() for section in _section(each, runs)]
    return "\n".join((*sections, *_circumstances(runs)))


def _section(each: Set, runs: list[Run]) -> Iterator[str]:
    of_set = [run for run in runs if run.set == each.name]
    if not of_set:
        return
    yield f"### {each.name}: {each.title}\n"
    for target in _distinct(run.target for run in of_set):
        here = [run for run in of_set if run.target == target]
        yield f"{_caption(here)}\n"
        yield table(each, here) + "\n"


def _caption(runs: list[Run]) -> str:
    turns = {sum(run.contender == label for run in runs) for label in {r.contender for r in runs}}
    loads = [run.load for run in runs]
    copied = f"{runs[0].objects:,} objects of {runs[0].bytes // runs[0].objects:,} bytes"
    return (
        f"To {', '.join(_distinct(run.server for run in runs))}: {copied};"
        f" runs of each tool: {_span(min(turns), max(turns))},"
        f" begun at load averages of {min(loads):.1f} to {max(loads):.1f}."
    )


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def table(each: Set, runs: list[Run]) -> str:
    """The runs at one target as Markdown; the ratio is to the first contender."""
    cpu, speed = figures.cpu(each.measure), figures.speed(each.measure)
    heads = (
        *("tool", f"{cpu.unit} (user + system)", "min..max", speed.unit, "min..max"),
        *("peak RSS of each process, MiB", "ratio", "checks of each object"),
    )
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    first: float | None = None
    for contender in each.field:
        own = [run for run in runs if run.contender == contender.label]
        if not own:
            lines.append(f"| {contender.label} | no complete run | | | | | | |")
            continue
        median = figures.leading(each.measure).figure(own).median
        first = first or median
        lines.append(
            f"| {contender.label} | {_cpu(each.measure, own)} | {_spread(cpu, own)}"
            f" | {_number(speed, own)} | {_spread(speed, own)} | {_peaks(own)}"
            f" | {median / first:.2f} | {contender.verifies} |"
        )
    return "\n".join(lines)


def _cpu(measure: Measure, runs: list[Run]) -> str:
    column, scale = figures.cpu(measure), figures.CPU_SCALES[measure]
    user = statistics.median(run.user_seconds * scale(run) for run in runs)
    system = statistics.median(run.system_seconds * scale(run) for run in runs)
    return f"**{_number(column, runs)}** ({user:.{column.digits}f} + {system:.{column.digits}f})"


def _number(column: Column, runs: list[Run]) -> str:
    return f"{column.figure(runs).median:.{column.digits}f}"


def _spread(column: Column, runs: list[Run]) -> str:
    figure = column.figure(runs)
    return f"{figure.low:.{column.digits}f}..{figure.high:.{column.digits}f}"


def _peaks(runs: list[Run]) -> str:
    """Of the run in the middle, since medians of single processes would belong to no run."""
    ordered = sorted(runs, key=lambda run: sum(run.peaks_mib))
    alike = groupby(f"{peak:.0f}" for peak in ordered[len(ordered) // 2].peaks_mib)
    counted = ((peak, len(list(same))) for peak, same in alike)
    return " + ".join(peak if count == 1 else f"{count} x {peak}" for peak, count in counted)


def _circumstances(runs: list[Run]) -> Iterator[str]:
    if not runs:
        return
    days = sorted({run.began[:10] for run in runs})
    yield "### Machine, versions and commands\n"
    yield f"- {'; '.join(_distinct(run.machine for run in runs))}"
    yield f"- {'; '.join(_distinct(run.version for run in runs))}"
    yield f"- {'; '.join(_distinct(run.server for run in runs))}"
    yield f"- {' to '.join(_distinct((days[0], days[-1])))}\n"
    yield "```"
    measured = {(run.set, run.contender) for run in runs}
    commands = (
        line
        for each in SETS.values()
        for contender in each.field
        if (each.name, contender.label) in measured
        for line in _commands(contender)
    )
    yield from _distinct(commands)
    yield "```"


def _commands(contender: Contender) -> Iterator[str]:
    variables = " ".join(
        f"{name}={value}"
        for name, value in contender.environment(PLACES).items()
        if not name.startswith(_PLACES_AND_SECRETS)
    )
    yield f"# {contender.label}"
    for command in contender.commands(PLACES):
        yield f"{variables} {' '.join(command)}".lstrip()


def _charts(runs: list[Run]) -> dict[str, str]:
    """One for each target, one for what latency does, and one for lines."""
    charts: dict[str, list[plots.Panel]] = {}
    for each in SETS.values():
        of_set = [run for run in runs if run.set == each.name]
        for target in _distinct(run.target for run in of_set):
            name = _CHARTS_OF_SPEED.get(each.measure, target.lower())
            here = [run for run in of_set if run.target == target]
            charts.setdefault(f"{name}.svg", []).append(_panel(each, here))
    return {name: plots.chart(panels) for name, panels in charts.items()}


def _panel(each: Set, runs: list[Run]) -> plots.Panel:
    column = figures.leading(each.measure)
    bars = []
    for contender in each.field:
        own = [run for run in runs if run.contender == contender.label]
        if own:
            text = _number(column, own)
            is_own = contender.tool == _OWN
            bars.append(plots.Bar(contender.label, column.figure(own), text, is_own))
    return plots.Panel(f"{each.title}, to {runs[0].target}: {column.unit}", tuple(bars))


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def main() -> None:
    """Render the results file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    write(parser.parse_args().results)


if __name__ == "__main__":
    main()
