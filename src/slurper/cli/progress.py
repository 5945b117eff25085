"""Progress of one job: a bar on a terminal, or a line every few seconds for a log file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from rich import filesize

from slurper.cli import console
from slurper.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress

RATE_WINDOW_SECONDS = 10.0
PLAIN_LINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How far a job is. `total` is the number of objects in the source, as far as it is known."""

    objects: int
    """Settled: transferred, skipped or failed."""
    skipped: int = 0
    failed: int = 0
    transferred_bytes: int | None = None
    """None: not known, because the server's answer does not have it."""
    total: int | None = None
    total_is_final: bool = False
    """False while the source is still being counted."""
    throttled_by_source: float = 0.0
    """The share of the source's recent answers that asked to slow down, 0 to 1."""
    throttled_by_target: float = 0.0
    waiting_for: Sequence[str] = ()
    """What requests are waiting for now."""


class Meter:
    """Turns snapshots into rates and the time left."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._samples: deque[tuple[float, int, int]] = deque()

    def line(self, now: Snapshot) -> str:
        """Describe a snapshot in one line."""
        elapsed = time.monotonic() - self._begun
        objects_rate, bytes_rate = self._rates(elapsed, now)
        parts = [self._counted(now)]
        if now.transferred_bytes is not None:
            parts.append(filesize.decimal(now.transferred_bytes))
        parts.append(f"{objects_rate:,.0f} objects/s")
        if now.transferred_bytes is not None:
            parts.append(f"{bytes_rate / 1e6:,.1f} MB/s")
        parts += [name for name in (self._named(now)) if name]
        parts += [duration(elapsed), self._left(now, objects_rate)]
        return "  ".join(parts)

    def _rates(self, elapsed: float, now: Snapshot) -> tuple[float, float]:
        samples = self._samples
        samples.append((elapsed, now.objects, now.transferred_bytes or 0))
        while len(samples) > 2 and samples[1][0] <= elapsed - RATE_WINDOW_SECONDS:
            samples.popleft()
        then, objects, size = samples[0]
        seconds = max(elapsed - then, 1e-9)
        return (now.objects - objects) / seconds, ((now.transferred_bytes or 0) - size) / seconds

    def _counted(self, now: Snapshot) -> str:
        if now.total is None:
            return f"{now.objects:,} objects"
        more = "" if now.total_is_final else "+"
        return f"{now.objects:,} of {max(now.total, now.objects):,}{more} objects"

    def _named(self, now: Snapshot) -> tuple[str, ...]:
        return (
            f"{now.skipped:,} skipped" if now.skipped else "",
            f"{now.failed:,} failed" if now.failed else "",
            throttled("source", now.throttled_by_source),
            throttled("target", now.throttled_by_target),
            waiting(now.waiting_for),
        )

    def _left(self, now: Snapshot, objects_rate: float) -> str:
        if now.total is not None and not now.total_is_final:
            return "ETA unknown while the source is being counted"
        if now.total is None or not objects_rate:
            return "ETA unknown"
        return f"ETA {duration(max(now.total - now.objects, 0) / objects_rate)}"


class Display:
    """Shows snapshots on a stream, which may be a terminal."""

    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream = stream
        self._meter = Meter()
        self._next_line = time.monotonic() + PLAIN_LINE_SECONDS
        self._label = printable(label)
        self._bar = _bar(stream) if stream.isatty() else None

    @property
    def live(self) -> bool:
        """Whether the stream is a terminal."""
        return self._bar is not None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar during the block, if the stream is a terminal."""
        if self._bar is None:
            yield
            return
        self._bar.add_task(self._label, total=None, line="")
        with self._bar:
            yield

    def note(self, text: str) -> None:
        """Show a line that stays."""
        line = f"note: {printable(text)}"
        if self._bar is not None:
            self._bar.console.print(line, soft_wrap=True)
        else:
            console.print_plain(line, self._stream)

    def update(self, now: Snapshot) -> None:
        """Show a newer snapshot."""
        line = printable(self._meter.line(now))
        if self._bar is not None:
            total = now.total if now.total_is_final else None
            for task in self._bar.task_ids:
                self._bar.update(task, completed=now.objects, total=total, line=line)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_LINE_SECONDS
            console.print_plain(f"{self._label}: {line}", self._stream)


def _bar(terminal: TextIO) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from slurper.cli.terminal import Console

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[line]}", markup=False),
        console=Console(file=terminal),
        transient=True,
    )


def throttled(side: str, share: float) -> str:
    """Say that a side slows the copy down; "" if it does not."""
    return f"throttled by {side}: {share:.0%}" if share >= 0.005 else ""


def waiting(what: Sequence[str]) -> str:
    """Say what requests are waiting for; "" if they are not waiting."""
    return f"waiting for {', '.join(what)}" if what else ""


def duration(seconds: float) -> str:
    """Return hours, minutes and seconds: `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
