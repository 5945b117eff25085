"""What a `slurper copy` waits for, from its start to its end.

    python -m benchmarks.trace [--set L] [--target nginx] [--lanes 64] [--workers 2]

The command copies a set once, and notes what it does when. The report first divides the time:

    start       the program is loaded, and its database is opened
    check       both sides are checked, and the job is made
    begin       the driver finds the job, and gives its first task to a worker
    list        the first worker process; the first listing; the beginning of a large object
    copy        from the first read of an object to the end of the last write
    end         the last commit, and the end of all processes

Then it says how many lanes waited for each thing while it copied, on average. A lane copies one
object or part at a time.

    source      requests to the source, and bytes of a body that is passed on
    target      requests to the target, and its taking of such bytes
    window      room for more bytes in flight
    checksum    checksums that are computed in threads
    loop        the event loop of a worker: it was at work, or another process had the core

The rest of the time a lane worked, or its task had no object left for it. A lane that has no task
waits for nothing, so the last lines are about the turns of the driver. Each turn runs one task, and
commits its report:

    task        turns whose task was at a worker
    commit      turns that waited for the database, so their lanes were idle
    no task     the part of the time in which no worker had a task: all lanes were idle

Notes take time too, and so does a busy machine. Compare the parts, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contenders import SLURPER, Command, Contender, Copy
from benchmarks.measuring import measure
from benchmarks.run import TARGETS, Stage, scratch_folder, staged
from benchmarks.sets import SETS, Set
from benchmarks.traced import CHECK, COMMIT, COPY, NOTES, TASK, WAITS
from slurper.settings import Settings

BUCKET = "traced"
WAITED_FOR = ("source", "target", "window", "checksum")


@dataclass(frozen=True)
class Span:
    """From when to when, in seconds of the monotonic clock."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ended - self.began


@dataclass(frozen=True)
class Trace:
    """What one copy noted."""

    whole: Span
    cpu_seconds: float
    """Of all processes."""
    spans: dict[str, list[Span]]
    waited: Mapping[str, float]
    """Seconds of all lanes, by what they waited for."""
    late_seconds: float
    """Of the event loops of all workers."""
    latest_seconds: float

    @property
    def copy(self) -> Span:
        """From the first read to the last write."""
        copies = self.spans[COPY]
        return Span(min(one.began for one in copies), max(one.ended for one in copies))


def average(spans: Iterable[Span], within: Span) -> float:
    """How many of the spans were under way, on average over the time of another one."""
    parts = (min(one.ended, within.ended) - max(one.began, within.began) for one in spans)
    return sum(max(0.0, part) for part in parts) / within.seconds


def uncovered(spans: Iterable[Span], within: Span) -> float:
    """The part of a span in which none of the others was under way, from 0 to 1."""
    covered_until, missing = within.began, 0.0
    for one in sorted(spans, key=lambda span: span.began):
        missing += max(0.0, min(one.began, within.ended) - covered_until)
        covered_until = max(covered_until, min(one.ended, within.ended))
    return (missing + max(0.0, within.ended - covered_until)) / within.seconds


def read(notes: Path, whole: Span, cpu_seconds: float) -> Trace:
    """Read the notes of a copy."""
    spans: dict[str, list[Span]] = {what: [] for what in (CHECK, COMMIT, TASK, COPY)}
    waited: defaultdict[str, float] = defaultdict(float)
    late = latest = 0.0
    for line in notes.read_text().splitlines():
        told: dict[str, Any] = json.loads(line)
        if told["what"] == WAITS:
            for cause, seconds in told["seconds"].items():
                waited[cause] += seconds
            late += told["late"]
            latest = max(latest, told["latest"])
        else:
            spans[told["what"]].append(Span(told["began"], told["ended"]))
    return Trace(whole, cpu_seconds, spans, waited, late, latest)


def lines(trace: Trace, total_bytes: int) -> Iterator[str]:
    """The report on a copy of so many bytes."""
    whole, copy = trace.whole, trace.copy
    (check,) = trace.spans[CHECK]
    first_task = min(trace.spans[TASK], key=lambda task: task.began)
    speed = total_bytes / copy.seconds / 1e6
    cores = trace.cpu_seconds / whole.seconds
    yield f"{whole.seconds:.2f} s, {cores:.2f} cores; {speed:.0f} MB/s while it copied"
    yield "\nphase        seconds"
    for name, span in (
        ("start", Span(whole.began, check.began)),
        ("check", check),
        ("begin", Span(check.ended, first_task.began)),
        ("list", Span(first_task.began, copy.began)),
        ("copy", copy),
        ("end", Span(copy.ended, whole.ended)),
    ):
        yield f"{name:12} {span.seconds:7.2f}"
    yield "\nwaited for   lanes on average"
    for what in WAITED_FOR:
        yield f"{what:12} {trace.waited[what] / copy.seconds:7.2f}"
    yield (
        f"{'loop':12} late for {trace.late_seconds:.2f} s in all workers,"
        f" {1e3 * trace.latest_seconds:.0f} ms at most"
    )
    yield "\nat           turns on average"
    for what in (TASK, COMMIT):
        yield f"{what:12} {average(trace.spans[what], copy):7.2f}"
    yield f"{'no task':12} {100 * uncovered(trace.spans[TASK], copy):6.1f}% of the time"


def traced(each: Set, stage: Stage, scratch: Path, lanes: int, workers: int) -> Trace:
    """Copy a set into a new bucket, and return what was noted.

    Raises:
        MeasurementFailed: the copy failed.
    """
    notes, state = scratch / "notes.jsonl", scratch / "state"
    state.mkdir()
    stage.target.create(BUCKET)
    copy = stage.copy(BUCKET, each, state)
    began = time.monotonic()
    cost = measure(_noting(notes, lanes, workers), copy)
    whole = Span(began, began + cost.wall_seconds)
    stage.target.verify(BUCKET, each.dataset, stage.source)
    return read(notes, whole, cost.user_seconds + cost.system_seconds)


def _noting(notes: Path, lanes: int, workers: int) -> Contender:
    def commands(copy: Copy) -> list[Command]:
        ((_, *arguments),) = SLURPER.commands(copy)
        return [["python", "-m", "benchmarks.traced", *arguments, "--workers", str(workers)]]

    def environment(copy: Copy) -> dict[str, str]:
        return {
            **SLURPER.environment(copy),
            "PYTHONPATH": str(machine.ROOT),
            "SLURPER_IN_FLIGHT_REQUESTS": str(lanes),
            NOTES: str(notes),
        }

    return Contender("slurper copy, traced", commands, SLURPER.verifies, environment)


def main() -> None:
    """Copy a set and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=list(SETS), default="L", metavar="NAME")
    parser.add_argument("--target", choices=list(TARGETS), default="nginx")
    parser.add_argument("--lanes", type=int, default=Settings().in_flight_requests)
    parser.add_argument("--workers", type=int, default=Settings().workers)
    parser.add_argument("--quick", action="store_true", help="few objects, to see that it runs")
    arguments = parser.parse_args()
    each = SETS[arguments.set].quick if arguments.quick else SETS[arguments.set]
    with scratch_folder(None) as scratch, staged(each, arguments.target, scratch) as stage:
        trace = traced(each, stage, scratch, arguments.lanes, arguments.workers)
    print("\n".join(lines(trace, each.dataset.bytes)))


if __name__ == "__main__":
    main()
