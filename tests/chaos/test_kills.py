"""A handful of the schedules that `make chaos` plays by the hundred, and what they are held to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slurper.settings import Settings
from tests.chaos import faults, kills, schedules
from tests.chaos.kills import PUT_PART, SETTINGS, World
from tests.chaos.processes import Servers
from tests.chaos.proxy import FaultProxy
from tests.chaos.schedules import PAIRS, Act, Ending, Program
from tests.e2e.program import wait_until
from tests.pairs.pairs import Pair
from tests.pairs.referee import Bucket
from tests.pairs.stores import Kind, Store

SEEDS = dict(zip(PAIRS, (19, 323, 278, 988, 219, 399, 738, 436, 642, 52), strict=True))
"""For each pair one, and together of each program, with and without overwriting, completed and
aborted; and everything that can happen."""


@pytest.fixture(scope="module")
def world(store_of: Callable[[Kind], Store]) -> World:
    return World(store_of)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_job_outlives_its_schedule(world: World, pair: Pair, tmp_path: Path) -> None:
    kills.play(world, schedules.drawn(SEEDS[pair], [pair]), tmp_path)


def test_the_seeds_differ_in_what_matters() -> None:
    drawn = [schedules.drawn(seed, [pair]) for pair, seed in SEEDS.items()]
    assert {schedule.program for schedule in drawn} == set(Program)
    assert {schedule.overwrite for schedule in drawn} == {True, False}
    assert {schedule.ending for schedule in drawn} == set(Ending)
    assert {step.act for schedule in drawn for step in schedule.steps} == set(Act)


def test_no_schedule_makes_a_request_fail_for_good() -> None:
    for seed in range(2000):
        losses = [s.times for s in schedules.drawn(seed).steps if s.act in schedules.LOSSES]
        assert sum(losses) <= schedules.MOST_LOSSES == Settings().request_retries


def test_a_schedule_is_repeated_by_its_seed() -> None:
    assert [schedules.drawn(seed) for seed in range(50)] == [
        schedules.drawn(seed) for seed in range(50)
    ]
    assert len({schedules.drawn(seed) for seed in range(50)}) == 50


def test_nothing_happens_to_the_reference(world: World, tmp_path: Path) -> None:
    reference = schedules.undisturbed(Pair(Kind.S3, Kind.S3), overwrite=False)
    kills.play(world, reference, tmp_path)


@dataclass(frozen=True, slots=True)
class Half:
    """A job whose worker has a multipart upload under way."""

    servers: Servers
    path: str
    target: Bucket

    def kill(self) -> None:
        """Kill -9 everything at once."""
        (process,) = self.servers.processes
        process.kill_all()
        assert self.target.uploads(), "or this shows nothing"

    def start(self) -> None:
        """Start another server."""
        self.servers.restart(self.servers.processes[0])


@contextmanager
def half_done(world: World, directory: Path) -> Iterator[Half]:
    s3 = world.store_of(Kind.S3)
    source, target = world.source(Pair(Kind.S3, Kind.S3)).bucket, s3.new_bucket()
    with contextlib.ExitStack() as stack:
        proxies = [FaultProxy(s3.origin).running() for _ in range(2)]
        before_source, before_target = (stack.enter_context(proxy) for proxy in proxies)
        before_target.add(faults.delayed(1.0), PUT_PART)
        servers = Servers(directory, SETTINGS | {"SLURPER_STREAM_SECONDS": "0"}, count=1)
        stack.callback(servers.close)
        job_id = servers.create(
            {
                "source": s3.at(before_source.endpoint).described(source),
                "target": s3.at(before_target.endpoint).described(target),
            }
        )
        wait_until(lambda: bool(target.uploads()), "an upload to begin")
        yield Half(servers, f"/{job_id}", target)


def is_clean(half: Half) -> bool:
    """Whether the job is swept, and nothing is left."""
    return kills.is_swept(half.servers.database) and half.target.uploads() == []


@pytest.mark.parametrize("deleted", [False, True])
def test_nothing_replays_an_aborted_job_but_its_uploads_are_removed(
    world: World, tmp_path: Path, *, deleted: bool
) -> None:
    with half_done(world, tmp_path) as half:
        half.servers.command(f"{half.path}/abort")
        if deleted:
            half.servers.delete(half.path)
        half.kill()
        half.start()
        wait_until(lambda: is_clean(half), "the target to be swept")
        half.servers.stop()


def test_a_server_killed_before_the_sweep_leaves_it_to_the_next(
    world: World, tmp_path: Path
) -> None:
    with half_done(world, tmp_path) as half:
        half.kill()
        half.start()
        assert half.servers.command(f"{half.path}/abort")
        half.servers.processes[0].kill_all()
        half.start()
        wait_until(lambda: is_clean(half), "the target to be swept")
        half.servers.stop()
