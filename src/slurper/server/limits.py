"""What one client may cost, and all of them together.

The memory of all connections is bounded by

    held_bytes + 1 MiB + 16 KiB for each connection

where `held_bytes` is what is in buffers at one moment: heads that are not complete, bodies that
nobody has read yet, and answers that their clients have not taken. A connection by itself counts
too, and one with TLS counts more.
"""

from __future__ import annotations

from dataclasses import dataclass

from slurper.settings import KIB, MIB

HELD_BYTES = 32 * MIB
"""The least that all connections together may hold."""
HELD_BYTES_PER_CONNECTION = 64 * KIB
"""What they may hold if there may be more of them than usual. With TLS, one by itself costs 96 KiB.
So with TLS there are fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server."""

    connections: int = 512
    """How many may be open. One more, and the oldest that nobody works for is closed."""
    head_bytes: int = 64 * KIB
    """The longest head of a request, and the longest stretch of a body that is no body: trailers,
    and what chunks have besides their bytes."""
    head_fields: int = 200
    """The most header fields. Each costs more than its bytes."""
    head_seconds: float = 10.0
    """How long a TLS handshake may take, how long a new connection may be silent, and how long a
    head may take from its first byte to its last."""
    idle_seconds: float = 30.0
    """How long a connection is kept for the next request."""
    body_seconds: float = 10.0
    """How long a body may pause."""
    body_start_seconds: float = 30.0
    body_bytes_per_second: int = KIB
    """How slow a body may be on average, after its first `body_start_seconds`."""
    answer_seconds: float = 60.0
    """After this time, a client must have taken all that was sent to it."""
    linger_seconds: float = 2.0
    """How long what still comes is thrown away after a refusal. If the connection were closed at
    once, the client's machine would throw away the answer."""
    linger_bytes: int = MIB

    @property
    def held_bytes(self) -> int:
        """How much all connections may hold together."""
        return max(HELD_BYTES, self.connections * HELD_BYTES_PER_CONNECTION)
