"""What a store shows only while a job copies is kept with the job: nothing is refused for it twice.

The check before a job sees none of it here: its requests are for other keys.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from slurper.demo import compare
from slurper.demo.servers import S3Server
from tests.chaos import faults, proxy
from tests.chaos.faults import Fault
from tests.e2e import program
from tests.pairs.referee import S3Bucket, Stored

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

COUNT = 120
GETS = "^GET /[^?]*/item-"
PUTS = "^PUT /[^?]*/item-"
SETTINGS = {
    "SLURPER_TASK_SECONDS": "0.3",
    "SLURPER_IN_FLIGHT_REQUESTS": "2",
    "SLURPER_WORKERS": "2",
}
NO_MD5 = "x-amz-server-side-encryption: aws:kms"
"""The ETag of such an object is no MD5, so that Content-MD5 is not known from the source."""


@dataclass(kw_only=True)
class World:
    """Two buckets of a real server, each behind a proxy, and a copy by two workers."""

    source: S3Bucket
    held: Mapping[str, Stored]
    """What is in it."""
    target: compare.Bucket
    source_proxy: proxy.FaultProxy
    target_proxy: proxy.FaultProxy
    env: dict[str, str]
    data: Path
    refused: list[str] = field(default_factory=list)
    """One for each request that was refused."""

    @property
    def command(self) -> tuple[str, ...]:
        """Copies from the one to the other."""
        return ("copy", f"s3://{self.source.name}", f"s3://{self.target.name}", "--json")

    def refusing(self, code: int, name: str) -> Fault:
        """Refuses a request and notes that."""
        note = lambda: self.refused.append(name)  # noqa: E731
        return faults.preceded_by(note, faults.status(code, name))

    def kept(self, side: str, name: str) -> object:
        """What the job's row says of a side's store."""
        for path in self.data.glob("copies/*/slurper.db"):
            with (
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
                contextlib.suppress(sqlite3.OperationalError),  # it has no tables yet
            ):
                for (capabilities,) in connection.execute("SELECT capabilities FROM jobs"):
                    return json.loads(capabilities)[side].get(name)
        return None


@pytest.fixture(scope="module")
def filled(
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
) -> tuple[S3Bucket, Mapping[str, Stored]]:
    """A bucket that no test changes, and what is in it."""
    source = S3Bucket(boto(ministack), make_bucket(ministack))
    for number in range(COUNT):
        source.put(f"item-{number:04}", b"x" * (number + 1))
    return source, source.read_all()


@pytest.fixture
def world(
    ministack: S3Server,
    boto: Callable[[S3Server], S3Client],
    make_bucket: Callable[[S3Server], str],
    filled: tuple[S3Bucket, Mapping[str, Stored]],
    tmp_path: Path,
) -> Iterator[World]:
    source, held = filled
    target = compare.Bucket(boto(ministack), make_bucket(ministack))
    with (
        proxy.FaultProxy(ministack.endpoint).running() as before_source,
        proxy.FaultProxy(ministack.endpoint).running() as before_target,
    ):
        env = program.both_sides(
            replace(ministack, endpoint=before_source.endpoint),
            replace(ministack, endpoint=before_target.endpoint),
            tmp_path / "data",
        )
        yield World(
            source=source,
            held=held,
            target=target,
            source_proxy=before_source,
            target_proxy=before_target,
            env=env | SETTINGS,
            data=tmp_path / "data",
        )


def slowly(fault: Fault) -> Fault:
    """So that a part of the objects is left when the first tasks end."""
    return faults.preceded_by(lambda: time.sleep(0.1), fault)


def want_md5(world: World) -> tuple[str, str]:
    """The target refuses writes without Content-MD5."""
    refusal = world.refusing(400, "MissingContentMD5")
    world.source_proxy.add(slowly(faults.with_headers(NO_MD5)), GETS)
    world.target_proxy.add(faults.unless("content-md5", None, refusal), PUTS)
    return "target", "wants_md5"


def disobey_if_match(world: World) -> tuple[str, str]:
    """The source refuses every If-Match."""
    refusal = world.refusing(412, "PreconditionFailed")
    world.source_proxy.add(faults.with_header("if-match", refusal), GETS)
    world.target_proxy.add(slowly(faults.passed_on), PUTS)
    return "source", "obeys_if_match"


def kill_all(process: program.Process) -> None:
    """Kill the program and its workers without warning."""
    children = program.descendants(process)
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=10)


def kill_workers(process: program.Process) -> None:
    """Kill the workers only: others are forked for them."""
    for child in program.descendants(process):
        if not child.children():
            child.kill()


@pytest.mark.parametrize("show", [want_md5, disobey_if_match])
@pytest.mark.parametrize("restarted", [True, False])
def test_no_worker_that_begins_later_is_refused_for_it(
    world: World, show: Callable[[World], tuple[str, str]], restarted: bool
) -> None:
    side, name = show(world)
    with program.started(*world.command, env=world.env) as process:
        program.wait_until(lambda: world.kept(side, name) is not None, "the report of a task")
        if restarted:
            kill_all(process)
        else:
            kill_workers(process)
        refused = len(world.refused)
        copied = len(world.target.keys())
        ended = None if restarted else program.end(process)
    if ended is None:
        ended = program.run(*world.command, env=world.env)
    assert ended.code == 0, ended.err
    told = ended.json
    assert (told["transferred"], told["failed"]) == (COUNT, 0)
    assert refused > 0, "nothing was refused, so nothing was found out"
    assert copied < COUNT, "nothing was left to be copied later"
    assert len(world.refused) == refused
    assert told["capabilities"][side][name] is (name == "wants_md5")
    assert S3Bucket(world.target.client, world.target.name).read_all() == world.held
