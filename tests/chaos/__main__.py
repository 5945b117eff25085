"""Many schedules of kills and faults, one after the other: `make chaos`.

A failure is printed with its seed and the command that plays the same schedule again.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.chaos import kills, schedules
from tests.chaos.kills import World
from tests.chaos.schedules import PAIRS, Act
from tests.pairs import stores
from tests.pairs.pairs import Pair


class Run:
    """Plays schedules and keeps count."""

    def __init__(self, world: World, pairs: Sequence[Pair], scratch: Path) -> None:
        self._world = world
        self._pairs = pairs
        self._scratch = scratch
        self._counting = threading.Lock()
        self.played = 0
        self.failed: list[int] = []
        self.acts: Counter[Act] = Counter()
        self.uploads_hit = 0
        self.endings: Counter[str] = Counter()

    def play_references(self) -> None:
        """Play what the schedules are compared with. Raises what went wrong."""
        for pair, overwrite in itertools.product(self._pairs, (True, False)):
            reference = schedules.undisturbed(pair, overwrite=overwrite)
            kills.play(self._world, reference, self._directory())

    def play(self, seed: int) -> None:
        """Play the schedule of a seed, and print how it went."""
        schedule = schedules.drawn(seed, self._pairs)
        begun = time.monotonic()
        try:
            played = kills.play(self._world, schedule, self._directory())
        except Exception:
            with self._counting:
                self.failed.append(seed)
                self._say(f"FAILED seed {seed}\n{traceback.format_exc()}")
        else:
            with self._counting:
                self.played += 1
                self.endings[played.status] += 1
                self.acts += played.acts
                self.uploads_hit += played.uploads_hit
                seconds = time.monotonic() - begun
                self._say(f"seed {seed}: {played.status} in {seconds:.1f} s; {schedule}")

    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def summary(self) -> str:
        """What has been seen."""
        acts = _listed(self.acts)
        kills_seen = sum(self.acts[act] for act in schedules.KILLS)
        return (
            f"{self.played} schedules passed ({_listed(self.endings)}),"
            f" {len(self.failed)} failed {self.failed or ''}\n"
            f"{kills_seen} kills, {self.uploads_hit} of them or of aborts in an upload; {acts}"
        )


def _listed(counter: Counter[Any]) -> str:
    return ", ".join(f"{count} x {thing}" for thing, count in counter.most_common())


def main() -> int:
    """Play; 1 if a schedule failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, help="of the first, the others follow (random)")
    parser.add_argument("--side-by-side", type=int, default=2, help="how many at once (2)")
    named = {str(pair): pair for pair in PAIRS}
    parser.add_argument(
        "--pairs",
        type=lambda text: [named[name] for name in text.split(",")],
        help=f"between which stores, of {', '.join(named)} (all)",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    first = random.randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311
    with tempfile.TemporaryDirectory(prefix="slurper-chaos-") as folder:
        scratch = Path(folder)
        with stores.started(scratch) as running:
            run = Run(World(running.__getitem__), arguments.pairs or PAIRS, scratch)
            run.play_references()
            pool = ThreadPoolExecutor(arguments.side_by_side)
            try:
                list(pool.map(run.play, range(first, first + arguments.schedules)))
            finally:
                pool.shutdown(cancel_futures=True)
    sys.stdout.write(f"{run.summary()}\n")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
