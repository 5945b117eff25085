"""A source that lists in an order of its own, as stores do that encrypt keys, is copied in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
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
from tests.pairs.referee import S3Bucket, Stored

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Boto = Callable[[S3Server], "S3Client"]
MakeBucket = Callable[[S3Server], str]

COUNT = 90
MOST_TRIES = 6
"""So often a test tries to bring about what chance decides."""
SLOWLY = {"SLURPER_TASK_SECONDS": "0.3", "SLURPER_IN_FLIGHT_REQUESTS": "4", "SLURPER_WORKERS": "2"}
GETS = "^GET /[^?]*item-"


@dataclass(frozen=True)
class World:
    """A real bucket behind a proxy that lists it in another order, and where it is copied to."""

    source: S3Bucket
    held: Mapping[str, Stored]
    """What is in it."""
    target: compare.Bucket
    front: proxy.FaultProxy
    env: dict[str, str]

    def command(self, *more: str) -> tuple[str, ...]:
        """Copies from the one to the other."""
        source, target = f"s3://{self.source.name}", f"s3://{self.target.name}"
        return ("copy", source, target, "--json", *more)

    def assert_copied(self) -> None:
        """The buckets are equal."""
        assert S3Bucket(self.target.client, self.target.name).read_all() == self.held


@pytest.fixture(scope="module")
def new_source(ministack: S3Server, boto: Boto, make_bucket: MakeBucket) -> Callable[[], S3Bucket]:
    def fill() -> S3Bucket:
        source = S3Bucket(boto(ministack), make_bucket(ministack))
        for number in range(COUNT):
            source.put(
                f"item-{number:04} é+%41" if number % 7 == 0 else f"item-{number:04}", b"x" * number
            )
        return source

    return fill


@pytest.fixture(scope="module")
def filled(new_source: Callable[[], S3Bucket]) -> tuple[S3Bucket, Mapping[str, Stored]]:
    """A bucket that no test changes, and what is in it."""
    source = new_source()
    return source, source.read_all()


@pytest.fixture
def world(
    ministack: S3Server,
    boto: Boto,
    make_bucket: MakeBucket,
    filled: tuple[S3Bucket, Mapping[str, Stored]],
    tmp_path: Path,
) -> Iterator[World]:
    with proxy.FaultProxy(ministack.endpoint).running() as front:
        env = program.both_sides(
            replace(ministack, endpoint=front.endpoint), ministack, tmp_path / "data"
        )
        target = compare.Bucket(boto(ministack), make_bucket(ministack))
        yield World(*filled, target, front, env | SLOWLY)


@pytest.fixture
def new_target(
    ministack: S3Server, boto: Boto, make_bucket: MakeBucket
) -> Callable[[], compare.Bucket]:
    return lambda: compare.Bucket(boto(ministack), make_bucket(ministack))


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


@pytest.mark.parametrize("goes_on", ["own", "bytes"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_job_in_pieces_by_then_pauses_and_begins_anew(
    world: World, new_target: Callable[[], compare.Bucket], overwrite: bool, goes_on: str
) -> None:
    own = OwnOrder(world.source, most=20, goes_on=goes_on, rank=with_one_swapped)
    world.front.add(own, LIST)
    slow = world.front.add(proxy.delayed(0.2), GETS)
    env = world.env | {"SLURPER_TASK_SECONDS": "1"}
    for _ in range(MOST_TRIES):
        command = world.command(*(() if overwrite else ("--no-overwrite",)))
        ended = program.run(*command, env=env)
        assert slow.hits > 0
        told = ended.json
        if told["status"] == "paused":
            break
        # The search for a place to cut has met the swapped key first. Then there are no pieces.
        assert (told["status"], told["objects"]) == ("completed", COUNT)
        world = replace(world, target=new_target())
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
    kill_when(world, lambda: len(world.target.keys()) > COUNT // 3)
    assert len(world.target.keys()) < COUNT
    reads = world.front.count(GETS)
    ended = program.run(*world.command(), env=world.env)
    assert ended.code == 0, ended.err
    assert world.front.count(GETS) - reads < COUNT, "it began from the start"
    told = ended.json
    assert (told["status"], told["resumed"]) == ("completed", True)
    assert (told["objects"], told["transferred"], told["failed"]) == (COUNT, COUNT, 0)
    world.assert_copied()


def assert_ended(ended: program.Ended, count: int = COUNT, *, skipped: int = 0) -> None:
    """So many objects are settled, each counted once."""
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["status"], told["objects"]) == ("completed", count)
    assert (told["transferred"], told["skipped"]) == (count - skipped, skipped)


NO_ORDER = pytest.mark.parametrize("goes_on", ["bytes", "anew"])


@NO_ORDER
def test_a_source_without_an_order_is_copied_in_full_and_again_nothing(
    world: World, goes_on: str
) -> None:
    world.front.add(OwnOrder(world.source, most=40, goes_on=goes_on), LIST)
    assert_ended(program.run(*world.command(), env=world.env))
    world.assert_copied()
    reads = world.front.count(GETS)
    time.sleep(3)  # what is younger than a job may be its own, to the second
    again = program.run(*world.command("--no-overwrite"), env=world.env)
    assert_ended(again, skipped=COUNT)
    assert world.front.count(GETS) - reads <= 1, "but for the check before the job"


@NO_ORDER
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_copied_before_no_order_is_found_counts_once(
    world: World, goes_on: str, overwrite: bool
) -> None:
    world.front.add(OwnOrder(world.source, most=20, goes_on=goes_on, rank=late), LIST)
    env = world.env | {"SLURPER_WORKERS": "1"}
    command = world.command(*(() if overwrite else ("--no-overwrite",)))
    ended = program.run(*command, env=env)
    if ended.code != 0:
        # On a busy machine a task lasts long enough to be split before the order is known.
        assert "resume it, and it begins anew" in ended.json["halt"]
        ended = program.run(*command, env=env)
    assert_ended(ended)
    world.assert_copied()


def test_without_an_order_a_prefix_holds_and_may_be_stripped(world: World) -> None:
    own = OwnOrder(world.source, most=3, goes_on="anew")
    world.front.add(own, LIST)
    expected = [key for key in world.source.read_keys() if key.startswith("item-003")]
    source, target = f"s3://{world.source.name}/item-003", f"s3://{world.target.name}"
    ended = program.run("copy", source, target, "--json", "--strip-prefix", env=world.env)
    assert_ended(ended, len(expected))
    assert sorted(world.target.keys()) == sorted(key.removeprefix("item-003") for key in expected)


def test_without_an_order_slurpers_own_objects_are_passed_over(
    world: World, new_source: Callable[[], S3Bucket]
) -> None:
    world = replace(world, source=new_source())
    world.source.put(".slurper-precheck-" + 32 * "0", b"ours")
    world.front.add(OwnOrder(world.source, most=40, goes_on="anew"), LIST)
    assert_ended(program.run(*world.command(), env=world.env))
    assert len(world.target.keys()) == COUNT


def kill_when(world: World, is_time: Callable[[], bool], *options: str) -> None:
    """Kill a copy and its workers without warning."""
    with program.started(*world.command(*options), env=world.env) as process:
        program.wait_until(is_time, "the time to kill")
        children = program.descendants(process)
        process.kill()
        process.wait()
        psutil.wait_procs(children, timeout=10)


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_listing_without_order_goes_on_after_kill_9_by_its_token_or_anew(
    world: World, forgotten: bool
) -> None:
    own = OwnOrder(world.source, most=10, goes_on="anew", pause_seconds=0.3)
    world.front.add(own, LIST)
    kill_when(world, lambda: len(own.tokens) >= 6)
    assert len(world.target.keys()) <= 10, "more than was copied before no order was found"
    before = len(own.tokens)
    if forgotten:
        own.forget_tokens()
    ended = program.run(*world.command(), env=world.env)
    assert_ended(ended)
    assert ended.json["resumed"]
    # The check lists one key, and what comes after it.
    since = [token for token in own.tokens[before:] if not token.endswith("/1")]
    assert since[0].startswith("0/"), "the token that was committed"
    assert ("1/10" in since) is forgotten
    world.assert_copied()


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_copy_without_order_goes_on_after_kill_9_and_counts_once(
    world: World, overwrite: bool
) -> None:
    own = OwnOrder(world.source, most=40, goes_on="bytes")
    world.front.add(own, LIST)
    world.front.add(proxy.delayed(0.05), GETS)
    options = () if overwrite else ("--no-overwrite",)
    kill_when(world, lambda: len(world.target.keys()) > COUNT // 3, *options)
    assert len(world.target.keys()) < COUNT
    before = len(own.tokens)
    ended = program.run(*world.command(*options), env=world.env)
    assert_ended(ended)
    assert ended.json["resumed"]
    assert len(own.tokens) == before, "it was listed again"
    world.assert_copied()


def test_without_an_order_a_key_outside_the_prefix_is_not_taken(world: World) -> None:
    own = OwnOrder(world.source, most=40, goes_on="anew")
    own.strange = "strange"
    world.front.add(own, LIST)
    source, target = f"s3://{world.source.name}/item", f"s3://{world.target.name}"
    ended = program.run("copy", source, target, "--json", env=world.env)
    assert ended.json["status"] == "paused"
    assert "shows 'strange'" in ended.err
    assert "strange" not in set(world.target.keys())


def test_pages_that_go_in_circles_pause_the_job_and_nothing_is_called_complete(
    world: World,
) -> None:
    own = OwnOrder(world.source, most=30, goes_on="anew")
    own.circles = True
    world.front.add(own, LIST)
    ended = program.run(*world.command(), env=world.env)
    assert (ended.json["status"], ended.json["objects"]) == ("paused", 0)
    assert "its pages go in circles" in ended.err
    own.circles = False
    assert_ended(program.run(*world.command(), env=world.env))
    world.assert_copied()


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
