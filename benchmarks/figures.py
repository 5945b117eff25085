"""What the runs of one contender come to: medians with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.results import Run
from benchmarks.sets import GB, Measure


@dataclass(frozen=True)
class Figure:
    """A median and how far the runs lie apart."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """A figure that is taken of every run."""

    unit: str
    of: Callable[[Run], float]
    digits: int = 0

    def figure(self, runs: list[Run]) -> Figure:
        """Median and spread."""
        values = [self.of(run) for run in runs]
        return Figure(statistics.median(values), min(values), max(values))


def _per_object(run: Run) -> float:
    return 1e6 / run.objects


def _per_gb(run: Run) -> float:
    return GB / run.bytes


def _milliseconds(_: Run) -> float:
    return 1e3


CPU_SCALES: dict[Measure, Callable[[Run], float]] = {
    Measure.CPU_PER_OBJECT: _per_object,
    Measure.CPU_PER_GB: _per_gb,
    Measure.START: _milliseconds,
    Measure.RATE: _per_object,
    Measure.THROUGHPUT: _per_gb,
}
"""By what seconds of CPU are multiplied."""

_CPU_UNITS = {Measure.RATE: Measure.CPU_PER_OBJECT, Measure.THROUGHPUT: Measure.CPU_PER_GB}
"""Of the sets that are about speed."""

_OBJECTS_PER_SECOND = Column("objects/s", lambda run: run.objects / run.wall_seconds)
_MEGABYTES_PER_SECOND = Column("MB/s", lambda run: run.bytes / 1e6 / run.wall_seconds)
_SPEEDS = {
    Measure.CPU_PER_OBJECT: _OBJECTS_PER_SECOND,
    Measure.CPU_PER_GB: _MEGABYTES_PER_SECOND,
    Measure.START: Column("wall s", lambda run: run.wall_seconds, 2),
    Measure.RATE: _OBJECTS_PER_SECOND,
    Measure.THROUGHPUT: _MEGABYTES_PER_SECOND,
}


def cpu(measure: Measure) -> Column:
    """The CPU that a set's runs took."""
    scale = CPU_SCALES[measure]
    unit = _CPU_UNITS.get(measure, measure)
    digits = 2 if unit is Measure.CPU_PER_GB else 0
    return Column(unit, lambda run: run.cpu_seconds * scale(run), digits)


def speed(measure: Measure) -> Column:
    """How fast a set's runs went, by the clock."""
    return _SPEEDS[measure]


def leading(measure: Measure) -> Column:
    """The figure that the set is about, in which contenders are compared."""
    return speed(measure) if measure in _CPU_UNITS else cpu(measure)
