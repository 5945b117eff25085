"""Sends the requests of one turn of the event loop together.

One turn may bring answers to many requests, and then many new requests are made. A peer that waits
for requests is asleep, and waking it costs more than sending one request. Requests that are sent
one by one may wake it each time. If they are sent together, most of them find the peer at work. A
single request is sent in the next turn, which follows at once. See decision 0016.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from slurper.http.connection import Connection


class Outbox:
    """Holds whole requests of one client until the end of the turn."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Connection, bytes, Sequence[bytes]]] = []

    def put(self, connection: Connection, head: bytes, body: Sequence[bytes]) -> None:
        """Send a request soon. Its exchange has begun on the connection."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((connection, head, body))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection, head, body in waiting:
            answer = connection.exchange.answer
            if answer is None or answer.done():
                continue  # it was lost, or its caller gave up
            try:
                connection.write(b"".join((head, *body)) if body else head)
            except Exception as error:
                connection.fail(error)
