"""The open work of one job, and which of it gets the next task. Pure.

A job may have thousands of ranges and large objects, and as many tasks under way. So what waits for
a task lies in heaps, and is counted as it changes. Nothing here looks at all of the work to find
the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from itertools import count

from slurper.driver.open_work import OpenRange, OpenUpload

Work = OpenRange | OpenUpload
Kind = type[OpenRange] | type[OpenUpload]
KINDS: tuple[Kind, ...] = (OpenUpload, OpenRange)
"""In the order in which they are served when they have as many tasks."""


class Backlog:
    """What is open of one job. It need not be on the board."""

    def __init__(self) -> None:
        self._open: dict[Kind, dict[int, Work]] = {OpenRange: {}, OpenUpload: {}}
        self._under_way: dict[Kind, int] = {OpenRange: 0, OpenUpload: 0}
        self._waiting: dict[Kind, _Queue] = {OpenRange: _Queue(), OpenUpload: _Queue()}
        self._held_back: list[tuple[float, int, Work]] = []
        """A heap by `not_before`. An entry may be out of date; see `_is_held_back`."""
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._open[OpenRange]) + len(self._open[OpenUpload])

    def __iter__(self) -> Iterator[Work]:
        for kind in (OpenRange, OpenUpload):
            yield from self._open[kind].values()

    @property
    def ranges(self) -> list[OpenRange]:
        """The open ranges."""
        return [one for one in self._open[OpenRange].values() if isinstance(one, OpenRange)]

    @property
    def uploads(self) -> list[OpenUpload]:
        """The large objects in progress, as far as they are known."""
        return [one for one in self._open[OpenUpload].values() if isinstance(one, OpenUpload)]

    def count(self, kind: Kind) -> int:
        """How much work of a kind is open."""
        return len(self._open[kind])

    def find(self, kind: Kind, number: int) -> Work | None:
        """The work of a kind with this id."""
        return self._open[kind].get(number)

    def under_way(self, *kinds: Kind) -> int:
        """How many tasks work of these kinds has."""
        return sum(self._under_way[kind] for kind in kinds)

    # What changes

    def add(self, work: Work) -> None:
        """Take in work that has no task yet."""
        self._open[type(work)][work.number] = work
        self._queue(work)

    def remove(self, work: Work) -> None:
        """Drop this work, but not newer work that was read since under the same id."""
        if not self._has(work):
            return
        kind = type(work)
        del self._open[kind][work.number]
        self._waiting[kind].discard(work)
        self._under_way[kind] -= work.under_way

    def begin_turn(self, work: Work, number: int, *, spare: int) -> None:
        """Count one more task of some work, as `OpenWork.begin_turn` does."""
        self._waiting[type(work)].discard(work)
        self._under_way[type(work)] += 1
        work.begin_turn(number, spare=spare)

    def end_turn(self, work: Work) -> None:
        """Count one task less. The work may have been removed meanwhile."""
        work.end_turn()
        if self._has(work):
            self._under_way[type(work)] -= 1
            self._queue(work)

    def allow_at_once(self) -> None:
        """Hold nothing back any more, and forget the shares of the job's limits."""
        for work in self:
            work.not_before = work.allotted = 0.0
            self._queue(work)
        self._held_back.clear()

    # What is next

    def release(self, now: float) -> None:
        """Let the work wait for a task whose time has come."""
        while self._held_back and self._held_back[0][0] <= now:
            _, _, work = heapq.heappop(self._held_back)
            if self._is_idle(work) and work.not_before <= now:
                self._waiting[type(work)].add(work)

    def held_back_until(self) -> float | None:
        """The monotonic time when the next delayed work may begin, if any."""
        heap = self._held_back
        while heap and not self._is_held_back(heap[0]):
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def waiting(self, kinds: Collection[Kind]) -> int:
        """How much work of these kinds waits for its first task of a turn."""
        return sum(len(self._waiting[kind]) for kind in kinds)

    def first(self, kinds: Collection[Kind]) -> Work:
        """The work that is next, of the kind with the fewest tasks; there must be some."""
        kind = min(
            (kind for kind in KINDS if kind in kinds and self._waiting[kind]),
            key=lambda kind: self._under_way[kind],
        )
        return self._waiting[kind].first()

    def to_share(self, now: float) -> OpenUpload | None:
        """The large object whose parts another task may copy: the one with the fewest tasks."""
        if not self._under_way[OpenUpload]:
            return None
        shared = (one for one in self.uploads if one.may_be_shared and one.not_before <= now)
        return min(shared, key=lambda one: (one.under_way, one.number), default=None)

    def _has(self, work: Work) -> bool:
        return self._open[type(work)].get(work.number) is work

    def _is_idle(self, work: Work) -> bool:
        return self._has(work) and not work.under_way

    def _is_held_back(self, entry: tuple[float, int, Work]) -> bool:
        return self._is_idle(entry[2]) and entry[2].not_before == entry[0]

    def _queue(self, work: Work) -> None:
        """Let work without a task wait for one, or for its time."""
        if work.under_way:
            return
        if work.not_before > 0:
            heapq.heappush(self._held_back, (work.not_before, next(self._numbers), work))
        else:
            self._waiting[type(work)].add(work)


class _Queue:
    """Waiting work, first what has the lowest place."""

    def __init__(self) -> None:
        self._members: dict[int, tuple[int, Work]] = {}
        """By id: the place, and the work."""
        self._heap: list[tuple[int, int]] = []
        """Places and ids; also of work that has left, until it is met."""

    def __len__(self) -> int:
        return len(self._members)

    def add(self, work: Work) -> None:
        member = work.place, work
        if self._members.get(work.number) != member:
            self._members[work.number] = member
            heapq.heappush(self._heap, (work.place, work.number))

    def discard(self, work: Work) -> None:
        member = self._members.get(work.number)
        if member is None or member[1] is not work:
            return
        del self._members[work.number]
        if self._heap[0] == (member[0], work.number):  # mostly it leaves because it was first
            heapq.heappop(self._heap)

    def first(self) -> Work:
        while True:
            place, number = self._heap[0]
            member = self._members.get(number)
            if member is not None and member[0] == place:
                return member[1]
            heapq.heappop(self._heap)
