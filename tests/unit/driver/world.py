"""A whole installation in one process: stores, servers that drive, and all that can befall them.

Everything is the real thing but two: stores are dictionaries, and a worker process is a task of
this loop. Each task of a driver waits (`Turn`) until the test says what becomes of it, so nothing
moves on its own between two steps of a test.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Row, Select, create_engine, delete, select, update

from slurper import errors, telemetry
from slurper.database import rows
from slurper.database.bounds import UNBOUNDED, Bounds
from slurper.database.connection import Database, Result
from slurper.database.job_row import CommitResult
from slurper.database.leases import Lease, LeaseStore
from slurper.database.schema import (
    job_keys,
    jobs,
    leases,
    logs,
    ranges,
    upload_parts,
    uploads,
)
from slurper.database.work import JobWork, WorkStore
from slurper.driver.leadership import Leadership
from slurper.driver.loop import Driver
from slurper.http.client import TransportOptions
from slurper.job.model import LogEntry, Progress
from slurper.objectstore.base import ByteRange, Download, ObjectStore, StoreAddress
from slurper.objectstore.dialects import GENERIC
from slurper.planning.keyspace import KeyRange
from slurper.secrets import Sealer
from slurper.settings import Settings
from slurper.transfer.task import PartsTask, ProgressReport, SweepTask, Task, TaskReport
from slurper.transfer.worker import Worker
from tests.memory.faults import Faults
from tests.memory.store import MemoryStore
from tests.unit.driver.conftest import clash

SLOTS = 2
DIALECT = replace(GENERIC, min_part_bytes=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LEASE_SECONDS = 3600.0
"""A lease ends when a test says so, never by itself."""


async def until(condition: Callable[[], object]) -> None:
    """Wait for what takes no longer than a few transactions; the bound ends a broken test."""
    for turns in range(8_000):
        if condition():
            return
        await asyncio.sleep(0 if turns % 8 else 0.0005)
    pytest.fail("waited too long")


class Bucket(MemoryStore):
    """What every worker process sees under one name."""

    def __init__(self) -> None:
        super().__init__(dialect=DIALECT, now=self._moment)
        self.broken: set[str] = set()
        """Keys that can be listed and never be read."""
        self.is_troubled = False
        self.trouble = Faults()
        """Of requests by workers, whichever sends them first."""
        self._past = False

    def add_before(self, key: str, body: bytes) -> None:
        """Put an object there that was there long before any job."""
        self._past = True
        self.add(key, body)
        self._past = False

    @property
    def contents(self) -> dict[str, bytes]:
        return {key: self.read(key)[0] for key in self.keys}

    def _moment(self) -> datetime:
        return LONG_AGO if self._past else datetime.now(UTC)


class _Line(Faults):
    """The way of one worker process to a bucket."""

    def __init__(self, process: WorkerProcess, bucket: Bucket) -> None:
        super().__init__()
        self._process = process
        self._bucket = bucket

    async def begin(self, operation: str) -> errors.SlurperError | None:
        await self._process.live()
        return await self._bucket.trouble.begin(operation)


class Door(MemoryStore):
    """A bucket as one worker process reaches it."""

    def __init__(self, process: WorkerProcess, bucket: Bucket) -> None:
        super().__init__(dialect=DIALECT, faults=_Line(process, bucket))
        self._broken = bucket.broken
        self._entries, self._sorted = bucket._entries, bucket._sorted
        self._uploads = bucket._uploads

    async def get(
        self,
        key: str,
        *,
        byte_range: ByteRange | None = None,
        **more: Any,  # noqa: ANN401 - as it is
    ) -> Download:
        if key in self._broken:
            raise errors.StoreError("GetObject", status=400, code="Broken", key=key)
        return await super().get(key, byte_range=byte_range, **more)


class WorkerProcess:
    """Runs one task. When it dies it does nothing more, not even clean up."""

    def __init__(self, buckets: dict[str, Bucket], fate: Fate) -> None:
        self.died = asyncio.Event()
        self.buried = asyncio.Event()
        self.thawed = asyncio.Event()
        self._buckets = buckets
        self._fate = fate
        self._requests = 0

    @property
    def is_frozen(self) -> bool:
        return self._requests > self._frozen_at and not self.thawed.is_set()

    @property
    def _frozen_at(self) -> float:
        return math.inf if self._fate.freezes_after is None else self._fate.freezes_after

    def open(self, address: StoreAddress, _options: TransportOptions) -> ObjectStore:
        return Door(self, self._buckets[address.bucket])

    async def live(self) -> None:
        """Count a request."""
        self._requests += 1
        if self.is_frozen:
            await self.thawed.wait()
        if self._fate.dies_after is not None and self._requests > self._fate.dies_after:
            self.died.set()
            await self.buried.wait()
            raise errors.EndpointRefused("the process is dead")


@dataclass(frozen=True)
class Fate:
    """What becomes of a task."""

    dies_after: int | None = None
    """So many requests; None: the worker does not die."""
    freezes_after: int | None = None
    """So many requests; then the worker stands still until it is thawed."""
    hold: bool = False
    """The report waits until the turn is released."""
    lose: bool = False
    """The worker dies after its work, and before its report has arrived."""


@dataclass(eq=False)
class Turn:
    """A task under way, as the engine of its server sees it."""

    task: Task[Any]
    server: Server
    fate: asyncio.Future[Fate] = field(default_factory=asyncio.Future)
    reports: asyncio.Future[bool] = field(default_factory=asyncio.Future)
    """Set when a report that was held goes on its way, to whether it arrives."""
    holds: bool = False
    """The work is done and the report held."""
    process: WorkerProcess | None = None

    @property
    def waits(self) -> bool:
        """Nothing happens before the test does something."""
        is_frozen = self.process is not None and self.process.is_frozen
        return is_frozen or not self.fate.done() or (self.holds and not self.reports.done())

    def finish(self) -> None:
        """Let nothing be in the way of its report."""
        if not self.fate.done():
            self.fate.set_result(Fate())
        if not self.reports.done():
            self.reports.set_result(True)
        if self.process is not None:
            self.process.thawed.set()


class SwitchableDatabase(Database):
    """A database as one server reaches it, or does not."""

    away = False
    answers_to_lose = 0
    """So many transactions commit without their caller being told."""

    async def write(self, transaction: Callable[[Connection], Result]) -> Result:
        self._reach()
        result = await super().write(transaction)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            raise errors.DatabaseUnavailable("the answer to COMMIT is lost")
        return result

    async def read(self, transaction: Callable[[Connection], Result]) -> Result:
        self._reach()
        return await super().read(transaction)

    def _reach(self) -> None:
        if self.away:
            raise errors.DatabaseUnavailable("the database is away")


class WatchedWork(WorkStore):
    """A store of work that sees to it that a replaced driver changes nothing."""

    def __init__(self, server: Server, lease: Lease) -> None:
        super().__init__(server.database, lease)
        self._world = server.world
        self.looks_begun = 0
        self.look_ended = 0
        """The number of the last look that has ended."""

    async def running_jobs(self) -> list[JobWork]:
        self.looks_begun += 1
        look = self.looks_begun
        found = await super().running_jobs()
        self.look_ended = look
        return found

    async def commit(
        self, report: ProgressReport, at: datetime, *, bounds: Bounds = UNBOUNDED
    ) -> CommitResult:
        is_replaced = self.lease.token < self._world.token
        try:
            outcome = await super().commit(report, at, bounds=bounds)
        except BaseException:
            self._world.disturbed.add(report.job_id)
            raise
        if not outcome.applied:
            self._world.disturbed.add(report.job_id)
        elif is_replaced:
            self._world.violations.append(f"a replaced driver has committed {report}")
        return outcome


class TurnEngine:
    """The engine of one server: its workers are as good as the test lets them be."""

    slots = SLOTS

    def __init__(self, server: Server) -> None:
        self._server = server
        self._world = server.world

    async def start(self) -> None:
        """Part of the protocol."""

    def job_ended(self, job_id: str) -> None:
        """Part of the protocol."""

    async def stop(self, grace_seconds: float) -> None:
        """Part of the protocol."""

    async def run(self, task: Task[TaskReport]) -> TaskReport:
        """Part of the protocol. A sweep is nobody's turn, and nothing befalls it."""
        turn = Turn(task, self._server)
        if isinstance(task, SweepTask):
            swept: TaskReport = await self._work(turn, Fate())
            return swept
        self._world.begin(turn)
        try:
            fate = await turn.fate
            report: TaskReport = await self._work(turn, fate)
            arrives = not fate.lose
            if fate.hold:
                turn.holds = True
                arrives = await turn.reports
            if not arrives:
                raise errors.WorkerLost("killed by SIGKILL")
        except BaseException:
            self._world.disturbed.add(task.job_id)
            raise
        finally:
            self._world.turns.remove(turn)
        return report

    async def _work(self, turn: Turn, fate: Fate) -> Any:  # noqa: ANN401 - what the task reports
        task = turn.task
        process = turn.process = WorkerProcess(self._world.buckets, fate)
        worker = Worker(self._world.settings, open_store=process.open)
        work = asyncio.create_task(worker.run(task))
        death = asyncio.create_task(process.died.wait())
        try:
            await asyncio.wait((work, death), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if self._server.dead or process.died.is_set():
                self._world.leave_alone(task.job_id, process, work)
            else:
                process.thawed.set()
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
            raise
        finally:
            death.cancel()
        if process.died.is_set():
            self._world.leave_alone(task.job_id, process, work)
            raise errors.WorkerLost("killed by SIGKILL")
        return await work


class Server:
    """A server without its API: it drives when it has the lease, and else stands by."""

    def __init__(self, world: World, database: SwitchableDatabase) -> None:
        self.world = world
        self.database = database
        self.dead = False
        self._ends = False
        self.driver: Driver | None = None
        self.work: WatchedWork | None = None
        self.metrics = telemetry.Metrics(CollectorRegistry())
        self._life = asyncio.create_task(self._live())

    @property
    def token(self) -> int:
        return 0 if self.work is None else self.work.lease.token

    @property
    def drives(self) -> bool:
        """It believes that it drives, and reaches the database."""
        return self.driver is not None and not self.database.away

    @property
    def turns(self) -> list[Turn]:
        return [turn for turn in self.world.turns if turn.server is self]

    @property
    def is_still(self) -> bool:
        """Each of its tasks waits for the test."""
        under_way = self.metrics.registry.get_sample_value("slurper_tasks_under_way") or 0
        return under_way == sum(turn.waits for turn in self.turns)

    async def _live(self) -> None:
        leadership = Leadership(LeaseStore(self.database), LEASE_SECONDS)
        while not self._ends:
            try:
                async with leadership.hold() as tenure:
                    await self._drive(tenure.lease)
                return
            except errors.LeaseLost:
                continue

    async def _drive(self, lease: Lease) -> None:
        world = self.world
        world.token = max(world.token, lease.token)
        self.work = WatchedWork(self, lease)
        self.driver = Driver(
            self.work, TurnEngine(self), world.sealer, world.settings, metrics=self.metrics
        )
        try:
            await self.driver.run()
        finally:
            self.driver = None
            self.database.answers_to_lose = 0

    async def crash(self) -> None:
        """End at once, and change nothing any more."""
        self.dead = True
        self.database.away = True
        self.database.answers_to_lose = 0
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        self.database.away = False
        self.world.servers.remove(self)

    async def stop(self) -> None:
        """End as by SIGTERM: what is under way ends and is counted."""
        self._ends = True
        if self.driver is not None:
            await self.driver.stop(30)
        else:
            self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        self.dead = True
        self.world.servers.remove(self)


class World:
    """The installation. Made once, and used by one example after another."""

    def __init__(
        self, settings: Settings, sealer: Sealer, front: Database, spare: list[SwitchableDatabase]
    ) -> None:
        self.settings = settings
        self.sealer = sealer
        self.front = front
        """The database as the API reaches it, at any time."""
        self.databases = spare
        """The database as each server reaches it."""
        self.buckets: dict[str, Bucket] = defaultdict(Bucket)
        self.servers: list[Server] = []
        self.turns: list[Turn] = []
        self.token = 0
        """Of the last driver that took the lease."""
        self.disturbed: set[str] = set()
        """Jobs with finished work that may never be counted."""
        self.haunted: set[str] = set()
        """Jobs whose work has outlived its server."""
        self.quiet: set[str] = set()
        """Jobs for which nothing may be submitted."""
        self.signers: dict[str, str] = {}
        """With which source credentials the tasks of a job sign."""
        self.violations: list[str] = []
        self._reader = create_engine(f"sqlite:///{settings.data_dir / 'slurper.db'}")
        self._alone: list[tuple[str, WorkerProcess, asyncio.Task[Any]]] = []

    @classmethod
    async def open(cls, settings: Settings, sealer: Sealer, *, servers: int) -> World:
        url = settings.resolved_database_url
        front = await Database.open(url)
        databases = [await SwitchableDatabase.open(url) for _ in range(servers)]
        return cls(settings, sealer, front, databases)

    async def close(self) -> None:
        self._reader.dispose()
        for database in (self.front, *self.databases):
            await database.close()

    # What happens in it

    def begin(self, turn: Turn) -> None:
        """Take in a task that was submitted; it must be one that may be."""
        task, server = turn.task, turn.server
        if len(server.turns) >= 2 * SLOTS:
            self.violations.append("more tasks than the engine takes")
        ranges = sum(not isinstance(one.task, PartsTask) for one in server.turns)
        if not isinstance(task, PartsTask) and ranges >= SLOTS:
            self.violations.append("more tasks of ranges than slots")
        others = [one.task for one in self.turns if self.is_valid(one.server)]
        if self.is_valid(server) and any(clash(task, other) for other in others):
            self.violations.append(f"two tasks at once for the same: {task}")
        if task.job_id in self.quiet:
            self.violations.append(f"a task of a job that does not run: {task}")
        signer = getattr(task.source.credentials, "access_key_id", "")
        if self.signers.get(task.job_id, signer) != signer:
            self.violations.append(f"a task with old credentials: {task}")
        self.turns.append(turn)

    def is_valid(self, server: Server) -> bool:
        return not server.dead and server.token == self.token

    def leave_alone(self, job_id: str, process: WorkerProcess, work: asyncio.Task[Any]) -> None:
        """Nobody waits for the worker any more: it is dead, or its server is."""
        self._alone.append((job_id, process, work))
        if not process.died.is_set():
            self.haunted.add(job_id)

    def is_touched(self, job_id: str) -> bool:
        """Whether work on a job is or may be under way."""
        alone = any(
            one == job_id and not (work.done() or process.died.is_set())
            for one, process, work in self._alone
        )
        return alone or any(turn.task.job_id == job_id for turn in self.turns)

    @property
    def frozen(self) -> list[WorkerProcess]:
        """Every worker that stands still, those of dead servers too."""
        under_way = [turn.process for turn in self.turns if turn.process is not None]
        return [one for one in (*under_way, *(one for _, one, _ in self._alone)) if one.is_frozen]

    # What is done to it

    @property
    def leader(self) -> Server | None:
        """Who drives, with the lease, and with a database."""
        for server in self.servers:
            if server.drives and self.is_valid(server):
                return server
        return None

    def start_server(self) -> Server:
        used = [server.database for server in self.servers]
        free = next(one for one in self.databases if one not in used)
        server = Server(self, free)
        self.servers.append(server)
        return server

    def bring_databases_back(self) -> None:
        for database in self.databases:
            database.away = False
            database.answers_to_lose = 0

    async def expire_lease(self) -> None:
        """Let the time pass after which a silent driver is replaced, and wait for the successor."""
        candidates = [one for one in self.servers if one.driver is None and not one.database.away]
        held = leases.c.holder.is_not(None)
        expired = update(leases).where(held).values(expires_at=LONG_AGO)
        await self.front.write(lambda connection: connection.execute(expired))
        if candidates:
            await until(lambda: any(one.driver is not None for one in candidates))

    async def settle(self) -> None:
        """Wait until every server has seen what there is, and nothing moves any more."""
        seen = [(one, one.work, one.work.looks_begun) for one in self.servers if one.work]
        self.wake()

        def has_seen(server: Server, work: WatchedWork, looks: int) -> bool:
            return server.work is not work or not server.drives or work.look_ended > looks

        await until(lambda: all(itertools.starmap(has_seen, seen)))
        await until(lambda: all(one.is_still for one in self.servers if one.drives))
        await until(
            lambda: all(
                work.done() or one.died.is_set() or one.is_frozen for _, one, work in self._alone
            )
        )

    def wake(self) -> None:
        """Tell every driver that something has changed, as the API of its process does."""
        for server in self.servers:
            if server.driver is not None:
                server.driver.wake()

    # What somebody who only reads the file sees of it, at any time

    def progress(self, job_id: str) -> Progress:
        (row,) = self._read(select(*rows.PROGRESS_COLUMNS).where(jobs.c.id == job_id))
        return rows.to_progress(row, datetime.now(UTC))

    def log(self, job_id: str) -> list[LogEntry]:
        found = self._read(
            select(logs).join(jobs).where(jobs.c.id == job_id).order_by(logs.c.position)
        )
        return [rows.to_log_entry(row) for row in found]

    def left_of(self, job_id: str) -> list[KeyRange]:
        """What is left of the job's ranges."""
        query = select(ranges).join(jobs).where(jobs.c.id == job_id, ranges.c.done.is_(False))
        return [
            KeyRange(row.start_after, row.end_at).after(row.cursor)
            for row in self._read(query.order_by(ranges.c.id))
        ]

    def has_been_cut(self, job_id: str) -> bool:
        """Whether the job has had more than one range."""
        query = select(ranges.c.id).join(jobs).where(jobs.c.id == job_id)
        return len(self._read(query)) > 1

    def is_empty(self) -> bool:
        """Whether no job has left any row."""
        tables = (jobs, job_keys, ranges, uploads, upload_parts, logs)
        return not any(self._read(select(table).limit(1)) for table in tables)

    def _read(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        with self._reader.connect() as connection:
            return connection.execute(query).all()

    async def reset(self) -> None:
        """Make the world what it was in the beginning, when all servers are dead."""
        for _, process, work in self._alone:
            process.buried.set()
            process.thawed.set()
            work.cancel()
        await asyncio.gather(*(work for _, _, work in self._alone), return_exceptions=True)
        await self.front.write(_empty)
        for memory in (self.buckets, self.signers, self.disturbed, self.haunted, self.quiet):
            memory.clear()
        self._alone.clear()
        self.violations.clear()


def _empty(connection: Connection) -> None:
    connection.execute(delete(jobs))
    connection.execute(update(leases).values(holder=None, expires_at=None))
