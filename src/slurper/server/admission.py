"""How many requests may be under way at once.

A client may go without waiting for its answer. What works for it goes on for a while, and meanwhile
others take its place. So there can be more requests under way than connections.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from slurper.api.envelope import Code, Problem, failure
from slurper.server.connections import Connections

PER_CONNECTION = 2


class Admission:
    """Counts the requests under way at all sites of a server."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._most = PER_CONNECTION * connections.limits.connections
        self._under_way = 0

    def guarding(self, app: ASGIApp) -> ASGIApp:
        """Return the application, with 503 for the requests that are too many."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if self._under_way >= self._most:
                self._connections.count("answered 503")
                await _busy()(scope, receive, send)
                return
            self._under_way += 1
            try:
                await app(scope, receive, send)
            finally:
                self._under_way -= 1

        return guarded


def _busy() -> ASGIApp:
    text = "the service has as many requests under way as it can take; try again in a second"
    problem = Problem(Code.UNAVAILABLE, text)
    return failure(HTTPStatus.SERVICE_UNAVAILABLE, [problem], {"retry-after": "1"})
