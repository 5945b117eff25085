"""One process leads, and another takes its place when it stops, is lost or falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slurper import errors
from slurper.database.connection import Database
from slurper.database.holders import Holder
from slurper.database.leases import Lease, LeaseStore
from slurper.driver import leadership as leadership_module
from slurper.driver.leadership import DRIVER, Leadership, Tenure

LONG = 3600.0
SHORT = 0.15
CALM = 1.0
"""A lease that is renewed in time on a busy machine too."""
FAR_AWAY = Holder(4711, "elsewhere", "another-boot/1", "1")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership_module, "STANDBY_SECONDS", 0.01)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(f"sqlite:///{tmp_path / 'slurper.db'}")
    yield opened
    await opened.close()


@pytest.fixture
def here(database: Database) -> LeaseStore:
    return LeaseStore(database)


@pytest.fixture
def elsewhere(database: Database) -> LeaseStore:
    return LeaseStore(database, FAR_AWAY)


class Standby:
    """A process that stands by, and holds the lease until told to let go once it has it."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self.tenure: Tenure | None = None
        self.leads = asyncio.Event()
        self.let_go = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._leadership.hold() as self.tenure:
            self.leads.set()
            await self.let_go.wait()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_standby_follows_at_once_when_the_leader_stops(
    here: LeaseStore, elsewhere: LeaseStore
) -> None:
    async with Leadership(here, LONG).hold() as tenure:
        standby = Standby(Leadership(elsewhere, LONG))
        await asyncio.sleep(0.1)
        assert not standby.leads.is_set()
        assert not tenure.lost.done()
    await standby.leads.wait()
    assert standby.tenure is not None
    assert standby.tenure.lease.token > tenure.lease.token
    assert await here.holder(DRIVER) == FAR_AWAY
    await standby.end()
    assert await here.holder(DRIVER) is None


async def test_a_lease_is_renewed_for_as_long_as_it_is_held(
    here: LeaseStore, elsewhere: LeaseStore
) -> None:
    seconds = 10 * SHORT  # a busy machine may not renew a shorter one in time
    async with Leadership(elsewhere, seconds).hold() as tenure:
        for _ in range(10):
            await asyncio.sleep(seconds / 5)
            assert await here.acquire(DRIVER, LONG) is None
        assert not tenure.lost.done()


async def test_a_standby_follows_when_the_leader_falls_silent(
    here: LeaseStore, elsewhere: LeaseStore
) -> None:
    assert await elsewhere.acquire(DRIVER, SHORT)
    async with Leadership(here, LONG).hold() as tenure:
        assert tenure.lease.token == 2


async def test_a_leader_that_was_replaced_is_told(here: LeaseStore, elsewhere: LeaseStore) -> None:
    async with Leadership(elsewhere, SHORT).hold() as tenure:
        taken = await _take_away(here, tenure)
        await asyncio.wait([tenure.lost])
        # The leader may look between the release and what follows.
        with pytest.raises(errors.LeaseLost, match=r"held by (process \d+ on|nobody)"):
            tenure.lost.result()
    assert await here.holder(DRIVER) == Holder.this_process(), "its end frees nobody else's lease"
    await here.renew(taken, LONG)


async def test_a_database_that_is_away_costs_nobody_the_lease(
    here: LeaseStore, elsewhere: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = errors.DatabaseUnavailable("the database cannot be reached")
    renew, failed = elsewhere.renew, asyncio.Event()

    async def renew_late(lease: Lease, seconds: float) -> None:
        if await here.holder(DRIVER) is not None:
            failed.set()
            raise away
        await renew(lease, seconds)

    monkeypatch.setattr(elsewhere, "renew", renew_late)
    async with Leadership(elsewhere, SHORT).hold() as tenure:
        await failed.wait()
        while await here.holder(DRIVER) is not None:  # noqa: ASYNC110 - of another process's
            await asyncio.sleep(0.01)
        while await here.holder(DRIVER) is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert not tenure.lost.done()


async def test_a_standby_waits_for_a_database_that_is_away(
    here: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failures = here.holder, iter([errors.DatabaseUnavailable("locked")] * 3)

    async def read_late(name: str) -> Holder | None:
        for error in failures:
            raise error
        return await read(name)

    monkeypatch.setattr(here, "holder", read_late)
    async with Leadership(here, LONG).hold() as tenure:
        assert tenure.lease.token == 1
    assert list(failures) == []


async def test_a_standby_can_be_ended(here: LeaseStore, elsewhere: LeaseStore) -> None:
    async with Leadership(here, LONG).hold():
        standby = Standby(Leadership(elsewhere, LONG))
        await asyncio.sleep(0.05)
        await standby.end()
        assert standby.task.cancelled()
    assert await elsewhere.holder(DRIVER) is None


async def test_the_fault_of_a_leader_frees_the_lease(here: LeaseStore) -> None:
    with contextlib.suppress(ZeroDivisionError):
        async with Leadership(here, LONG).hold():
            raise ZeroDivisionError
    assert await here.holder(DRIVER) is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere its fate is unknown")
async def test_who_does_not_stand_by_is_refused_at_once_by_a_leader_that_lives(
    database: Database, here: LeaseStore
) -> None:
    async with Leadership(here, LONG).hold():
        with pytest.raises(errors.LeaseHeld) as caught:
            await _hold_briefly(Leadership(LeaseStore(database), LONG))
    assert caught.value.holder == str(Holder.this_process())


async def test_who_does_not_stand_by_waits_for_a_leader_that_may_be_dead(
    here: LeaseStore, elsewhere: LeaseStore
) -> None:
    assert await elsewhere.acquire(DRIVER, SHORT)
    await _hold_briefly(Leadership(here, LONG))
    async with Leadership(elsewhere, CALM).hold():
        with pytest.raises(errors.LeaseHeld, match="held by process 4711 on elsewhere"):
            await _hold_briefly(Leadership(here, 2 * CALM))


async def _hold_briefly(leadership: Leadership) -> None:
    async with leadership.hold(stand_by=False):
        pass


async def _take_away(leases: LeaseStore, tenure: Tenure) -> Lease:
    """Do what another process does that takes over, without the wait for it."""
    await leases.release(tenure.lease)
    lease = await leases.acquire(tenure.lease.name, LONG)
    assert lease is not None
    return lease
