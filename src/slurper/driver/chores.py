"""What a driver does beside copying: sweeps, counts, and periodic housekeeping."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

from slurper import errors, telemetry
from slurper.database.housekeeping import Housekeeping
from slurper.database.work import JobWork
from slurper.driver.counter import Counter
from slurper.driver.sweeper import Sweeper
from slurper.driver.turn import Means

HOUSEKEEPING_SECONDS = 60.0

_log = telemetry.get_logger(__name__)


class Chores:
    """All chores of a driver. Each kind does one thing at a time: there is no hurry."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._housekeeping = Housekeeping(means.store.database, means.store.lease)
        self._sweeper = Sweeper(means)
        self._counter = Counter(means)
        self._housekeeping_at = 0.0
        self._due: list[Callable[[], Awaitable[bool]]] = []
        """Periodic work that is due. Each does one piece, and says whether there may be more."""

    def update(
        self, running: Sequence[JobWork], unswept: Sequence[JobWork], *, busy: Collection[str]
    ) -> None:
        """Take in what the database said about jobs; those in `busy` have tasks."""
        self._sweeper.update(unswept, busy=busy)
        self._counter.update(running)

    def begin(self, now: float) -> None:
        """Begin the chores that are due at the monotonic time `now`."""
        self._sweeper.begin(now)
        self._counter.begin(now)

    def next_at(self, now: float) -> float | None:
        """The monotonic time after `now` when the next waiting chore may begin, if any."""
        times = (self._sweeper.next_at(now), self._counter.next_at(now))
        return min((one for one in times if one is not None), default=None)

    async def stop(self) -> None:
        """Abandon the chores under way."""
        await self._sweeper.stop()
        await self._counter.stop()

    async def housekeep(self) -> None:
        """Do one piece of the work that commands have left, and one of periodic work that is due.

        When there may be more, the driver is woken, and it comes back here after its other work.
        """
        try:
            is_left = await self._housekeeping.tidy()
            if time.monotonic() >= self._housekeeping_at:
                self._housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
                self._due = [self._erase_secrets, self._retire, self._clear, self._save_space]
                self._due += [self._forget_answers]
            is_left = await self._do_a_piece() or is_left
            if is_left:
                self._means.wake()
        except errors.LeaseLost as error:
            self._means.lease_lost(error)
        except Exception as error:
            _log.error("housekeeping failed; tried again", error=str(error))

    async def _do_a_piece(self) -> bool:
        """Do the first piece of work that is due; False when no more is."""
        while self._due:
            chore = self._due.pop(0)  # so that a chore that fails keeps no other from being done
            if await chore():
                self._due.insert(0, chore)
                return True
        return False

    async def _erase_secrets(self) -> bool:
        """Erase the secrets of jobs that ended long enough ago (design rule 11)."""
        retention = timedelta(seconds=self._means.settings.secret_retention_seconds)
        erased = await self._housekeeping.erase_secrets(datetime.now(UTC) - retention)
        if erased:
            _log.info("secrets of ended jobs erased", jobs=erased)
        return erased > 0

    async def _forget_answers(self) -> bool:
        return await self._housekeeping.forget_answers() > 0

    async def _retire(self) -> bool:
        """Delete jobs that ended long enough ago, if they are not kept for ever."""
        days = self._means.settings.job_retention_days
        if days is None:
            return False
        now = datetime.now(UTC)
        deleted = await self._housekeeping.retire(now - timedelta(days=days), now)
        if deleted:
            _log.info("jobs that ended long ago deleted", jobs=deleted)
        return deleted > 0

    async def _clear(self) -> bool:
        return await self._housekeeping.clear(datetime.now(UTC))

    async def _save_space(self) -> bool:
        if await self._housekeeping.give_back():
            return True
        await self._housekeeping.fold_log()
        return False
