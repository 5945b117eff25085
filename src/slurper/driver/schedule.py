"""Whose turn it is, and how much a task gets. Pure functions of the board.

The next task goes to the job with the fewest tasks under way. Among several such jobs it goes
to the one served longest ago. So every running job moves, even beside a much larger one. Within
the job, the next task goes to the kind of work with fewer tasks under way: ranges or large
objects. Among ranges, the one served longest ago comes first. Among large objects, the one
found first comes first, so that it is finished soon. When all work has a task and slots are
idle, they get parts of the large objects under way.

Ranges have at most as many tasks as the engine has slots. Large objects may have as many besides.
Each of them waits often for a single answer: to HEAD, to the begin of its upload, to its end.
"""

from __future__ import annotations

from slurper.driver.backlog import KINDS, Backlog, Kind, Work
from slurper.driver.board import MAX_UNSETTLED, Board, RunningJob
from slurper.driver.open_work import OpenRange, OpenUpload, OpenWork
from slurper.job.model import Job

_MIN_OF_EVEN = 0.1
"""A task gets at least this fraction of an even share of its job's limits."""


def kinds_with_room(*, ranges: int, uploads: int, slots: int) -> tuple[Kind, ...]:
    """Which kinds of work may have one more task, when so many tasks are under way."""
    if ranges + max(0, uploads - slots) < slots:
        return KINDS
    return (OpenUpload,) if uploads < slots else ()


def take(
    board: Board, now: float, free: int = 1, kinds: tuple[Kind, ...] = KINDS
) -> tuple[Work, Job] | None:
    """Choose the work of one of these kinds that begins next; return it with its job.

    The work is counted as having one more task. `free` is how many slots are idle. None: no work
    may begin at the monotonic time `now`.
    """
    waiting = 0
    candidates = list[tuple[RunningJob, Backlog]]()
    for running, backlog in board.backlogs():
        backlog.release(now)
        found = backlog.waiting(_allowed(running, kinds))
        waiting += found
        if found:
            candidates.append((running, backlog))
    if candidates:
        running, backlog = min(candidates, key=_precedence)
        chosen: Work = backlog.first(_allowed(running, kinds))
    elif free > 0 and (shared := _shared(board, now)) is not None:
        running, backlog, chosen = shared
    else:
        return None
    running.last_turn = next(board.turns)
    if running.began is None:
        running.began = now
    backlog.begin_turn(chosen, running.last_turn, spare=max(0, free - max(1, waiting)))
    return chosen, running.job


def next_at(board: Board, now: float) -> float | None:
    """The monotonic time after `now` when the next delayed work may begin, if any."""
    times = list[float]()
    for _, backlog in board.backlogs():
        backlog.release(now)
        if (until := backlog.held_back_until()) is not None:
            times.append(until)
    return min(times, default=None)


def wanted_pieces(board: Board, open_range: OpenRange, slots: int) -> int:
    """Into how many pieces a range whose turn it is should be cut; 1: it stays whole.

    All running jobs together need as much open work as the engine has slots. Each job should
    have an equal share of it. Each range of a job is asked for the same number of pieces. All
    ranges together are asked for up to twice the missing number, because some are nearly done.
    A job that has as many ranges as it may have is asked for none: each search costs requests.
    """
    running = board.jobs.get(open_range.job_id)
    if running is not None and running.has_most_ranges:
        return 1
    in_use = sum(len(backlog) for _, backlog in board.backlogs())
    of_job = board.backlog(open_range.job_id)
    room = min(-(-slots // max(1, len(board.jobs))), slots - in_use + len(of_job))
    on_their_way = sum(
        other.wanted_pieces - 1 for other in of_job.ranges if other is not open_range
    )
    missing = room - len(of_job)
    even = -(-room // max(1, len(of_job)))
    return 1 + max(0, min(even - 1, 2 * missing - on_their_way))


def age_seconds(board: Board, job_id: str, now: float) -> float:
    """For how many seconds the job has been worked on; 0 when it is no longer on the board."""
    running = board.jobs.get(job_id)
    return 0.0 if running is None or running.began is None else now - running.began


def allot(board: Board, open_work: OpenWork, slots: int) -> float:
    """Give a new task its share (0 to 1) of the job's limits, and return that share.

    The shares of a job add up to at most 1, with one exception: a task that begins when nothing
    is left gets a small share anyway, so that it moves. At most `slots` tasks of ranges run at
    once, and twice as many in all.
    """
    of_job = board.backlog(open_work.job_id)
    uploads = of_job.count(OpenUpload)
    tasks = min(2 * slots, uploads + min(slots, len(of_job) - uploads))
    even = 1 / max(1, tasks)
    left = 1 - sum(one.allotted for one in of_job)
    allotted = max(min(even, left), _MIN_OF_EVEN * even)
    open_work.allotted += allotted
    return allotted


def _allowed(running: RunningJob, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Those kinds of work that a job may begin."""
    if running.unsettled < MAX_UNSETTLED:
        return kinds
    return tuple(kind for kind in kinds if kind is not OpenRange)


def _precedence(candidate: tuple[RunningJob, Backlog]) -> tuple[int, int]:
    """The sort key of `take`: the job with the lowest gets the next task."""
    running, backlog = candidate
    return backlog.under_way(*KINDS), running.last_turn


def _shared(board: Board, now: float) -> tuple[RunningJob, Backlog, OpenUpload] | None:
    """The large object whose parts another task may copy, if there is one."""
    for running, backlog in sorted(board.backlogs(), key=_precedence):
        if (found := backlog.to_share(now)) is not None:
            return running, backlog, found
    return None
