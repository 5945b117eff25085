"""The same through the real `slurper` program, with its own worker processes and database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slurper.demo.servers import S3Server
from tests.chaos import faults
from tests.chaos.conftest import NewBucket
from tests.chaos.proxy import FaultProxy
from tests.chaos.stage import assert_equal
from tests.e2e import program
from tests.pairs.referee import Bucket

SLOWLY = {"SLURPER_TASK_SECONDS": "0.3", "SLURPER_IN_FLIGHT_REQUESTS": "1", "SLURPER_WORKERS": "1"}


@pytest.fixture
def before_seaweedfs(seaweedfs: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint).running() as proxy:
        yield proxy


def assert_copied(source: Bucket, target: Bucket) -> None:
    at_source, at_target = source.read_all(), target.read_all()
    assert at_source.keys() == at_target.keys()
    for key, stored in at_source.items():
        assert_equal(key, stored, at_target[key])
    assert target.uploads() == []


def test_a_source_that_lists_folder_by_folder_is_resumed_in_its_own_order(
    seaweedfs: S3Server,
    ministack: S3Server,
    before_seaweedfs: FaultProxy,
    new_bucket: NewBucket,
    tmp_path: Path,
) -> None:
    """Its cursor may move to a key that comes earlier in byte order."""
    source, target = new_bucket(seaweedfs), new_bucket(ministack)
    for number in range(10):
        for key in (f"a/{number}", f"a-{number}", f"a.{number}", f"a/b/{number}", f"a/b-{number}"):
            source.put(key, key.encode(), ContentType="text/x")
    before_seaweedfs.add(faults.delayed(0.03), "^GET /[^?]*/a")
    behind = replace(seaweedfs, endpoint=before_seaweedfs.endpoint)
    env = program.both_sides(behind, ministack, tmp_path / "data") | SLOWLY
    ended = program.run("copy", f"s3://{source.name}", f"s3://{target.name}", "--json", env=env)
    assert ended.code == 0, ended
    assert (ended.json["transferred"], ended.json["failed"]) == (50, 0)
    assert_copied(source, target)
