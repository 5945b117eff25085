"""The next task is the one that a look at all open work would choose."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from slurper.driver import schedule
from slurper.driver.backlog import KINDS, Backlog, Kind, Work
from slurper.driver.board import MAX_UNSETTLED, Board
from slurper.driver.open_work import OpenRange, OpenUpload
from slurper.job.model import Job
from slurper.planning.keyspace import KeyRange
from tests.unit.driver.test_board import board, show, upload, with_uploads, work


def chosen_by_a_look_at_all(
    shown: Board, now: float, free: int, kinds: tuple[Kind, ...]
) -> Work | None:
    """The rule of `driver.schedule`, as simply as it can be written."""
    found = [(running, list(shown.backlog(job_id))) for job_id, running in shown.jobs.items()]
    waiting = [
        (running, works, one)
        for running, works in found
        for one in works
        if isinstance(one, kinds)
        and not one.under_way
        and one.not_before <= now
        and (isinstance(one, OpenUpload) or running.unsettled < MAX_UNSETTLED)
    ]
    shared = [
        (running, works, one)
        for running, works in found
        for one in works
        if isinstance(one, OpenUpload) and one.may_be_shared and one.not_before <= now and free > 0
    ]
    order = list(shown.jobs.values())
    candidates = [
        (
            sum(other.under_way for other in works),
            running.last_turn,
            order.index(running),
            sum(other.under_way for other in works if type(other) is type(one)),
            isinstance(one, OpenRange),
            one.under_way,
            one.place,
            one.number,
            one,
        )
        for running, works, one in waiting or shared
    ]
    return min(candidates, key=lambda each: each[:-1])[-1] if candidates else None


class Choosing(RuleBasedStateMachine):
    """Jobs with some work: tasks begin and end, time passes, the database is looked at."""

    @initialize(
        ranges=st.lists(st.integers(0, 4), min_size=1, max_size=3),
        uploads=st.lists(st.integers(0, 3), min_size=3, max_size=3),
        unsettled=st.lists(st.sampled_from([0, 0, MAX_UNSETTLED]), min_size=3, max_size=3),
    )
    def begin(self, ranges: list[int], uploads: list[int], unsettled: list[int]) -> None:
        self.now = 1.0
        self.under_way: list[Work] = []
        self.works = [
            with_uploads(
                work(f"job-{job}", *((10 * job + number, None) for number in range(count))),
                *(upload(10 * job + number) for number in range(uploads[job])),
                unsettled=unsettled[job],
            )
            for job, count in enumerate(ranges)
        ]
        self.shown = board(*self.works)

    @rule(free=st.integers(0, 2), kinds=st.sampled_from([KINDS, (OpenUpload,), (OpenRange,)]))
    def take(self, free: int, kinds: tuple[Kind, ...]) -> None:
        expected = chosen_by_a_look_at_all(self.shown, self.now, free, kinds)
        turn: tuple[Work, Job] | None = schedule.take(self.shown, self.now, free, kinds)
        assert (turn and turn[0]) is expected
        if turn is not None:
            self.under_way.append(turn[0])

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), delay=st.sampled_from([None, -0.5, 0.0, 0.5, 2.0]), closes=st.booleans())
    def end(self, data: st.DataObject, delay: float | None, *, closes: bool) -> None:
        ended = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if delay is not None:
            ended.not_before = self.now + delay
        if closes:
            self.shown.close(ended)
        self.shown.end_turn(ended)

    @rule(seconds=st.sampled_from([0.25, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """The database shows the work that was closed again, and the jobs in some order."""
        show(self.shown, *data.draw(st.permutations(self.works)))

    @rule()
    def deal(self) -> None:
        for one in self.under_way:
            if isinstance(one, OpenUpload) and one.is_dealing:
                one.know_parts(())
                one.is_dealing = False

    @invariant()
    def next_time(self) -> None:
        held_back = [
            one.not_before
            for job_id in self.shown.jobs
            for one in self.shown.backlog(job_id)
            if not one.under_way and one.not_before > self.now
        ]
        assert schedule.next_at(self.shown, self.now) == min(held_back, default=None)


TestChoosing = Choosing.TestCase
TestChoosing.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_a_queue_does_not_grow_with_the_turns_of_the_same_work() -> None:
    backlog = Backlog()
    backlog.add(OpenRange(job_id="a", presumed_uncounted=False, range_id=1, slice=KeyRange()))
    backlog.add(OpenRange(job_id="a", presumed_uncounted=False, range_id=2, slice=KeyRange()))
    for number in range(1, 100):
        one = backlog.first(KINDS)
        backlog.begin_turn(one, number, spare=0)
        backlog.end_turn(one)
    assert backlog.waiting(KINDS) == 2
    assert len(backlog._waiting[OpenRange]._heap) == 2
