"""What a gigabyte costs by the size of its objects, copied whole or in parts.

    python -m benchmarks.sizes [--runs N] [--scratch DIR]

Every size is copied both ways, in turn, whichever the threshold would choose: where the figures
meet is no cliff. CPU is the user and system time of `slurper copy` and all its children.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import targets
from benchmarks.targets import Endpoint
from slurper.settings import MIB

SIZES_MIB = (8, 16, 32, 64, 128)
TOTAL_MIB = 1024
PARTS_ABOVE_MIB = {"whole": 5000, "parts": 5}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    print("| object | whole: CPU s/GB | parts: CPU s/GB |\n|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        for size in SIZES_MIB:
            figures = _measure(Path(folder) / str(size), size, arguments.runs)
            cells = (f"{figures[name]:.2f}" for name in PARTS_ABOVE_MIB)
            print(f"| {size} MiB |", " | ".join(cells), "|", flush=True)


def _measure(folder: Path, size_mib: int, runs: int) -> dict[str, float]:
    costs: dict[str, list[float]] = {name: [] for name in PARTS_ABOVE_MIB}
    with targets.nginx(folder / "source") as source, targets.nginx(folder / "target") as target:
        _fill(source.folder("bucket"), size_mib)
        target.create("bucket")
        for run in range(runs):
            for name, threshold_mib in PARTS_ABOVE_MIB.items():
                state = folder / f"{name}-{run}"
                seconds = _copy(source, target, state, threshold_mib)
                costs[name].append(seconds * 1e9 / (TOTAL_MIB * MIB))
    return {name: statistics.median(found) for name, found in costs.items()}


def _fill(bucket: Path, size_mib: int) -> None:
    bucket.mkdir(parents=True)
    body = os.urandom(MIB)
    for number in range(TOTAL_MIB // size_mib):
        with (bucket / f"{number:04}").open("wb") as file:
            for _ in range(size_mib):
                file.write(body)


def _copy(source: Endpoint, target: Endpoint, state: Path, threshold_mib: int) -> float:
    environment = {
        **os.environ,
        "SLURPER_DATA_DIR": str(state),
        "SLURPER_MULTIPART_THRESHOLD_BYTES": str(threshold_mib * MIB),
    }
    for side, endpoint in (("SOURCE", source), ("TARGET", target)):
        environment[f"SLURPER_{side}_ENDPOINT"] = endpoint.url
        environment[f"SLURPER_{side}_ACCESS_KEY_ID"] = "key"
        environment[f"SLURPER_{side}_SECRET_ACCESS_KEY"] = "secret"
    command = [sys.executable, "-m", "slurper", "copy", "s3://bucket", "s3://bucket", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"slurper copy ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
