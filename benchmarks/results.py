"""The results file: one JSON object a line for each run, so that a long run can be done in pieces.

A set that is measured again replaces its earlier runs in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One run of one contender, with all that is needed to tell what was measured."""

    set: str
    target: str
    contender: str
    objects: int
    bytes: int
    user_seconds: float
    system_seconds: float
    wall_seconds: float
    peaks_mib: tuple[float, ...]
    """Peak memory of each process, largest first."""
    version: str
    """Of the tool."""
    server: str
    """Name and version of the target."""
    machine: str
    began: str
    """ISO 8601."""
    load: float
    """The machine's load average when it began: other work running."""

    @property
    def cpu_seconds(self) -> float:
        """User and system time together."""
        return self.user_seconds + self.system_seconds


def read(path: Path) -> list[Run]:
    """Every run of the file, which need not exist."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Run(**{**row, "peaks_mib": tuple(row["peaks_mib"])}) for row in rows]


def append(path: Path, run: Run) -> None:
    """Add a run, at once: so it is kept if a later run fails."""
    with path.open("a") as file:
        file.write(_line(run))


def drop(path: Path, set_name: str, target: str, labels: Iterable[str]) -> None:
    """Remove the runs of a set that these contenders had at a target."""
    gone = set(labels)
    kept = [
        run
        for run in read(path)
        if (run.set, run.target) != (set_name, target) or run.contender not in gone
    ]
    new = path.with_suffix(".new")
    new.write_text("".join(map(_line, kept)))
    new.replace(path)


def _line(run: Run) -> str:
    return json.dumps(asdict(run)) + "\n"
