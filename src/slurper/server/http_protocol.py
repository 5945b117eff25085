"""Uvicorn's HTTP/1.1, with limits.

Uvicorn's own has none for the size and the time of a head, for requests that come before the last
one is answered, for trailers, and for bodies that stop. So:

- Bytes are read into one buffer of the process, little at a time. A head never gets more room than
  it may still take.
- A client that sends a request before the last one is answered gets that one answer, and the
  connection ends. Clients and proxies do not do so. The few that do must send a request again that
  got no answer (RFC 9112, section 9.3.2).
- Trailers are read and dropped. No use is made of them here, and they are not headers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from http import HTTPStatus

import httptools
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from slurper.api.envelope import Code, Problem, failure
from slurper.server.connections import Connection, Connections, Phase

_ROOM = memoryview(bytearray(16 << 10))
"""What is read at a time. Reading and parsing are one step of the loop, so all can share it."""


class _Stop(Exception):
    """Ends the parsing of what has come."""


class HttpProtocol(HttpToolsProtocol, asyncio.BufferedProtocol):
    """One connection. Requests on it are answered one at a time."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        connections: Connections,
        *,
        encrypted: bool,
    ) -> None:
        super().__init__(config, server_state, app_state={})
        self.connection = Connection(connections, encrypted=encrypted)
        self._connections = connections
        self._limits = connections.limits
        self._fruitless = 0
        """How many bytes have come since a head was complete or bytes of a body came."""
        self._head_bytes = 0
        self._head_is_complete = False
        self._message_is_complete = False
        self._is_pipelined = False
        self._refusal: tuple[HTTPStatus, str] | None = None
        self._listens = True
        """False: what comes is thrown away."""
        self._thrown_away = 0

    # What the transport calls

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if not self.connection.is_open:
            self.connection.opened(transport)
        super().connection_made(transport)
        self.client = _plain(self.client)
        self.connection.established(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.closed()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: no more than may come."""
        return _ROOM[: self._limits.head_bytes - self._fruitless] if self._listens else _ROOM

    @override
    def buffer_updated(self, nbytes: int) -> None:
        """Take the bytes that have come."""
        self._unset_keepalive_if_required()
        if not self._listens:
            self._throw_away(nbytes)
            return
        self._fruitless += nbytes
        self._parse(_ROOM[:nbytes])
        self._count(nbytes)
        if self._is_too_long():
            self._refuse(*self._too_long())

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.connection.unsent()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self.connection.sent()

    # What the parser calls

    @override
    def on_message_begin(self) -> None:
        cycle = self._begun()
        if cycle is not None and not cycle.response_complete:
            self._is_pipelined = True
            raise _Stop
        self._message_is_complete = self._head_is_complete = False
        super().on_message_begin()
        self.connection.enter(Phase.HEAD)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_is_complete:
            return
        if len(self.headers) >= self._limits.head_fields:
            self._refusal = (
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"the request has more than {self._limits.head_fields} header fields",
            )
            raise _Stop
        super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._head_is_complete = True
        self._head_bytes, self._fruitless = self._fruitless, 0
        super().on_headers_complete()
        self.connection.enter(Phase.BODY)

    @override
    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)
        self.connection.body_came(len(body))

    @override
    def on_message_complete(self) -> None:
        self._fruitless = 0
        self._message_is_complete = True
        super().on_message_complete()
        answered = self.cycle.response_complete
        self.connection.enter(Phase.IDLE if answered else Phase.ANSWERING)

    # What the answer calls

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.connection.enter(Phase.IDLE if self._message_is_complete else Phase.LEFTOVER)

    # The rest

    def _parse(self, data: memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request is complete and gets its answer. What follows would be no HTTP.
            self._end_after_answer()
        except httptools.HttpParserError:
            if self._is_pipelined:
                self._end_after_answer()
            else:
                self._refuse(
                    *(self._refusal or (HTTPStatus.BAD_REQUEST, "the request is not valid HTTP"))
                )

    def _begun(self) -> RequestResponseCycle | None:
        """Return the last request whose head is complete, with its answer; uvicorn's type lies."""
        return self.cycle

    def _count(self, size: int) -> None:
        if self.connection.phase is Phase.BODY:
            self.connection.taken = self._head_bytes + len(self.cycle.body)
        elif self.connection.phase is Phase.HEAD:
            self.connection.taken = self._fruitless
        self._connections.note(size)

    def _end_after_answer(self) -> None:
        self._listens = False
        if self.cycle.response_complete:
            self.transport.close()
            return
        self.cycle.keep_alive = False
        self.flow.pause_reading()

    def _is_too_long(self) -> bool:
        return self._listens and self._fruitless >= self._limits.head_bytes

    def _too_long(self) -> tuple[HTTPStatus, str]:
        limit = self._limits.head_bytes
        if self._head_is_complete and not self._message_is_complete:
            return HTTPStatus.BAD_REQUEST, f"the body has {limit} bytes together that are no body"
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return status, f"the head of the request is longer than {limit} bytes"

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer, if that is still possible, and close soon."""
        self._listens = False
        self._connections.count(f"answered {int(status)}")
        cycle = self._begun()
        under_way = cycle is not None and not cycle.response_complete
        if cycle is not None and under_way:
            cycle.disconnected = True  # so that its own answer does not go out as well
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
        if (under_way and self.cycle.response_started) or self.connection.phase is Phase.LEFTOVER:
            self.transport.close()
            return
        self.transport.write(self._answer(status, text))
        self.connection.enter(Phase.REFUSED)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _answer(self, status: HTTPStatus, text: str) -> bytes:
        response = failure(status, [Problem(Code.MALFORMED_REQUEST, text)])
        fields = (
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"connection", b"close"),
        )
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        line = f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode("ascii")
        return line + head + b"\r\n" + bytes(response.body)

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._thrown_away > self._limits.linger_bytes:
            self.connection.drop()


def _plain(client: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return the address without the form that IPv4 has on a socket of IPv6: `::ffff:192.0.2.1`."""
    if client is None:
        return None
    try:
        mapped = getattr(ipaddress.ip_address(client[0]), "ipv4_mapped", None)
    except ValueError:
        return client
    return client if mapped is None else (str(mapped), client[1])
