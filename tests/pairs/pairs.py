"""Source and target of a copy, and the copy of all cases between them by the real program."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slurper.jobs.assignment import CLOCK_ALLOWANCE
from tests.e2e import program
from tests.pairs.cases import CASES, FOUND, IN_PARTS, Thing
from tests.pairs.differences import Changed, difference, unheld
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
    assert [name for name, stored in held.items() if not is_kept(CASES[name], stored)] == []
    return Source(store, bucket, held)


def put(bucket: Bucket, thing: Thing) -> None:
    """Write an object."""
    bucket.put(thing.key, thing.body, **thing.headers, Metadata=dict(thing.metadata))


def is_kept(thing: Thing, stored: Stored) -> bool:
    """Whether an object is what was written; names of metadata count whatever their case."""
    headers = {_spelt(name): value for name, value in thing.headers.items()}
    written, found = (
        {name.lower(): value for name, value in metadata.items()}
        for metadata in (thing.metadata, stored.metadata)
    )
    complete = len(thing.metadata) == len(stored.metadata)
    return complete and (thing.body, headers, written) == (
        stored.body,
        {name: value for name, value in stored.headers.items() if name in headers},
        found,
    )


def _spelt(name: str) -> str:
    """ContentType -> content-type."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower()


@dataclass(frozen=True, slots=True)
class Copied:
    """What a run told, and what was at the target then."""

    told: Any
    at_target: Mapping[str, Stored]
    uploads: Sequence[str]

    @property
    def failures(self) -> dict[str, str]:
        """Messages by key."""
        return {failure["key"]: failure["message"] for failure in self.told["failures"]}


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
    """Of a pair: the first run must not overwrite what it finds, the second overwrites all."""

    pair: Pair
    held: Mapping[str, Stored]
    found: Mapping[str, Stored]
    kept: Copied
    replaced: Copied


def play(pair: Pair, source: Source, target: Target, directory: Path) -> Outcome:
    """Copy twice."""

    def run(*options: str) -> Copied:
        env = {**IN_PARTS, "SLURPER_DATA_DIR": str(directory)}
        env |= {**source.store.variables("source"), **target.store.variables("target")}
        if pair.through:
            options += ("--no-server-side-copy",)
        sides = (source.store.url(source.bucket), target.store.url(target.bucket))
        ended = program.run("copy", *sides, "--json", *options, env=env)
        assert ended.out, ended.err
        return Copied(ended.json, target.bucket.read_all(), target.bucket.uploads())

    # What is younger is taken for the job's own.
    time.sleep(max(0.0, target.at + OLD_SECONDS - time.monotonic()))
    outcome = Outcome(pair, source.held, target.found, run("--no-overwrite"), run())
    for key in outcome.replaced.at_target:
        target.bucket.delete(key)  # the stores are in memory
    return outcome
