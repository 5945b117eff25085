from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.database.job_row import RangeWork
from slurper.database.work import JobWork
from slurper.driver import schedule
from slurper.driver.backlog import KINDS
from slurper.driver.board import MAX_UNSETTLED, Board
from slurper.driver.open_work import Dealt, OpenRange, OpenUpload
from slurper.job.model import Capabilities, Job, JobCapabilities, JobStatus
from slurper.objectstore.base import Part
from slurper.planning.keyspace import KeyRange
from slurper.transfer.task import BegunUpload, PartsReport, Upload
from tests.unit.driver.conftest import ACCOUNT, SPEC, large

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
        RangeWork(range_id=range_id, slice=KeyRange(cursor)) for range_id, cursor in ranges
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
    turn = schedule.take(shown, now)
    assert turn is not None
    assert isinstance(turn[0], OpenRange)
    return turn[0]


def test_the_next_task_knows_what_a_commit_has_found_out_of_the_stores() -> None:
    known = work("a", (1, None), (2, "k"))
    shown = board(known)
    take(shown)
    found = JobCapabilities(target=Capabilities(wants_md5=True))
    shown.begin_update()
    shown.learn("a", found)
    assert shown.update([known]) is False  # it was read before that commit
    turn = schedule.take(shown, 0.0)
    assert turn is not None
    assert turn[1].capabilities == found
    shown.learn("gone", found)


def test_each_range_is_taken_once_while_it_is_under_way() -> None:
    shown = board(work("a", (1, None), (2, "k")))
    taken = {take(shown).range_id, take(shown).range_id}
    assert taken == {1, 2}
    assert schedule.take(shown, 0.0) is None


def test_a_range_carries_its_job_and_secrets() -> None:
    turn = schedule.take(board(work("a", (1, "k"))), 0.0)
    assert turn is not None
    open_range, job = turn
    assert isinstance(open_range, OpenRange)
    assert (open_range.slice, job.id) == (KeyRange("k"), "a")


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
        shown.end_turn(taken)
    assert order == [1, 2, 3, 1, 2, 3]


def test_a_range_held_back_waits_for_its_time() -> None:
    shown = board(work("a", (1, None)))
    held = take(shown)
    held.not_before = 5.0
    shown.end_turn(held)
    assert schedule.take(shown, 4.9) is None
    assert schedule.next_at(shown, 4.9) == 5.0
    assert take(shown, 5.0) is held
    assert schedule.next_at(shown, 5.0) is None


def test_a_range_that_only_waits_for_a_slot_does_not_wake_the_driver() -> None:
    assert schedule.next_at(board(work("a", (1, None))), 100.0) is None


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
    assert schedule.take(shown, 0.0) is None


def test_a_commit_during_a_read_wins_over_what_was_read() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.committed(taken, KeyRange("k"))
    shown.end_turn(taken)
    assert not shown.update([work("a", (1, None))]), "read again"
    assert take(shown).slice == KeyRange("k")


def test_a_job_that_ended_during_a_read_stays_ended() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.close(taken)
    assert shown.drop_job("a", for_good=True)
    shown.update([work("a", (1, None))])
    assert schedule.take(shown, 0.0) is None
    assert len(shown.jobs) == 0
    assert not shown.drop_job("a", for_good=True)


def test_other_jobs_are_taken_in_whatever_was_committed() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    shown.begin_update()
    shown.committed(taken, KeyRange("k"))
    shown.update([work("b", (2, None))])
    assert take(shown).job_id == "b"
    assert len(shown.jobs) == 2


class TestUncountedWork:
    def test_only_jobs_older_than_the_driver_may_hold_some(self) -> None:
        shown = board(work("old", (1, None), age_seconds=1), work("new", (2, None)))
        assert {take(shown).uncounted, take(shown).uncounted} == {True, False}

    def test_a_commit_does_not_settle_the_question(self) -> None:
        """It says nothing about what lies beyond it, and lost work may have come further."""
        shown = board(work("old", (1, None), age_seconds=1), work("new", (2, None)))
        old, new = sorted((take(shown), take(shown)), key=lambda taken: taken.range_id)
        shown.committed(old, KeyRange("k"))
        assert (old.uncounted, old.failures) == (True, 0)
        shown.committed(new, KeyRange("k"))
        assert not new.uncounted
        shown.committed(new, KeyRange("l"), uncounted=True)
        shown.committed(new, KeyRange("m"))
        assert new.uncounted

    def test_what_is_known_of_a_range_outlives_a_pause(self) -> None:
        lost, settled = work("new", (1, None)), work("old", (2, None), age_seconds=1)
        shown = board(lost, settled)
        for _ in range(2):
            taken = take(shown)
            shown.end_turn(taken)
            taken.uncounted = taken.job_id == "new"
        show(shown)
        assert len(shown.jobs) == 0
        show(shown, lost, settled)
        known = {taken.job_id: taken.uncounted for taken in (take(shown), take(shown))}
        assert known == {"new": True, "old": False}

    def test_nothing_is_remembered_of_ordinary_ranges(self) -> None:
        shown = board(work("new", (1, None)), work("old", (2, None), age_seconds=1))
        show(shown)
        assert len(shown.backlog("a")) == 0


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
        while len(under_way) < slots and (turn := schedule.take(shown, 0.0)) is not None:
            under_way.append(turn[0])
            busy = {open_range.job_id for open_range in under_way}
            waited = {id_: 0 if id_ in busy else count + 1 for id_, count in waited.items()}
        assert max(waited.values()) < len(sizes)
        ended = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        shown.end_turn(ended)


def pieces(*found: tuple[int, str | None, str | None]) -> tuple[RangeWork, ...]:
    return tuple(
        RangeWork(range_id=range_id, slice=KeyRange(start, end)) for range_id, start, end in found
    )


def test_what_was_cut_off_a_range_waits_for_its_turn_at_once() -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    cut_off = pieces((2, "h", "p"), (3, "p", None))
    shown.committed(taken, KeyRange("c", "h"), cut_off=cut_off)
    shown.end_turn(taken)
    assert [take(shown).slice for _ in range(3)] == [
        KeyRange("h", "p"),
        KeyRange("p", None),
        KeyRange("c", "h"),
    ]


@pytest.mark.parametrize("is_seen_first", [False, True])
def test_what_was_cut_off_inherits_what_the_range_may_hold(*, is_seen_first: bool) -> None:
    shown = board(work("a", (1, None)))
    taken = take(shown)
    taken.uncounted = True
    if is_seen_first:  # by a look at the database that was quicker than the answer to the commit
        show(shown, work("a", (1, None), (2, "h")))
    shown.committed(taken, KeyRange("c", "h"), cut_off=pieces((2, "h", None)))
    assert take(shown).uncounted


def test_a_range_lost_sight_of_comes_back_with_what_it_may_hold() -> None:
    shown = board(work("a", (1, None)))
    shown.reload_later(take(shown), uncounted=True)
    show(shown, work("a", (1, "c"), (2, "h")))
    assert [take(shown).uncounted, take(shown).uncounted] == [True, True]
    shown.drop_job("a", for_good=True)
    show(shown, work("a", (3, None)))
    assert not take(shown).uncounted


def wanted(shown: Board, slots: int) -> int:
    taken = take(shown)
    taken.wanted_pieces = schedule.wanted_pieces(shown, taken, slots)
    return taken.wanted_pieces


def test_a_range_is_cut_for_the_slots_that_nobody_needs() -> None:
    assert wanted(board(work("a", (1, None))), 4) == 4
    assert wanted(board(work("a", (1, "k"), (2, None))), 4) == 2
    assert wanted(board(work("a", *((number, None) for number in range(4)))), 4) == 1


def test_every_range_is_asked_for_its_part_of_what_is_missing() -> None:
    """The one asked first may be nearly done, and would keep all slots waiting for the others."""
    shown = board(work("a", (1, "g"), (2, "p"), (3, None)))
    assert [wanted(shown, 16) for _ in range(3)] == [6, 6, 6]


def test_no_more_than_twice_the_missing_pieces_are_asked_for() -> None:
    shown = board(work("a", *((number, None) for number in range(15))))
    assert [wanted(shown, 16) for _ in range(15)] == [2, 2] + [1] * 13


def test_every_job_gets_its_share_of_the_slots() -> None:
    shown = board(work("a", (1, None)), work("b", (2, None)))
    assert [wanted(shown, 4), wanted(shown, 4)] == [2, 2]
    crowd = board(*(work(f"job{number}", (number, None)) for number in range(9)))
    assert {wanted(crowd, 4) for _ in range(9)} == {1}


def test_a_job_with_as_many_ranges_as_it_may_have_is_not_cut_any_more() -> None:
    shown = board(work("a", (1, None)), work("b", (2, None)))
    shown.cannot_cut("a")
    show(shown, work("a", (1, "c")), work("b", (2, None)))  # the database does not know it
    assert [wanted(shown, 8), wanted(shown, 8)] == [1, 4]


def test_a_job_that_may_have_begun_anew_is_cut_again() -> None:
    shown = board(work("a", (1, None)))
    shown.cannot_cut("a")
    shown.reload_later(take(shown), uncounted=True)
    show(shown, work("a", (3, None)))
    assert wanted(shown, 4) == 4


def test_a_job_is_as_old_as_its_first_turn() -> None:
    shown = board(work("a", (1, None)), work("b", (2, None)))
    take(shown, 5.0)
    take(shown, 7.0)
    assert schedule.age_seconds(shown, "a", 10.0) == 5.0
    assert schedule.age_seconds(shown, "b", 10.0) == 3.0
    assert schedule.age_seconds(shown, "gone", 10.0) == 0.0


def test_the_shares_of_a_job_are_never_more_than_its_limits() -> None:
    shown = board(work("a", (1, None)), work("b", (9, None)))
    first = take(shown)
    assert schedule.allot(shown, first, slots=4) == 1.0
    shown.end_turn(first)
    first.allotted = 0.0
    show(shown, work("a", (1, "c"), (2, "m"), (3, "x")), work("b", (9, None)))
    dealt = []
    while (turn := schedule.take(shown, 0.0)) is not None:
        if turn[1].id == "a":
            dealt.append(schedule.allot(shown, turn[0], slots=2))
    assert dealt[:2] == [0.5, 0.5]
    assert dealt[2:] == [0.05]  # more tasks than slots: it moves, slowly


def test_a_share_that_was_taken_before_there_were_more_is_respected() -> None:
    shown = board(work("a", (1, None)))
    assert schedule.allot(shown, take(shown), slots=4) == 1.0
    show(shown, work("a", (1, None), (2, "m")))
    assert schedule.allot(shown, take(shown), slots=4) == 0.05


def test_other_limits_make_nobody_wait_for_what_was_owed() -> None:
    before = work("a", (1, None))
    shown = board(before)
    open_range = take(shown)
    schedule.allot(shown, open_range, slots=1)
    open_range.not_before = 1e9
    shown.end_turn(open_range)
    assert schedule.take(shown, 0.0) is None
    show(shown, before)
    assert schedule.take(shown, 0.0) is None
    options = replace(SPEC.options, bandwidth_limit=5)
    limited = replace(before.job, spec=replace(SPEC, options=options))
    show(shown, replace(before, job=limited))
    assert take(shown) is open_range
    assert open_range.allotted == 0


MIB = 1 << 20
PART = 16 * MIB


def upload(number: int, *, parts: int = 16, begun: bool = False, late: bool = True) -> Upload:
    """A large object of so many parts, found after the driver had begun (`late`) or before."""
    found_at = START + timedelta(seconds=1 if late else -1)
    at_store = BegunUpload(
        upload_id=f"u{number}",
        part_size=PART,
        whole_checked=False,
        begun_at=found_at,
        last_modified=None,
    )
    return Upload(
        id=number,
        meta=large(f"k{number}", parts * PART),
        found_at=found_at,
        begun=at_store if begun else None,
    )


def with_uploads(each: JobWork, *uploads: Upload, unsettled: int | None = None) -> JobWork:
    count = len(uploads) if unsettled is None else unsettled
    return replace(each, uploads=uploads, unsettled=count)


def take_upload(shown: Board, free: int = 1) -> OpenUpload:
    turn = schedule.take(shown, 0.0, free)
    assert turn is not None
    assert isinstance(turn[0], OpenUpload)
    return turn[0]


def part(number: int) -> Part:
    return Part(number, PART, f'"{number}"')


def begin(open_upload: OpenUpload) -> None:
    """A task has begun the upload, and no more."""
    at_store = upload(open_upload.upload.id, begun=True).begun
    open_upload.know_parts(())
    report = PartsReport(job_id=open_upload.job_id, upload=open_upload.upload, begun=at_store)
    open_upload.add_parts(report)


def test_ranges_and_large_objects_of_a_job_share_its_tasks() -> None:
    uploads = (upload(5), upload(6), upload(7))
    shown = board(with_uploads(work("a", (1, None), (2, None)), *uploads))
    kinds = []
    while (turn := schedule.take(shown, 0.0)) is not None:
        kinds.append(turn[0])
    assert [type(one) for one in kinds[:4]] == [OpenUpload, OpenRange] * 2
    taken = [one.upload.id for one in kinds if isinstance(one, OpenUpload)]
    assert taken == [5, 6, 7], "what was found first is finished first"


@given(st.integers(1, 8), st.data())
def test_large_objects_have_as_many_tasks_beside_the_ranges(
    slots: int, data: st.DataObject
) -> None:
    under_way = {OpenRange: 0, OpenUpload: 0}
    while kinds := schedule.kinds_with_room(
        ranges=under_way[OpenRange], uploads=under_way[OpenUpload], slots=slots
    ):
        under_way[data.draw(st.sampled_from(kinds))] += 1
    assert sum(under_way.values()) == 2 * slots
    assert under_way[OpenRange] <= slots
    assert schedule.kinds_with_room(ranges=0, uploads=slots, slots=slots) == KINDS
    assert schedule.kinds_with_room(ranges=slots, uploads=0, slots=slots) == (OpenUpload,)


def test_where_only_large_objects_have_room_no_range_begins_and_no_parts_are_dealt() -> None:
    shown = board(with_uploads(work("a", (1, None)), upload(5, begun=True), upload(6)))
    taken = [schedule.take(shown, 0.0, 0, (OpenUpload,)) for _ in range(3)]
    found = [one for turn in taken if turn is not None if isinstance(one := turn[0], OpenUpload)]
    assert [one.upload.id for one in found] == [5, 6]
    assert taken[2] is None
    found[0].know_parts(())
    found[0].is_dealing = False
    assert schedule.take(shown, 0.0, 0, (OpenUpload,)) is None
    assert schedule.take(shown, 0.0, 0) is not None, "the range"
    shared = schedule.take(shown, 0.0, 1, (OpenUpload,))
    assert shared is not None
    assert shared[0] is found[0]


@pytest.mark.parametrize("ranges", [0, 1, 4])
def test_the_shares_of_large_objects_fit_into_the_limits(ranges: int) -> None:
    spec = [(number, f"r{number}") for number in range(1, ranges + 1)]
    shown = board(with_uploads(work("a", *spec), *(upload(10 + number) for number in range(12))))
    shares, under_way = [], {OpenRange: 0, OpenUpload: 0}
    while kinds := schedule.kinds_with_room(
        ranges=under_way[OpenRange], uploads=under_way[OpenUpload], slots=4
    ):
        turn = schedule.take(shown, 0.0, 4 - sum(under_way.values()), kinds)
        if turn is None:
            break
        under_way[type(turn[0])] += 1
        shares.append(schedule.allot(shown, turn[0], slots=4))
    assert sum(shares) <= 1.0 + 1e-9
    assert max(shares) <= 2 * min(shares)


def test_a_job_with_many_large_objects_in_progress_looks_for_no_others() -> None:
    shown = board(with_uploads(work("a", (1, None)), upload(5), unsettled=MAX_UNSETTLED))
    assert take_upload(shown).upload.id == 5
    assert schedule.take(shown, 0.0) is None
    assert shown.lacks_uploads("a")
    shown.count_unsettled("a", -1)
    assert take(shown).range_id == 1


def test_without_idle_slots_a_task_gets_the_whole_object() -> None:
    shown = board(with_uploads(work("a", (1, None)), upload(5)))
    first = take_upload(shown, free=2)
    with first.deal(PART) as share:
        assert share == Dealt(None, ())
    begin(first)
    shown.end_turn(first)
    again = take_upload(shown, free=2)
    with again.deal(PART) as share:
        assert share == Dealt(tuple(range(1, 17)), ())


def test_idle_slots_share_an_object_and_no_part_is_dealt_twice() -> None:
    shown = board(with_uploads(work("a"), upload(5)))
    first = take_upload(shown, free=4)
    with first.deal(PART) as share:
        assert share.numbers == (), "it only begins, so that others can join at once"
        assert schedule.take(shown, 0.0, 3) is None
    begin(first)
    shown.end_turn(first)
    with contextlib.ExitStack() as stack:
        shares = [stack.enter_context(take_upload(shown, free).deal(PART)) for free in (4, 3, 2, 1)]
        assert [share.numbers for share in shares] == [
            (1, 2, 3, 4),
            (5, 6, 7, 8),
            (9, 10, 11, 12),
            (13, 14, 15, 16),
        ]
        assert [share.done for share in shares] == [None] * 4
        assert schedule.take(shown, 0.0) is None


def test_a_small_object_is_not_shared() -> None:
    shown = board(with_uploads(work("a"), upload(5, parts=5)))
    with take_upload(shown, free=4).deal(PART) as share:
        assert share == Dealt(None, ())


def test_who_gets_the_last_parts_may_complete() -> None:
    shown = board(with_uploads(work("a"), upload(5, parts=8, begun=True)))
    open_upload = take_upload(shown, free=1)
    open_upload.know_parts(map(part, (1, 2, 3)))
    with open_upload.deal(PART) as share:
        assert share == Dealt((4, 5, 6, 7, 8), tuple(map(part, (1, 2, 3))))
    open_upload.know_parts(map(part, range(1, 9)))
    shown.end_turn(open_upload)
    with take_upload(shown, free=3).deal(PART) as share:
        assert share == Dealt((), tuple(map(part, range(1, 9))))


def test_parts_of_a_task_that_came_to_nothing_are_dealt_again() -> None:
    shown = board(with_uploads(work("a"), upload(5, parts=8, begun=True)))
    open_upload = take_upload(shown)
    open_upload.know_parts(())
    with open_upload.deal(PART) as lost:
        pass
    shown.end_turn(open_upload)
    with take_upload(shown).deal(PART) as share:
        assert share == lost


def test_other_work_comes_before_shares() -> None:
    shown = board(
        with_uploads(work("a"), upload(5, begun=True)), with_uploads(work("b"), upload(6))
    )
    first = take_upload(shown, free=2)
    first.know_parts(())
    with first.deal(PART) as share:
        assert share.numbers is not None
        assert len(share.numbers) == 16, "the other slot is wanted"
        assert take_upload(shown).upload.id == 6


def test_an_object_that_is_begun_again_comes_anew_from_the_database() -> None:
    shown = board(with_uploads(work("a"), upload(5, begun=True)))
    old = take_upload(shown)
    shown.close(old)
    again = replace(upload(5), attempt=2)
    show(shown, with_uploads(work("a"), again))
    new = take_upload(shown)
    assert (new.upload, new.parts) == (again, None)
    shown.close(old)
    shown.end_turn(new)
    assert take_upload(shown) is new, "late news of the old one do not touch it"


@pytest.mark.parametrize("late", [True, False])
def test_objects_found_before_the_driver_began_may_hold_lost_work(*, late: bool) -> None:
    shown = board(with_uploads(work("a", age_seconds=9), upload(5, late=late)))
    assert take_upload(shown).uncounted is not late
