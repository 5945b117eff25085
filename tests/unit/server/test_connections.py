from __future__ import annotations

from typing import Any, cast

import pytest

from slurper.server.connections import PLAIN_BYTES, Connection, Connections, Phase
from slurper.server.limits import Limits
from slurper.settings import MIB


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Transport:
    """As much of a transport as a connection needs."""

    def __init__(self) -> None:
        self.aborted = False
        self.unsent = 0
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_reading(self) -> bool:
        return self.reading

    def abort(self) -> None:
        self.aborted = True


class Opened:
    """A connection with its transport."""

    def __init__(self, connections: Connections, phase: Phase = Phase.FRESH) -> None:
        self.transport = Transport()
        self.connection = Connection(connections, encrypted=phase is Phase.OPENING)
        transport = cast("Any", self.transport)
        self.connection.opened(transport)
        if phase is not Phase.OPENING:
            self.connection.established(transport)
            self.enter(phase)

    def enter(self, phase: Phase) -> None:
        self.connection.enter(phase)

    def is_closed(self) -> bool:
        return self.transport.aborted


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _connections(clock: Clock, **limits: Any) -> Connections:  # noqa: ANN401 - fields of Limits
    return Connections(Limits(**limits), now=clock)


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [
        (Phase.OPENING, 10),
        (Phase.FRESH, 10),
        (Phase.HEAD, 10),
        (Phase.LEFTOVER, 10),
        (Phase.BODY, 10),
        (Phase.IDLE, 30),
        (Phase.REFUSED, 2),
    ],
)
def test_each_phase_has_its_time(clock: Clock, phase: Phase, seconds: float) -> None:
    connections = _connections(clock)
    opened = Opened(connections, phase)
    clock.now = seconds
    connections.sweep()
    assert not opened.is_closed()
    clock.now = seconds + 0.1
    connections.sweep()
    assert opened.is_closed()
    assert len(connections) == 0


def test_an_answer_may_take_long(clock: Clock) -> None:
    connections = _connections(clock)
    opened = Opened(connections, Phase.ANSWERING)
    clock.now = 10_000
    connections.sweep()
    assert not opened.is_closed()


def test_an_answer_must_be_taken(clock: Clock) -> None:
    connections = _connections(clock)
    opened = Opened(connections, Phase.ANSWERING)
    opened.transport.unsent = 1_000
    opened.connection.unsent()
    clock.now = 60
    connections.sweep()
    assert not opened.is_closed()
    opened.connection.unsent()
    clock.now = 61
    connections.sweep()
    assert opened.is_closed()


def test_an_answer_that_was_taken_is_forgotten(clock: Clock) -> None:
    connections = _connections(clock)
    opened = Opened(connections, Phase.ANSWERING)
    opened.connection.unsent()
    opened.connection.sent()
    clock.now = 61
    connections.sweep()
    assert not opened.is_closed()


def test_a_body_may_be_slow_but_not_too_slow(clock: Clock) -> None:
    connections = _connections(clock)
    fast, slow = (Opened(connections, Phase.BODY) for _ in range(2))
    while clock.now < 300:
        clock.now += 5
        fast.connection.body_came(6_000)
        slow.connection.body_came(50)
        connections.sweep()
        assert slow.is_closed() == (clock.now > 30 + 50 * clock.now / 5 / 1_024)
    assert not fast.is_closed()


def test_a_body_that_the_server_does_not_read_is_not_late(clock: Clock) -> None:
    connections = _connections(clock)
    opened = Opened(connections, Phase.BODY)
    opened.transport.reading = False
    for _ in range(5):
        clock.now += 5
        connections.sweep()
    assert not opened.is_closed()


def test_the_oldest_idle_one_makes_room(clock: Clock) -> None:
    connections = _connections(clock, connections=4)
    first, second, head, answering = (
        Opened(connections, phase)
        for phase in (Phase.IDLE, Phase.IDLE, Phase.HEAD, Phase.ANSWERING)
    )
    first.enter(Phase.HEAD)  # it was used again, so the other is the oldest that is idle
    first.enter(Phase.IDLE)
    Opened(connections)
    assert [each.is_closed() for each in (first, second, head, answering)] == [
        False,
        True,
        False,
        False,
    ]


def test_room_is_made_in_the_order_of_who_is_waited_for(clock: Clock) -> None:
    connections = _connections(clock, connections=5)
    phases = (Phase.ANSWERING, Phase.BODY, Phase.ANSWERING, Phase.HEAD, Phase.IDLE)
    opened = [Opened(connections, phase) for phase in phases]
    opened[2].transport.unsent = 1
    opened[2].connection.unsent()
    for expected in (4, 3, 2, 1):
        Opened(connections, Phase.ANSWERING)
        assert [number for number in range(5) if opened[number].is_closed()] == list(
            range(expected, 5)
        )
    late = Opened(connections)
    assert late.is_closed(), "all others are being answered"
    assert not opened[0].is_closed()
    assert len(connections) == 5


def test_too_much_in_memory_closes_connections(clock: Clock) -> None:
    connections = _connections(clock, connections=1_000)
    most = connections.limits.held_bytes
    opened = [Opened(connections, Phase.HEAD) for _ in range(1_000)]
    for each in opened:
        each.connection.taken = MIB // 8
        connections.note(MIB // 8)
    still_open = [each for each in opened if not each.is_closed()]
    held = len(still_open) * (PLAIN_BYTES + MIB // 8)
    assert 0 < held <= most + MIB + MIB // 8
    assert opened[0].is_closed()
    assert not opened[-1].is_closed()


def test_a_connection_that_was_dropped_is_no_longer_counted(clock: Clock) -> None:
    connections = _connections(clock)
    opened = Opened(connections, Phase.HEAD)
    opened.connection.drop()
    opened.enter(Phase.IDLE)
    opened.connection.closed()
    assert len(connections) == 0
    connections.stop()


def test_the_end_closes_everything(clock: Clock) -> None:
    connections = _connections(clock)
    opening, answering = (Opened(connections, each) for each in (Phase.OPENING, Phase.ANSWERING))
    connections.drop_unopened()
    assert (opening.is_closed(), answering.is_closed()) == (True, False)
    connections.stop()
    assert answering.is_closed()
