"""What the driver sends a worker and what comes back: plain values, cheap to pickle.

A worker runs a task and gives its report. Each kind of task has a class here, which names the class
of its report. A task holds no state. So it is always safe to run it again from the same cursor, or
for the same parts.

    | task         | what a worker does                            | its report               |
    |--------------|-----------------------------------------------|--------------------------|
    | `RangeTask`  | copies a slice of the keys                    | `RangeReport`            |
    | `PartsTask`  | copies parts of a large object                | `PartsReport`            |
    | `GatherTask` | lists the keys of a source without an order   | `GatherReport`           |
    | `CountTask`  | counts what the source holds                  | `CountReport`            |
    | `SweepTask`  | removes an aborted job's uploads of an object | `Report`, with no result |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

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
    """How long the share was idle since the range's last task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunUpload:
    """What a store said of a multipart upload when it began it, and how the object is cut."""

    upload_id: str
    part_size: int
    whole_checked: bool
    """The store has promised to check the whole object when the upload is completed."""
    begun_at: datetime
    last_modified: datetime | None
    """The date of the version that is copied, as its parts show it: a listing may be more exact.
    None: the store tells none, or another version might have the same date."""
    source_sum: SourceSum | None = None
    """The source's checksum of this version, compared before the upload is completed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A large object in progress, between its listing and its outcome. It survives restarts."""

    id: int
    meta: ObjectMeta
    """The version that is copied."""
    found_at: datetime
    """When the commit was made that recorded the object. All work on it began later."""
    attempt: int = 1
    """How often the object has been begun. Each time it gets a new multipart upload."""
    begun: BegunUpload | None = None
    """None: no task has reported that it began an upload."""
    seen: str = ""
    """The checksum that the parts of the last attempt gave instead of the source's."""

    @property
    def generation(self) -> tuple[int, str | None]:
        """A report counts only while this is the same as when its task was made."""
        return self.attempt, None if self.begun is None else self.begun.upload_id


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
    """Requests sent, repeated ones included."""
    throttled: int = 0
    """Answers 503 SlowDown and 429 among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What every worker says of a task, whatever its kind."""

    job_id: str
    retries: int = 0
    """HTTP requests that were sent again (request level)."""
    throttled: int = 0
    """Answers 503 SlowDown and 429."""
    source: Traffic = Traffic()
    target: Traffic = Traffic()
    seconds: float = 0.0
    """How long the task took."""
    workers: int | None = None
    """How many processes had a task of the job when this one ended; None: unknown."""
    found: JobCapabilities = field(default_factory=JobCapabilities)
    """What was learnt about the stores that the task was not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReport(Report):
    """A report that moves its job forward: the driver commits it."""

    counts: Counts = field(default_factory=Counts)
    """Of the objects that were settled."""
    events: tuple[ObjectEvent, ...] = ()
    halt: Halt | None = None
    attempts: int = 0
    """Objects, or parts of one, that were begun again (object level)."""
    owed_seconds: float = 0.0
    """How long the task was ahead of its share. The next task for the same work waits so long.
    Negative: how long the task was behind."""

    @property
    def moved_bytes(self) -> int:
        """What the task copied."""
        return self.counts.transferred_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeReport(ProgressReport):
    """What a task settled. Everything in `(started_after, cursor]` is settled, nothing beyond."""

    range_id: int
    started_after: str | None
    """The task's `slice.start_after`: the commit checks that it is still the range's cursor."""
    cursor: str | None
    finished: bool = False
    """The slice holds nothing after `cursor`."""
    large: tuple[ObjectMeta, ...] = ()
    """Objects up to `cursor` that are too large for a range task. They are not counted; the commit
    makes an `Upload` of each."""
    order: KeyOrder = KeyOrder.BYTES
    """The order in which the source lists. The cursor moves in this order too."""
    disorder: str = ""
    """What showed that the source does not list in the order that the task was told."""
    boundaries: tuple[str, ...] = ()
    """Keys that cut what lies after `cursor`. Each ends one piece and begins the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsReport(ProgressReport):
    """What a task did for a large object, or the outcome of that object.

    At most one of `restarted` and an outcome is given. If one is, `begun` and `parts` do not
    matter. `counts` counts one object if it is settled, else none.
    """

    upload: Upload
    """As the task had it. The commit checks that its generation is still the same."""
    begun: BegunUpload | None = None
    """The upload that this task has begun."""
    parts: tuple[Part, ...] = ()
    """Finished by this task."""
    restarted: ObjectMeta | None = None
    """The object is begun again, in this version: its upload is gone, or its source has changed."""
    seen: str = ""
    """With `restarted`: the checksum that the parts gave, if it is not the source's."""

    @property
    def settled(self) -> bool:
        """The object has its outcome, and its upload is over."""
        return self.counts.objects > 0

    @property
    def moved_bytes(self) -> int:
        """What the task copied of the object. `counts` has its bytes only when it is settled."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherReport(ProgressReport):
    """Keys of a source that lists in no order. No object is settled."""

    range_id: int
    started_after: str | None
    """The token of the task: the commit checks that it is still the range's cursor."""
    cursor: str | None
    """The token to go on with. None: the listing has come to its end, or begins anew."""
    keys: tuple[str, ...]
    """Each once; some may have been reported before."""
    rows: int
    """Keys that this task listed; with `anew`, since it began anew. An empty page counts as one."""
    anew: bool
    """The listing has begun anew, because the store did not take the token any more."""
    finished: bool
    """The listing has come to its end. The objects are still to be copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountReport(Report):
    """How much the source holds between the task's `start_after` and `cursor`."""

    cursor: str | None
    finished: bool
    """The source holds nothing after `cursor`."""
    whole: Whole


TaskReport = TypeVar("TaskReport", bound=Report)
"""What a kind of task reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Generic[TaskReport]):
    """What every kind of task is told."""

    job_id: str
    source: StoreAddress
    target: StoreAddress
    prefix: str = ""

    @property
    def identity(self) -> tuple[str, int | str]:
        """What the task works on: the same for every task with the same work."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTask(Task[TaskReport]):
    """A task that ends when its time is used up, and is kept to its share of the job's limits."""

    budget_seconds: float = 8.0
    """Nothing is begun after this: no object, part or page. What is under way is finished."""
    share: Share | None = None
    """None: the job has no limits, and nothing is paced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTask(TimedTask[RangeReport]):
    """Copy a slice of the key space until it, or the time budget, is used up."""

    range_id: int
    slice: KeyRange
    """Still to do: begins at the range's committed cursor."""
    keys: tuple[str, ...] | None = None
    """Explicit keys of this slice, in order; None means list the source."""
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)
    replayed_since: datetime | None = None
    """Set when this slice may have been worked on before without a report. With `overwrite=false`,
    an object at the target may then be this job's own, if it is not older than this (target's
    clock) and has the listed size. It counts as transferred if its bytes are the same (rule 4)."""
    expected_keys: int | None = None
    """About how many keys the task will settle: as many as the task before it. None: unknown. The
    task lists about that many ahead, because the next task lists again what this one does not use.
    """
    wanted_pieces: int = 1
    """How many pieces the rest of the slice may be cut into, so that other tasks can work on it
    too. A task that finds where to cut ends early."""

    @property
    def identity(self) -> tuple[str, int | str]:
        """The range."""
        return "range", self.range_id


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsTask(TimedTask[PartsReport]):
    """Copy parts of a large object until they, or the time budget, are used up.

    The first task of an object begins the upload. The task that copies the last missing parts
    completes it.
    """

    upload: Upload
    sample: tuple[str, ...] = ()
    """Some of the job's explicit keys, if it has any. They are tried when this object is refused.
    """
    overwrite: bool = True
    options: JobOptions = field(default_factory=JobOptions)
    numbers: tuple[int, ...] | None = None
    """The parts to copy, which no other task has. None, with a new upload: every part."""
    done: tuple[Part, ...] | None = None
    """The parts that are at the target, in order, if `numbers` names all other parts. Then this
    task may complete the upload. None: it may not."""
    replayed_since: datetime | None = None
    """As for a range: set when a task for this object may have been lost."""

    @property
    def identity(self) -> tuple[str, int | str]:
        """The upload."""
        return "upload", self.upload.id


CopyTask = RangeTask | PartsTask


@dataclass(frozen=True, slots=True, kw_only=True)
class GatherTask(TimedTask[GatherReport]):
    """List a source that has no order, page by page, and report its keys. Nothing is copied."""

    range_id: int
    token: str | None
    """The token of the page to go on with: the range's committed cursor. None: the first page."""

    @property
    def identity(self) -> tuple[str, int | str]:
        """The range."""
        return "range", self.range_id


@dataclass(frozen=True, slots=True, kw_only=True)
class CountTask(TimedTask[CountReport]):
    """List the source and report how much it holds. Nothing is copied."""

    start_after: str | None

    @property
    def identity(self) -> tuple[str, int | str]:
        """The job's source."""
        return "count", self.job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTask(Task[Report]):
    """Abort the multipart uploads that an aborted job has left for a large object.

    These are the upload that is known, and those that were begun for its key between `since` and
    `until`.
    """

    upload: Upload
    options: JobOptions = field(default_factory=JobOptions)
    since: datetime
    until: datetime
    """When the last work on the object had ended."""

    @property
    def identity(self) -> tuple[str, int | str]:
        """The upload."""
        return "upload", self.upload.id
