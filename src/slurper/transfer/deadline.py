"""When a task begins nothing more."""

from __future__ import annotations

import math
import time


class Deadline:
    """A moment in monotonic seconds. It is set when the first work has begun.

    So a task makes progress even if its stores are slow.
    """

    __slots__ = ("_budget_seconds", "_not_before", "at")

    def __init__(self, budget_seconds: float) -> None:
        self._budget_seconds = budget_seconds
        self._not_before = math.inf
        self.at = math.inf

    @property
    def has_started(self) -> bool:
        """Whether the time has begun."""
        return self.at != math.inf

    @property
    def is_over(self) -> bool:
        """Whether nothing more may begin."""
        return time.monotonic() >= self.at

    def start(self, min_seconds: float = 0.0) -> None:
        """Let the time begin, unless it has begun. `end_early` leaves at least `min_seconds`."""
        if not self.has_started:
            now = time.monotonic()
            self.at = now + self._budget_seconds
            self._not_before = now + min_seconds

    def end_early(self) -> None:
        """Let the time end as soon as the task has worked long enough."""
        self.at = min(self.at, max(self._not_before, time.monotonic()))

    def end_now(self) -> None:
        """Let nothing more begin."""
        self.at = -math.inf
