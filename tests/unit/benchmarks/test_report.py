from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import report, results
from benchmarks.results import Run
from benchmarks.sets import SETS, Measure

RUN = Run(
    set="S",
    target="nginx",
    contender="slurper copy",
    objects=20_000,
    bytes=20_000 * 4096,
    user_seconds=1.0,
    system_seconds=0.2,
    wall_seconds=2.0,
    peaks_mib=(95.0, 55.2, 54.8),
    version="slurper 0.1.0 (abc)",
    server="nginx 1.22.1",
    machine="2 cores of something",
    began="2026-11-26T10:00:00+00:00",
    load=1.5,
)
RIVAL = replace(
    RUN, contender="rclone copy", user_seconds=3.4, peaks_mib=(80.0,), version="rclone 1.75.2"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def _write(file: Path, *runs: Run) -> list[Run]:
    for run in runs:
        results.append(file, run)
    return results.read(file)


def _row(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_runs_are_read_as_they_were_written(file: Path) -> None:
    assert results.read(file) == []
    assert _write(file, RUN, RIVAL) == [RUN, RIVAL]


def test_only_the_named_runs_of_a_set_and_target_are_dropped(file: Path) -> None:
    others = (RIVAL, replace(RUN, set="M"), replace(RUN, target="SeaweedFS"))
    _write(file, RUN, *others, RUN)
    results.drop(file, "S", "nginx", ["slurper copy", "juicefs sync"])
    assert results.read(file) == list(others)


def test_a_row_holds_the_median_the_spread_and_the_ratio_to_the_first_tool(file: Path) -> None:
    slow, fast = replace(RUN, user_seconds=3.0, wall_seconds=8.0), replace(RUN, user_seconds=0.8)
    text = report.table(SETS["S"], _write(file, slow, RUN, fast, RIVAL))
    assert _row(text, "slurper copy")[:7] == [
        "slurper copy",
        "**60** (50 + 10)",
        "50..160",
        "10000",
        "2500..10000",
        "95 + 2 x 55",
        "1.00",
    ]
    assert _row(text, "rclone copy")[1:7] == [
        "**180** (170 + 10)",
        "180..180",
        "10000",
        "10000..10000",
        "80",
        "3.00",
    ]


def test_what_each_tool_checks_is_said(file: Path) -> None:
    text = report.table(SETS["S"], _write(file, RUN, RIVAL))
    for contender in SETS["S"].field[:1]:
        assert _row(text, contender.label)[-1] == contender.verifies


def test_a_tool_that_failed_is_not_left_out(file: Path) -> None:
    text = report.table(SETS["S"], _write(file, RUN))
    assert _row(text, "rclone copy")[1] == "no complete run"


def test_large_objects_are_measured_per_gigabyte(file: Path) -> None:
    run = replace(RUN, set="L", objects=4, bytes=2_000_000_000, wall_seconds=4.0)
    row = _row(report.table(SETS["L"], _write(file, run)), "slurper copy")
    assert row[1:4] == ["**0.60** (0.50 + 0.10)", "0.60..0.60", "500"]


def test_worker_processes_are_compared_by_their_rate(file: Path) -> None:
    one = replace(RUN, set="latency", contender="1 worker process", wall_seconds=80.0)
    four = replace(one, contender="4 worker processes", wall_seconds=20.0)
    text = report.table(SETS["latency"], _write(file, one, four))
    assert _row(text, "1 worker process")[3:7] == ["250", "250..250", "95 + 2 x 55", "1.00"]
    assert _row(text, "4 worker processes")[6] == "4.00"


def test_over_a_line_tools_are_compared_by_their_throughput(file: Path, tmp_path: Path) -> None:
    name = next(name for name, each in SETS.items() if each.measure is Measure.THROUGHPUT)
    run = replace(RUN, set=name, objects=8, bytes=800_000_000, wall_seconds=10.0)
    runs = _write(file, run, replace(run, contender="rclone copy", wall_seconds=5.0))
    text = report.table(SETS[name], runs)
    assert _row(text, "slurper copy")[1:7] == [
        "**1.50** (1.25 + 0.25)",
        "1.50..1.50",
        "80",
        "80..80",
        "95 + 2 x 55",
        "1.00",
    ]
    assert _row(text, "rclone copy")[6] == "2.00"
    (tmp_path / report.PAGE).write_text(f"{report.BEGIN}{report.END}")
    report.write(file, tmp_path)
    assert [drawn.name for drawn in (tmp_path / report.PLOTS).iterdir()] == ["lines.svg"]


def test_the_page_keeps_what_stands_around_the_figures(file: Path, tmp_path: Path) -> None:
    page = tmp_path / report.PAGE
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    _write(file, RUN, RIVAL, replace(RIVAL, target="SeaweedFS", server="SeaweedFS 4.48"))
    report.write(file, tmp_path)
    report.write(file, tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    for shown in (RUN.machine, RUN.version, RIVAL.version, "SeaweedFS 4.48", "rclone copy src:"):
        assert text.count(shown) >= 1
    assert text.count("### S: ") == 1
    for image in ("nginx", "seaweedfs"):
        assert f"({report.PLOTS}/{image}.svg)" in text


def test_plots_are_svg_with_a_bar_for_every_tool_that_ran(file: Path, tmp_path: Path) -> None:
    (tmp_path / report.PAGE).write_text(f"{report.BEGIN}{report.END}")
    _write(file, RUN, RIVAL)
    report.write(file, tmp_path)
    drawing = ET.parse(tmp_path / report.PLOTS / "nginx.svg")  # noqa: S314 - our own
    bars = [float(bar.attrib["width"]) for bar in drawing.iterfind(".//*[@class][@width]")]
    assert len(bars) == 2
    assert bars[1] / bars[0] == pytest.approx(3.0, rel=0.01)


def test_no_secret_is_in_the_commands_shown(file: Path) -> None:
    text = report.rendered(_write(file, RUN, RIVAL, replace(RUN, set="end-to-end")))
    assert "SECRET_ACCESS_KEY" not in text
    assert "API_TOKEN" not in text
