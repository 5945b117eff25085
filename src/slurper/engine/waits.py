"""What the tasks of each job wait for, as their worker processes tell while they run.

It is for people who watch a job that does not move. It is kept in memory only: no report holds it,
and a server that does not drive the jobs knows nothing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

Told = Mapping[str, Mapping[str, int]]
"""By job: what requests wait for, and how many of them."""


class Waits:
    """What all worker processes wait for now."""

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}

    def tell(self, pid: int, told: Told) -> None:
        """Replace what a process waited for before."""
        self._told[pid] = told

    def forget(self, pid: int) -> None:
        """The process is gone."""
        self._told.pop(pid, None)

    def of(self, job_id: str) -> tuple[str, ...]:
        """What is waited for, the most frequent first, as `3 requests that ...`."""
        total: Counter[str] = Counter()
        for told in self._told.values():
            total.update(told.get(job_id, {}))
        return tuple(
            f"{count:,} {'request' if count == 1 else 'requests'} that {what}"
            for what, count in total.most_common()
        )
