"""One large object through the real program: no part is read again that was committed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import faults, kills
from tests.chaos.processes import Servers
from tests.chaos.proxy import FaultProxy
from tests.chaos.stage import LEAST_PART, assert_equal
from tests.chaos.wire import Exchange
from tests.e2e.program import wait_until
from tests.pairs.referee import Bucket
from tests.pairs.stores import Kind, Store

PARTS = 9
"""The fewest that two workers share."""
FILM = "film/ü"
READ = r"^GET /[^?]*/film"
WRITE = r"^PUT /[^?]*/film[^?]*\?([^ ]*&)?partNumber"
"""The precheck writes parts too, of its own object."""
MOST_SECONDS = 30.0
"""How long a part waits for another one at most."""
LOOK = 1
"""The precheck reads a byte."""
SETTINGS = {
    "SLURPER_IN_FLIGHT_REQUESTS": "1",
    "SLURPER_MULTIPART_THRESHOLD_BYTES": str(LEAST_PART),
    "SLURPER_PART_BYTES": str(LEAST_PART),
    "SLURPER_STREAM_SECONDS": "0",
    "SLURPER_TASK_SECONDS": "0.3",
    "SLURPER_WORKERS": "1",
}


@dataclass
class Film:
    """A job that copies one object of nine parts. Each part is slow."""

    servers: Servers
    path: str
    source: Bucket
    target: Bucket
    before_source: FaultProxy
    before_target: FaultProxy

    def committed(self) -> set[int]:
        """The numbers of the parts that the database knows."""
        with contextlib.closing(sqlite3.connect(self.servers.database)) as connection:
            rows: list[tuple[int]] = connection.execute(
                "SELECT number FROM upload_parts"
            ).fetchall()
        return {number for (number,) in rows}

    def await_parts(self, count: int) -> None:
        wait_until(lambda: len(self.committed()) >= count, f"{count} parts to be committed")

    def progress(self) -> Any:  # noqa: ANN401 - as JSON is
        return self.servers.get(f"{self.path}/progress")

    def check_completed(self) -> None:
        """Wait for the end, and compare."""
        wait_until(lambda: self.progress()["status"] == "completed", "the job to be completed")
        progress = self.progress()
        counts = (progress["objects"], progress["transferredObjects"], progress["skippedObjects"])
        assert counts == (1, 1, 0)
        assert_equal(FILM, self.source.get(FILM), self.target.get(FILM))
        assert self.target.uploads() == []
        self.servers.stop()

    def written(self, number: int) -> int:
        return self.before_target.count(rf"^PUT /[^?]*/film[^?]*\?([^ ]*&)?partNumber={number}[& ]")


SLOWLY = faults.delayed(0.3)


class Together:
    """Lets no request pass until two are under way at once. Later ones pass at once."""

    def __init__(self) -> None:
        self.now = 0
        self.met = asyncio.Event()

    async def fault(self, exchange: Exchange) -> bool:
        self.now += 1
        if self.now == 2:
            self.met.set()
        try:
            # The second worker process may come up late. If it never does, this one must end.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.met.wait(), MOST_SECONDS)
            return await faults.passed_on(exchange)
        finally:
            self.now -= 1


StartFilm = Callable[..., Film]
StoreOf = Callable[[Kind], Store]


@pytest.fixture(scope="module")
def source(store_of: StoreOf) -> Bucket:
    bucket = store_of(Kind.S3).new_bucket()
    body = b"".join(bytes([number]) * LEAST_PART for number in range(PARTS))[:-1]
    bucket.put(FILM, body, ContentType="video/x", Metadata={"a": "b"})
    return bucket


@pytest.fixture(params=[Kind.S3, Kind.GCS])
def store(request: pytest.FixtureRequest, store_of: StoreOf) -> Store:
    """Where it is copied to."""
    return store_of(request.param)


@pytest.fixture
def start(store_of: StoreOf, store: Store, source: Bucket, tmp_path: Path) -> Iterator[StartFilm]:
    """`start(fault, **body)` begins the job, with a fault on every part that is written."""
    with contextlib.ExitStack() as stack:

        def begin(fault: faults.Fault, *, workers: int = 1, overwrite: bool = True) -> Film:
            target, s3 = store.new_bucket(), store_of(Kind.S3)
            before_source = stack.enter_context(FaultProxy(s3.origin).running())
            before_target = stack.enter_context(FaultProxy(store.origin).running())
            behind = store.at(before_target.endpoint)
            before_target.add(fault, WRITE)
            settings = {**SETTINGS, **behind.settings, "SLURPER_WORKERS": str(workers)}
            servers = Servers(tmp_path, settings, count=1)
            stack.callback(servers.close)
            job_id = servers.create(
                {
                    "source": s3.at(before_source.endpoint).described(source),
                    "target": behind.described(target),
                    "overwrite": overwrite,
                }
            )
            return Film(servers, f"/{job_id}", source, target, before_source, before_target)

        yield begin


@pytest.mark.parametrize("overwrite", [True, False])
def test_kill_9_between_two_parts_costs_only_what_was_under_way(
    start: StartFilm, *, overwrite: bool
) -> None:
    film = start(SLOWLY, overwrite=overwrite)
    film.await_parts(3)
    film.servers.processes[0].kill_all()
    kept = film.committed()
    film.servers.restart(film.servers.processes[0])
    film.check_completed()
    assert [film.written(number) for number in kept] == [1] * len(kept)
    assert film.before_source.count(READ) <= LOOK + PARTS + 4, "two tasks of one part each, twice"


def test_a_killed_worker_costs_only_what_it_had_under_way(start: StartFilm) -> None:
    film = start(SLOWLY)
    film.await_parts(2)
    assert film.servers.processes[0].kill_worker(0)
    kept = film.committed()
    film.check_completed()
    assert [film.written(number) for number in kept] == [1] * len(kept)


def test_a_pause_in_the_middle_costs_nothing(start: StartFilm) -> None:
    film = start(SLOWLY)
    film.await_parts(2)
    assert film.servers.command(f"{film.path}/pause")
    assert film.progress()["objects"] == 0
    assert film.servers.command(f"{film.path}/resume")
    film.check_completed()
    assert film.before_source.count(READ) == LOOK + PARTS
    assert [film.written(number) for number in range(1, PARTS + 1)] == [1] * PARTS


def test_a_restart_in_the_middle_costs_nothing(start: StartFilm) -> None:
    film = start(SLOWLY)
    film.await_parts(2)
    film.servers.processes[0].stop()
    film.servers.restart(film.servers.processes[0])
    film.check_completed()
    assert film.before_source.count(READ) == LOOK + PARTS


def test_two_workers_share_an_object(start: StartFilm) -> None:
    together = Together()
    film = start(together.fault, workers=2)
    film.check_completed()
    assert together.met.is_set(), "each worker has one request to a store under way"
    assert film.before_source.count(READ) == LOOK + PARTS


def test_an_abort_in_the_middle_leaves_nothing(start: StartFilm) -> None:
    film = start(SLOWLY)
    film.await_parts(2)
    assert film.target.uploads() == [FILM]
    assert film.servers.command(f"{film.path}/abort")
    wait_until(lambda: kills.is_swept(film.servers.database), "the target to be swept")
    assert (film.target.uploads(), film.target.read_keys()) == ([], [])
    film.servers.stop()
