"""Many schedules of kills and faults, one after the other: `make chaos`.

A failure is printed with its seed and the command that plays the same schedule again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slurper.demo import servers
from tests.chaos import kills, schedules
from tests.chaos.kills import World
from tests.chaos.schedules import Act


class Run:
    """Plays schedules and keeps count."""

    def __init__(self, world: World, scratch: Path) -> None:
        self._world = world
        self._scratch = scratch
        self._printing = threading.Lock()
        self.played = 0
        self.failed: list[int] = []
        self.acts: Counter[Act] = Counter()

    def play(self, seed: int) -> None:
        """Play the schedule of a seed, and print how it went."""
        schedule = schedules.drawn(seed)
        directory = Path(tempfile.mkdtemp(prefix=f"{seed}-", dir=self._scratch))
        begun = time.monotonic()
        try:
            played = kills.play(self._world, schedule, directory)
        except Exception:
            with self._printing:
                self.failed.append(seed)
                sys.stdout.write(f"FAILED seed {seed}\n{traceback.format_exc()}\n")
                sys.stdout.flush()
        else:
            with self._printing:
                self.played += 1
                self.acts += played.acts
                seconds = time.monotonic() - begun
                sys.stdout.write(f"seed {seed}: {played.status} in {seconds:.1f} s; {schedule}\n")
                sys.stdout.flush()

    def summary(self) -> str:
        """What has been seen."""
        acts = ", ".join(f"{count} x {act}" for act, count in self.acts.most_common())
        kills_seen = sum(self.acts[act] for act in schedules.KILLS)
        return (
            f"{self.played} schedules passed, {len(self.failed)} failed {self.failed or ''}\n"
            f"{kills_seen} kills; {acts}"
        )


def main() -> int:
    """Play; 1 if a schedule failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, help="of the first, the others follow (random)")
    parser.add_argument("--side-by-side", type=int, default=2, help="how many at once (2)")
    arguments = parser.parse_args()
    first = random.randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="slurper-chaos-") as folder:
        scratch = Path(folder)
        for name in ("ministack", "seaweedfs"):
            (scratch / name).mkdir()
        with (
            servers.ministack(scratch / "ministack") as ministack,
            servers.seaweedfs(scratch / "seaweedfs") as seaweedfs,
        ):
            run = Run(kills.build(ministack, seaweedfs), scratch)
            with ThreadPoolExecutor(arguments.side_by_side) as pool:
                list(pool.map(run.play, range(first, first + arguments.schedules)))
    sys.stdout.write(f"{run.summary()}\n")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
