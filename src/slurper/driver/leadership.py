"""Only the process that holds the lease drives. Others stand by and take its place.

    async with leadership.hold() as tenure:
        driver = Driver(WorkStore(database, tenure.lease), ...)
        ...  # until done, or until `tenure.lost` ends

The holder renews the lease each time a third of its duration has passed. A standby takes the lease
when the holder has released it (a clean stop), when the holder is known to be dead (killed, on the
same machine), or when the lease has expired (anything else). A holder that was replaced without
noticing cannot write: every transaction of a driver checks the lease (`database.leases`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from slurper import errors, telemetry
from slurper.database.holders import Holder
from slurper.database.leases import Lease, LeaseStore

DRIVER = "driver"
"""The name of the lease to drive the jobs of a database."""

STANDBY_SECONDS = 0.5
"""How often a standby checks whether it can take the lease. A check reads one row."""

_log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tenure:
    """One time of holding the lease."""

    lease: Lease
    lost: asyncio.Task[None]
    """Ends only when the lease cannot be held any longer, with `LeaseLost` as its exception."""
    since: datetime
    """No other process has driven jobs that were created after this time."""


class Leadership:
    """One process's claim to a lease."""

    def __init__(self, leases: LeaseStore, seconds: float, *, name: str = DRIVER) -> None:
        """Prepare; the lease expires when its holder has not renewed it for `seconds`."""
        self._leases = leases
        self._seconds = seconds
        self._name = name

    @asynccontextmanager
    async def hold(self, *, stand_by: bool = True) -> AsyncIterator[Tenure]:
        """Wait until the lease can be taken, and hold it until the block ends.

        Without `stand_by` it waits only for a holder that may be dead, until that is certain. The
        block is not interrupted when the lease is lost: it must watch `Tenure.lost`.

        Raises:
            LeaseHeld: another process holds the lease, and `stand_by` is off.
        """
        lease = await self._take(stand_by=stand_by)
        since = datetime.now(UTC)
        _log.info("lease taken", lease=self._name, token=lease.token)
        lost = asyncio.create_task(self._keep(lease), name=f"lease {self._name}")
        try:
            yield Tenure(lease, lost, since)
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)
            await self._release(lease)

    async def _take(self, *, stand_by: bool) -> Lease:
        expired_at = time.monotonic() + self._seconds
        known: Holder | None = None
        while True:
            lease, holder = await self._try_to_take()
            if lease is not None:
                return lease
            if holder is not None and not stand_by:
                _refuse(self._name, holder, outlived=time.monotonic() >= expired_at)
            if holder is not None and holder != known:
                _log.info("standing by", lease=self._name, holder=str(holder))
                known = holder
            await asyncio.sleep(min(STANDBY_SECONDS, self._seconds / 3))

    async def _try_to_take(self) -> tuple[Lease | None, Holder | None]:
        """Return the lease, or else its holder if that is known."""
        try:
            holder = await self._leases.holder(self._name)
            if holder is not None:
                return None, holder
            return await self._leases.acquire(self._name, self._seconds), None
        except errors.DatabaseUnavailable as error:
            _log.error("lease cannot be read; tried again", lease=self._name, error=str(error))
            return None, None

    async def _keep(self, lease: Lease) -> None:
        """Renew the lease again and again. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                await self._leases.renew(lease, self._seconds)
            except errors.DatabaseUnavailable as error:
                # While the database is away, no other process can take the lease. It remains ours
                # until another process has taken it.
                _log.error("lease cannot be renewed; tried again", error=str(error))

    async def _release(self, lease: Lease) -> None:
        try:
            await self._leases.release(lease)
        except errors.DatabaseUnavailable as error:
            _log.error("lease cannot be released; a standby waits for it", error=str(error))


def _refuse(name: str, holder: Holder, *, outlived: bool) -> None:
    """Raise LeaseHeld when the holder lives: we see its process, or it has renewed its lease."""
    if holder.lives or outlived:
        raise errors.LeaseHeld(f"the lease {name!r} is held by {holder}", holder=str(holder))
