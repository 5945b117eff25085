"""A source that lists in an order of its own, as stores do that encrypt keys, is copied in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from slurper.demo import compare
from slurper.demo.servers import S3Server
from tests.chaos import proxy
from tests.chaos.cases import LIST
from tests.chaos.listings import OwnOrder
from tests.e2e import program
from tests.pairs.referee import S3Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

COUNT = 90
SLOWLY = {"SLURPER_TASK_SECONDS": "0.3", "SLURPER_IN_FLIGHT_REQUESTS": "4", "SLURPER_WORKERS": "2"}
GETS = "^GET /[^?]*item-"


@dataclass(frozen=True)
class World:
    """A real bucket behind a proxy that lists it in another order, and where it is copied to."""

    source: S3Bucket
    target: compare.Bucket
    front: proxy.FaultProxy
    env: dict[str, str]

    def command(self, *more: str) -> tuple[str, ...]:
        """Copies from the one to the other."""
        source, target = f"s3://{self.source.name}", f"s3://{self.target.name}"
        return ("copy", source, target, "--json", *more)

    def assert_copied(self) -> None:
        """The buckets are equal."""
        source = compare.Bucket(self.source.client, self.source.name)
        assert [found for found in compare.compare(source, self.target) if found.difference] == []


@pytest.fixture
def world(
    ministack: S3Server, boto: Boto, make_bucket: MakeBucket, tmp_path: Path
) -> Iterator[World]:
    source = S3Bucket(boto(ministack), make_bucket(ministack))
    for number in range(COUNT):
        source.put(
            f"item-{number:04} é+%41" if number % 7 == 0 else f"item-{number:04}", b"x" * number
        )
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        env = program.both_sides(
            replace(ministack, endpoint=front.endpoint), ministack, tmp_path / "data"
        )
        target = compare.Bucket(boto(ministack), make_bucket(ministack))
        yield World(source, target, front, env | SLOWLY)


def late(key: str) -> tuple[int, tuple[int, ...]]:
    """The first half ascends, the other descends."""
    codes = tuple(map(ord, key))
    if key < f"item-{COUNT // 2:04}":
        return 0, codes
    return (1, tuple(-code for code in codes)) if key < "iten" else (2, codes)


def with_one_swapped(key: str) -> str:
    """One key comes too early, which hardly any question for single keys shows."""
    return key.replace("item-0064", "item-0062~")


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_order_that_is_seen_late_is_followed_from_there(world: World, overwrite: bool) -> None:
    world.front.add(OwnOrder(world.source, most=20, rank=late), LIST)
    ended = program.run(*world.command(*(() if overwrite else ("--no-overwrite",))), env=world.env)
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["objects"], told["transferred"], told["skipped"]) == (COUNT, COUNT, 0)
    world.assert_copied()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_job_in_pieces_by_then_pauses_and_begins_anew(world: World, overwrite: bool) -> None:
    world.front.add(OwnOrder(world.source, most=20, rank=with_one_swapped), LIST)
    slow = world.front.add(proxy.delayed(0.2), GETS)
    command = world.command(*(() if overwrite else ("--no-overwrite",)))
    env = world.env | {"SLURPER_TASK_SECONDS": "1"}
    ended = program.run(*command, env=env)
    assert slow.hits > 0
    told = ended.json
    assert (told["status"], told["objects"]) == ("paused", 0)
    assert "resume it, and it begins anew in that order" in told["halt"]
    ended = program.run(*command, env=env)
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["objects"], told["transferred"], told["skipped"]) == (COUNT, COUNT, 0)
    world.assert_copied()


def test_every_object_is_copied_and_counted_once(world: World) -> None:
    world.front.add(OwnOrder(world.source, most=40), LIST)
    ended = program.run(*world.command(), env=world.env)
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["objects"], told["transferred"]) == (COUNT, COUNT)
    world.assert_copied()
    again = program.run(*world.command("--no-overwrite"), env=world.env)
    assert (again.json["objects"], again.json["skipped"]) == (COUNT, COUNT), again.err


def test_it_goes_on_after_kill_9_without_losing_or_counting_twice(world: World) -> None:
    world.front.add(OwnOrder(world.source, most=40), LIST)
    world.front.add(proxy.delayed(0.05), GETS)
    with program.started(*world.command(), env=world.env) as process:
        program.wait_until(lambda: len(world.target.keys()) > COUNT // 3, "a third of the copy")
        children = program.descendants(process)
        process.kill()
        process.wait()
        psutil.wait_procs(children, timeout=10)
    assert len(world.target.keys()) < COUNT
    reads = world.front.count(GETS)
    ended = program.run(*world.command(), env=world.env)
    assert ended.code == 0, ended.err
    assert world.front.count(GETS) - reads < COUNT, "it began from the start"
    told = ended.json
    assert (told["status"], told["resumed"]) == ("completed", True)
    assert (told["objects"], told["transferred"], told["failed"]) == (COUNT, COUNT, 0)
    world.assert_copied()


@pytest.mark.parametrize(
    ("goes_on", "says"),
    [("bytes", "does not go on in it after"), ("anew", "shows '.*' again")],
)
def test_a_store_that_does_not_go_on_in_its_order_is_told_and_nothing_is_called_complete(
    world: World, goes_on: str, says: str
) -> None:
    world.front.add(OwnOrder(world.source, most=40, goes_on=goes_on), LIST)
    ended = program.run(*world.command(), env=world.env)
    assert ended.code != 0
    assert ended.json["status"] == "paused"
    assert re.search(says, ended.err), ended.err


def test_a_target_that_lists_in_an_order_of_its_own_is_asked_key_by_key(
    world: World, ministack: S3Server
) -> None:
    kept = [f"item-{number:04}" for number in range(1, COUNT, 9)]
    for key in kept:
        world.target.client.put_object(Bucket=world.target.name, Key=key, Body=b"kept")
    found = S3Bucket(world.target.client, world.target.name)
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        front.add(OwnOrder(found, most=40), LIST)
        env = world.env | {"SLURPER_TARGET_ENDPOINT": front.endpoint}
        told = program.run(*world.command("--no-overwrite"), env=env).json
    assert (told["objects"], told["skipped"]) == (
        COUNT,
        len(set(kept) & set(world.source.read_keys())),
    )
    assert all(found.get(key).body == b"kept" for key in kept)
