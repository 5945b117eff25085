"""Requests on their way out, sent together at the end of a turn of the event loop.

A turn brings answers to many requests, and so many new requests. A peer that waits is asleep. To
wake it costs more than to send it a request. Requests that go out one by one wake it each time. If
they go out together, the peer is at work already when most of them come. A request that is alone
goes out in the next turn, which follows at once. See decision 0016.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from slurper.http.connection import Connection


class Outbox:
    """Whole requests of one client that wait for the end of the turn."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Connection, bytes, Sequence[bytes]]] = []

    def put(self, connection: Connection, head: bytes, body: Sequence[bytes]) -> None:
        """Send a request over a connection on which its exchange has begun."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append((connection, head, body))

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection, head, body in waiting:
            if not connection.exchange.is_awaited:
                continue  # it was lost, or its caller gave up
            try:
                connection.write(b"".join((head, *body)) if body else head)
            except Exception as error:
                connection.fail(error)
