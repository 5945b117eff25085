from __future__ import annotations

import io

import pytest

from slurper.cli import console, progress
from slurper.cli.progress import Meter, Snapshot


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("slurper.cli.progress.time.monotonic", clock)
    return clock


def test_rates_and_eta_come_from_the_last_seconds(clock: Clock) -> None:
    meter, line = Meter(), ""
    for second in range(61):  # 1 object/s for 50 s, then 10 objects/s and 2 MB/s
        late = max(second - 50, 0)
        objects, size = second + 9 * late, late * 2_000_000
        known = Snapshot(objects=objects, transferred_bytes=size, total=1000, total_is_final=True)
        line = meter.line(known)
        clock.now += 1
    assert "150 of 1,000 objects" in line
    assert "20.0 MB " in line
    assert "10 objects/s" in line
    assert "2.0 MB/s" in line
    assert line.endswith("0:01:00  ETA 0:01:25")


def test_a_resumed_job_is_not_credited_with_what_was_there(clock: Clock) -> None:
    meter = Meter()
    meter.line(Snapshot(objects=10_000))
    clock.now += 10
    assert "1 objects/s" in meter.line(Snapshot(objects=10_010))


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (Snapshot(objects=5), "ETA unknown"),
        (Snapshot(objects=5, total=7), "5 of 7+ objects"),
        (Snapshot(objects=5, total=7), "ETA unknown while the source is being counted"),
        (Snapshot(objects=9, total=7), "9 of 9+ objects"),
        (Snapshot(objects=0, total=7, total_is_final=True), "ETA unknown"),
        (Snapshot(objects=5, skipped=2, failed=1), "2 skipped  1 failed"),
        (Snapshot(objects=5, throttled_by_source=0.04), "throttled by source: 4%"),
        (Snapshot(objects=5, throttled_by_target=1.0), "throttled by target: 100%"),
    ],
)
def test_what_is_not_known_is_said(snapshot: Snapshot, said: str) -> None:
    assert said in Meter().line(snapshot)


def test_what_is_waited_for_is_said() -> None:
    what = ("3 requests that the source answers with HTTP 500 InternalError",)
    assert f"  waiting for {what[0]}  " in Meter().line(Snapshot(objects=1, waiting_for=what))
    assert "waiting" not in Meter().line(Snapshot(objects=1))


def test_without_a_terminal_a_line_now_and_then(clock: Clock) -> None:
    output = io.StringIO()
    display = progress.Display(output, "a -> b")
    with display.shown():
        for _ in range(25):
            display.update(Snapshot(objects=1))
            clock.now += 1
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("a -> b: 1 objects")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    display = progress.Display(terminal, "s3://a/[b] -> r2://c")
    assert display.live
    with display.shown():
        display.update(Snapshot(objects=3, total=4, total_is_final=True))
    assert "s3://a/[b]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("plain/ü 😀", "plain/ü 😀"),
        ("new\nline", '"new\\nline"'),
        ("esc\x1b[2J", '"esc\\u001b[2J"'),
        ("half \udcff", '"half \\udcff"'),
    ],
)
def test_keys_cannot_move_the_cursor(key: str, shown: str) -> None:
    assert console.shown(key) == shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (61.9, "0:01:01"), (360_000, "100:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text
