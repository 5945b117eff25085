"""What the copy loop alone costs: one task of a worker, in one process, without start-up and job.

    python -m benchmarks.loop [--set S] [--runs N] [--beside OTHER/src]

The set's objects are copied from nginx to nginx; with `--beside` the source tree of another version
takes turns with this one. Printed are medians of the CPU per object, user and system time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.run import Stage, scratch_folder, staged
from benchmarks.sets import SETS
from slurper.engine.child import tune_process
from slurper.objectstore import dialects
from slurper.objectstore.base import StoreAddress
from slurper.planning.keyspace import KeyRange
from slurper.secrets import S3Credentials
from slurper.settings import Settings
from slurper.transfer.task import RangeTask
from slurper.transfer.worker import Worker

OURS = Path(__file__).parents[1] / "src"
LONG_SECONDS = 3600.0


@dataclass(frozen=True)
class Cost:
    """Microseconds of CPU for each object."""

    user: float
    system: float


def main() -> None:
    """Measure and print, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    small = [name for name, each in SETS.items() if "nginx" in each.targets and not each.filled]
    parser.add_argument("--set", choices=small, default="S")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="the source tree of another version")
    parser.add_argument("--measured", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measured is not None:
        print(json.dumps(_measured(*arguments.measured)))
        return
    trees = [OURS, *([arguments.beside.resolve()] if arguments.beside else [])]
    costs: dict[Path, list[Cost]] = {tree: [] for tree in trees}
    with (
        scratch_folder(None) as scratch,
        staged(SETS[arguments.set], "nginx", scratch) as stage,
    ):
        for _ in range(arguments.runs):
            for tree in trees:
                costs[tree].append(_run(tree, arguments.set, stage))
    for tree, found in costs.items():
        user = statistics.median(one.user for one in found)
        system = statistics.median(one.system for one in found)
        print(f"{tree}: {user + system:.1f} µs/object ({user:.1f} + {system:.1f})")


def _run(tree: Path, name: str, stage: Stage) -> Cost:
    """Copy the set once, in a process of its own, by the code of a source tree."""
    bucket = f"copy-{time.monotonic_ns()}"
    stage.target.create(bucket)
    ca_file = str(stage.ca_file or "")
    stores = json.dumps([[stage.source_url, SETS[name].dataset.bucket], [stage.target_url, bucket]])
    keys = json.dumps([stage.target.access_key_id, stage.target.secret_access_key])
    measured = ["--measured", name, stores, keys, ca_file]
    command = [sys.executable, "-m", "benchmarks.loop", *measured]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    own = tree.parent  # its own benchmarks: names have changed between versions
    try:
        done = subprocess.run(
            command,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            cwd=own if (own / "benchmarks").is_dir() else None,
        )
    finally:
        stage.target.remove(bucket)
    return Cost(*json.loads(done.stdout))


def _measured(name: str, stores: str, keys: str, ca_file: str) -> tuple[float, float]:
    access_key_id, secret_access_key = json.loads(keys)
    source, target = (
        StoreAddress(
            origin=origin,
            bucket=bucket,
            region="us-east-1",
            dialect=dialects.GENERIC,
            credentials=S3Credentials(
                access_key_id=access_key_id, secret_access_key=secret_access_key
            ),
            trusted=True,
        )
        for origin, bucket in json.loads(stores)
    )
    task = RangeTask(
        job_id="loop",
        range_id=1,
        source=source,
        target=target,
        slice=KeyRange(),
        budget_seconds=LONG_SECONDS,
    )
    settings = Settings(
        allow_http=True,
        allow_private_endpoints=True,
        ca_file=Path(ca_file) if ca_file else None,
        multipart_threshold_bytes=SETS[name].dataset.size + (5 << 20),
    )
    tune_process(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_copy(settings, task, SETS[name].dataset.count))


async def _copy(settings: Settings, task: RangeTask, count: int) -> tuple[float, float]:
    worker = Worker(settings)
    before = resource.getrusage(resource.RUSAGE_SELF)
    report = await worker.run(task)
    after = resource.getrusage(resource.RUSAGE_SELF)
    await worker.close()
    if report.counts.transferred != count:
        raise SystemExit(f"{report.counts.transferred} of {count} objects came: {report.halt}")
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return 1e6 * user / count, 1e6 * system / count


if __name__ == "__main__":
    main()
