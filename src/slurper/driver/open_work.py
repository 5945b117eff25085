"""The open work of a job (ranges, large objects), and what this driver knows of it. Pure."""

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
"""Least number of parts of one object for which another task is begun."""


@dataclass(slots=True, eq=False, kw_only=True)
class OpenWork(ABC):
    """A range or large object that is not done, and what this driver knows of it."""

    job_id: str
    presumed_uncounted: bool
    """The value of `uncounted` when this driver has not seen any of its tasks."""
    uncounted: bool = field(init=False)
    """Work that no commit has counted may have copied objects of what is left."""
    failures: int = 0
    """How many tasks in a row came to nothing: lost with their process, or ended by an error."""
    not_before: float = 0.0
    """Monotonic seconds; no task begins earlier."""
    under_way: int = 0
    """How many tasks it has now."""
    allotted: float = 0.0
    """The share of the job's limits that its tasks have; 0 when the limits have changed since."""
    paid_until: float = math.inf
    """The monotonic time until which the last task has used up its share; infinite: no task yet."""
    last_turn: int = 0

    def __post_init__(self) -> None:
        self.uncounted = self.presumed_uncounted

    @property
    @abstractmethod
    def number(self) -> int:
        """Its id. Work of another kind may have the same."""

    @property
    @abstractmethod
    def place(self) -> int:
        """What decides which work of a kind is served first: the one with the lowest place."""

    @property
    @abstractmethod
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""

    def begin_turn(self, number: int, *, spare: int) -> None:  # noqa: ARG002 - see OpenUpload
        """Count one more task; `spare` slots have nothing else to do."""
        self.last_turn = number
        self.under_way += 1

    def end_turn(self) -> None:
        """Count one task less; its share of the job's limits is free again."""
        self.allotted *= 1 - 1 / self.under_way
        self.under_way -= 1

    def task_came_to_nothing(self) -> None:
        """Note that a task was lost or ended by an error: it may have done work unseen."""
        self.uncounted = True
        self.failures += 1

    def owes_at(self, now: float) -> bool:
        """Whether the last task has used more of the limits than its share up to now."""
        return bool(self.allotted) and now < self.paid_until < math.inf

    def credit_seconds(self, now: float) -> float:
        """For how many seconds its share of the limits has not been used."""
        return max(0.0, now - self.paid_until)


@dataclass(slots=True, eq=False, kw_only=True)
class OpenRange(OpenWork):
    """An open range of a job; it has one task at a time."""

    range_id: int
    slice: KeyRange
    """What was left after the last commit."""
    wanted_pieces: int = 1
    """The number of pieces into which the task under way should cut the range."""
    expected_keys: int | None = None
    """How many keys the last task settled; None: unknown."""

    @property
    def number(self) -> int:
        """Its id."""
        return self.range_id

    @property
    def place(self) -> int:
        """The number of its last turn: ranges take turns."""
        return self.last_turn

    @property
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""
        return {"job_id": self.job_id, "range_id": self.range_id}

    def end_turn(self) -> None:
        """Do as for any work; and expect no pieces any more."""
        super(OpenRange, self).end_turn()
        self.wanted_pieces = 1


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
    """The finished parts, by number; None: not read from the database yet."""
    spare: int = 0
    """How many slots had nothing else to do when the last turn began."""
    is_dealing: bool = False
    """A turn has begun but has no parts yet. No other turn begins until it has them."""
    _dealt: set[int] = field(default_factory=set)
    _undealt: list[int] | None = None
    """What `undealt` returns; None: something has changed."""

    @property
    def number(self) -> int:
        """Its id."""
        return self.upload.id

    @property
    def place(self) -> int:
        """Its id: what was found first is finished first."""
        return self.upload.id

    @property
    def may_be_shared(self) -> bool:
        """Whether another task may copy parts of it beside those under way."""
        return self.under_way > 0 and not self.is_dealing and bool(self.undealt)

    @property
    def log_fields(self) -> Mapping[str, object]:
        """How log records name it."""
        return {"job_id": self.job_id, "upload": self.upload.id, "key": self.upload.meta.key}

    def begin_turn(self, number: int, *, spare: int) -> None:
        """Do as for any work; and expect parts to be dealt, to `spare` other slots too."""
        super(OpenUpload, self).begin_turn(number, spare=spare)
        self.spare = spare
        self.is_dealing = True

    def know_parts(self, parts: Iterable[Part]) -> None:
        """Take in the finished parts that the database has."""
        self.parts = {part.number: part for part in parts}
        self._undealt = None

    def add_parts(self, report: PartsReport) -> None:
        """Take in the parts that a task has finished, and the upload if it has begun it."""
        if report.begun is not None:
            self.upload = replace(self.upload, begun=report.begun)
        self.parts = (self.parts or {}) | {part.number: part for part in report.parts}
        self._undealt = None
        self.failures = 0

    @property
    def undealt(self) -> list[int]:
        """The missing parts that no task has; none before the upload is begun."""
        begun = self.upload.begun
        if begun is None or self.parts is None:
            return []
        if self._undealt is None:
            numbers = range(1, PartPlan(self.upload.meta.size, begun.part_size).count + 1)
            taken = self.parts.keys() | self._dealt
            self._undealt = [one for one in numbers if one not in taken]
        return self._undealt

    @contextmanager
    def deal(self, part_bytes: int) -> Iterator[Dealt]:
        """Give a task its parts; they are its own while the block lasts.

        The task gets all parts that are left, unless there are idle slots to share them with. An
        upload that is not begun yet will have parts of `part_bytes`.
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
        self._undealt = missing[len(numbers) :]
        try:
            yield Dealt(numbers, self._done if is_last else None)
        finally:
            self._dealt.difference_update(numbers)
            self._undealt = None

    @property
    def _done(self) -> tuple[Part, ...]:
        parts = self.parts or {}
        return tuple(parts[number] for number in sorted(parts))
