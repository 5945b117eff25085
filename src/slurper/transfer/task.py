"""What the driver sends a worker and what comes back: plain values, cheap to pickle.

A task is a function: `run(RangeTask) -> RangeReport`, and for what is too large for one task
`run(PartsTask) -> PartsReport`. It holds no state, so running it again from the same cursor, or for
the same parts, is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from slurper.job.model import Counts, JobCapabilities, JobOptions, LogType, Whole
from slurper.objectstore.base import ObjectMeta, Part, StoreAddress
from slurper.objectstore.dialects import KeyOrder
from slurper.planning.keyspace import KeyRange
from slurper.planning.parts import SourceSum


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
    budget_seconds: float = 8.0
    """No object is begun after this; objects under way are finished."""
    expected_keys: int | None = None
    """About so many keys the task will settle: as many as the one before. None: nobody knows. It
    lists no more than that in advance, for what a task lists beyond its end is listed in vain."""
    wanted_pieces: int = 1
    """Into so many pieces what is left of the slice may be cut, so that others can work on it too.
    A task that finds where to cut ends early."""
    share: Share | None = None
    """None: the job has no limits, and nothing is paced."""
    only_counts: bool = False
    """Nothing is copied: the source is listed, and the report says how much it holds."""
    gathers: bool = False
    """Nothing is copied: the source, which has no order, is listed, and the report names its keys.
    The slice then begins after the token of a page, in place of a key."""

    @property
    def identity(self) -> tuple[str, int]:
        """What the task works on: the same for every task of a range."""
        return "range", self.range_id


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunUpload:
    """What a store has said of a multipart upload when it began it, and how it is cut."""

    upload_id: str
    part_size: int
    whole_checked: bool
    """The store has promised to check the whole object when the upload is completed."""
    begun_at: datetime
    last_modified: datetime | None
    """Of the version that is copied, as its parts show it: a listing may be more exact. None: the
    store tells none, or another version might have the same."""
    source_sum: SourceSum | None = None
    """The source's checksum of this version, compared before the upload is completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A large object in progress, between its listing and its outcome. It survives restarts."""

    id: int
    meta: ObjectMeta
    """The version that is copied."""
    found_at: datetime
    """When the commit that found the object was made; no work on it is older."""
    attempt: int = 1
    """How often the object has been begun; each time with a multipart upload of its own."""
    begun: BegunUpload | None = None
    """None: no task has reported that it began an upload."""
    seen: str = ""
    """The checksum that the parts of the last attempt gave instead of the source's."""

    @property
    def generation(self) -> tuple[int, str | None]:
        """What a report was made for: it counts only while this is the same."""
        return self.attempt, None if self.begun is None else self.begun.upload_id


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsTask:
    """Copy parts of a large object until they, or the time budget, are used up.

    The first task of an object begins the upload; one that brings the last missing part completes
    it.
    """

    job_id: str
    upload: Upload
    source: StoreAddress
    target: StoreAddress
    prefix: str = ""
    sample: tuple[str, ...] = ()
    """Some of the job's explicit keys, if it has any: may they be read when this object is denied?
    """
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)
    numbers: tuple[int, ...] | None = None
    """The parts to copy, which no other task has. None, with a new upload: every part."""
    done: tuple[Part, ...] | None = None
    """The parts that are at the target, in order, if `numbers` are all others, so that this task
    may complete the upload; None: it may not."""
    replayed_since: datetime | None = None
    """As for a range: set when a task for this object may have been lost."""
    swept_until: datetime | None = None
    """Set when the job was aborted: nothing is copied. The upload is aborted, and so are those that
    were begun for its key between `replayed_since` and then, when the last work had ended."""
    budget_seconds: float = 8.0
    """No part is begun after this; parts under way are finished."""
    share: Share | None = None
    """As for a range."""

    @property
    def identity(self) -> tuple[str, int]:
        """What the task works on: the same for every task of an upload."""
        return "upload", self.upload.id


Task = RangeTask | PartsTask


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
class Gathered:
    """Keys of a source that lists in no order."""

    keys: tuple[str, ...]
    """Each once; some may have been reported before."""
    rows: int
    """How many were listed since the listing began, or this task did. A page without any is one."""
    anew: bool
    """The listing has begun anew, as the store does not take the token any more."""
    finished: bool
    """It has come to its end."""


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
    large: tuple[ObjectMeta, ...] = ()
    """Objects up to `cursor` that are too large for a range task. They are not counted; the commit
    makes an `Upload` of each."""
    events: tuple[ObjectEvent, ...] = ()
    halt: Halt | None = None
    order: KeyOrder = KeyOrder.BYTES
    """The order in which the source lists, and so the cursor moves."""
    disorder: str = ""
    """How it was found that the source does not list in the order that the task was told."""
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
    found: JobCapabilities = field(default_factory=JobCapabilities)
    """What the stores were found to do that the task was not told."""
    counted: Whole | None = None
    """What a task that only counts has found in `(started_after, cursor]`."""
    gathered: Gathered | None = None
    """What a task that gathers has found. The cursor is then a token."""

    @property
    def moved_bytes(self) -> int:
        """What the task copied."""
        return self.counts.transferred_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsReport:
    """What a task did for a large object, or how that ended.

    At most one of `restarted` and an outcome is given; with either, `begun` and `parts` mean
    nothing any more.
    """

    job_id: str
    upload: Upload
    """As the task had it: the commit checks that it still is of this generation."""
    begun: BegunUpload | None = None
    """The upload that this task has begun."""
    parts: tuple[Part, ...] = ()
    """Finished by this task."""
    restarted: ObjectMeta | None = None
    """The object is begun again, in this version: its upload is gone, or its source has changed."""
    seen: str = ""
    """With `restarted`: why, if the parts gave another checksum than the source tells."""
    counts: Counts = field(default_factory=Counts)
    """Of one object when it is settled, else of none."""
    events: tuple[ObjectEvent, ...] = ()
    halt: Halt | None = None
    retries: int = 0
    attempts: int = 0
    """Parts that were begun again, and the object if it was."""
    throttled: int = 0
    source: Traffic = Traffic()
    target: Traffic = Traffic()
    seconds: float = 0.0
    owed_seconds: float = 0.0
    workers: int | None = None
    found: JobCapabilities = field(default_factory=JobCapabilities)

    @property
    def settled(self) -> bool:
        """The object has its outcome, and its upload is over."""
        return self.counts.objects > 0

    @property
    def moved_bytes(self) -> int:
        """What the task copied of the object, which counts only when it is settled."""
        return sum(part.size for part in self.parts)


Report = RangeReport | PartsReport
