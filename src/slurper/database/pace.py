"""How fast a job moves at the moment: sums of what was committed, which fade as time passes. Pure.

What a report brings is taken as spread evenly over the time of its task. After `WINDOW_SECONDS` a
third of it is left, so that sum divided by window is the rate of about that time. Between two
commits nothing fades for `GRACE_SECONDS`, in which a task may well be at work; then the rates go to
zero by themselves, in every server that reads them.
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
"""Who works on a job is known no longer after its last commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What a job did lately. Numbers only, so that it is stored as it is."""

    since: float
    """When it began to be measured; this and `at` are Unix times."""
    at: float
    """The last commit, at which the sums below stood as they do."""
    objects: float = 0.0
    size: float = 0.0
    source_requests: float = 0.0
    source_throttled: float = 0.0
    target_requests: float = 0.0
    target_throttled: float = 0.0
    workers: int | None = None

    def after(self, report: ProgressReport, at: datetime) -> Recent:
        """Take in a report that is committed at `at`."""
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
        """How fast the job moves, while it runs, and how long it will take at that."""
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
    """What is left in the end of one that was spread evenly over so many seconds."""
    if seconds <= 0:
        return 1.0
    return -math.expm1(-seconds / WINDOW_SECONDS) * WINDOW_SECONDS / seconds


def _share(throttled: float, requests: float, kept: float) -> float:
    """A share of next to nothing tells nothing."""
    return min(throttled / requests, 1.0) if requests * kept >= 0.5 else 0.0


def _seconds_left(
    counts: Counts, whole: Whole, objects_per_second: float, bytes_per_second: float
) -> float | None:
    """By bytes where those of all objects are known and count, else by objects."""
    if whole.objects is None:
        return None
    left, rate = float(whole.objects - counts.objects), objects_per_second
    if whole.size is not None and counts.objects == counts.transferred and bytes_per_second:
        left, rate = float(whole.size - counts.transferred_bytes), bytes_per_second
    return max(left, 0.0) / rate if rate >= 1e-3 else None
