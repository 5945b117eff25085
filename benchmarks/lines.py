"""What a line to a distant store is: its delay and its bandwidth, and when bytes arrive by it."""

from __future__ import annotations

from dataclasses import dataclass

QUEUE_SECONDS = 0.010
"""So far ahead of the line bytes are taken in. It then stays busy while the forwarder waits for a
processor. On a real line, such bytes wait in the router at its narrow end."""

LARGEST_PIECE_BYTES = 256 << 10
SMALLEST_PIECE_BYTES = 1500
"""What a packet of Ethernet carries."""
PIECE_SECONDS = 0.001
"""How long a piece occupies the line, except for the bounds above."""


@dataclass(frozen=True)
class Line:
    """A line. Each way has the whole bandwidth, which all connections share."""

    round_trip_seconds: float
    bytes_per_second: float | None = None
    """None: as many as the machine can carry."""

    @property
    def piece_bytes(self) -> int:
        """How many bytes of one connection pass before it is another one's turn."""
        if self.bytes_per_second is None:
            return LARGEST_PIECE_BYTES
        piece = int(self.bytes_per_second * PIECE_SECONDS)
        return min(max(piece, SMALLEST_PIECE_BYTES), LARGEST_PIECE_BYTES)


class Way:
    """One way of a line, which carries one piece after the other. All times are in seconds."""

    def __init__(self, line: Line) -> None:
        self._delay = line.round_trip_seconds / 2
        self._rate = line.bytes_per_second
        self._free_at = 0.0

    @property
    def open_at(self) -> float:
        """When the next piece may be taken in."""
        return self._free_at - QUEUE_SECONDS

    def take(self, now: float, size: int) -> float:
        """Take in a piece of `size` bytes; return when the last of them arrives.

        Pieces arrive in the order in which they were taken in. No more bytes arrive in any span of
        time than the bandwidth allows, apart from the first piece of the span.
        """
        if self._rate is None:
            return now + self._delay
        self._free_at = max(now, self._free_at) + size / self._rate
        return self._free_at + self._delay
