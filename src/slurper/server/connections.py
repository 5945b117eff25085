"""The open connections: how many there are, what they hold, and which has to go.

A connection has to go

- when it is late: each phase of a request has its time (`limits`),
- when there are too many, or when all together hold too much. Then those go first that nobody waits
  for: those between two requests, then those whose head is not complete or has not begun, then
  those whose client does not take its answer, then those whose body is still coming. In each of
  these groups the oldest goes first. A connection whose request is being answered stays.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto

from slurper import telemetry
from slurper.server.limits import Limits
from slurper.settings import KIB, MIB

PLAIN_BYTES = 12 * KIB
TLS_BYTES = 96 * KIB
"""What a connection costs by itself: objects of Python, and the state and buffers of OpenSSL."""

NOTED_BYTES = MIB
"""After so many bytes more, it is looked up what all connections hold."""
SWEEP_SECONDS = 1.0
SUMMARY_SECONDS = 10.0
"""How often the log tells what was closed. It is one line, whatever comes from outside."""

_log = telemetry.get_logger(__name__)


class Phase(Enum):
    """What a connection does at present."""

    OPENING = auto()
    """The TLS handshake is under way."""
    FRESH = auto()
    """It is open, and nothing has come yet."""
    IDLE = auto()
    """All requests are answered."""
    HEAD = auto()
    """A part of a head has come."""
    BODY = auto()
    """The head is complete, and the body is not."""
    ANSWERING = auto()
    """The request is complete, and its answer is not."""
    LEFTOVER = auto()
    """The request is answered, but its body is still coming. Nobody reads it."""
    REFUSED = auto()
    """The request was refused. What still comes is thrown away."""


_IDLE, _UNFINISHED, _UNREAD, _BODY = range(4)
"""The groups of connections that may be closed, in the order in which they are."""

_GROUPS = {
    Phase.OPENING: _UNFINISHED,
    Phase.FRESH: _UNFINISHED,
    Phase.IDLE: _IDLE,
    Phase.HEAD: _UNFINISHED,
    Phase.BODY: _BODY,
    Phase.LEFTOVER: _UNFINISHED,
    Phase.REFUSED: _UNFINISHED,
}


class Connection:
    """What the server knows of one connection, whatever protocol is spoken on it."""

    def __init__(self, connections: Connections, *, encrypted: bool = False) -> None:
        self._connections = connections
        self._limits = connections.limits
        self._own_bytes = TLS_BYTES if encrypted else PLAIN_BYTES
        self._raw: asyncio.Transport | None = None
        self._upper: asyncio.Transport | None = None
        self.phase = Phase.OPENING if encrypted else Phase.FRESH
        self.since = 0.0
        self.taken = 0
        """How many bytes of the request are in memory here."""
        self._body_bytes = 0
        self._moved_at = 0.0
        self._unsent_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the transport of the socket is known."""
        return self._raw is not None

    def opened(self, transport: asyncio.Transport) -> None:
        """Begin to count: `transport` is the one of the socket."""
        self._raw = transport
        transport.set_write_buffer_limits(0)  # so that we are told when something is not taken
        self.since = self._connections.now()
        self._connections.admit(self)

    def established(self, transport: asyncio.Transport) -> None:
        """Requests may come: `transport` is the one that they come through."""
        self._upper = transport
        self.enter(Phase.FRESH)

    def closed(self) -> None:
        """Count no more."""
        self._connections.forget(self)

    def enter(self, phase: Phase) -> None:
        """Go on to another phase, whose time begins now."""
        self.phase = phase
        self.since = self._moved_at = self._connections.now()
        self._body_bytes = 0
        if phase in (Phase.IDLE, Phase.FRESH):
            self.taken = 0
        self._connections.place(self)

    def body_came(self, size: int) -> None:
        """Note that the body goes on."""
        self._body_bytes += size
        self._moved_at = self._connections.now()

    def unsent(self) -> None:
        """Note that the client has not taken all that was sent."""
        if self._unsent_since is None:
            self._unsent_since = self._connections.now()
            self._connections.place(self)
        self._connections.note(self._unsent_bytes())

    def sent(self) -> None:
        """Note that the client has taken everything, if it has."""
        if self._unsent_bytes() > 0:
            return
        self._unsent_since = None
        self._connections.place(self)

    def drop(self) -> None:
        """Close it at once."""
        self._connections.forget(self)
        if self._raw is not None:
            self._raw.abort()

    @property
    def group(self) -> int | None:
        """The group in which it may be closed, or None: it may not."""
        group = _GROUPS.get(self.phase)
        if self._unsent_since is not None and group in (None, _IDLE):
            return _UNREAD
        return group

    def held_bytes(self) -> int:
        """How much memory it takes."""
        return self._own_bytes + self.taken + self._unsent_bytes()

    def _unsent_bytes(self) -> int:
        found = 0 if self._raw is None else self._raw.get_write_buffer_size()
        if self._upper is not None and self._upper is not self._raw:
            found += self._upper.get_write_buffer_size()
        return found

    def late(self, now: float) -> str | None:
        """Return what takes too long, in words of the log, or None."""
        limits = self._limits
        if self._unsent_since is not None and now - self._unsent_since > limits.answer_seconds:
            return "unread answers"
        if self.phase is Phase.BODY:
            return "late bodies" if self._is_late_body(now) else None
        waited = now - self.since
        if self.phase is Phase.IDLE:
            return "idle" if waited > limits.idle_seconds else None
        if self.phase is Phase.REFUSED:
            return "refused" if waited > limits.linger_seconds else None
        if self.phase is Phase.ANSWERING:
            return None
        return "late heads" if waited > limits.head_seconds else None

    def _is_late_body(self, now: float) -> bool:
        if self._upper is not None and not self._upper.is_reading():
            self._moved_at = now  # it is us who do not read
        limits = self._limits
        allowed = limits.body_start_seconds + self._body_bytes / limits.body_bytes_per_second
        return now - self._moved_at > limits.body_seconds or now - self.since > allowed


class Connections:
    """All open connections of a server."""

    def __init__(self, limits: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self.now = now
        self._group_of: dict[Connection, int | None] = {}
        # Dictionaries keep their order, so the first of each is the one that is in it longest.
        self._groups: tuple[dict[Connection, None], ...] = ({}, {}, {}, {})
        self._noted = 0
        self._ended: Counter[str] = Counter()
        self._summed_at = now()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._group_of)

    def start(self) -> None:
        """Look for late connections from now on."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)

    def stop(self) -> None:
        """Close what is still open, and look no more."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._group_of):
            connection.drop()

    def drop_unopened(self) -> None:
        """Close those whose handshake is not complete. No request of theirs can be under way."""
        for connection in list(self._group_of):
            if connection.phase is Phase.OPENING:
                connection.drop()

    def admit(self, connection: Connection) -> None:
        """Take a new connection in, and close another for it if there are too many."""
        full = len(self._group_of) >= self.limits.connections
        if full and not self.drop_one("one too many"):
            self.count("no room")
            connection.drop()
            return
        self._group_of[connection] = None
        self.place(connection)
        self.note(connection.held_bytes())

    def drop_one(self, reason: str) -> int:
        """Close the first that may be closed. Return how many bytes it held; 0: there is none."""
        for group in self._groups:
            for connection in group:
                held = connection.held_bytes()
                connection.drop()
                self.count(reason)
                return held
        return 0

    def forget(self, connection: Connection) -> None:
        """Let it go. To do it twice does no harm."""
        group = self._group_of.pop(connection, None)
        if group is not None:
            self._groups[group].pop(connection, None)

    def place(self, connection: Connection) -> None:
        """Put it last in the group that it belongs to now."""
        if connection not in self._group_of:
            return
        before, group = self._group_of[connection], connection.group
        if before is not None:
            self._groups[before].pop(connection, None)
        self._group_of[connection] = group
        if group is not None:
            self._groups[group][connection] = None

    def note(self, size: int) -> None:
        """Note that `size` bytes more may be held. If that is too much, close connections."""
        self._noted += size
        if self._noted < NOTED_BYTES:
            return
        self._noted = 0
        held = sum(connection.held_bytes() for connection in self._group_of)
        if held > self.limits.held_bytes:
            self._drop_bytes(held - self.limits.held_bytes * 3 // 4)

    def count(self, what: str) -> None:
        """Count a connection that was closed, for the log."""
        self._ended[what] += 1

    def sweep(self) -> None:
        """Close what is late, and tell the log from time to time."""
        now = self.now()
        for connection in list(self._group_of):
            reason = connection.late(now)
            if reason is not None:
                self._count_unless_idle(reason)
                connection.drop()
        if self._ended and now - self._summed_at >= SUMMARY_SECONDS:
            closed = {reason.replace(" ", "_"): number for reason, number in self._ended.items()}
            _log.warning("connections were closed", **closed, open=len(self))
            self._ended.clear()
            self._summed_at = now

    def _count_unless_idle(self, reason: str) -> None:
        if reason not in ("idle", "refused"):  # both are the ordinary end of a connection
            self.count(reason)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)
        self.sweep()

    def _drop_bytes(self, size: int) -> None:
        while size > 0:
            held = self.drop_one("too much in memory")
            if held == 0:
                return
            size -= held
