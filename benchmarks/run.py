"""Run the contenders in turn and write the table of medians into docs/performance.md.

    python -m benchmarks.run [--runs N] [--scratch DIR] [--write]

Each run is a whole process: start, listing, copy, journal, checksums, end. CPU is the user and
system time that the operating system accounts to the process and all its children (wait4), so the
figures of a busy machine still compare; wall time is printed for orientation only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contenders, datasets, targets
from benchmarks.contenders import Contender, Copy
from benchmarks.datasets import Dataset
from benchmarks.targets import Endpoint

REPORT = Path(__file__).parent.parent / "docs" / "performance.md"


@dataclass(frozen=True)
class Run:
    """What one process cost."""

    user_seconds: float
    system_seconds: float
    wall_seconds: float
    peak_mib: float

    @property
    def cpu_seconds(self) -> float:
        """User and system time together."""
        return self.user_seconds + self.system_seconds


def measure(contender: Contender, copy: Copy) -> Run:
    """Run one contender once.

    Raises:
        SystemExit: it failed.
    """
    environment = {**os.environ, **contender.environment(copy)}
    # An installed program has its byte code; compiling it each time is not what a user pays.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    log = copy.scratch / "log.txt"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            contender.command(copy),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{contender.label} failed:\n{log.read_text()[-2000:]}")
    wall = time.monotonic() - began
    return Run(usage.ru_utime, usage.ru_stime, wall, usage.ru_maxrss / 1024)


def interleave(
    dataset: Dataset,
    field: tuple[Contender, ...],
    source: Endpoint,
    target: Endpoint,
    *,
    runs: int,
) -> dict[str, list[Run]]:
    """Let every contender copy the data set `runs` times, taking turns; check every copy."""
    results: dict[str, list[Run]] = {contender.label: [] for contender in field}
    for turn in range(runs):
        for contender in field:
            bucket = f"copy-{time.monotonic_ns()}"
            with tempfile.TemporaryDirectory() as scratch:
                copy = Copy(source.url, dataset.bucket, target.url, bucket, Path(scratch))
                result = measure(contender, copy)
            copied = target.data / bucket
            original = source.data / dataset.bucket
            datasets.verify(dataset, original, copied, contents=turn == 0)
            datasets.clear(copied)
            results[contender.label].append(result)
            unit = result.cpu_seconds / dataset.count * 1e6
            print(f"{dataset.name:7} {turn + 1}/{runs} {contender.label:38} {unit:7.0f} µs/object")
    return results


def table(dataset: Dataset, field: tuple[Contender, ...], results: dict[str, list[Run]]) -> str:
    """Medians as Markdown, the ratio to the first contender in the last column."""
    first = statistics.median(run.cpu_seconds for run in results[field[0].label])
    lines = [
        "| tool | CPU µs/object (user + system) | min..max | objects/s | peak RSS MiB | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for contender in field:
        runs = results[contender.label]
        cpu = sorted(run.cpu_seconds for run in runs)
        unit = 1e6 / dataset.count
        user = statistics.median(run.user_seconds for run in runs) * unit
        system = statistics.median(run.system_seconds for run in runs) * unit
        rate = dataset.count / statistics.median(run.wall_seconds for run in runs)
        peak = statistics.median(run.peak_mib for run in runs)
        median = statistics.median(cpu)
        lines.append(
            f"| {contender.label} | **{median * unit:.0f}** ({user:.0f} + {system:.0f}) "
            f"| {cpu[0] * unit:.0f}..{cpu[-1] * unit:.0f} | {rate:.0f} | {peak:.0f} "
            f"| {median / first:.2f} |"
        )
    return "\n".join(lines)


def write_report(name: str, text: str) -> None:
    """Replace the table `name` in docs/performance.md, between its two marker comments."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = REPORT.read_text().partition(begin)
    _, _, after = rest.partition(end)
    REPORT.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Measure small objects."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="folder for data, best on tmpfs; kept")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    scratch = arguments.scratch or Path(tempfile.mkdtemp(prefix="slurper-bench-"))
    try:
        with targets.nginx(scratch / "source") as source, targets.nginx(scratch / "target") as sink:
            datasets.write(datasets.SMALL, source.root)
            field = contenders.SMALL_OBJECTS
            results = interleave(datasets.SMALL, field, source, sink, runs=arguments.runs)
    finally:
        if arguments.scratch is None:
            shutil.rmtree(scratch, ignore_errors=True)
    text = table(datasets.SMALL, field, results)
    print(text)
    if arguments.write:
        write_report("small objects", text)


if __name__ == "__main__":
    main()
