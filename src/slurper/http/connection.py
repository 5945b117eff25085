"""One HTTP/1.1 connection, which carries one exchange at a time.

What the peer may do, and what follows:

    complete response, keep-alive           the connection can carry the next request
    complete response before our body went  the response counts; the connection is closed
    bytes before a request                  closed; a response that was complete still counts
    `Connection: close`, HTTP/1.0           closed after the response
    EOF or reset in an exchange             TransportError, StaleConnection when reused and silent
    nothing moves, or a body trickles       TransportError, from the pool's sweep
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from slurper import errors
from slurper.http import bodies
from slurper.http.exchange import Exchange, StaleConnection
from slurper.http.messages import Digest, Response

JOINED_BYTES = 64 << 10
"""A body up to this is sent in one write with its head: one packet train, one TLS record."""
_PARSED_BYTES = 64 << 10
"""A body goes past the parser, which copies, if more than this is missing when its head is here."""
_AWAITED_BYTES = 2 * _PARSED_BYTES
"""Before a body that is expected to be longer little is read at once, see `bodies.HeadReader`."""


class Connection(asyncio.Protocol):
    """The client's side of one connection.

    `on_lost` is called once, when the transport is gone. `peer` is `host:port` for error texts.
    """

    __slots__ = (
        "_drained",
        "_loop",
        "_on_lost",
        "_paused",
        "_stood_in",
        "_transport",
        "exchange",
        "peer",
        "reusable",
    )

    def __init__(self, peer: str, on_lost: Callable[[Connection], None]) -> None:
        self.peer = peer
        self.reusable = True
        """The next request may go over this connection."""
        self.exchange = Exchange(self)
        """What is under way, or was last."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._stood_in = False

    # The caller's side

    def begin(
        self,
        method: str,
        limit: int | None,
        awaited_bytes: int = 0,
        digest: Callable[[Mapping[str, str]], Digest | None] | None = None,
    ) -> asyncio.Future[Response]:
        """Start an exchange; the request must follow by `write` or `upload`.

        `awaited_bytes` and `digest`: see `Request`. The future ends with the whole response, or
        with StaleConnection, TransportError, or IntegrityError for a body of more than `limit`
        bytes.
        """
        self.reusable = False
        answer: asyncio.Future[Response] = self._loop.create_future()
        self.exchange.begin(answer, head_only=method == "HEAD", limit=limit, digest=digest)
        if awaited_bytes > _AWAITED_BYTES:
            self._stand_in(bodies.HeadReader(self))
        return answer

    def write(self, data: bytes) -> None:
        """Send a whole request; for those of up to JOINED_BYTES."""
        self.exchange.written = len(data)
        self._transport.write(data)

    async def upload(self, head: bytes, body: Sequence[bytes]) -> None:
        """Send a request as fast as the peer takes it; return early when there is an answer."""
        exchange = self.exchange
        exchange.sent = False
        slices = bodies.slices(body)
        first = next(slices)
        exchange.written = len(head) + sum(map(len, first))
        self._transport.writelines((head, *first))
        for pieces in slices:
            if self._paused:
                await self._drain()
            else:
                # Lets an early answer be read before more is written: a write that meets a reset
                # would throw the answer away.
                await asyncio.sleep(0)
            if exchange.answer is None:
                self.reusable = False
                return
            exchange.written += sum(map(len, pieces))
            self._transport.writelines(pieces)
        exchange.sent = True

    def abort(self) -> None:
        """Drop the connection and the exchange under way on it."""
        self.reusable = False
        self.exchange.answer = None
        self._transport.abort()

    def close(self) -> None:
        """Close politely; for a connection on which nothing is under way."""
        self.reusable = False
        self._transport.close()

    def fail(self, error: Exception) -> None:
        """End the exchange under way with `error` and drop the connection."""
        answer = self.exchange.answer
        self.abort()
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self._wake_upload()

    def end(self, kind: type[Exception], what: str) -> None:
        """End the exchange under way with an error of this kind, whose text names the peer."""
        self.fail(kind(f"{self.peer}: {what}"))

    # Sending

    async def _drain(self) -> None:
        self._drained = self._loop.create_future()
        try:
            await self._drained
        finally:
            self._drained = None

    def _wake_upload(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        """Take note that the transport holds enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with an upload that waits."""
        self._paused = False
        self._wake_upload()

    def unsent_bytes(self) -> int:
        """Bytes not yet acknowledged by the peer: ours, the transport's and the kernel's."""
        size = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            reply = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # the socket is closed, or no such query on this system
            return size
        return size + cast("int", struct.unpack("i", reply)[0])

    # Receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes | memoryview) -> None:
        """Read on in the response."""
        exchange = self.exchange
        exchange.feed(data)
        if exchange.answer is not None:
            self._choose_reader(exchange)

    def _choose_reader(self, exchange: Exchange) -> None:
        """After a read that did not complete the response: decide who reads what comes next."""
        if exchange.announced is not None:
            missing = exchange.announced - exchange.response.length
            if missing > _PARSED_BYTES:
                self._stand_in(bodies.BodyReader(self, missing, exchange.make_digest()))
                return
        if exchange.head_done:
            self._step_back()

    def _stand_in(self, reader: asyncio.BufferedProtocol) -> None:
        """Let another read what comes next."""
        self._stood_in = True
        self._transport.set_protocol(reader)

    def _step_back(self) -> None:
        """Read what comes next here again."""
        if self._stood_in:
            self._stood_in = False
            self._transport.set_protocol(self)

    def body_moved(self, size: int) -> None:
        """Take note of body bytes that went past the parser, see `BodyReader`."""
        self.exchange.body_moved(size)

    def body_received(self, chunks: list[bytes]) -> None:
        """Complete the response, and read the next one again."""
        self.exchange.body_received(chunks)

    def completed(self) -> None:
        """Get ready for the next exchange."""
        if self._stood_in:
            self._step_back()
        # An answer before the peer has our whole request makes the connection useless.
        self.reusable = self.exchange.keep_alive and not self._transport.get_write_buffer_size()
        if self._drained is not None:
            self._wake_upload()

    # Endings

    def eof_received(self) -> None:
        """End a body that only the end of the connection delimits; anything else is cut short.

        Over TLS this is the peer's close_notify: uvloop does not report a bare end of TCP. So
        an attacker who can only cut the wire cannot shorten such a body.
        """
        if not self.exchange.eof_received():
            self._lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange under way, and let go of the connection."""
        self._lost(error)
        self.exchange.detach()
        self._on_lost(self)

    def _lost(self, error: Exception | None) -> None:
        self.reusable = False
        exchange = self.exchange
        if exchange.answer is not None:
            is_stale = exchange.number > 1 and not exchange.received
            kind = StaleConnection if is_stale else errors.TransportError
            self.end(kind, f"connection {ending(error)} while {exchange.phase}")


def ending(error: Exception | None) -> str:
    """Say how a connection ended; None and a broken pipe are an ordinary end."""
    if error is None or isinstance(error, BrokenPipeError):
        return "closed by the server"
    if isinstance(error, ConnectionResetError):
        return "reset by the server"
    return f"lost ({str(error) or type(error).__name__})"
