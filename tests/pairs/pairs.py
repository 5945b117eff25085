"""Source and target of a copy, and the copy of all cases between them by the real program."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from slurper.driver.assignment import CLOCK_ALLOWANCE
from tests.e2e import program
from tests.pairs.cases import CASES, FOUND, IN_PARTS, Thing
from tests.pairs.differences import Changed, difference, kept_by, unheld
from tests.pairs.referee import Bucket, Stored
from tests.pairs.stores import Kind, Store

OLD_SECONDS = CLOCK_ALLOWANCE.total_seconds() + 1.1
"""What is at the target as long is older than a job by more than the allowance."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What is copied from and to."""

    source: Kind
    target: Kind
    through: bool = True
    """All bytes pass through the worker although one store holds both buckets."""

    def __str__(self) -> str:
        return f"{self.source}-to-{self.target}" + ("" if self.through else "-inside")


PAIRS = (
    Pair(Kind.S3, Kind.R2),
    Pair(Kind.S3, Kind.GCS),
    Pair(Kind.S3, Kind.S3),
    Pair(Kind.S3, Kind.S3, through=False),
    Pair(Kind.S3, Kind.FAKEGCS),
    Pair(Kind.S3, Kind.SEAWEEDFS),
    Pair(Kind.SEAWEEDFS, Kind.R2),
    Pair(Kind.R2, Kind.S3),
    Pair(Kind.R2, Kind.GCS),
    Pair(Kind.R2, Kind.R2, through=False),
    Pair(Kind.R2_ELSEWHERE, Kind.R2),
    Pair(Kind.GCS, Kind.R2),
    Pair(Kind.GCS, Kind.S3),
    Pair(Kind.GCS, Kind.GCS),
    Pair(Kind.GCS, Kind.GCS, through=False),
    Pair(Kind.FAKEGCS, Kind.R2),
    Pair(Kind.FAKEGCS, Kind.S3),
)


def around(kind: Kind) -> tuple[Pair, ...]:
    """A store as source, as target, and as both, by its own copies and through the worker."""
    return (
        Pair(Kind.S3, kind),
        Pair(kind, Kind.S3),
        Pair(kind, kind),
        Pair(kind, kind, through=False),
    )


SERVERS = {
    Kind.JUICEFS: (*around(Kind.JUICEFS), Pair(Kind.JUICEFS, Kind.R2)),
    Kind.JUICEFS_PLAIN: around(Kind.JUICEFS_PLAIN),
    # What rclone makes of a control character shows minutes later: no source has them here.
    Kind.RCLONE: (*around(Kind.RCLONE)[1:], Pair(Kind.RCLONE, Kind.JUICEFS)),
    Kind.CEPH: (*around(Kind.CEPH), Pair(Kind.CEPH, Kind.JUICEFS), Pair(Kind.JUICEFS, Kind.CEPH)),
    Kind.SWIFT: (*around(Kind.SWIFT), Pair(Kind.SWIFT, Kind.CEPH), Pair(Kind.CEPH, Kind.SWIFT)),
}
"""Pairs with servers that somebody else wrote and people run (`tests/compat`)."""
DEBIAN = (Kind.CEPH, Kind.SWIFT)
"""Those that only a distribution has."""


@dataclass(frozen=True, slots=True)
class Source:
    """A bucket with every case that its store can hold."""

    store: Store
    bucket: Bucket
    held: Mapping[str, Stored]
    """By case, as a reader sees them."""


def fill(kind: Kind, store: Store) -> Source:
    """Put every case that the store can hold into a new bucket."""
    bucket = store.new_bucket()
    names = [name for name in CASES if unheld(kind, name) is None]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: put(bucket, CASES[name]), names))
    kept = bucket.read_all()
    held = {name: kept.pop(CASES[name].key) for name in names}
    assert not kept
    assert [name for name, stored in held.items() if not is_kept(kind, CASES[name], stored)] == []
    return Source(store, bucket, held)


_MOST_TRIES = 3


def put(bucket: Bucket, thing: Thing) -> None:
    """Write an object. On a busy machine rclone's server sometimes answers InternalError once."""
    for left in reversed(range(_MOST_TRIES)):
        try:
            bucket.put(thing.key, thing.body, **thing.headers, Metadata=dict(thing.metadata))
        except ClientError as error:
            if error.response["Error"].get("Code") != "InternalError" or not left:
                raise
            time.sleep(0.5)
        else:
            return


def is_kept(kind: Kind, thing: Thing, stored: Stored) -> bool:
    """Whether a store kept all that it keeps; names of metadata count whatever their case."""
    headers = {_spelt(name): value for name, value in thing.headers.items()}
    expected = kept_by(kind, Stored(thing.body, headers, thing.metadata))
    told = {name: stored.headers.get(name) for name in expected.headers}
    complete = len(expected.metadata) == len(stored.metadata)
    return complete and (expected.body, expected.headers, _lowered(expected.metadata)) == (
        stored.body,
        told,
        _lowered(stored.metadata),
    )


def _lowered(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in metadata.items()}


def _spelt(name: str) -> str:
    """ContentType -> content-type."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Copied:
    """What a run told, and what was at the target then."""

    told: Any
    failures: Mapping[str, str]
    """All messages by key; the program shows some of them."""
    at_target: Mapping[str, Stored]
    uploads: Sequence[str]


def failures_of(job: str, data_dir: Path) -> dict[str, str]:
    """Read the log of a job."""
    query = (
        "SELECT object_key, message FROM logs JOIN jobs ON jobs.number = logs.job_number"
        " WHERE jobs.id = ? AND log_type LIKE 'importError%'"
    )
    for database in data_dir.glob("copies/*/slurper.db"):
        with closing(sqlite3.connect(database)) as connection:
            if found := connection.execute(query, (job,)).fetchall():
                return {bytes(key).decode(): message for key, message in found}
    return {}


@dataclass(frozen=True, slots=True)
class Target:
    """A bucket with something else under some of the keys that are to come."""

    store: Store
    bucket: Bucket
    found: Mapping[str, Stored]
    """By key."""
    at: float
    """When the last was written, by the monotonic clock."""


def prepare(pair: Pair, store: Store) -> Target:
    """Make the target of a pair."""
    bucket = store.new_bucket()
    for case in FOUND:
        if unheld(pair.source, case) is None and unheld(pair.target, case) is None:
            row, key = difference(pair.source, pair.target, case), CASES[case].key
            key = row.key(key) if isinstance(row, Changed) else key
            bucket.put(key, b"found", ContentType="text/found")
    return Target(store, bucket, bucket.read_all(), time.monotonic())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a pair: the first run must not overwrite what it finds, the second overwrites all, the
    third finds everything there."""

    pair: Pair
    held: Mapping[str, Stored]
    found: Mapping[str, Stored]
    kept: Copied
    replaced: Copied
    again: Any
    """What the third told."""


def play(pair: Pair, source: Source, target: Target, directory: Path) -> Outcome:
    """Copy three times."""

    def run(*options: str) -> Any:  # noqa: ANN401 - as JSON is
        env = {**IN_PARTS, "SLURPER_DATA_DIR": str(directory)}
        env |= {**source.store.variables("source"), **target.store.variables("target")}
        if pair.through:
            options += ("--no-server-side-copy",)
        sides = (source.store.url(source.bucket), target.store.url(target.bucket))
        ended = program.run("copy", *sides, "--json", *options, env=env)
        assert ended.out, ended.err
        return ended.json

    def copied(*options: str) -> Copied:
        told = run(*options)
        failures = failures_of(told["job"], directory)
        return Copied(told, failures, target.bucket.read_all(), target.bucket.uploads())

    # What is younger is taken for the job's own.
    time.sleep(max(0.0, target.at + OLD_SECONDS - time.monotonic()))
    kept, replaced = copied("--no-overwrite"), copied()
    outcome = Outcome(pair, source.held, target.found, kept, replaced, run("--no-overwrite"))
    for key in outcome.replaced.at_target:
        target.bucket.delete(key)  # the stores are in memory
    return outcome


class Playground:
    """Plays pairs: fills each source once, and makes the targets of a group before its first job.

    What is at a target has to be a little older than the job that finds it.
    """

    def __init__(self, store_of: Callable[[Kind], Store], groups: Iterable[Sequence[Pair]]) -> None:
        self._store_of = store_of
        self._groups = tuple(groups)
        self._sources: dict[Kind, Source] = {}
        self._targets: dict[Pair, Target] = {}

    def play(self, pair: Pair, directory: Path) -> Outcome:
        """Copy what the source of a pair holds."""
        if pair.source not in self._sources:
            self._sources[pair.source] = fill(pair.source, self._store_of(pair.source))
        if pair not in self._targets:
            self._prepare(next(group for group in self._groups if pair in group))
        # Skips the test when the store is not there.
        self._store_of(pair.target)
        return play(pair, self._sources[pair.source], self._targets[pair], directory)

    def _prepare(self, group: Sequence[Pair]) -> None:
        for pair in group:
            with suppress(pytest.skip.Exception):
                self._targets[pair] = prepare(pair, self._store_of(pair.target))
