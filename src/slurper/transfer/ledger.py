"""Which keys of a slice are settled, and up to where without a gap.

Objects finish out of order. Only the low-water mark may become the cursor: the last key up to which
everything is settled. Counts and events are taken in when the mark passes a key. So a report never
counts an object after its cursor. Such an object is done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from slurper.job.model import Counts, LogType, shortened
from slurper.objectstore.base import ObjectMeta
from slurper.transfer.task import ObjectEvent

MAX_EVENTS = 5_000
"""After so many objects with an event a task begins nothing more: each becomes a row of the log,
and one report holds all."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """The object is at the target, verified."""

    size: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """The object was left out on purpose. Without a log type it was at the target already."""

    log_type: LogType | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The object was given up after all attempts."""

    message: str


Outcome = Transferred | Skipped | Failed


@dataclass(frozen=True, slots=True)
class Large:
    """The object is to be copied in parts. It has tasks of its own, which settle it."""

    meta: ObjectMeta


@dataclass(slots=True)
class Entry:
    """One key of the slice, open until it has an outcome or is known to be large."""

    key: str
    outcome: Outcome | Large | None = None
    in_doubt: bool = False
    """The target has an object under its key. Lost work of the job may have put it there."""


class Ledger:
    """Keys opened in order, settled in any order, counted in order."""

    def __init__(
        self, started_after: str | None, when_full: Callable[[], None] = lambda: None
    ) -> None:
        """Begin after `started_after`, the cursor of the task.

        `when_full` is called when `MAX_EVENTS` objects have events.
        """
        self.cursor = started_after
        self._when_full = when_full
        self._noted = 0
        self.events: list[ObjectEvent] = []
        self.large: list[ObjectMeta] = []
        """Objects up to the cursor that other tasks will settle."""
        self._open: deque[Entry] = deque()
        self._transferred = 0
        self._skipped = 0
        self._failed = 0
        self._bytes = 0

    def open(self, key: str) -> Entry:
        """Note the next key of the slice; keys come in order."""
        entry = Entry(key)
        self._open.append(entry)
        return entry

    def settle(self, entry: Entry, outcome: Outcome | Large) -> None:
        """Note how a key ended, and move the low-water mark as far as it goes."""
        entry.outcome = outcome
        if _event_type(outcome) is not None:
            self._noted += 1
            if self.is_full:
                self._when_full()
        entries = self._open
        while entries and (settled := entries[0].outcome) is not None:
            self.cursor = entries.popleft().key
            self._count(self.cursor, settled)

    @property
    def all_settled(self) -> bool:
        """Every opened key is settled."""
        return not self._open

    @property
    def is_full(self) -> bool:
        """No more objects should get events. Those that are not counted yet are included."""
        return self._noted >= MAX_EVENTS

    @property
    def counts(self) -> Counts:
        """The counts of what lies up to the cursor."""
        return Counts(
            objects=self._transferred + self._skipped + self._failed,
            transferred=self._transferred,
            skipped=self._skipped,
            failed=self._failed,
            transferred_bytes=self._bytes,
        )

    def _count(self, key: str, outcome: Outcome | Large) -> None:
        if isinstance(outcome, Large):
            self.large.append(outcome.meta)
        elif isinstance(outcome, Transferred):
            self._transferred += 1
            self._bytes += outcome.size
        else:
            self._count_uncopied(outcome)
            if (log_type := _event_type(outcome)) is not None:
                message = shortened(outcome.message)
                self.events.append(ObjectEvent(key=key, log_type=log_type, message=message))

    def _count_uncopied(self, outcome: Skipped | Failed) -> None:
        if isinstance(outcome, Skipped):
            self._skipped += 1
        else:
            self._failed += 1


def _event_type(outcome: Outcome | Large) -> LogType | None:
    """The type of the log entry that an object gets; None: it gets none."""
    if isinstance(outcome, Failed):
        return LogType.IMPORT_ERROR_RETRY_EXHAUSTION
    return outcome.log_type if isinstance(outcome, Skipped) else None
