"""Finds exchanges that are too slow: nothing moves, or a body moves slower than allowed.

The pool looks at each connection about once a second. So no request needs a timer of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurper.http.connection import Connection

LOOK_SECONDS = 1.0
_UNMEASURED_PATIENCE = 10
"""If no body of known length is moving, slow bytes are allowed this many times longer. A store that
puts a large upload together may send a blank now and then, for minutes."""


@dataclass(frozen=True, slots=True)
class StallLimits:
    """How slow an exchange may be."""

    idle_timeout_seconds: float
    """Nothing may move for at most this long."""
    min_bytes_per_second: int
    """The lowest speed of a body, averaged over `idle_timeout_seconds`. 0: any speed will do."""

    @property
    def look_seconds(self) -> float:
        """The time between two looks."""
        return min(LOOK_SECONDS, self.idle_timeout_seconds / 4)

    @property
    def window_bytes(self) -> int:
        """The fewest bytes of a body that must move in `idle_timeout_seconds`."""
        return int(self.min_bytes_per_second * self.idle_timeout_seconds)


class StallWatch:
    """Watches one connection, look by look.

    Bytes are counted in windows. A window ends when `window_bytes` have moved, or when the exchange
    enters another phase.
    """

    __slots__ = ("_connection", "_counted", "_limits", "_phase", "_quiet", "_slow", "_window_began")

    def __init__(self, connection: Connection, limits: StallLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._counted: tuple[int, int] | None = None
        self._phase: tuple[int, bool, bool, bool] | None = None
        self._window_began = 0
        self._quiet = 0
        """How many looks, up to the last one, found that nothing had moved in either direction."""
        self._slow = 0
        """How many looks have passed since the window began."""

    @property
    def quiet_seconds(self) -> float:
        """How long nothing has moved."""
        return self._quiet * self._limits.look_seconds

    def look(self) -> str | None:
        """Count what has moved. If the exchange is too slow, say why; None: it is not."""
        exchange, limits = self._connection.exchange, self._limits
        if exchange.waits:
            self._counted, self._quiet, self._slow = None, 0, 0
            return None
        unsent = self._connection.unsent_bytes()
        moved = exchange.received + exchange.written - unsent
        counted = (exchange.number, moved)
        self._quiet = self._quiet + 1 if counted == self._counted else 0
        self._counted = counted
        is_sending = unsent > 0 or not exchange.sent
        phase = (exchange.number, is_sending, exchange.received > 0, exchange.head_done)
        if phase != self._phase or moved - self._window_began >= limits.window_bytes:
            self._phase, self._window_began = phase, moved
            self._slow = 0
        else:
            self._slow += 1
        if self.quiet_seconds >= limits.idle_timeout_seconds:
            return f"nothing moved for {limits.idle_timeout_seconds:g} s"
        is_measured = exchange.announced is not None if exchange.received else is_sending
        patience = 1 if is_measured else _UNMEASURED_PATIENCE
        if self._slow * limits.look_seconds >= limits.idle_timeout_seconds * patience:
            return f"fewer than {limits.min_bytes_per_second} bytes per second moved"
        return None
