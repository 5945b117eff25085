"""How fast a job moves now, computed from sums of what was committed that fade with time. Pure.

We assume that the work of a task was spread evenly over its time. After `WINDOW_SECONDS` about a
third of it is left in the sum. So the sum divided by the window is about the rate during that time.
After a commit nothing fades for `GRACE_SECONDS`, because a task is probably at work. If no commit
follows, the rates fall to zero, in every server that reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime

from slurper.job.model import Counts, JobStatus, Pace, Whole
from slurper.transfer.task import ProgressReport

WINDOW_SECONDS = 30.0
GRACE_SECONDS = 10.0
STALE_SECONDS = 120.0
"""So long after a job's last commit we no longer know how many workers it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What a job did recently. It holds only numbers, so it can be stored unchanged."""

    since: float
    """When the measurement began; this and `at` are Unix times."""
    at: float
    """The time of the last commit. The sums below are those at that time."""
    objects: float = 0.0
    size: float = 0.0
    source_requests: float = 0.0
    source_throttled: float = 0.0
    target_requests: float = 0.0
    target_throttled: float = 0.0
    workers: int | None = None

    def after(self, report: ProgressReport, at: datetime) -> Recent:
        """Return the sums after a report that is committed at `at`."""
        now = max(self.at, at.timestamp())
        kept = math.exp((self.at - now) / WINDOW_SECONDS)
        left = _left_of_even(report.seconds)
        source, target = report.source, report.target
        return replace(
            self,
            at=now,
            objects=self.objects * kept + report.counts.objects * left,
            size=self.size * kept + report.moved_bytes * left,
            source_requests=self.source_requests * kept + source.requests * left,
            source_throttled=self.source_throttled * kept + source.throttled * left,
            target_requests=self.target_requests * kept + target.requests * left,
            target_throttled=self.target_throttled * kept + target.throttled * left,
            workers=report.workers,
        )

    def pace(self, now: datetime, counts: Counts, whole: Whole) -> Pace:
        """How fast a running job moves, and how long the rest takes at that speed."""
        until = max(self.at, now.timestamp() - GRACE_SECONDS)
        kept = math.exp((self.at - until) / WINDOW_SECONDS)
        window = WINDOW_SECONDS * -math.expm1((self.since - until) / WINDOW_SECONDS)
        per_second = kept / max(window, 1e-3)
        objects, size = self.objects * per_second, self.size * per_second
        is_stale = now.timestamp() - self.at > STALE_SECONDS
        return Pace(
            objects_per_second=objects,
            bytes_per_second=size,
            source_throttled=_share(self.source_throttled, self.source_requests, kept),
            target_throttled=_share(self.target_throttled, self.target_requests, kept),
            active_workers=None if is_stale else self.workers,
            seconds_left=_seconds_left(counts, whole, objects, size),
        )


def pace_of(
    recent: Recent | None, status: JobStatus, counts: Counts, whole: Whole, now: datetime
) -> Pace:
    """How fast a job moves at `now`."""
    if status is not JobStatus.RUNNING:
        seconds_left = 0.0 if status is JobStatus.COMPLETED else None
        return Pace(active_workers=0, seconds_left=seconds_left)
    return Pace() if recent is None else recent.pace(now, counts, whole)


def _left_of_even(seconds: float) -> float:
    """What is left of 1 that was spread evenly over the last `seconds`."""
    if seconds <= 0:
        return 1.0
    return -math.expm1(-seconds / WINDOW_SECONDS) * WINDOW_SECONDS / seconds


def _share(throttled: float, requests: float, kept: float) -> float:
    """The share of throttled requests; 0 when there are too few requests to tell."""
    return min(throttled / requests, 1.0) if requests * kept >= 0.5 else 0.0


def _seconds_left(
    counts: Counts, whole: Whole, objects_per_second: float, bytes_per_second: float
) -> float | None:
    """Estimate by bytes if their total is known and no object was left out; else by objects."""
    if whole.objects is None:
        return None
    left, rate = float(whole.objects - counts.objects), objects_per_second
    if whole.size is not None and counts.objects == counts.transferred and bytes_per_second:
        left, rate = float(whole.size - counts.transferred_bytes), bytes_per_second
    return max(left, 0.0) / rate if rate >= 1e-3 else None
