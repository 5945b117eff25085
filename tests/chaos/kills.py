"""Plays schedules of kills and faults against the real program, and checks what is left."""

from __future__ import annotations

import dataclasses
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from slurper.job.model import Counts
from slurper.objectstore import own_keys
from tests.chaos import faults, listings, schedules
from tests.chaos.faults import Fault
from tests.chaos.listings import MixedUp
from tests.chaos.processes import Copies, Process, Servers
from tests.chaos.proxy import FaultProxy
from tests.chaos.schedules import Act, Ending, Program, Schedule, Step
from tests.chaos.stage import LEAST_PART, assert_equal
from tests.e2e.program import wait_until
from tests.pairs.differences import FOLDERS, kept_by
from tests.pairs.pairs import Pair
from tests.pairs.referee import Bucket, Stored, read_all
from tests.pairs.stores import Kind, Store

PLAIN, ODD = "plain/", "odd/"
"""Prefixes: keys for every store, and keys for those that keep any key."""

SMALL = 30
PAGE = 12
"""So many keys are on a page where pages are mixed up."""
BIG = ("plain/00-big", "plain/15-big+&é.bin", "plain/28-big")
"""Objects of two parts each: at the beginning, in the middle and near the end."""
CHECKSUMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
"""Those of the big ones, which come first, can be made of those of their parts."""
ODD_KEYS = (
    "a//b",
    "/lead",
    "dir",
    "dir/",
    "a/../b",
    "a/./b",
    "%41+ &?#=",
    "\x01\x1f",
    "\xfc",
)

FOUND = {f"plain/{number:02}": number % 3 for number in range(2, SMALL, 4)}
"""What is at the target already when nothing may be overwritten: the same, or other bytes of the
same size, or of another."""

FOUND_AGE_SECONDS = 2.1
"""What was stored less than two seconds before a job is taken for the job's own in a replay."""

SETTINGS = {
    "SLURPER_IN_FLIGHT_REQUESTS": "3",
    "SLURPER_LEASE_SECONDS": "3",
    "SLURPER_MULTIPART_THRESHOLD_BYTES": str(LEAST_PART),
    "SLURPER_OBJECT_ATTEMPTS": "8",
    "SLURPER_PART_BYTES": str(LEAST_PART),
    "SLURPER_TASK_SECONDS": "0.3",
    "SLURPER_WORKERS": "1",
}
"""Many commits in a short life; attempts enough to outlast every fault of a schedule."""


def settings_of(schedule: Schedule) -> dict[str, str]:
    """Every other schedule streams large objects whose checksum is known, the others do not."""
    return SETTINGS | {"SLURPER_STREAM_SECONDS": str(15 * (schedule.seed % 2))}


GET_OBJECT = r"^GET /(?!storage/[^ ]*/o\?)[^/?]*/[^?]"
GET_SMALL = rf"{GET_OBJECT}(?![^ ]*big)"
"""Of those that were written in one request and are copied in parts, a source may tell only an MD5
of the whole, which their parts do not show."""
PUT_OBJECT = "^(PUT /[^/?]*/[^?]* |POST /upload/)"
PUT_PART = r"^PUT /[^?]*\?([^ ]*&)?partNumber"
WRITE_BYTES = r"^PUT /(?!upload/)[^/?]*/[^?]*(\?([^ ]*&)?partNumber[^ ]*)? "
OBJECT = r"^(GET|HEAD) /(?!storage/[^ ]*/o\?)[^/?]*/[^?]"
LIST = r"^GET /[^/]*\?.*list-type=2"

DATES = ("date", "last-modified")
OMITTED = ("etag", *DATES)
MISDATED = (
    "Date: Thu, 99 Foo 99999 25:61:61 GMT",
    "Last-Modified: 99999999999999999999999999",
    "Retry-After: 9e999",
)
LISTED = (Act.MIX_UP, Act.REPEAT, Act.EMPTY)
"""They change pages in XML."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A bucket that is copied again and again."""

    bucket: Bucket
    everything: Mapping[str, Stored]


class World:
    """The stores of all schedules, and a filled bucket in each that is copied from."""

    def __init__(self, store_of: Callable[[Kind], Store]) -> None:
        self.store_of = store_of
        self._filled: dict[Kind, Filled] = {}
        self._filling = threading.Lock()

    def source(self, pair: Pair) -> Filled:
        """What a pair copies, as the target keeps it: some do not keep every key."""
        with self._filling:
            if pair.source not in self._filled:
                self._filled[pair.source] = _fill(pair.source, self.store_of(pair.source))
        filled, prefix = self._filled[pair.source], prefix_of(pair)
        chosen = {
            key: kept_by(pair.target, kept)
            for key, kept in filled.everything.items()
            if key.startswith(prefix)
        }
        return Filled(filled.bucket, chosen)


def prefix_of(pair: Pair) -> str:
    """What is copied to a store."""
    return PLAIN if pair.target in FOLDERS else ""


def _fill(kind: Kind, store: Store) -> Filled:
    source, chance = store.new_bucket(), random.Random(1)  # noqa: S311 - repeatable bytes
    sizes = {key: LEAST_PART + 1 + 1000 * place for place, key in enumerate(BIG)}
    sizes |= {f"{PLAIN}{number:02}": 17 * number * number for number in range(SMALL)}
    if kind not in FOLDERS:
        sizes |= {f"{ODD}{key}": 100 + place for place, key in enumerate(ODD_KEYS)}
    for place, (key, size) in enumerate(sizes.items()):
        source.put(
            key,
            chance.randbytes(size),
            ContentType=f"text/x-{place}",
            CacheControl=f"max-age={place}",
            ContentLanguage="mi",
            Metadata={"place": str(place), "mixed-case": "a  b"},
            **_checksum(kind, place),
        )
    return Filled(source, source.read_all())


def _checksum(kind: Kind, place: int) -> dict[str, str]:
    """Objects with each checksum, and with none but their ETag, which is a checksum too."""
    if kind is not Kind.S3 or place % (len(CHECKSUMS) + 1) == len(CHECKSUMS):
        return {}
    return {"ChecksumAlgorithm": CHECKSUMS[place % (len(CHECKSUMS) + 1)]}


@dataclass(slots=True)
class Played:
    """What became of a job."""

    status: str
    counts: Counts
    acts: Counter[Act]
    """What really happened: a step finds nothing to kill when the job is over."""
    uploads_hit: int
    """Kills and aborts that met a multipart upload under way."""


class Play:
    """One schedule on its way. Everything is checked past the proxies, when all is over."""

    def __init__(self, world: World, schedule: Schedule, directory: Path) -> None:
        self.world = world
        self.schedule = schedule
        self.directory = directory
        self.pair = schedule.pair
        filled = world.source(schedule.pair)
        self.source, self.expected = filled.bucket, filled.everything
        self.target = world.store_of(schedule.pair.target).new_bucket()
        self.found: dict[str, Stored] = {}
        self.acts: Counter[Act] = Counter()
        self.uploads_hit = 0
        self.failures: list[object] = []
        self.output = ""

    def run(self) -> Played:
        """Play it, check it, and clean up."""
        if not self.schedule.overwrite:
            self._place_found()
        placed_at = time.monotonic()
        try:
            with self._proxies() as self._before:
                _slow_down(self._before[1])
                self._pages = [self._paged(proxy) for proxy in self._before]
                copies = self.schedule.program is Program.COPY
                played = self._copy(placed_at) if copies else self._serve(placed_at)
            self._check(played)
            return played
        finally:
            self._remove()

    # The stage

    @contextmanager
    def _proxies(self) -> Iterator[tuple[FaultProxy, FaultProxy]]:
        seed, pair = self.schedule.seed, self.pair
        source, target = (self.world.store_of(kind) for kind in (pair.source, pair.target))
        with FaultProxy(target.origin, seed=2 * seed + 1).running() as before_target:
            if pair.source is pair.target and target.settings:
                yield before_target, before_target  # where it is, is a setting for both sides
            else:
                with FaultProxy(source.origin, seed=2 * seed).running() as before_source:
                    yield before_source, before_target

    def _sides(self) -> tuple[Store, Store]:
        """Source and target behind their proxies."""
        before_source, before_target = self._before
        return (
            self.world.store_of(self.pair.source).at(before_source.endpoint),
            self.world.store_of(self.pair.target).at(before_target.endpoint),
        )

    def _place_found(self) -> None:
        for key, kind in FOUND.items():
            body = self.expected[key].body
            other = (body, bytes(byte ^ 1 for byte in body), body + b"more")[kind]
            self.target.put(key, other, ContentType="text/found")
            self.found[key] = self.target.get(key)

    def _remove(self) -> None:
        """The stores keep what they have in memory, or on a small disk."""
        for key in self.target.read_keys():
            self.target.delete(key)

    def _paged(self, proxy: FaultProxy) -> MixedUp:
        """If a page is to be mixed up: several of them, which are remembered from now on."""
        pages = MixedUp(listings.cut_to(PAGE), seed=self.schedule.seed)
        if any(step.act is Act.MIX_UP for step in self.schedule.steps):
            proxy.add(pages.heard, LIST)
        return pages

    # The programs

    def _serve(self, placed_at: float) -> Played:
        count = 2 if self.schedule.program is Program.PAIR else 1
        source, target = self._sides()
        settings = {**settings_of(self.schedule), **source.settings, **target.settings}
        running = Servers(self.directory, settings, count=count)
        try:
            path = self._create(running, placed_at)
            for step in self.schedule.steps:
                time.sleep(step.after_seconds)
                self._act_on_servers(running, step, path)
            self._end(running, path)
            return self._played(running.database)
        finally:
            self.output = running.output
            running.close()

    def _create(self, running: Servers, placed_at: float) -> str:
        source, target = self._sides()
        body = {
            "overwrite": self.schedule.overwrite,
            "source": {
                **source.described(self.source),
                "pathPrefix": prefix_of(self.pair),
                "keys": list(self.expected) if self.schedule.named else None,
            },
            "target": target.described(self.target),
            "options": {"serverSideCopy": not self.pair.through},
        }
        time.sleep(max(0.0, placed_at + FOUND_AGE_SECONDS - time.monotonic()))
        return f"/{running.create(body)}"

    def _act_on_servers(self, running: Servers, step: Step, path: str) -> None:
        process = running.processes[step.place % len(running.processes)]
        self._await_upload(step)
        if step.act in schedules.FAULTS:
            self._misbehave(step)
        elif step.act is Act.PAUSE:
            if not running.command(f"{path}/pause"):
                return
            time.sleep(step.after_seconds / 2)
            assert running.command(f"{path}/resume")
        elif step.act is Act.KILL_WORKER:
            if not any(one.kill_worker(step.place) for one in running.processes):
                return
        elif step.act is Act.KILL_ALL:
            _kill_everything(running)
        else:
            process.kill() if step.act is Act.KILL_SERVER else process.stop()
            running.restart(process)
        self.acts[step.act] += 1

    def _end(self, running: Servers, path: str) -> None:
        """Bring the job to its end, and the servers to theirs."""
        ending = self.schedule.ending
        if ending is Ending.COMPLETED:
            self._wait_for_completion(running, path)
        else:
            self._abort(running, path)
            wait_until(lambda: is_swept(running.database), "the target to be swept")
        running.stop()

    def _wait_for_completion(self, running: Servers, path: str) -> None:
        def completed() -> bool:
            status = running.get(f"{path}/progress")["status"]
            assert status in ("running", "completed"), running.get(f"{path}/logs")
            return bool(status == "completed")

        wait_until(completed, "the job to complete")

    def _abort(self, running: Servers, path: str) -> None:
        killed_first = self.schedule.ending is not Ending.ABORTED_KILLED
        killed_last = self.schedule.ending is not Ending.KILLED_ABORTED
        self._await_an_upload()
        if killed_first:
            self._count_and_kill_everything(running)
        if not running.command(f"{path}/abort"):
            return
        if self.schedule.ending is Ending.ABORTED_DELETED:
            running.delete(path)
        if killed_last:
            self._count_and_kill_everything(running)

    def _count_and_kill_everything(self, running: Servers) -> None:
        _kill_everything(running)
        self.acts[Act.KILL_ALL] += 1

    def _copy(self, placed_at: float) -> Played:
        source, target = self._sides()
        env = {
            **source.variables("source"),
            **target.variables("target"),
            **settings_of(self.schedule),
        }
        chosen = {
            "--no-overwrite": not self.schedule.overwrite,
            "--no-server-side-copy": self.pair.through,
        }
        more = [option for option, is_chosen in chosen.items() if is_chosen]
        sides = (f"{source.url(self.source)}/{prefix_of(self.pair)}", target.url(self.target))
        time.sleep(max(0.0, placed_at + FOUND_AGE_SECONDS - time.monotonic()))
        running = Copies(self.directory, env, *sides, *more)
        try:
            time.sleep(0.7)  # for the program to come up
            for step in self.schedule.steps:
                time.sleep(step.after_seconds)
                self._act_on_copy(running, running.process, step)
            running.finish()
            return self._played(running.database)
        finally:
            self.output = running.output
            running.close()

    def _act_on_copy(self, running: Copies, process: Process, step: Step) -> None:
        self._await_upload(step)
        if step.act in schedules.FAULTS:
            self._misbehave(step)
        elif step.act is Act.KILL_WORKER:
            if not process.kill_worker(step.place):
                return
        elif process.code is not None:
            return  # it was faster
        else:
            {Act.KILL_SERVER: process.kill, Act.KILL_ALL: process.kill_all, Act.STOP: process.stop}[
                step.act
            ]()
            running.restart()
        self.acts[step.act] += 1

    # The faults

    def _await_upload(self, step: Step) -> None:
        if step.act in schedules.KILLS and step.in_upload:
            self._await_an_upload()

    def _await_an_upload(self) -> None:
        """Wait until there is something to be left behind, but not for long: it may be too late."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if self.target.uploads():
                self.uploads_hit += 1
                return
            time.sleep(0.01)

    def _misbehave(self, step: Step) -> None:
        """Disturb one side; what a fault cannot do there, it does at the other."""
        side = 0 if step.at_source else 1
        if step.act in LISTED and self._speaks_json(side):
            side = 1 - side
        if step.act in LISTED and self._speaks_json(side):
            return
        fault, match = self._fault(step, side)
        times = None if step.act is Act.EMPTY else step.times  # it ends by itself
        self._before[side].add(fault, match, times=times, first=True)

    def _speaks_json(self, side: int) -> bool:
        return (self.pair.source, self.pair.target)[side] is Kind.GCS

    def _fault(self, step: Step, side: int) -> tuple[Fault, str]:
        at_source = side == 0
        found: dict[Act, tuple[Fault, str]] = {
            Act.SLOW_DOWN: (faults.status(503, "SlowDown"), ""),
            Act.FAIL: (faults.status(500, "InternalError"), ""),
            Act.RESET: (faults.reset_before, ""),
            Act.LOSE_ANSWER: (faults.lost_answer, ""),
            Act.TRUNCATE: (faults.truncated(500), GET_OBJECT),
            Act.DELAY: (faults.delayed(0.2), ""),
            # Each byte that is sent is of an object there; at Google others come before it.
            Act.FLIP: (
                (faults.corrupted(0), self._checked())
                if at_source
                else (faults.corrupted_request(0), WRITE_BYTES)
            ),
            Act.OMIT: (faults.with_headers(without=OMITTED), OBJECT if at_source else PUT_OBJECT),
            Act.MISDATE: (faults.with_headers(*MISDATED, without=DATES), ""),
            Act.MIX_UP: (self._pages[side], LIST),
            Act.REPEAT: (listings.duplicated(), LIST),
            Act.EMPTY: (listings.Hollow(step.times), LIST),
        }
        return found[step.act]

    def _checked(self) -> str:
        """Reads of objects whose source tells something to compare, whole or in parts."""
        return GET_OBJECT if self.pair.source in (Kind.S3, Kind.GCS) else GET_SMALL

    # What is left

    def _played(self, database: Path) -> Played:
        """Read the first job there: the one that was disturbed."""
        names = [field.name for field in dataclasses.fields(Counts)]
        query = f"SELECT status, {', '.join(names)} FROM jobs ORDER BY number LIMIT 1"  # noqa: S608
        with closing(sqlite3.connect(database)) as connection:
            row = connection.execute(query).fetchone()
            failed = "SELECT object_key, message FROM logs WHERE log_type LIKE 'importError%'"
            self.failures = connection.execute(failed).fetchall()
        status, *counts = row or ("deleted", *(0 for _ in names))
        return Played(
            status, Counts(**dict(zip(names, counts, strict=True))), self.acts, self.uploads_hit
        )

    def _check(self, played: Played) -> None:
        # What a precheck that was killed has left goes with the next one, a minute later.
        left = [key for key in self.target.uploads() if not own_keys.is_own(key)]
        assert left == [], f"uploads are left behind: {left}"
        counts = played.counts
        assert counts.objects == counts.transferred + counts.skipped + counts.failed
        assert counts.failed == 0, (counts, self.failures)
        keys = [key for key in self.target.read_keys() if not own_keys.is_own(key)]
        at_target = read_all(self.target, keys)
        for key, stored in self.found.items():
            assert at_target[key] == stored, f"{key} was not to be touched"
        for key, stored in at_target.items():
            if key not in self.found:
                assert_equal(key, self.expected[key], stored)
        aborted = self.schedule.ending is not Ending.COMPLETED and played.status != "completed"
        if aborted:
            assert played.status in ("aborted", "deleted")
            assert counts.transferred <= len(at_target) - len(self.found)
            assert counts.skipped <= len(self.found)
            return
        assert played.status == "completed"
        assert at_target.keys() == self.expected.keys()
        moved = self.expected.keys() - self.found.keys()
        assert (counts.transferred, counts.skipped) == (len(moved), len(self.found)), counts
        assert counts.transferred_bytes == sum(len(self.expected[key].body) for key in moved)


def _kill_everything(running: Servers) -> None:
    processes = list(running.processes)
    for process in processes:
        process.kill_all()
    for process in processes:
        running.restart(process)


def _slow_down(before_target: FaultProxy) -> None:
    """Let the job last long enough for something to happen to it."""
    before_target.add(faults.delayed(0.25), PUT_PART)
    before_target.add(faults.delayed(0.05), PUT_OBJECT)


def is_swept(database: Path) -> bool:
    """Also when the job is gone, or was completed before it could be aborted."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        query = (
            "SELECT count(*) FROM jobs WHERE sweeps_failed IS NOT NULL OR deleted_at IS NOT NULL"
        )
        return bool(connection.execute(query).fetchone() == (0,))


def play(world: World, schedule: Schedule, directory: Path) -> Played:
    """Play one schedule; a failure says how to repeat it, and what the programs said."""
    this = Play(world, schedule, directory)
    try:
        return this.run()
    except BaseException as error:
        again = f'make chaos ARGS="--schedules 1 --seed {schedule.seed} --pairs {schedule.pair}"'
        error.add_note(f"{this.output[-6000:]}\nseed {schedule.seed}: {schedule}\nagain: {again}")
        raise
