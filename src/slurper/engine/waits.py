"""What the tasks of each job wait for, as the worker processes report it while they run.

This helps people who watch a job that does not move. It is kept in memory only. No report holds it,
and a server that does not drive the jobs does not know it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Told = Mapping[str, Mapping[str, int]]
"""For each job: what its requests wait for, and how many requests wait for that."""


class Waits:
    """What all worker processes wait for now."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def tell(self, pid: int, told: Told) -> None:
        """Note what a process waits for now."""
        self._told[pid] = told

    def forget(self, pid: int) -> None:
        """Remove the entry of a process that has ended."""
        self._told.pop(pid, None)

    def of(self, job_id: str) -> tuple[str, ...]:
        """What the job waits for, the most frequent first, as texts like `3 requests that ...`."""
        total: Counter[str] = Counter()
        for told in self._told.values():
            total.update(told.get(job_id, {}))
        return tuple(
            f"{count:,} {'request' if count == 1 else 'requests'} that {what}"
            for what, count in total.most_common()
        )
