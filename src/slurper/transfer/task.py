"""What the driver sends a worker and what comes back: plain values, cheap to pickle.

A task is a function: `run(RangeTask) -> RangeReport`. It holds no state, so running it again from
the same cursor is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from slurper.jobs.models import Counts, JobOptions, LogType, Whole
from slurper.objectstore.base import StoreAddress
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A task's share of its job's limits; None: no limit."""

    bytes_per_second: float | None = None
    requests_per_second: float | None = None
    credit_seconds: float = 0.0
    """How long the share has lain idle since the range's last task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTask:
    """Copy a slice of the key space until it, or the time budget, is used up."""

    job_id: str
    range_id: int
    source: StoreAddress
    target: StoreAddress
    slice: KeyRange
    """Still to do: begins at the range's committed cursor."""
    prefix: str = ""
    keys: tuple[str, ...] | None = None
    """Explicit keys of this slice, in order; None means list the source."""
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)
    replayed_since: datetime | None = None
    """Set when this slice may have been worked on before without a report. An object found at the
    target that is not older than this (target's clock) and of the listed size is taken as
    transferred by that earlier run, so that `overwrite=false` counts it right (rule 4)."""
    swept_until: datetime | None = None
    """Set when the job was aborted: nothing is copied, and uploads begun between `replayed_since`
    and then, when the last work on this slice had ended, are aborted."""
    budget_seconds: float = 8.0
    """No object is begun after this; objects under way are finished."""
    wanted_pieces: int = 1
    """Into so many pieces what is left of the slice may be cut, so that others can work on it too.
    A task that finds where to cut ends early."""
    share: Share | None = None
    """None: the job has no limits, and nothing is paced."""
    only_counts: bool = False
    """Nothing is copied: the source is listed, and the report says how much it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEvent:
    """An object that was not copied, and why."""

    key: str
    log_type: LogType
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why the slice cannot go on and the job must be paused (rule 7)."""

    log_type: LogType
    """`MIGRATION_ERROR` or `MIGRATION_ERROR_FAILED_CONTINUATION`."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a task asked of one store."""

    requests: int = 0
    """Sent, again ones included."""
    throttled: int = 0
    """Answers 503 SlowDown and 429 among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReport:
    """What a task settled. Everything in `(started_after, cursor]` is settled, nothing beyond."""

    job_id: str
    range_id: int
    started_after: str | None
    """The task's `slice.start_after`: the commit checks that it is still the range's cursor."""
    cursor: str | None
    finished: bool
    """The slice holds nothing after `cursor`."""
    counts: Counts
    events: tuple[ObjectEvent, ...] = ()
    halt: Halt | None = None
    order: KeyOrder = KeyOrder.BYTES
    """The order in which the source lists, and so the cursor moves."""
    boundaries: tuple[str, ...] = ()
    """Keys that cut what lies after `cursor`: each ends one piece and begins the next."""
    retries: int = 0
    """HTTP requests that were sent again (request level)."""
    attempts: int = 0
    """Objects that were begun again (object level)."""
    throttled: int = 0
    """Answers 503 SlowDown and 429."""
    source: Traffic = Traffic()
    target: Traffic = Traffic()
    seconds: float = 0.0
    """How long the task took."""
    owed_seconds: float = 0.0
    """By how long the task was ahead of its share: the range's next one begins no earlier.
    Negative: so long it was behind."""
    workers: int | None = None
    """How many processes had a task of the job when this one ended; None: nobody knows."""
    counted: Whole | None = None
    """What a task that only counts has found in `(started_after, cursor]`."""
