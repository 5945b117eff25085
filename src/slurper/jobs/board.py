"""Whose turn it is: the driver's picture of running jobs and their open ranges.

Pure bookkeeping without I/O. The database is the truth; the board is a copy of it that `update`
refreshes and that each commit moves on, plus three things only the running driver knows: which
ranges have a task under way, which may hold work that was never reported, and how often in a row a
range's task came to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from slurper.database.work import JobWork, RangeWork
from slurper.jobs.models import Job
from slurper.planning.keyspace import KeyRange


@dataclass(slots=True, eq=False)
class OpenRange:
    """An open range of a job, with what this driver has seen of it."""

    job_id: str
    range_id: int
    slice: KeyRange
    """What is left, after the last commit."""
    presumed_uncounted: bool
    """What `uncounted` is for a range of which nothing is remembered."""
    uncounted: bool = field(init=False)
    """Objects of `slice` may be at the target already, by work that no commit has counted."""
    failures: int = 0
    """How many tasks in a row came to nothing: lost with their process, or ended by an error."""
    not_before: float = 0.0
    """Monotonic seconds; no task begins earlier."""
    under_way: bool = False
    wanted_pieces: int = 1
    """Into how many pieces the task under way was asked to cut it."""
    share: float = 0.0
    """Of the job's limits, what the task under way has; 0 when they have changed since."""
    paid_until: float = math.inf
    """Monotonic seconds until when the last task has used its share; none yet: for ever."""
    last_turn: int = 0

    def __post_init__(self) -> None:
        self.uncounted = self.presumed_uncounted


@dataclass(slots=True, eq=False)
class _RunningJob:
    job: Job
    last_turn: int = 0
    began: float | None = None
    """Monotonic seconds of its first turn here."""


_LEAST_OF_EVEN = 0.1
"""Of an even share, what a task gets at least."""


class Board:
    """Running jobs, their open ranges, and the order in which they are served.

    The next task goes to the job with the fewest tasks under way, among those to the one served
    longest ago, and within the job to the range served longest ago. So every running job moves, no
    matter how many ranges another one has.
    """

    def __init__(self, driving_since: datetime) -> None:
        """Begin empty.

        Jobs created before `driving_since` may have been driven by somebody else before, who may
        have left work that was never reported.
        """
        self._driving_since = driving_since
        self._jobs: dict[str, _RunningJob] = {}
        self._ranges: dict[int, OpenRange] = {}
        self._touched: set[str] = set()
        self._unsure: set[str] = set()
        """Jobs whose ranges may hold uncounted objects, nobody knows which."""
        self._turns = count(1)

    @property
    def running_jobs(self) -> int:
        """How many jobs the driver is working on."""
        return len(self._jobs)

    def begin_update(self) -> None:
        """Say that the database is about to be read; `update` follows when it has been."""
        self._touched.clear()

    def update(self, works: Iterable[JobWork]) -> bool:
        """Take in what the database said about running jobs.

        Jobs that a commit changed while the database was read are left as they are, since the
        board knows newer things about them. Returns whether there were none: else read again.
        """
        found = {work.job.id: work for work in works if work.job.id not in self._touched}
        for job_id in self._jobs.keys() - found.keys() - self._touched:
            del self._jobs[job_id]
        for work in found.values():
            self._take_in(work)
        self._forget_the_obvious()
        return not self._touched

    def _take_in(self, work: JobWork) -> None:
        job = work.job
        earlier = self._jobs.get(job.id)
        last_turn, began = (earlier.last_turn, earlier.began) if earlier else (0, None)
        if earlier is not None and earlier.job.spec.options != job.spec.options:
            for held_back in self._of_job(job.id):
                # What is owed, or will be by a task under way, is reckoned by other limits.
                held_back.not_before = held_back.share = 0.0
        self._jobs[job.id] = _RunningJob(job, last_turn, began)
        still_open = {item.range_id: item.slice for item in work.ranges}
        for known_range in self._of_job(job.id):
            if known_range.range_id not in still_open and not known_range.under_way:
                del self._ranges[known_range.range_id]
        for range_id, slice_left in still_open.items():
            open_range = self._ranges.get(range_id)
            if open_range is None:
                self._add(job, range_id, slice_left)
            elif not open_range.under_way:
                open_range.slice = slice_left

    def _add(self, job: Job, range_id: int, slice_left: KeyRange) -> None:
        """Take in a new range. It was cut off one that we know, and inherits what that may hold.

        A look at the database may show it before we are told of which one; so any will do.
        """
        before_us = job.created_at < self._driving_since
        inherited = any(one.uncounted for one in self._of_job(job.id))
        added = OpenRange(job.id, range_id, slice_left, before_us)
        added.uncounted |= inherited or job.id in self._unsure
        self._ranges[range_id] = added

    def _forget_the_obvious(self) -> None:
        """Drop ranges of jobs that do not run, but for those that would come back different."""
        for open_range in list(self._ranges.values()):
            idle = open_range.job_id not in self._jobs and not open_range.under_way
            if idle and open_range.uncounted == open_range.presumed_uncounted:
                del self._ranges[open_range.range_id]

    def take(self, now: float) -> tuple[OpenRange, Job] | None:
        """Choose the next range, mark it as under way, and return it with its job.

        None: no range is waiting at the monotonic time `now`.
        """
        under_way: dict[str, int] = dict.fromkeys(self._jobs, 0)
        candidates: dict[str, OpenRange] = {}
        for open_range in self._ranges.values():
            job_id = open_range.job_id
            if job_id not in under_way:
                continue
            if open_range.under_way:
                under_way[job_id] += 1
            elif open_range.not_before <= now:
                best = candidates.get(job_id, open_range)
                candidates[job_id] = min(best, open_range, key=_last_turn)
        if not candidates:
            return None
        job_id = min(candidates, key=lambda id_: (under_way[id_], self._jobs[id_].last_turn))
        running, chosen = self._jobs[job_id], candidates[job_id]
        running.last_turn = chosen.last_turn = next(self._turns)
        if running.began is None:
            running.began = now
        chosen.under_way = True
        return chosen, running.job

    def wanted_pieces(self, open_range: OpenRange, slots: int) -> int:
        """Into how many pieces a range whose turn it is should be cut; 1: it stays whole.

        All running jobs together need as many open ranges as the engine has slots, and each of
        them an equal share.
        """
        open_ranges: dict[str, int] = dict.fromkeys(self._jobs, 0)
        for other in self._ranges.values():
            if other.job_id in open_ranges:
                open_ranges[other.job_id] += other.wanted_pieces
        share = -(-slots // max(1, len(open_ranges)))
        missing = min(
            slots - sum(open_ranges.values()), share - open_ranges.get(open_range.job_id, share)
        )
        return max(1, 1 + missing)

    def age_seconds(self, job_id: str, now: float) -> float:
        """For how long the job has been worked on; 0 when it is no longer on the board."""
        running = self._jobs.get(job_id)
        return 0.0 if running is None or running.began is None else now - running.began

    def deal(self, open_range: OpenRange, slots: int) -> float:
        """Give a range under way its share (0 to 1) of the job's limits, and return it.

        All shares of a job together are no more than 1, but for what keeps a task moving that
        begins when the others have taken everything. `slots` is how many tasks run at once.
        """
        of_job = self._of_job(open_range.job_id)
        even = 1 / max(1, min(slots, len(of_job)))
        dealt = sum(one.share for one in of_job if one.under_way and one is not open_range)
        open_range.share = max(min(even, 1 - dealt), _LEAST_OF_EVEN * even)
        return open_range.share

    def next_at(self, now: float) -> float | None:
        """The monotonic time when the next range that is held back at `now` may begin, if any."""
        held_back = (
            open_range.not_before
            for open_range in self._ranges.values()
            if open_range.job_id in self._jobs and open_range.not_before > now
        )
        return min(held_back, default=None)

    def committed(
        self,
        open_range: OpenRange,
        left: KeyRange,
        *,
        uncounted: bool = False,
        cut_off: Sequence[RangeWork] = (),
    ) -> None:
        """What is not `left` of the range is counted, or has become ranges of its own.

        `uncounted` says that objects in there may have been copied too. What was lost before may
        have come further than the cursor, so that once a range may hold such objects, its rest may.
        """
        self._touched.add(open_range.job_id)
        open_range.slice = left
        open_range.uncounted |= uncounted
        open_range.failures = 0
        running = self._jobs.get(open_range.job_id)
        for piece in cut_off:
            if running is not None and piece.range_id not in self._ranges:
                self._add(running.job, piece.range_id, piece.slice)

    def close(self, open_range: OpenRange) -> None:
        """Drop the range: it is done."""
        self._touched.add(open_range.job_id)
        self._ranges.pop(open_range.range_id, None)

    def lose_sight(self, open_range: OpenRange, *, uncounted: bool) -> None:
        """Drop a range of which the database knows better what is left, and in which ranges.

        `uncounted` is as for `committed`. Whatever comes back inherits it.
        """
        if open_range.uncounted or uncounted:
            self._unsure.add(open_range.job_id)
        self.close(open_range)

    def drop_job(self, job_id: str, *, for_good: bool) -> bool:
        """Take the job off the board, because it no longer runs; `for_good` if it never will.

        Returns whether it was on the board.
        """
        self._touched.add(job_id)
        if for_good:
            self._unsure.discard(job_id)
            for open_range in self._of_job(job_id):
                del self._ranges[open_range.range_id]
        return self._jobs.pop(job_id, None) is not None

    def _of_job(self, job_id: str) -> list[OpenRange]:
        return [item for item in self._ranges.values() if item.job_id == job_id]


def _last_turn(open_range: OpenRange) -> int:
    return open_range.last_turn
