from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from slurper.database.pace import GRACE_SECONDS, STALE_SECONDS, Recent, pace_of
from slurper.job.model import Counts, JobStatus, Pace, Whole
from slurper.transfer.task import RangeReport, Traffic

BEGAN = datetime(2026, 3, 19, tzinfo=UTC)
START = Recent(since=BEGAN.timestamp(), at=BEGAN.timestamp())
UNKNOWN = Whole()
NONE = Counts()


def moment(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def report(objects: int, size: int = 0, *, seconds: float = 8.0) -> RangeReport:
    return RangeReport(
        job_id="j",
        range_id=1,
        started_after=None,
        cursor="k",
        finished=False,
        counts=Counts(objects=objects, transferred=objects, transferred_bytes=size),
        seconds=seconds,
        source=Traffic(requests=100, throttled=4),
        target=Traffic(requests=100, throttled=0),
        workers=2,
    )


def after(*committed: tuple[float, RangeReport]) -> Recent:
    recent = START
    for seconds, one in committed:
        recent = recent.after(one, moment(seconds))
    return recent


def pace(recent: Recent, seconds: float, counts: Counts = NONE, whole: Whole = UNKNOWN) -> Pace:
    return recent.pace(moment(seconds), counts, whole)


@pytest.mark.parametrize("tasks", [1, 2, 5, 50])
def test_an_even_pace_is_told_as_it_is_from_the_first_report_on(tasks: int) -> None:
    recent = after(*((8.0 * n, report(800, 8_000_000)) for n in range(1, tasks + 1)))
    now = pace(recent, 8.0 * tasks + GRACE_SECONDS)
    assert now.objects_per_second == pytest.approx(100)
    assert now.bytes_per_second == pytest.approx(1e6)


def test_two_ranges_side_by_side_add_up() -> None:
    each = report(800)
    recent = after(*((4.0 * n, each) for n in range(2, 60)))
    assert pace(recent, 236).objects_per_second == pytest.approx(200, rel=0.1)


def test_a_change_shows_within_a_minute() -> None:
    slow = [(8.0 * n, report(80)) for n in range(1, 20)]
    fast = [(8.0 * n, report(8_000)) for n in range(20, 28)]
    assert pace(after(*slow, *fast), 216).objects_per_second == pytest.approx(1_000, rel=0.15)


def test_without_commits_rates_go_to_zero() -> None:
    recent = after(*((8.0 * n, report(800)) for n in range(1, 20)))
    rates = [pace(recent, 152 + later).objects_per_second for later in (0, 30, 60, 300)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 99
    assert rates[-1] < 0.02


def test_who_works_is_forgotten_without_commits() -> None:
    recent = after((8.0, report(1)))
    assert pace(recent, 9).active_workers == 2
    assert pace(recent, 9 + STALE_SECONDS).active_workers is None


def test_the_throttled_share_of_each_side() -> None:
    recent = after((8.0, report(1)), (16.0, report(1)))
    now = pace(recent, 17)
    assert now.source_throttled == pytest.approx(0.04)
    assert now.target_throttled == 0
    assert pace(recent, 1_000).source_throttled == 0


def test_the_time_left_needs_a_whole() -> None:
    recent = after(*((8.0 * n, report(800, 8_000_000)) for n in range(1, 5)))
    counts = Counts(objects=3_200, transferred=3_200, transferred_bytes=32_000_000)
    assert pace(recent, 32, counts).seconds_left is None
    by_objects = pace(recent, 32, counts, Whole(objects=4_200)).seconds_left
    assert by_objects == pytest.approx(10)
    by_bytes = pace(recent, 32, counts, Whole(objects=4_200, size=62_000_000)).seconds_left
    assert by_bytes == pytest.approx(30)
    skips = replace(counts, transferred=3_000, skipped=200)
    assert pace(
        recent, 32, skips, Whole(objects=4_200, size=62_000_000)
    ).seconds_left == pytest.approx(10)
    assert pace(recent, 3_600, counts, Whole(objects=4_200)).seconds_left is None


def test_a_clock_that_goes_back_does_no_harm() -> None:
    recent = after((8.0, report(800)), (4.0, report(800)))
    assert recent.at == moment(8.0).timestamp()
    assert 0 < pace(recent, 2.0).objects_per_second < 1_000


@pytest.mark.parametrize(
    ("status", "seconds_left"),
    [(JobStatus.COMPLETED, 0.0), (JobStatus.PAUSED, None), (JobStatus.ABORTED, None)],
)
def test_a_job_that_does_not_run_does_not_move(
    status: JobStatus, seconds_left: float | None
) -> None:
    recent = after((8.0, report(800)))
    still = Pace(active_workers=0, seconds_left=seconds_left)
    assert pace_of(recent, status, Counts(), UNKNOWN, moment(8)) == still


def test_it_is_stored_as_plain_numbers() -> None:
    recent = after((8.0, report(800)))
    assert Recent(**asdict(recent)) == recent
    assert pace_of(None, JobStatus.RUNNING, Counts(), UNKNOWN, moment(8)) == Pace()
