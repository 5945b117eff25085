"""The TLS sessions that later connections resume (decision 0027).

A handshake that resumes a session checks no certificate: the server shows that it still has the
secret of the session. So a session is offered only to the host and port that it was agreed on with,
and not for longer than the certificates of that handshake are valid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

KEPT_SECONDS = 3600.0
"""A session is offered for this long after the certificate was checked. Then it is checked again,
also if each connection has resumed the session of the one before."""
_MAX_PEERS = 64
"""A session takes 2 to 5 KiB."""

Peer = tuple[str, int]
"""The host, as the certificate must name it, and the port."""


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session that may be resumed."""

    data: bytes = field(repr=False)
    """The session as OpenSSL writes it (`i2d_SSL_SESSION`). It contains secrets."""
    until: float
    """When it may no longer be offered, in seconds since 1970."""


class SessionCache:
    """Keeps the newest session of each peer, for the connections of one `TlsContext`."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] = time.time
        """Seconds since 1970."""
        self._sessions: dict[Peer, KeptSession] = {}
        self._distrusted: dict[Peer, float] = {}
        """Peers at which a handshake with a session failed, and until when none is kept."""

    def find(self, peer: Peer) -> KeptSession | None:
        """Return the session to offer to this peer, if there is one that may still be offered."""
        kept = self._sessions.get(peer)
        if kept is None or self.clock() < kept.until:
            return kept
        self._forget(peer)
        return None

    def keep(self, peer: Peer, session: KeptSession) -> None:
        """Keep a session instead of the peer's older one, unless the peer is distrusted."""
        if self.clock() < self._distrusted.get(peer, 0.0):
            return
        self._forget(peer)  # so that the peer comes last
        self._sessions[peer] = session
        if len(self._sessions) > _MAX_PEERS:
            self._forget(next(iter(self._sessions)))

    def distrust(self, peer: Peer) -> None:
        """Drop the session of this peer, and keep no other one for an hour.

        Something on the way may break each handshake that offers a session. Without this, every
        second connection would fail there.
        """
        self._forget(peer)
        self._distrusted.pop(peer, None)
        self._distrusted[peer] = self.clock() + KEPT_SECONDS
        if len(self._distrusted) > _MAX_PEERS:
            del self._distrusted[next(iter(self._distrusted))]

    def _forget(self, peer: Peer) -> None:
        self._sessions.pop(peer, None)
