"""How many rows a job may have in the database, so that no store and no tenant can fill the disk.

A source may list for ever. Each object that is not copied is a row of the log, and each key that is
gathered is a row too. A job that has too many pauses, and its log says why. Objects that were
settled by then are counted: nothing is lost, and the job can go on with higher bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from slurper.job.model import LogType
from slurper.transfer.task import Halt

if TYPE_CHECKING:
    from slurper.database.job_row import LockedJob
    from slurper.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the settings allow one job."""

    log_entries: float = math.inf
    gathered_keys: float = math.inf

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The bounds that are set."""
        return cls(log_entries=settings.job_log_entries, gathered_keys=settings.job_gathered_keys)

    def problem(self, job: LockedJob) -> Halt | None:
        """Why a job that is not done must not go on; None: it may."""
        if job.log_entries >= self.log_entries:
            return _full(
                f"the log of the job has {job.log_entries:,} entries, as many as "
                "SLURPER_JOB_LOG_ENTRIES allows; see in it why so many objects were not copied. "
                "If they are to be left out all the same, raise SLURPER_JOB_LOG_ENTRIES"
            )
        if job.gathered_keys >= self.gathered_keys:
            return _full(
                f"the source lists in no order, and {job.gathered_keys:,} of its keys were "
                "gathered, as many as SLURPER_JOB_GATHERED_KEYS allows; if the bucket is that "
                "large, raise SLURPER_JOB_GATHERED_KEYS"
            )
        return None


UNBOUNDED = Bounds()


def _full(text: str) -> Halt:
    message = f"{text}, start the service again, and resume the job; or abort the job"
    return Halt(log_type=LogType.MIGRATION_ERROR, message=message)
