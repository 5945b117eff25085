"""Service, drivers and workers together against a model, through every kind of trouble.

The long form, with as many examples as there is time for:

    MACHINE_EXAMPLES=2000 .venv/bin/python -m pytest tests/unit/driver/test_machine.py --timeout=0

There every run takes other paths; without the variable it is the same few each time.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine.interfaces import DBAPIConnection

from slurper import errors
from slurper.database import connection, in_batches
from slurper.database.store import JobStore
from slurper.driver import assignment, leadership, sweeper
from slurper.driver import turn as driver_turn
from slurper.job.model import Counts, JobOptions, JobStatus, LogEntry, LogType, Progress
from slurper.objectstore import factory
from slurper.secrets import S3Credentials, Sealer
from slurper.service.jobs import JobService
from slurper.settings import MIB, Settings
from slurper.transfer import attempts, boundaries, deadline, parts_run, planner, range_run
from tests.unit.driver.conftest import SECRETS, SPEC
from tests.unit.driver.world import (
    Bucket,
    Fate,
    Server,
    World,
    until,
)

EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", "0"))
LIMIT = 3
SERVERS = 3
Result = TypeVar("Result")
Candidate = TypeVar("Candidate")
_numbers = count()

KEYS = ("a", "a/b", "p", "p/", "p/1", "p/2", "p/3", "p/4", "p/5", "p/ü", "p/\U0001f600", "q", "z")
ABSENT = ("p/0", "p/9")
"""Keys that a job may name, and that the source does not have."""

OBJECTS = {
    "small": 5,
    "empty": 0,
    "large": MIB + 7,
    "broken": 5,
    "archived": 5,
    "absent": 0,
}
"""Kinds of objects, and their bytes. An object of more than a MiB is copied in two parts."""


@dataclass(frozen=True)
class Wanted:
    """A job to be made, and the buckets it finds."""

    kinds: tuple[str, ...]
    existing: tuple[str | None, ...]
    """What the target has under each key: the same object, another one, or none."""
    prefix: str
    keys: tuple[str, ...] | None
    overwrite: bool
    skip_empty: bool
    strip_prefix: bool


def wanted(seed: int) -> Wanted:
    """One of the jobs that can be; drawing each part of one would take far longer than copying."""
    draw = random.Random(seed)  # noqa: S311 - guards nothing
    kinds = ["small"] * 12 + ["empty", "large", "broken", "archived", "absent"]
    named = draw.sample(KEYS + ABSENT, draw.randint(1, len(KEYS)))
    return Wanted(
        kinds=tuple(draw.choices(kinds, k=len(KEYS))),
        existing=tuple(draw.choices([None] * 6 + ["same", "other"], k=len(KEYS))),
        prefix=draw.choice(["", "", "p", "p/"]),
        keys=draw.choice([None, None, tuple(named)]),
        overwrite=draw.random() < 1 / 3,
        skip_empty=draw.random() < 1 / 2,
        strip_prefix=draw.random() < 1 / 2,
    )


WANTED = st.integers(0, 2**32 - 1).map(wanted)
FATES = st.one_of(
    st.just(Fate()),
    st.just(Fate()),
    st.builds(Fate, dies_after=st.integers(0, 30)),
    st.builds(Fate, freezes_after=st.integers(0, 30)),
    st.builds(Fate, hold=st.booleans(), lose=st.booleans()),
)
PICK = st.integers(0, 11)


@dataclass
class ModelJob:
    """What a job should come to."""

    id: str
    source: Bucket
    target: Bucket
    wanted: Wanted
    before: dict[str, bytes]
    """What the target had when the job was made."""
    commands: Counter[str] = field(default_factory=Counter)
    """Those that were accepted."""
    signer: str | None = "from"
    """Whose source credentials it has; None: it is not known which of two commands came last."""
    is_retried: bool = False
    seen: Counts = field(default_factory=Counts)
    """The last counts that were read."""

    def target_key(self, key: str) -> str:
        return key.removeprefix(self.wanted.prefix) if self.wanted.strip_prefix else key

    @property
    def keys(self) -> list[str]:
        if self.wanted.keys is not None:
            return sorted(set(self.wanted.keys))
        return [key for key in self.source.keys if key.startswith(self.wanted.prefix)]

    def outcome(self, key: str) -> tuple[str, LogType | None]:
        """How an object ends, and what the log says of it. The rules in other words."""
        source, wanted, failed = self.source, self.wanted, LogType.IMPORT_ERROR_RETRY_EXHAUSTION
        if key not in source.keys or not self.target_key(key):
            return "failed", failed
        if source._entries[key].stored.meta.storage_class == "GLACIER":
            return "skipped", LogType.IMPORT_SKIPPED_STORAGE_CLASS
        if wanted.skip_empty and not source.read(key)[0]:
            return "skipped", LogType.IMPORT_SKIPPED_EMPTY_OBJECT
        if not wanted.overwrite and self.target_key(key) in self.before:
            return "skipped", None
        return ("failed", failed) if key in source.broken else ("transferred", None)

    @property
    def outcomes(self) -> dict[str, tuple[str, LogType | None]]:
        return {key: self.outcome(key) for key in self.keys}

    @property
    def counts(self) -> Counts:
        """The counts of the completed job."""
        outcomes = self.outcomes
        ended = Counter(outcome for outcome, _ in outcomes.values())
        sizes = [len(self.source.read(key)[0]) for key in self._copied]
        return Counts(objects=len(outcomes), transferred_bytes=sum(sizes), **ended)

    @property
    def contents(self) -> dict[str, bytes]:
        """What the target holds when the job is completed."""
        copied = {self.target_key(key): self.source.read(key)[0] for key in self._copied}
        return self.before | copied

    @property
    def entries(self) -> list[tuple[LogType, str]]:
        """The log's entries of objects, in the order of their keys."""
        return [(log_type, key) for key, (_, log_type) in self.outcomes.items() if log_type]

    @property
    def _copied(self) -> list[str]:
        return [key for key, (outcome, _) in self.outcomes.items() if outcome == "transferred"]


class WorldMachine(RuleBasedStateMachine):
    """One account of a world that other examples used before."""

    world: World
    service: JobService
    runner: asyncio.Runner
    cut = 0
    """How many completed jobs had several ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.account = f"account{next(_numbers)}"
        self.model: dict[str, ModelJob] = {}

    def run(self, work: Awaitable[Result]) -> Result:
        async def awaited() -> Result:
            result = await work
            await self.world.settle()
            await self._agree()
            return result

        return self.runner.run(awaited())

    def do(self, action: Callable[[], object]) -> None:
        """Do something inside the loop that takes no time."""

        async def done() -> None:
            action()

        self.run(done())

    def progress(self, job: ModelJob) -> Progress:
        return self.world.progress(job.id)

    def status(self, job: ModelJob) -> str:
        return self.progress(job).status.value

    def log(self, job: ModelJob) -> list[LogEntry]:
        return self.world.log(job.id)

    def active(self) -> int:
        return sum(self.status(job) in {"running", "paused"} for job in self.model.values())

    @initialize()
    def begin(self) -> None:
        self.run(self._start())

    async def _start(self) -> None:
        self.world.start_server()
        await until(lambda: self.world.leader)

    # What users do

    @rule(wanted=WANTED, number=PICK, fate=FATES)
    def create(self, wanted: Wanted, number: int, fate: Fate) -> None:
        self.run(self._create(wanted))
        self.work(number, fate)

    async def _create(self, wanted: Wanted) -> None:
        number = next(_numbers)
        source, target = self.world.buckets[f"from{number}"], self.world.buckets[f"to{number}"]
        if wanted.keys is not None:
            fitting = [key for key in wanted.keys if key.startswith(wanted.prefix)]
            wanted = replace(wanted, keys=tuple(fitting) or None)
        fill(source, target, wanted)
        options = JobOptions(skip_empty=wanted.skip_empty, strip_prefix=wanted.strip_prefix)
        spec = replace(
            SPEC,
            source=replace(SPEC.source, bucket=f"from{number}"),
            target=replace(SPEC.target, bucket=f"to{number}"),
            prefix=wanted.prefix,
            keys=wanted.keys,
            overwrite=wanted.overwrite,
            options=options,
        )
        creating = self.service.create(self.account, spec, SECRETS)
        if self.active() >= LIMIT:
            with pytest.raises(errors.JobLimitReached):
                await creating
            return
        job_id = await creating
        self.model[job_id] = ModelJob(job_id, source, target, wanted, target.contents)

    @rule(number=PICK, command=st.sampled_from(["pause", "resume", "renew"] * 2 + ["abort"]))
    def command(self, number: int, command: str) -> None:
        if job := of(self.model.values(), number):
            self.run(self._command(job, command))

    async def _command(self, job: ModelJob, command: str) -> None:
        allowing = {"pause": {"running"}, "abort": {"running", "paused"}}.get(command, {"paused"})
        allowed = self.status(job) in allowing
        giving = self._give(job, command)
        if allowed:
            await giving
        else:
            with pytest.raises(errors.JobConflict):
                await giving

    async def _give(self, job: ModelJob, command: str) -> None:
        """Give a command that may be refused, and take it into the model when it is not."""
        name = "resume" if command == "renew" else command
        self.world.signers.pop(job.id, None)
        if name == "resume":
            self.world.quiet.discard(job.id)
        if command == "renew":
            key = S3Credentials(access_key_id=f"key{next(_numbers)}", secret_access_key="hush")
            await self.service.resume(self.account, job.id, source_credentials=key)
            job.signer = key.access_key_id
        else:
            await getattr(self.service, command)(self.account, job.id)
        job.commands[name] += 1

    @rule(
        number=PICK,
        commands=st.lists(
            st.sampled_from(["pause", "resume", "abort", "renew"]), min_size=2, max_size=5
        ),
    )
    def commands_at_once(self, number: int, commands: list[str]) -> None:
        if job := of(self.model.values(), number):
            self.run(self._commands_at_once(job, commands))

    async def _commands_at_once(self, job: ModelJob, commands: list[str]) -> None:
        giving = (self._give(job, command) for command in commands)
        for answer in await asyncio.gather(*giving, return_exceptions=True):
            assert answer is None or isinstance(answer, errors.JobConflict)
        if commands.count("renew") > 1:
            job.signer = None

    @rule(
        number=PICK,
        what=st.sampled_from(["delete"] * 3 + ["retry", "heal and retry"] * 2 + ["abort all"]),
    )
    def tidy_up(self, number: int, what: str) -> None:
        job = of(self.model.values(), number)
        if what == "abort all":
            self.run(self._abort_all())
        elif job is not None:
            is_delete = what == "delete"
            self.run(self._delete(job) if is_delete else self._retry(job, heal="heal" in what))

    async def _abort_all(self) -> None:
        active = [job for job in self.model.values() if self.status(job) in {"running", "paused"}]
        assert await self.service.abort_all(self.account) == len(active)
        for job in active:
            job.commands["abort"] += 1

    async def _retry(self, job: ModelJob, *, heal: bool) -> None:
        if job.is_retried or self.world.is_touched(job.id):
            return  # two jobs at once on one bucket: nobody can say what each will count
        failed = [
            entry.object_key or ""
            for entry in self.log(job)
            if entry.log_type is LogType.IMPORT_ERROR_RETRY_EXHAUSTION
        ]
        retrying = self.service.retry_failed(self.account, job.id)
        ended = self.status(job) in {"aborted", "completed"}
        if not (ended and failed and self.active() < LIMIT):
            with pytest.raises(errors.JobConflict):
                await retrying
            return
        await self._check_completed(job)
        job_id = await retrying
        job.is_retried = True
        wanted = replace(job.wanted, keys=tuple(failed))
        before = job.target.contents
        self.model[job_id] = ModelJob(
            job_id, job.source, job.target, wanted, before, signer=job.signer
        )
        if heal:
            job.source.broken.clear()

    async def _delete(self, job: ModelJob) -> None:
        if self.status(job) in {"running", "paused"}:
            with pytest.raises(errors.JobConflict):
                await self.service.delete(self.account, job.id)
            return
        await self._check_completed(job)
        await self.service.delete(self.account, job.id)
        del self.model[job.id]
        with pytest.raises(errors.JobNotFound):
            await self.service.progress(self.account, job.id)

    @rule(number=PICK, place=PICK, change=st.sampled_from(["put", "replace", "delete"]))
    def change_source(self, number: int, place: int, change: str) -> None:
        if job := of(self.model.values(), number):
            self.run(self._change_source(job, place, change))

    async def _change_source(self, job: ModelJob, place: int, change: str) -> None:
        """Change what no work has come to yet; of all else nobody can say what is right."""
        if self.status(job) != "paused" or self.world.is_touched(job.id):
            return
        if job.id in self.world.disturbed or self._has_halted(job):
            return
        left = of(self.world.left_of(job.id), place)
        if left is None:
            return
        ahead = [key for key in job.source.keys if key in left]
        late = f"{max(left.start_after or '', 'p/')}~{place}"
        if change == "put":
            if late in left:
                job.source.add(late, b"late")
        elif ahead:
            key = ahead[place % len(ahead)]
            job.source.remove(key)
            if change == "replace":
                job.source.add(key, b"another one")

    def _has_halted(self, job: ModelJob) -> bool:
        return any(entry.log_type in HALTS for entry in self.log(job))

    # What workers do

    @rule(number=PICK, fate=FATES)
    def work(self, number: int, fate: Fate) -> None:
        if turn := of((turn for turn in self.world.turns if not turn.fate.done()), number):
            self.do(lambda: turn.fate.set_result(fate))

    @rule(numbers=st.lists(PICK, min_size=1, max_size=4))
    def work_in_peace(self, numbers: list[int]) -> None:
        for number in numbers:
            self.work(number, Fate())

    @rule(numbers=st.lists(PICK, min_size=1, max_size=4), fate=FATES)
    def work_for_a_while(self, numbers: list[int], fate: Fate) -> None:
        self.work_in_peace(numbers)
        self.work(numbers[0], fate)

    @rule(number=PICK, arrives=st.booleans())
    def go_on(self, number: int, *, arrives: bool) -> None:
        """A report that was held is released, or a worker that stands still is thawed."""
        held = (turn for turn in self.world.turns if turn.holds and not turn.reports.done())
        if turn := of(held, number):
            self.do(lambda: turn.reports.set_result(arrives))
        elif process := of(self.world.frozen, number):
            self.do(process.thawed.set)

    # What befalls stores, servers and the database

    @rule(
        number=PICK,
        at_target=st.booleans(),
        operation=st.sampled_from(
            ["list_page", "get", "put", "create_upload", "put_part", "complete_upload"]
        ),
        nth=st.integers(1, 6),
        takes_effect=st.booleans(),
        blocks=st.booleans(),
    )
    def trouble(
        self,
        number: int,
        *,
        at_target: bool,
        operation: str,
        nth: int,
        takes_effect: bool,
        blocks: bool,
    ) -> None:
        job = of(self.model.values(), number)
        if job is None:
            return
        bucket = job.target if at_target else job.source
        if bucket.trouble._planned:
            return  # more in a row would make an object fail
        error: errors.SlurperError = errors.UnavailableStore(operation, status=503)
        if blocks:
            error = errors.CredentialsRejected(operation, status=403, code="ExpiredToken")
        bucket.is_troubled = True
        self.world.disturbed.add(job.id)
        bucket.trouble.fail(
            error, operation=operation, nth=nth, takes_effect=takes_effect and not blocks
        )

    @rule(
        number=PICK,
        what=st.sampled_from(["start"] * 3 + ["crash", "stop", "stall", "cut off", "forget"]),
    )
    def befall_servers(self, number: int, what: str) -> None:
        server = of(self.world.servers, number)
        if what == "stall":
            self.run(self.world.expire_lease())
        elif what == "start" or server is None:
            if len(self.world.servers) < SERVERS:
                self.do(self.world.start_server)
        elif what == "crash":
            self.run(server.crash())
        elif what == "stop":
            self._stop(server)
        elif what == "cut off":
            server.database.away = True
        elif leader := self.world.leader:
            leader.database.answers_to_lose = 1

    def _stop(self, server: Server) -> None:
        """As SIGTERM does it: tasks under way end, and are counted."""
        if server.database.away:
            return
        for turn in server.turns:
            turn.finish()
        self.run(server.stop())

    @rule()
    def recover(self) -> None:
        """Somebody drives, and reaches the database."""
        self.run(self._recover())

    async def _recover(self) -> None:
        self.world.bring_databases_back()
        if not self.world.servers:
            self.world.start_server()
        if not self.world.leader:
            await self.world.expire_lease()

    # What must hold

    async def _agree(self) -> None:
        """Compare everything with the model, when all is at rest."""
        assert self.world.violations == []
        all_looked = all(one.drives or one.driver is None for one in self.world.servers)
        for job in self.model.values():
            progress = self.progress(job)
            self._check(job, progress)
            if progress.status is JobStatus.RUNNING:
                self.world.quiet.discard(job.id)
            elif all_looked:
                self.world.quiet.add(job.id)
            if all_looked and job.signer is not None:
                self.world.signers[job.id] = job.signer

    def _check(self, job: ModelJob, progress: Progress) -> None:
        """What holds at any time."""
        counts, seen, expected = progress.counts, job.seen, job.counts
        assert counts.objects == counts.transferred + counts.skipped + counts.failed
        for name in ("objects", "transferred", "skipped", "failed", "transferred_bytes"):
            assert getattr(counts, name) >= getattr(seen, name), "progress never goes back"
            if not job.is_retried:
                assert getattr(counts, name) <= getattr(expected, name), f"too many: {name}"
        job.seen = counts
        check_story(self.log(job), progress.status, job.commands)

    async def _check_completed(self, job: ModelJob) -> None:
        """What holds of a job that has ended, until a retry changes what it had."""
        progress = self.progress(job)
        if progress.status is not JobStatus.COMPLETED or job.is_retried:
            return
        assert await self.service.progress(self.account, job.id) == progress
        assert progress.counts == job.counts
        assert job.target.contents == job.contents
        entries = [one for one in self.log(job) if one.object_key is not None]
        assert {(one.log_type, one.object_key) for one in entries} == set(job.entries)
        assert len(entries) == len(job.entries)
        type(self).cut += self.world.has_been_cut(job.id)
        assert all(one.message for one in entries)
        if not job.target.is_troubled and job.id not in self.world.haunted:
            assert job.target.open_uploads == ()

    # The end of all trouble

    def teardown(self) -> None:
        try:
            self.runner.run(self._end())
        finally:
            self.runner.run(self._clean_up())

    async def _end(self) -> None:
        """Everything can be completed, and is what it should be."""
        for bucket in self.world.buckets.values():
            bucket.trouble._planned.clear()
        for _ in range(1000):
            await self._recover()
            for turn in self.world.turns:
                turn.finish()
            await self.world.settle()
            await self._agree()
            for job in self.model.values():
                if self.status(job) == "paused":
                    await self._give(job, "renew")
            if self.active() == 0:
                break
        assert self.active() == 0
        for job in list(self.model.values()):
            await self._delete(job)
        while not self.world.is_empty():
            await self.world.settle()

    async def _clean_up(self) -> None:
        for server in list(self.world.servers):
            await server.crash()
        await self.world.reset()


HALTS = (LogType.MIGRATION_ERROR, LogType.MIGRATION_ERROR_FAILED_CONTINUATION)


def of(candidates: Iterable[Candidate], number: int) -> Candidate | None:
    """One of the candidates, whatever the number; None when there is none."""
    known = list(candidates)
    return known[number % len(known)] if known else None


def fill(source: Bucket, target: Bucket, wanted: Wanted) -> None:
    """Put the objects there that a job finds."""
    for number, (key, kind, found) in enumerate(
        zip(KEYS, wanted.kinds, wanted.existing, strict=True)
    ):
        body = (f"{number:04}" * (OBJECTS[kind] // 4 + 1)).encode()[: OBJECTS[kind]]
        if kind != "absent":
            storage_class = "GLACIER" if kind == "archived" else "STANDARD"
            source.add(key, body, storage_class=storage_class)
        if kind == "broken":
            source.broken.add(key)
        target_key = key.removeprefix(wanted.prefix) if wanted.strip_prefix else key
        if found is not None and target_key:
            target.add_before(target_key, body if found == "same" else b"somebody else's")


def check_story(log: list[LogEntry], status: JobStatus, commands: Counter[str]) -> None:
    """The log tells a life that a job can have, with what was commanded and no more."""
    story = Counter[LogType]()
    stands: JobStatus | None = None
    for entry in log:
        if entry.object_key is None:
            before, after = LIFE[entry.log_type]
            assert stands in before
            stands = after
            story[entry.log_type] += 1
    assert stands is status
    assert story[LogType.MIGRATION_PAUSE] == commands["pause"]
    assert story[LogType.MIGRATION_RESUME] == commands["resume"]
    assert story[LogType.MIGRATION_ABORT] == commands["abort"]
    told = Counter(entry.object_key for entry in log if entry.object_key is not None)
    assert set(told.values()) <= {1}, "an object is told of once"


# The lifecycle once more, in other words than the module under test.
_RUNNING, _PAUSED = JobStatus.RUNNING, JobStatus.PAUSED
LIFE: dict[LogType, tuple[set[JobStatus | None], JobStatus]] = {
    LogType.MIGRATION_START: ({None}, _RUNNING),
    LogType.MIGRATION_PAUSE: ({_RUNNING}, _PAUSED),
    LogType.MIGRATION_ERROR: ({_RUNNING}, _PAUSED),
    LogType.MIGRATION_ERROR_FAILED_CONTINUATION: ({_RUNNING}, _PAUSED),
    LogType.MIGRATION_RESUME: ({_PAUSED}, _RUNNING),
    LogType.MIGRATION_ABORT: ({_RUNNING, _PAUSED}, JobStatus.ABORTED),
    LogType.MIGRATION_COMPLETE: ({_RUNNING}, JobStatus.COMPLETED),
}


@pytest.fixture
def _quick_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits long, tasks end after a few objects, and a few rows are many."""
    monkeypatch.setattr(leadership, "STANDBY_SECONDS", 0.002)
    monkeypatch.setattr(driver_turn, "_FRUITLESS_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(driver_turn, "_LONGEST_DELAY_SECONDS", 0.004)
    monkeypatch.setattr(attempts, "ATTEMPT_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(in_batches, "PIECE_ROWS", 3)
    looks_at_the_clock = count()
    clock = SimpleNamespace(monotonic=lambda: next(looks_at_the_clock))
    for module in (deadline, planner, range_run, parts_run):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(planner, "SPLIT_SECONDS", 3)
    monkeypatch.setattr(boundaries, "MIN_LISTED_KEYS", 1)
    monkeypatch.setattr(assignment, "MIN_KEYS", 1)
    monkeypatch.setattr(sweeper, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(assignment, "AGE_SHARE", 1e12)
    set_up = connection._set_up_sqlite

    def set_up_without_disk(dbapi_connection: DBAPIConnection, record: object) -> None:
        set_up(dbapi_connection, record)
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()

    monkeypatch.setattr(connection, "_set_up_sqlite", set_up_without_disk)


def profile() -> settings:
    bounded = settings(
        max_examples=EXAMPLES or 45,
        stateful_step_count=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a smaller example takes minutes to find, and another one shows
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    return bounded if EXAMPLES else settings(bounded, derandomize=True)


@pytest.mark.usefixtures("_quick_and_small")
def test_whatever_happens_every_object_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"multipart_threshold_bytes": MIB, "part_bytes": MIB}
    configured = Settings(
        data_dir=tmp_path, in_flight_requests=3, max_concurrent_jobs=LIMIT, task_seconds=8
    ).model_copy(update=small)
    sealer = Sealer((Fernet.generate_key().decode(),))
    with asyncio.Runner() as runner:
        world = runner.run(World.open(configured, sealer, servers=SERVERS))
        monkeypatch.setattr(factory, "open_store", lambda address, _: world.buckets[address.bucket])
        service = JobService(JobStore(world.front), sealer, configured, wake=world.wake)
        parts = {"world": world, "service": service, "runner": runner}
        machine: type[WorldMachine] = type("Machine", (WorldMachine,), parts)
        try:
            run_state_machine_as_test(machine, settings=profile())
            assert machine.cut > 0, "no job was ever split"
        finally:
            runner.run(world.close())
