"""The suite of pairs with S3 servers that somebody else wrote and people run.

Three commands: `make test` plays the pairs in `EVERY_TIME`, `make test-compat` all that need wheels
only, and `make test-ceph` those with servers that come as Debian's packages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import kills
from tests.chaos.kills import World
from tests.chaos.schedules import Act, Ending, Program, Schedule, Step
from tests.pairs import checks
from tests.pairs.cases import CASES
from tests.pairs.differences import SEEN_LATER, unheld_at
from tests.pairs.pairs import DEBIAN, SERVERS, Outcome, Pair, Playground
from tests.pairs.stores import Kind, Store

StoreOf = Callable[[Kind], Store]

EVERY_TIME = (
    Pair(Kind.S3, Kind.JUICEFS),
    Pair(Kind.JUICEFS, Kind.JUICEFS, through=False),
    Pair(Kind.S3, Kind.JUICEFS_PLAIN),
    Pair(Kind.RCLONE, Kind.S3),
    Pair(Kind.RCLONE, Kind.RCLONE),
)


def marks_of(*kinds: Kind, quick: bool) -> tuple[pytest.MarkDecorator, ...]:
    """When a test with these stores is run."""
    if set(kinds) & set(DEBIAN):
        return (pytest.mark.debian,)
    return () if quick else (pytest.mark.deep,)


def killed_twice(pair: Pair, *, overwrite: bool) -> Schedule:
    """Copies that are killed, workers and all, and run again."""
    step = Step(
        after_seconds=0.1,
        act=Act.KILL_ALL,
        times=1,
        at_source=False,
        in_upload=True,
        place=0,
    )
    return Schedule(
        seed=0,
        program=Program.COPY,
        pair=pair,
        overwrite=overwrite,
        steps=(step, step),
        ending=Ending.COMPLETED,
    )


PAIRS = [
    pytest.param(
        pair, id=str(pair), marks=marks_of(pair.source, pair.target, quick=pair in EVERY_TIME)
    )
    for pairs in SERVERS.values()
    for pair in pairs
]


@pytest.fixture(scope="module")
def playground(store_of: StoreOf) -> Playground:
    return Playground(store_of, SERVERS.values())


@pytest.fixture(scope="module", params=PAIRS)
def outcome(
    request: pytest.FixtureRequest,
    playground: Playground,
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """What became of a pair's copies, which are made once for all cases."""
    return playground.play(request.param, tmp_path_factory.mktemp("pair"))


@pytest.mark.parametrize("case", CASES)
def test_an_object_arrives_or_is_told(outcome: Outcome, case: str) -> None:
    checks.arrives_or_is_told(outcome, case)


def test_every_object_is_counted_once(outcome: Outcome) -> None:
    checks.every_object_is_counted_once(outcome)


def test_without_overwrite_what_is_found_stays(outcome: Outcome) -> None:
    checks.what_is_found_stays(outcome)


def test_without_overwrite_nothing_is_copied_again(outcome: Outcome) -> None:
    checks.nothing_is_copied_again(outcome)


@pytest.fixture(scope="module")
def world(store_of: StoreOf) -> World:
    return World(store_of)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("overwrite", [pytest.param(True, marks=pytest.mark.deep), False])
def test_killed_in_an_upload_and_run_again(
    world: World, pair: Pair, tmp_path: Path, *, overwrite: bool
) -> None:
    kills.play(world, killed_twice(pair, overwrite=overwrite), tmp_path)


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, marks=marks_of(kind, quick=True))
        for kind in SERVERS
        for case in unheld_at(kind)
        if kind is not Kind.RCLONE or case not in SEEN_LATER
    ],
)
def test_what_a_store_cannot_hold(store_of: StoreOf, kind: Kind, case: str) -> None:
    checks.cannot_be_held(store_of(kind), case)
