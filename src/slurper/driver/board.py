"""The driver's picture of running jobs, their open ranges and large objects.

Pure bookkeeping without I/O. The database is the truth, and the board is a copy of it. `update`
refreshes the copy, and each commit changes it. The board also holds three things that only the
running driver knows: what has tasks under way, what may hold work that was never reported, and how
many tasks in a row came to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count

from slurper.database.job_row import RangeWork
from slurper.database.work import JobWork
from slurper.driver.open_work import OpenRange, OpenUpload
from slurper.job.model import Job, JobCapabilities
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import Upload

MAX_UNSETTLED = 1000
"""A job with this many large objects in progress looks for no others: each of them is a row."""


@dataclass(slots=True, eq=False)
class RunningJob:
    """A job that the driver works on."""

    job: Job
    unsettled: int
    """How many large objects are in progress. The board need not know all of them."""
    last_turn: int = 0
    began: float | None = None
    """Monotonic seconds of its first turn here."""
    has_most_ranges: bool = False
    """It has as many ranges as it may have: to look for more places to cut them is useless."""


class Board:
    """Running jobs and their open work. `driver.schedule` decides which of it gets a task."""

    def __init__(self, driving_since: datetime) -> None:
        """Begin empty.

        Another driver may have worked on jobs created before `driving_since`. It may have left work
        that was never reported.
        """
        self._driving_since = driving_since
        self.jobs: dict[str, RunningJob] = {}
        self._ranges: dict[int, OpenRange] = {}
        self._uploads: dict[int, OpenUpload] = {}
        self._touched: set[str] = set()
        self._unsure: set[str] = set()
        """Jobs in which some ranges may hold uncounted objects. We do not know which ranges."""
        self.turns = count(1)
        """The numbers of the next turns."""

    def begin_update(self) -> None:
        """Say that the database is about to be read; `update` follows when it has been."""
        self._touched.clear()

    def update(self, works: Iterable[JobWork]) -> bool:
        """Take in what the database said about running jobs.

        A commit may have changed a job while the database was read. The board knows newer things
        about such a job, and leaves it as it is. Returns False if there was one: then read again.
        """
        found = {work.job.id: work for work in works if work.job.id not in self._touched}
        for job_id in self.jobs.keys() - found.keys() - self._touched:
            del self.jobs[job_id]
        for work in found.values():
            self._refresh_job(work)
        self._drop_idle()
        return not self._touched

    def _refresh_job(self, work: JobWork) -> None:
        job = work.job
        earlier = self.jobs.get(job.id)
        running = RunningJob(job, work.unsettled) if earlier is None else earlier
        if earlier is not None and earlier.job.spec.options != job.spec.options:
            for one in self.of_job(job.id):  # its shares and debts were under other limits
                one.not_before = one.allotted = 0.0
        self.jobs[job.id] = replace(running, job=job, unsettled=work.unsettled)
        self._refresh_ranges(job, {item.range_id: item.slice for item in work.ranges})
        self._refresh_uploads(job.id, {item.id: item for item in work.uploads})

    def _refresh_ranges(self, job: Job, still_open: Mapping[int, KeyRange]) -> None:
        for known_range in list(self._ranges.values()):
            gone = known_range.range_id not in still_open and not known_range.under_way
            if gone and known_range.job_id == job.id:
                del self._ranges[known_range.range_id]
        for range_id, slice_left in still_open.items():
            open_range = self._ranges.get(range_id)
            if open_range is None:
                self._add(job, range_id, slice_left)
            elif not open_range.under_way:
                open_range.slice = slice_left

    def _add(self, job: Job, range_id: int, slice_left: KeyRange) -> None:
        """Take in a new range, which was cut off another range of the job.

        If that range may hold uncounted objects, so may this one. A read of the database does not
        tell from which range it was cut. So any range of the job that may hold some is enough.
        """
        inherited = any(one.uncounted for one in self._ranges.values() if one.job_id == job.id)
        added = OpenRange(
            job_id=job.id,
            presumed_uncounted=job.created_at < self._driving_since,
            range_id=range_id,
            slice=slice_left,
        )
        added.uncounted |= inherited or job.id in self._unsure
        self._ranges[range_id] = added

    def _refresh_uploads(self, job_id: str, unsettled: Mapping[int, Upload]) -> None:
        for known in list(self._uploads.values()):
            gone = known.upload.id not in unsettled and not known.under_way
            if gone and known.job_id == job_id:
                del self._uploads[known.upload.id]
        for upload in unsettled.values():
            open_upload = self._uploads.get(upload.id)
            if open_upload is None:
                self._uploads[upload.id] = OpenUpload(
                    job_id=job_id,
                    presumed_uncounted=upload.found_at < self._driving_since,
                    upload=upload,
                )
            elif not open_upload.under_way and open_upload.upload.generation != upload.generation:
                open_upload.upload, open_upload.parts = upload, None

    def _drop_idle(self) -> None:
        """Drop open work of jobs that do not run. Keep it if `uncounted` would be lost with it."""
        for open_work in list(self.open_work()):
            idle = open_work.job_id not in self.jobs and not open_work.under_way
            if idle and open_work.uncounted == open_work.presumed_uncounted:
                self._remove(open_work)

    def committed(
        self,
        open_range: OpenRange,
        left: KeyRange,
        *,
        settled_keys: int | None = None,
        uncounted: bool = False,
        cut_off: Sequence[RangeWork] = (),
    ) -> None:
        """Take in a commit: `left` is what is left of the range, `cut_off` are its new pieces.

        `settled_keys` is how many keys the task settled; None: that says nothing about the next
        task.

        `uncounted`: objects in `left` may have been copied but not counted. A range stays uncounted
        after it was so once, because lost work may have come further than the cursor.
        """
        self._touched.add(open_range.job_id)
        open_range.slice = left
        open_range.expected_keys = settled_keys
        open_range.uncounted |= uncounted
        open_range.failures = 0
        running = self.jobs.get(open_range.job_id)
        for piece in cut_off:
            if running is not None and piece.range_id not in self._ranges:
                self._add(running.job, piece.range_id, piece.slice)

    def close(self, open_work: OpenRange | OpenUpload) -> None:
        """Drop work that is done, or that must be read from the database again."""
        self._touched.add(open_work.job_id)
        self._remove(open_work)

    def reload_later(self, open_range: OpenRange, *, uncounted: bool) -> None:
        """Drop a range, so that what is left of it is read from the database again.

        `uncounted` is as for `committed`. The ranges that are read then inherit it. There may be
        fewer of them than before, because a job that begins anew has one range again.
        """
        if open_range.job_id in self.jobs:
            self.jobs[open_range.job_id].has_most_ranges = False
        if open_range.uncounted or uncounted:
            self._unsure.add(open_range.job_id)
        self.close(open_range)

    def learn(self, job_id: str, capabilities: JobCapabilities | None) -> None:
        """Take in what a commit says of the job's stores, so that the next tasks know it."""
        self._touched.add(job_id)
        if capabilities is not None and job_id in self.jobs:
            running = self.jobs[job_id]
            running.job = replace(running.job, capabilities=capabilities)

    def cannot_cut(self, job_id: str) -> None:
        """Note that the ranges of a job cannot be cut any more."""
        if job_id in self.jobs:
            self.jobs[job_id].has_most_ranges = True

    def count_unsettled(self, job_id: str, more: int) -> None:
        """Add to the number of large objects that a job has in progress, after a commit."""
        if job_id in self.jobs:
            self.jobs[job_id].unsettled += more

    def lacks_uploads(self, job_id: str) -> bool:
        """Whether the board knows few large objects of the job, and the database has more."""
        running = self.jobs.get(job_id)
        if running is None:
            return False
        known = sum(one.job_id == job_id for one in self._uploads.values())
        return known < min(running.unsettled, MAX_UNSETTLED // 20)

    def drop_job(self, job_id: str, *, for_good: bool) -> bool:
        """Take the job off the board, because it no longer runs; `for_good` if it never will.

        Returns whether it was on the board.
        """
        self._touched.add(job_id)
        if for_good:
            self._unsure.discard(job_id)
            for open_work in self.of_job(job_id):
                self._remove(open_work)
        return self.jobs.pop(job_id, None) is not None

    def of_job(self, job_id: str) -> list[OpenRange | OpenUpload]:
        """The open work of a job."""
        return [one for one in self.open_work() if one.job_id == job_id]

    def open_work(self) -> Iterator[OpenRange | OpenUpload]:
        """All open work, also of jobs that are not on the board."""
        yield from self._ranges.values()
        yield from self._uploads.values()

    def _remove(self, open_work: OpenRange | OpenUpload) -> None:
        """Remove this work, but not newer work that was read since under the same id."""
        if isinstance(open_work, OpenRange):
            if self._ranges.get(open_work.range_id) is open_work:
                del self._ranges[open_work.range_id]
        elif self._uploads.get(open_work.upload.id) is open_work:
            del self._uploads[open_work.upload.id]
