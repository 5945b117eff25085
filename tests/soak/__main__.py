"""The long form: `make soak`. Without options it makes 3,300 jobs with over a million objects.

    make soak ARGS="--jobs 500 --kills 0 --databases sqlite"

Each database gets its share of the jobs. What does not hold is printed, with the seed.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from tests.servers import postgresql
from tests.soak import soak
from tests.soak.soak import Plan

SQLITE, POSTGRESQL = "sqlite", "postgresql"


def main() -> int:
    """Soak; 1 if something did not hold."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers are stopped
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed  # noqa: S311
    databases = arguments.databases.split(",")
    plan = Plan(
        seed=seed,
        jobs=None if arguments.seconds else -(-arguments.jobs // len(databases)),
        seconds=arguments.seconds and arguments.seconds / len(databases),
        at_once=arguments.at_once,
        objects=arguments.objects,
        kill_seconds=arguments.kills or None,
        limit=arguments.limit,
        workers=arguments.workers,
    )
    for name in databases:
        with _folder() as folder, _database(name) as url:
            try:
                result = soak.run(replace(plan, database_url=url), folder)
            except AssertionError as error:
                _say(f"{name}, seed {seed}: {error}")
                return 1
        _say(f"{name}, seed {seed}: {result}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3300, help="how many in all (3300)")
    parser.add_argument("--seconds", type=float, help="stop after this time, whatever --jobs says")
    parser.add_argument("--objects", type=int, default=700, help="most objects of a job (700)")
    parser.add_argument("--at-once", type=int, default=8, help="jobs at the same time (8)")
    parser.add_argument(
        "--kills", type=float, default=20, help="seconds between kills, 0: none (20)"
    )
    parser.add_argument("--limit", type=int, default=256, help="ulimit -n of the service (256)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (2)")
    parser.add_argument("--seed", type=int, help="repeats the same jobs (random)")
    parser.add_argument(
        "--databases",
        default=f"{SQLITE},{POSTGRESQL}",
        help=f"which, of {SQLITE} and {POSTGRESQL} (both)",
    )
    return parser


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="slurper-soak-") as folder:
        yield Path(folder)


@contextmanager
def _database(name: str) -> Iterator[str | None]:
    if name == SQLITE:
        yield None
        return
    if name != POSTGRESQL:
        raise SystemExit(f"--databases: {name} is neither {SQLITE} nor {POSTGRESQL}")
    with ExitStack() as stack:
        server = stack.enter_context(postgresql.running())
        yield stack.enter_context(server.database("soak"))


if __name__ == "__main__":
    sys.exit(main())
