"""What is open of a job, with what this driver has seen of it: ranges and large objects. Pure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from slurper.objectstore.base import Part
from slurper.planning.keyspace import KeyRange
from slurper.planning.parts import PartPlan
from slurper.transfer.task import PartsReport, Upload

MIN_DEALT = 4
"""Parts of one object that are worth a task of their own."""


@dataclass(slots=True, eq=False, kw_only=True)
class OpenWork(ABC):
    """Something of a job that is not done, with what this driver has seen of it."""

    job_id: str
    presumed_uncounted: bool
    """What `uncounted` is where nothing is remembered."""
    uncounted: bool = field(init=False)
    """What is left may be at the target already, by work that no commit has counted."""
    failures: int = 0
    """How many tasks in a row came to nothing: lost with their process, or ended by an error."""
    not_before: float = 0.0
    """Monotonic seconds; no task begins earlier."""
    under_way: int = 0
    """How many tasks."""
    allotted: float = 0.0
    """Of the job's limits, what the tasks under way have; 0 when they have changed since."""
    paid_until: float = math.inf
    """Monotonic seconds until when the last task has used what it had; none yet: for ever."""
    last_turn: int = 0

    def __post_init__(self) -> None:
        self.uncounted = self.presumed_uncounted

    @property
    @abstractmethod
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""

    def begin_turn(self, number: int, *, spare: int) -> None:  # noqa: ARG002 - see OpenUpload
        """Count a task more; `spare` slots have nothing else to do."""
        self.last_turn = number
        self.under_way += 1

    def end_turn(self) -> None:
        """Count a task less; what it had of the job's limits is free again."""
        self.allotted *= 1 - 1 / self.under_way
        self.under_way -= 1

    def task_came_to_nothing(self) -> None:
        """Note that a task was lost or ended by an error: it may have done work unseen."""
        self.uncounted = True
        self.failures += 1

    def forget_limits(self) -> None:
        """The job's limits have changed: what is owed was reckoned by other ones."""
        self.not_before = self.allotted = 0.0

    def hold_back(self, until: float) -> None:
        """Let no task begin before the monotonic time `until`."""
        self.not_before = until

    def owes_at(self, now: float) -> bool:
        """Whether the last task used more of the limits than it had by now."""
        return bool(self.allotted) and now < self.paid_until < math.inf

    def task_used_share(self, until: float) -> None:
        """Note the monotonic time until which the last task has used what it had."""
        self.paid_until = until

    def credit_seconds(self, now: float) -> float:
        """For how long what it had of the limits was idle."""
        return max(0.0, now - self.paid_until)


@dataclass(slots=True, eq=False, kw_only=True)
class OpenRange(OpenWork):
    """An open range of a job; it has one task at a time."""

    range_id: int
    slice: KeyRange
    """What is left, after the last commit."""
    wanted_pieces: int = 1
    """Into how many pieces the task under way was asked to cut it."""
    expected_keys: int | None = None
    """How many keys the last task settled; None: unknown."""

    @property
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""
        return {"job_id": self.job_id, "range_id": self.range_id}

    def end_turn(self) -> None:
        """As for any work; and no pieces are awaited any more."""
        super(OpenRange, self).end_turn()
        self.wanted_pieces = 1

    def want_pieces(self, pieces: int) -> None:
        """Note into how many pieces the task that begins is asked to cut it."""
        self.wanted_pieces = pieces


@dataclass(frozen=True, slots=True)
class Dealt:
    """The parts of a large object that one task gets; as in `PartsTask`."""

    numbers: tuple[int, ...] | None
    done: tuple[Part, ...] | None


@dataclass(slots=True, eq=False, kw_only=True)
class OpenUpload(OpenWork):
    """A large object of a job. Once its upload is begun it may have several tasks at a time."""

    upload: Upload
    parts: dict[int, Part] | None = None
    """What is finished, by number; None: not read from the database yet."""
    spare: int = 0
    """Slots that had nothing else to do when the last turn was taken."""
    is_dealing: bool = False
    """A turn was taken that has not got its parts yet; until then there is no other."""
    _dealt: set[int] = field(default_factory=set)

    @property
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""
        return {"job_id": self.job_id, "upload": self.upload.id, "key": self.upload.meta.key}

    def begin_turn(self, number: int, *, spare: int) -> None:
        """As for any work; and parts are about to be dealt, to `spare` other slots too."""
        super(OpenUpload, self).begin_turn(number, spare=spare)
        self.spare = spare
        self.is_dealing = True

    def know_parts(self, parts: Iterable[Part]) -> None:
        """Take in the parts that the database has."""
        self.parts = {part.number: part for part in parts}

    def add_parts(self, report: PartsReport) -> None:
        """Take in what a task has finished, and perhaps begun."""
        if report.begun is not None:
            self.upload = replace(self.upload, begun=report.begun)
        self.parts = (self.parts or {}) | {part.number: part for part in report.parts}
        self.failures = 0

    @property
    def undealt(self) -> list[int]:
        """The missing parts that no task has; none before the upload is begun."""
        begun = self.upload.begun
        if begun is None or self.parts is None:
            return []
        numbers = range(1, PartPlan(self.upload.meta.size, begun.part_size).count + 1)
        return [one for one in numbers if one not in self.parts and one not in self._dealt]

    @contextmanager
    def deal(self, part_bytes: int) -> Iterator[Dealt]:
        """Deal parts to a task for the length of the block; new uploads have such parts.

        A task gets all that is left, unless there are idle slots to share it with.
        """
        self.is_dealing = False
        if self.upload.begun is None:
            is_shared = self.spare > 0 and self.upload.meta.size >= 2 * MIN_DEALT * part_bytes
            yield Dealt(() if is_shared else None, ())
            return
        missing = self.undealt
        even = -(-len(missing) // (self.spare + 1))
        numbers = tuple(missing[: max(even, MIN_DEALT)])
        is_last = not self._dealt and len(numbers) == len(missing)
        self._dealt.update(numbers)
        try:
            yield Dealt(numbers, self._done if is_last else None)
        finally:
            self._dealt.difference_update(numbers)

    @property
    def _done(self) -> tuple[Part, ...]:
        parts = self.parts or {}
        return tuple(parts[number] for number in sorted(parts))
