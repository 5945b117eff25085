"""A handful of the schedules that `make chaos` plays by the hundred, and what they are held to."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import kills, schedules
from tests.chaos.kills import World

SEEDS = (1, 2, 3, 4, 5, 6)


@pytest.fixture(scope="module")
def world(ministack: S3Server, seaweedfs: S3Server) -> World:
    return kills.build(ministack, seaweedfs)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_outlives_its_schedule(world: World, seed: int, tmp_path: Path) -> None:
    kills.play(world, schedules.drawn(seed), tmp_path)
