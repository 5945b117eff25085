"""At most one process holds a lease. One that has lost it can write nothing any more."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Self

import pytest

from slurper import errors
from slurper.database import clock, housekeeping
from slurper.database import connection as connection_module
from slurper.database import work as work_module
from slurper.database.connection import Database
from slurper.database.holders import Holder
from slurper.database.leases import Lease, LeaseStore, check, leased_writes
from slurper.database.store import JobStore
from slurper.database.work import WorkStore
from slurper.job.lifecycle import Command
from slurper.job.model import Counts, JobStatus
from slurper.planning.keyspace import KeyRange
from tests.unit.database import values
from tests.unit.database.values import ACCOUNT

LONG = 3600.0
SHORT = 0.05
FAR_AWAY = Holder(4711, "elsewhere", "another-boot/1", "1")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def here(database: Database) -> LeaseStore:
    return LeaseStore(database)


@pytest.fixture
def elsewhere(database: Database) -> LeaseStore:
    """The leases as a process on another machine sees them."""
    return LeaseStore(database, FAR_AWAY)


async def _taken(leases: LeaseStore, seconds: float = LONG, *, name: str = "x") -> Lease:
    """Take the lease, as soon as that is possible."""
    while True:
        if (lease := await leases.acquire(name, seconds)) is not None:
            return lease
        await asyncio.sleep(0.01)


async def _is_good(database: Database, lease: Lease) -> bool:
    try:
        await database.write(lambda connection: check(connection, lease))
    except errors.LeaseLost:
        return False
    return True


async def test_one_holds_a_lease_until_it_is_released(
    database: Database, here: LeaseStore, elsewhere: LeaseStore
) -> None:
    assert await here.holder("x") is None
    lease = await here.acquire("x", LONG)
    assert lease == Lease(name="x", token=1)
    assert await elsewhere.holder("x") == Holder.this_process()
    assert await elsewhere.acquire("x", LONG) is None
    assert await here.acquire("x", LONG) is None, "not even to the same process again"
    assert await _is_good(database, lease)
    await here.release(lease)
    assert await here.holder("x") is None
    assert not await _is_good(database, lease), "what was released is void at once"
    with pytest.raises(errors.LeaseLost, match="held by nobody now"):
        await here.renew(lease, LONG)
    later = await elsewhere.acquire("x", LONG)
    assert later is not None
    assert later.token > lease.token


async def test_leases_of_other_names_are_other_leases(here: LeaseStore) -> None:
    assert await here.acquire("x", LONG)
    assert await here.holder("y") is None
    assert await here.acquire("y", LONG)


async def test_what_has_expired_can_be_taken_and_its_holder_is_told_by_whom(
    database: Database, here: LeaseStore, elsewhere: LeaseStore
) -> None:
    lease = await _taken(elsewhere, SHORT)
    later = await _taken(here)
    assert later.token == lease.token + 1
    assert not await _is_good(database, lease)
    with pytest.raises(errors.LeaseLost, match=f"held by process {Holder.this_process().pid}"):
        await elsewhere.renew(lease, LONG)
    await elsewhere.release(lease)
    assert await _is_good(database, later), "to release what was lost takes nothing from anybody"


async def test_what_has_expired_is_kept_while_nobody_else_wants_it(
    database: Database, elsewhere: LeaseStore
) -> None:
    """A database that was away for long must not cost the work done meanwhile."""
    lease = await _taken(elsewhere, SHORT)
    await asyncio.sleep(2 * SHORT)
    assert await elsewhere.holder("x") is None
    assert await _is_good(database, lease)
    await elsewhere.renew(lease, LONG)
    assert await elsewhere.holder("x") == FAR_AWAY


async def test_renewing_puts_the_end_off(here: LeaseStore, elsewhere: LeaseStore) -> None:
    lease = await _taken(elsewhere, SHORT)
    await elsewhere.renew(lease, LONG)
    await asyncio.sleep(2 * SHORT)
    assert await here.acquire("x", LONG) is None


async def test_of_many_at_once_one_gets_it(database_url: str) -> None:
    databases = await asyncio.gather(*(Database.open(database_url) for _ in range(4)))
    stores = [LeaseStore(one) for one in databases for _ in range(5)]
    taken = await asyncio.gather(*(one.acquire("x", LONG) for one in stores))
    assert [one.token for one in taken if one is not None] == [1]
    for one in databases:
        await one.close()


async def test_tokens_only_grow(here: LeaseStore, elsewhere: LeaseStore) -> None:
    tokens = []
    for number in range(12):
        store = (here, elsewhere)[number % 2]
        lease = await _taken(store, 0.001)
        tokens.append(lease.token)
        if number % 3 == 0:
            await store.release(lease)
    assert tokens == sorted(set(tokens))


async def test_a_lease_does_not_change_hands_under_a_transaction_that_checked_it(
    database: Database, here: LeaseStore, elsewhere: LeaseStore
) -> None:
    lease = await _taken(elsewhere, 0.001)
    async with values.held(database, lambda connection: check(connection, lease)):
        taking = asyncio.create_task(_taken(here))
        await asyncio.sleep(0.1)
        assert not taking.done()
    assert (await taking).token == lease.token + 1


async def test_a_holder_that_stops_in_a_transaction_does_not_keep_a_server_waiting(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("a process that stops while it writes keeps the file locked")
    monkeypatch.setattr(connection_module, "BUSY_SECONDS", 0.2)
    stopped, other = await Database.open(database_url), await Database.open(database_url)
    lease = await _taken(LeaseStore(stopped, FAR_AWAY), 0.001)
    taken: list[Lease] = []

    async def stop_in_a_transaction() -> None:
        async with values.held(stopped, lambda connection: check(connection, lease)):
            taken.append(await _taken(LeaseStore(other)))

    with pytest.raises(errors.DatabaseUnavailable):
        await stop_in_a_transaction()
    assert [one.token for one in taken] == [lease.token + 1]
    await stopped.close()
    await other.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a lease must expire")
async def test_the_lease_of_a_killed_process_is_free_at_once(
    database_url: str, here: LeaseStore
) -> None:
    with _child(database_url, "hold") as child:
        assert _says(child) == "1"
        assert await here.acquire("driver", LONG) is None
        child.kill()
        child.wait()
        lease = await here.acquire("driver", LONG)
    assert lease == Lease(name="driver", token=2)


async def test_the_clock_is_the_databases(
    database: Database,
    here: LeaseStore,
    elsewhere: LeaseStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a server, machines whose clocks differ agree on what has expired."""
    if database._engine.dialect.name == "sqlite":
        pytest.skip("all processes have this machine's clock")
    await _taken(elsewhere, 60)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(days=1)

    monkeypatch.setattr(clock, "datetime", Wrong)
    assert await here.acquire("x", LONG) is None


# Every write of a driver


async def test_a_driver_that_was_replaced_changes_nothing(store: values.Store) -> None:
    job, ended, doomed = (values.job() for _ in range(3))
    work = await values.create(store, job)
    for one in (ended, doomed):
        await values.create(store, one)
        await values.abort(store, one)
    unswept = values.job()
    await values.create(store, unswept)
    await store.apply(ACCOUNT, unswept.id, Command.ABORT)
    replaced = store.work
    leases = LeaseStore(store.database)
    await leases.release(store.lease)
    lease = await leases.acquire("driver", LONG)
    assert lease is not None
    report = values.report(job, work, "m", transferred=1, failed=("k",))
    with pytest.raises(errors.LeaseLost):
        await replaced.commit(report, values.now())
    with pytest.raises(errors.LeaseLost):
        await values.housekeeping(replaced).erase_secrets(values.now() + timedelta(days=9999))
    with pytest.raises(errors.LeaseLost):
        await replaced.swept(unswept.id)
    with pytest.raises(errors.LeaseLost):
        await replaced.sweep_failed(unswept.id, max_failures=1, entry=values.started(unswept))
    assert [one.job.id for one in await replaced.unswept()] == [unswept.id]
    assert (await store.progress(ACCOUNT, job.id)).counts == Counts()
    assert len(await store.logs(ACCOUNT, job.id, limit=50, offset=0)) == 1
    store.work = WorkStore(store.database, lease)
    assert (await store.work.commit(report, values.now())).applied
    assert (
        await values.housekeeping(store.work).erase_secrets(values.now() + timedelta(days=9999))
        == 2
    )


def test_no_write_of_a_driver_goes_past_the_check() -> None:
    """`leased_writes` is the only way of their modules to a transaction that writes."""
    for module in (work_module, housekeeping):
        source = inspect.getsource(module)
        assert "database.write" not in source
        assert re.findall(r"\bwrites\(.*|@writes", source) == []
    source = inspect.getsource(leased_writes)
    assert re.findall(r"\bwrites\(.*|@writes", source) == ["writes(checked)"]
    assert "check(connection, store.lease)" in source


async def test_a_driver_that_was_stopped_past_its_lease_cannot_commit(
    store: values.Store, database_url: str
) -> None:
    """SIGSTOP, takeover, SIGCONT: as when a virtual machine is suspended."""
    job = values.job()
    await values.create(store, job)
    leases = LeaseStore(store.database)
    await leases.release(store.lease)
    with _child(database_url, "commit", job.id) as child:
        assert _says(child) == "committed"
        lease = await _taken(leases, name="driver")
        child.send_signal(signal.SIGCONT)
        last_words = _says(child)
    assert last_words.startswith("LeaseLost: the lease 'driver' has changed hands")
    assert str(Holder.this_process()) in last_words
    assert (await store.progress(ACCOUNT, job.id)).counts == Counts(objects=1, transferred=1)
    (left,) = await WorkStore(store.database, lease).running_jobs()
    assert left.ranges[0].slice == KeyRange("00000001")


def _child(database_url: str, *arguments: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("lease_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), database_url, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _says(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, "the process ended"
    return line.strip()


async def test_a_store_for_requests_needs_no_lease(database_url: str, store: values.Store) -> None:
    """What a standby's API does while another process drives."""
    standby = await JobStore.open(database_url)
    job = values.job()
    await standby.create_job(job, values.SEALED, max_active=9, entry=values.started(job))
    await standby.apply(ACCOUNT, job.id, Command.PAUSE)
    assert (await store.progress(ACCOUNT, job.id)).status is JobStatus.PAUSED
    await standby.close()
