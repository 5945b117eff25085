"""A soak: a plan, its run, and the bounds that must have held."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.program import wait_until
from tests.servers.r2 import server as r2
from tests.soak.jobs import Failed, Stores, Tally, User, added
from tests.soak.service import TOKEN, Killer, Look, Service, Watcher, running

STORE_IDLE_SECONDS = 3.0
"""The minute of a worker, shortened."""
MOST_GROWTH_MIB = 32.0
MOST_MIB = 300.0
"""What a process may take in a soak with kills, where none lives for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done."""

    seed: int
    jobs: int | None = None
    """So many in all; None: as many as come into `seconds`."""
    seconds: float | None = None
    at_once: int = 8
    objects: int = 32
    """A job copies up to so many."""
    kill_seconds: float | None = None
    """A process is killed about this often; None: never."""
    limit: int = 256
    """Descriptors of each process of the service."""
    workers: int = 2
    database_url: str | None = None
    """None: SQLite."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    tally: Tally
    looks: Sequence[Look]
    kills: int
    seconds: float
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A line for people."""
        tally, control = self.tally, [one for one in self.looks if not one.is_worker]
        workers = [one for one in self.looks if one.is_worker]
        return (
            f"{tally.jobs:,} jobs with {tally.objects:,} objects were exact, in"
            f" {self.seconds:.0f} s, with {self.kills} kills and {tally.requests:,} requests;"
            f" service up to {max(one.resident_mib for one in control):.0f} MiB and"
            f" {max(one.descriptors for one in control)} descriptors,"
            f" workers {max(one.resident_mib for one in workers):.0f} MiB and"
            f" {max(one.descriptors for one in workers)}"
        )


def run(plan: Plan, folder: Path) -> Result:
    """Do what the plan says. Raises Failed: a bound did not hold."""
    chance = random.Random(plan.seed)  # noqa: S311 - repeatable
    with ExitStack() as stack:
        source, target = (stack.enter_context(r2.running()) for _ in range(2))
        stores = Stores.filled(source, target, plan.objects, chance)
        environment = {
            "SLURPER_ALLOW_HTTP": "true",
            "SLURPER_ALLOW_PRIVATE_ENDPOINTS": "true",
            "SLURPER_API_TOKEN": TOKEN,
            "SLURPER_DATA_DIR": str(folder / "data"),
            "SLURPER_DATABASE_URL": plan.database_url or "",
            "SLURPER_LEASE_SECONDS": "2",
            "SLURPER_MAX_CONCURRENT_JOBS": str(plan.at_once),
            "SLURPER_STORE_IDLE_SECONDS": str(STORE_IDLE_SECONDS),
            "SLURPER_TASK_SECONDS": "1",
            "SLURPER_WORKERS": str(plan.workers),
        }
        service = stack.enter_context(running(folder, environment, plan.limit))
        result = _played(plan, service, stores, chance)
        problems = [*result.tally.failures, *_problems(plan, result, service)]
        if problems:
            raise Failed(f"{result}\n" + "\n".join(problems[:20]))
        _make_another(plan, service, stores)
        _see_it_rest(service, (source, target))
        service.stop()
    return result


def _played(plan: Plan, service: Service, stores: Stores, chance: random.Random) -> Result:
    watcher = Watcher(service)
    killer = Killer(service, plan.kill_seconds, chance) if plan.kill_seconds else None
    users = [
        User(service, stores, f"{plan.seed}-{number}", is_killed=killer is not None)
        for number in range(plan.at_once)
    ]
    began = time.monotonic()
    watcher.start()
    if killer is not None:
        killer.start()
    try:
        _make_jobs(plan, users, began)
    finally:
        if killer is not None:
            killer.end()
        looks = watcher.end()
    kills = 0 if killer is None else killer.kills
    tally = added([user.tally for user in users])
    return Result(tally, looks, kills, time.monotonic() - began)


def _make_jobs(plan: Plan, users: Sequence[User], began: float) -> None:
    """Let each user make one job after the other, until there are enough or something failed."""
    numbers = iter(range(plan.jobs if plan.jobs is not None else 10**9))
    turn = threading.Lock()

    def use(user: User) -> None:
        while not any(one.tally.failures for one in users):
            if plan.seconds is not None and time.monotonic() - began > plan.seconds:
                return
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            user.job(number)

    threads = [threading.Thread(target=use, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _problems(plan: Plan, result: Result, service: Service) -> list[str]:
    """Which bounds did not hold."""
    problems = []
    if not result.tally.jobs:
        problems.append("no job was made")
    most = max(look.descriptors for look in result.looks)
    if most >= plan.limit - 8:
        problems.append(f"a process had {most} of {plan.limit} descriptors open")
    if "oo many open files" in service.output:
        problems.append("a process had no descriptor left, see its log")
    if plan.kill_seconds is None:
        problems += _growth(result)
    else:
        most_mib = max(look.resident_mib for look in result.looks)
        if most_mib > MOST_MIB:
            problems.append(f"a process took {most_mib:.0f} MiB")
    return problems


def _growth(result: Result) -> list[str]:
    """The processes whose memory has grown from the second quarter of the time to the last."""
    began, ended = result.looks[0].at, result.looks[-1].at
    quarter = (ended - began) / 4
    grown = []
    for pid in {look.pid for look in result.looks}:
        looks = [look for look in result.looks if look.pid == pid]
        early = [x.resident_mib for x in looks if quarter <= x.at - began < 2 * quarter]
        late = [x.resident_mib for x in looks if x.at - began >= 3 * quarter]
        if not early or not late:
            continue
        before, after = statistics.median(early), statistics.median(late)
        if after - before > MOST_GROWTH_MIB:
            grown.append(f"process {pid} has grown from {before:.0f} to {after:.0f} MiB")
    return grown


def _make_another(plan: Plan, service: Service, stores: Stores) -> None:
    """Make one more job, now that nothing is killed any more."""
    user = User(service, stores, f"{plan.seed}-last", is_killed=False)
    user.job(0)
    if user.tally.failures:
        raise Failed(user.tally.failures[0])


def _see_it_rest(service: Service, stubs: Sequence[r2.R2Stub]) -> None:
    """See that workers without a task soon have no connection and no store any more."""
    ports = {stub.server_address[1] for stub in stubs}
    wait_until(
        lambda: not any(_connected(one, ports) for one in service.workers()), "no connection"
    )

    def rest() -> bool:
        pids = {one.pid for one in service.workers()}
        told = {x["pid"]: x["open_stores"] for x in service.records() if "open_stores" in x}
        of_workers = [told[pid] for pid in pids & told.keys()]
        return bool(of_workers) and not any(of_workers)

    wait_until(rest, "no store to be open")


def _connected(process: psutil.Process, ports: set[int]) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    established = [one for one in connections if one.status == psutil.CONN_ESTABLISHED]
    return any(one.raddr.port in ports for one in established)
