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
from slurper.driver.backlog import Backlog
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
        self._backlogs: dict[str, Backlog] = {}
        """By job. Jobs that are not on the board may have some too."""
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
            self.backlog(job.id).allow_at_once()  # its shares and debts were under other limits
        self.jobs[job.id] = replace(running, job=job, unsettled=work.unsettled)
        self._refresh_ranges(job, {item.range_id: item.slice for item in work.ranges})
        self._refresh_uploads(job.id, {item.id: item for item in work.uploads})

    def _refresh_ranges(self, job: Job, still_open: Mapping[int, KeyRange]) -> None:
        backlog = self.backlog(job.id)
        known = {one.range_id: one for one in backlog.ranges}
        for one in known.values():
            if one.range_id not in still_open and not one.under_way:
                backlog.remove(one)
        for range_id, slice_left in still_open.items():
            if range_id in known and not known[range_id].under_way:
                known[range_id].slice = slice_left
        new = [
            RangeWork(range_id=range_id, slice=slice_left)
            for range_id, slice_left in still_open.items()
            if range_id not in known
        ]
        self._add(job, new)

    def _add(self, job: Job, pieces: Sequence[RangeWork]) -> None:
        """Take in new ranges, which were cut off others of the job.

        If those may hold uncounted objects, so may these. A read of the database does not tell from
        which range one was cut. So any range of the job that may hold some is enough.
        """
        if not pieces:
            return
        backlog = self.backlog(job.id)
        inherited = job.id in self._unsure or any(one.uncounted for one in backlog.ranges)
        for piece in pieces:
            added = OpenRange(
                job_id=job.id,
                presumed_uncounted=job.created_at < self._driving_since,
                range_id=piece.range_id,
                slice=piece.slice,
            )
            added.uncounted |= inherited
            backlog.add(added)

    def _refresh_uploads(self, job_id: str, unsettled: Mapping[int, Upload]) -> None:
        backlog = self.backlog(job_id)
        known = {one.upload.id: one for one in backlog.uploads}
        for one in known.values():
            if one.upload.id not in unsettled and not one.under_way:
                backlog.remove(one)
        for upload in unsettled.values():
            open_upload = known.get(upload.id)
            if open_upload is None:
                presumed = upload.found_at < self._driving_since
                added = OpenUpload(job_id=job_id, presumed_uncounted=presumed, upload=upload)
                backlog.add(added)
            elif not open_upload.under_way and open_upload.upload.generation != upload.generation:
                open_upload.upload, open_upload.parts = upload, None

    def _drop_idle(self) -> None:
        """Drop open work of jobs that do not run. Keep it if `uncounted` would be lost with it."""
        for job_id in self._backlogs.keys() - self.jobs.keys():
            backlog = self._backlogs[job_id]
            for one in list(backlog):
                if not one.under_way and one.uncounted == one.presumed_uncounted:
                    backlog.remove(one)
            if not backlog:
                del self._backlogs[job_id]

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
        if running is not None:
            backlog = self.backlog(open_range.job_id)
            new = [one for one in cut_off if backlog.find(OpenRange, one.range_id) is None]
            self._add(running.job, new)

    def close(self, open_work: OpenRange | OpenUpload) -> None:
        """Drop work that is done, or that must be read from the database again."""
        self._touched.add(open_work.job_id)
        self.backlog(open_work.job_id).remove(open_work)

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
        known = self.backlog(job_id).count(OpenUpload)
        return known < min(running.unsettled, MAX_UNSETTLED // 20)

    def drop_job(self, job_id: str, *, for_good: bool) -> bool:
        """Take the job off the board, because it no longer runs; `for_good` if it never will.

        Returns whether it was on the board.
        """
        self._touched.add(job_id)
        if for_good:
            self._unsure.discard(job_id)
            self._backlogs.pop(job_id, None)
        return self.jobs.pop(job_id, None) is not None

    def end_turn(self, open_work: OpenRange | OpenUpload) -> None:
        """Count one task less of some work, which may be on the board no more."""
        self.backlog(open_work.job_id).end_turn(open_work)

    def backlog(self, job_id: str) -> Backlog:
        """The open work of a job."""
        if job_id not in self._backlogs:
            self._backlogs[job_id] = Backlog()
        return self._backlogs[job_id]

    def backlogs(self) -> Iterator[tuple[RunningJob, Backlog]]:
        """The jobs on the board, each with its open work."""
        for job_id, running in self.jobs.items():
            yield running, self.backlog(job_id)
