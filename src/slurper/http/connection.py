"""One HTTP/1.1 connection, which carries one exchange at a time.

What the peer may do, and what follows:

    complete response, keep-alive           the connection can carry the next request
    complete response before our whole      the response counts; the connection is closed
    body was sent
    bytes before a request                  closed; a complete response before them still counts
    `Connection: close`, HTTP/1.0           closed after the response
    EOF or reset in an exchange             TransportError; StaleConnection if the connection was
                                            used before and no byte of this response came
    nothing moves, or a body is too slow    TransportError, from the pool's sweep
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable, Sequence
from typing import cast

from slurper import errors
from slurper.http import bodies
from slurper.http.exchange import Exchange, StaleConnection
from slurper.http.messages import Request, Response
from slurper.http.streams import BodyStream, Pieces, StreamBroken, StreamDeclined

JOINED_BYTES = 64 << 10
"""A body up to this size is sent in one write with its head."""
_PARSED_BYTES = 64 << 10
"""If more than this is missing of a body when its head is here, the rest goes past the parser. The
parser copies."""
_AWAITED_BYTES = 2 * _PARSED_BYTES
"""If a longer body is expected, little is read at a time before it, see `bodies.HeadReader`."""


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
        "used_at",
        "was_opened_ahead",
    )

    def __init__(self, peer: str, on_lost: Callable[[Connection], None]) -> None:
        self.peer = peer
        self.reusable = True
        """The next request may go over this connection."""
        self.used_at = 0.0
        """When the head of its last answer came, in monotonic seconds; 0 before that."""
        self.was_opened_ahead = False
        """No request was waiting for it. So it may be dead before it is first used."""
        self.exchange = Exchange(self)
        """The exchange under way, or the last one."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._stood_in = False

    # The caller's side

    def begin(self, request: Request, limit: int | None) -> asyncio.Future[Response]:
        """Start an exchange. The caller then sends the request by `write`, `upload` or `relay`.

        The future gets the whole response, or its head if the rest is streamed. Or it gets
        StaleConnection, TransportError, StreamDeclined, or IntegrityError for a body of more than
        `limit` bytes.
        """
        self.reusable = False
        answer: asyncio.Future[Response] = self._loop.create_future()
        self.exchange.begin(answer, request, limit)
        if request.awaited_bytes > _AWAITED_BYTES:
            self._stand_in(bodies.HeadReader(self))
        return answer

    def write(self, data: bytes) -> None:
        """Send a whole request. Its body has at most JOINED_BYTES."""
        self.exchange.written = len(data)
        self._transport.write(data)

    async def upload(self, head: bytes, body: Sequence[bytes]) -> None:
        """Send a request as fast as the peer takes it. Return early if an answer comes first."""
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
                # Let an early answer be read before more is written. The peer may have closed the
                # connection; a write would then be answered by a reset, and the answer be lost.
                await asyncio.sleep(0)
            if exchange.answer is None:
                self.reusable = False
                return
            exchange.written += sum(map(len, pieces))
            self._transport.writelines(pieces)
        exchange.sent = True

    async def relay(self, head: bytes, pieces: Pieces) -> None:
        """Send a request whose body comes from elsewhere. Return early if an answer comes first.

        Raises:
            StreamBroken: the body does not come to its end.
        """
        exchange = self.exchange
        exchange.sent = False
        exchange.written = len(head)
        self._transport.write(head)
        while True:
            exchange.waits = True
            try:
                piece = await pieces.read()
            except StreamBroken:
                if exchange.answer is not None:
                    raise
                piece = b""
            exchange.waits = False
            if exchange.answer is None:  # its future says what came of the request
                self.reusable = False
                return
            if not piece:
                break
            exchange.written += len(piece)
            self._transport.write(piece)
            if self._paused:
                await self._drain()
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
        answer, stream = self.exchange.answer, self.exchange.stream
        self.abort()
        if answer is not None and not answer.done():
            answer.set_exception(error)
        if stream is not None:
            stream.end(error)
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
        """Note that the transport holds enough bytes."""
        self._paused = True

    def resume_writing(self) -> None:
        """Wake an upload that waits."""
        self._paused = False
        self._wake_upload()

    def unsent_bytes(self) -> int:
        """Bytes not yet acknowledged by the peer: ours, the transport's and the kernel's."""
        size = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            reply = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # the socket is closed, or this system has no such query
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
        """Choose what reads the next bytes, after a read that did not complete the response."""
        if exchange.is_to_stream and exchange.stream is None and not self._open_stream(exchange):
            return
        if exchange.announced is not None:
            missing = exchange.announced - exchange.response.length
            if missing > _PARSED_BYTES or exchange.stream is not None:
                self._stand_in(bodies.BodyReader(self, exchange, missing))
                return
        if exchange.head_done:
            self._step_back()

    def _open_stream(self, exchange: Exchange) -> bool:
        """Hand over the answer, whose body follows as a stream; False: the request is ended."""
        if exchange.announced is None or not exchange.may_be_streamed():
            self.fail(StreamDeclined(f"{self.peer}: the body is not streamed"))
            return False
        exchange.open_stream(BodyStream(self))
        return True

    def hold(self) -> None:
        """Stop reading: a stream holds enough."""
        self.exchange.waits = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def flow(self) -> None:
        """Go on reading."""
        self.exchange.waits = False
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _stand_in(self, reader: asyncio.BufferedProtocol) -> None:
        """Let `reader` read the next bytes."""
        self._stood_in = True
        self._transport.set_protocol(reader)

    def _step_back(self) -> None:
        """Let this connection itself read the next bytes again."""
        if self._stood_in:
            self._stood_in = False
            self._transport.set_protocol(self)

    def completed(self) -> None:
        """Get ready for the next exchange."""
        if self._stood_in:
            self._step_back()
        # If the answer came before the whole request was sent, the connection cannot be used again.
        self.reusable = self.exchange.keep_alive and not self._transport.get_write_buffer_size()
        if self._drained is not None:
            self._wake_upload()

    # Endings

    def eof_received(self) -> None:
        """End a body whose length was not announced. Any other response is cut short: an error.

        Over TLS this is called for the peer's close_notify only, not for a bare end of TCP. So an
        attacker who can only cut the connection cannot shorten such a body.
        """
        if not self.exchange.eof_received():
            self._lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange under way, and tell the owner."""
        self._lost(error)
        self.exchange.detach()
        self._on_lost(self)

    def _lost(self, error: Exception | None) -> None:
        self.reusable = False
        exchange = self.exchange
        if exchange.answer is not None:
            was_kept = exchange.number > 1 or self.was_opened_ahead
            is_stale = was_kept and not exchange.received
            kind = StaleConnection if is_stale else errors.TransportError
            self.end(kind, f"connection {ending(error)} while {exchange.phase}")


def ending(error: Exception | None) -> str:
    """Say how a connection ended. None and a broken pipe mean an ordinary end."""
    if error is None or isinstance(error, BrokenPipeError):
        return "closed by the server"
    if isinstance(error, ConnectionResetError):
        return "reset by the server"
    return f"lost ({str(error) or type(error).__name__})"
