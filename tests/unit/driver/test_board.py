from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from slurper.database.work import JobWork, RangeWork
from slurper.jobs.board import Board, OpenRange, OpenUpload
from slurper.jobs.models import Job, JobStatus
from slurper.planning.keyspace import KeyRange
from tests.unit.driver.conftest import ACCOUNT, SPEC

START = datetime(2026, 3, 19, 15, 46, 20, tzinfo=UTC)


def work(job_id: str, *ranges: tuple[int, str | None], age_seconds: float = -1) -> JobWork:
    """A running job with open ranges (id, cursor), created so long before the driver."""
    job = Job(
        id=job_id,
        account_id=ACCOUNT,
        spec=SPEC,
        status=JobStatus.RUNNING,
        created_at=START - timedelta(seconds=age_seconds),
    )
    open_ranges = tuple(
        RangeWork(range_id=range_id, slice=KeyRange(cursor), committed_at=job.created_at)
        for range_id, cursor in ranges
    )
    return JobWork(job=job, sealed=b"sealed", ranges=open_ranges)


def board(*works: JobWork) -> Board:
    made = Board(START)
    show(made, *works)
    return made


def show(shown: Board, *works: JobWork) -> bool:
    shown.begin_update()
    return shown.update(works)


def take(shown: Board, now: float = 0.0) -> OpenRange:
    turn = shown.take(now)
    assert turn is not None
    assert isinstance(turn[0], OpenRange)
    return turn[0]


def test_each_range_is_taken_once_while_it_is_under_way() -> None:
    shown = board(work("a", (1, None), (2, "k")))
    taken = {take(shown).range_id, take(shown).range_id}
    assert taken == {1, 2}
    assert shown.take(0.0) is None


def test_a_range_carries_its_job_and_secrets() -> None:
    turn = board(work("a", (1, "k"))).take(0.0)
    assert turn is not None
    open_range, job, sealed = turn
    assert isinstance(open_range, OpenRange)
    assert (open_range.slice, job.id, sealed) == (KeyRange("k"), "a", b"sealed")


def test_the_job_with_fewer_tasks_under_way_comes_first() -> None:
    shown = board(work("a", *((number, None) for number in range(10))), work("b", (20, None)))
    taken = [take(shown).job_id for _ in range(4)]
    assert sorted(taken[:2]) == ["a", "b"]
    assert taken[2:] == ["a", "a"]


def test_ranges_of_a_job_take_turns() -> None:
    shown = board(work("a", (1, None), (2, None), (3, None)))
    order = []
    for _ in range(6):
        taken = take(shown)
        order.append(taken.range_id)
        taken.under_way = 0
    assert order == [1, 2, 3, 1, 2, 3]


def test_a_range_held_back_waits_for_its_time() -> None:
    shown = board(work("a", (1, None)))
    held = take(shown)
    held.under_way, held.not_before = 0, 5.0
    assert shown.take(4.9) is None
    assert shown.next_at(4.9) == 5.0
    assert take(shown, 5.0) is held
    assert shown.next_at(5.0) is None


def test_a_range_that_only_waits_for_a_slot_does_not_wake_the_driver() -> None:
    assert board(work("a", (1, None))).next_at(100.0) is None


def test_an_update_moves_cursors_but_not_of_ranges_under_way() -> None:
    shown = board(work("a", (1, None), (2, None)))
    busy = take(shown)
    assert show(shown, work("a", (1, "x"), (2, "x")))
    assert busy.slice == KeyRange()
    assert take(shown).slice == KeyRange("x")


def test_an_update_drops_ranges_that_are_done() -> None:
    shown = board(work("a", (1, None), (2, None)))
    show(shown, work("a", (2, None)))
    assert take(shown).range_id == 2
    assert shown.take(0.0) is None


def test_a_commit_during_a_read_wins_over_what_was_read() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.committed(taken, "k")
    taken.under_way = 0
    assert not shown.update([work("a", (1, None))]), "read again"
    assert take(shown).slice == KeyRange("k")


def test_a_job_that_ended_during_a_read_stays_ended() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.close(taken)
    assert shown.drop_job("a", for_good=True)
    shown.update([work("a", (1, None))])
    assert shown.take(0.0) is None
    assert shown.running_jobs == 0
    assert not shown.drop_job("a", for_good=True)


def test_other_jobs_are_taken_in_whatever_was_committed() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.committed(taken, "k")
    shown.update([work("b", (2, None))])
    assert take(shown).job_id == "b"
    assert shown.running_jobs == 2


class TestUncountedWork:
    def test_only_jobs_older_than_the_driver_may_hold_some(self) -> None:
        shown = board(work("old", (1, None), age_seconds=1), work("new", (2, None)))
        assert {take(shown).uncounted, take(shown).uncounted} == {True, False}

    def test_a_commit_does_not_settle_the_question(self) -> None:
        """It says nothing about what lies beyond it, and lost work may have come further."""
        shown = board(work("old", (1, None), age_seconds=1), work("new", (2, None)))
        old, new = sorted((take(shown), take(shown)), key=lambda taken: taken.range_id)
        shown.committed(old, "k")
        assert (old.uncounted, old.failures) == (True, 0)
        shown.committed(new, "k")
        assert not new.uncounted
        shown.committed(new, "l", uncounted=True)
        shown.committed(new, "m")
        assert new.uncounted

    def test_what_is_known_of_a_range_outlives_a_pause(self) -> None:
        lost, settled = work("new", (1, None)), work("old", (2, None), age_seconds=1)
        shown = board(lost, settled)
        for _ in range(2):
            taken = take(shown)
            taken.under_way = 0
            taken.uncounted = taken.job_id == "new"
        show(shown)
        assert shown.running_jobs == 0
        show(shown, lost, settled)
        known = {taken.job_id: taken.uncounted for taken in (take(shown), take(shown))}
        assert known == {"new": True, "old": False}

    def test_nothing_is_remembered_of_ordinary_ranges(self) -> None:
        shown = board(work("new", (1, None)), work("old", (2, None), age_seconds=1))
        show(shown)
        assert shown._ranges == {}


@given(st.data())
def test_a_job_with_nothing_under_way_waits_for_each_other_job_at_most_once(
    data: st.DataObject,
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    works = [
        work(f"job-{index}", *((10 * index + number, None) for number in range(size)))
        for index, size in enumerate(sizes)
    ]
    shown = board(*works)
    slots = data.draw(st.integers(1, 3))
    waited = {each.job.id: 0 for each in works}
    under_way: list[OpenRange | OpenUpload] = []
    for _ in range(6 * sum(sizes)):
        while len(under_way) < slots and (turn := shown.take(0.0)) is not None:
            under_way.append(turn[0])
            busy = {open_range.job_id for open_range in under_way}
            waited = {id_: 0 if id_ in busy else count + 1 for id_, count in waited.items()}
        assert max(waited.values()) < len(sizes)
        ended = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        ended.under_way = 0


def test_sealed_secrets_follow_the_database() -> None:
    first = work("a", (1, None))
    shown = board(first)
    show(shown, replace(first, sealed=b"renewed"))
    turn = shown.take(0.0)
    assert turn is not None
    assert turn[2] == b"renewed"
