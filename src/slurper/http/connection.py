"""One HTTP/1.1 connection: one request at a time, and its whole response in memory.

What the peer may do, and what follows:

    complete response, keep-alive           the connection can carry the next request
    complete response before our body went  the response counts; the connection is closed
    bytes nobody asked for                  closed; a response that was complete still counts
    `Connection: close`, HTTP/1.0           closed after the response
    EOF or reset in an exchange             TransportError, StaleConnection when reused and silent
    nothing moves, or a body trickles       TransportError, from the pool's sweep
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import httptools

from slurper import errors
from slurper.http import bodies, messages
from slurper.http.messages import Digest, Response

MAX_HEAD_BYTES = 64 << 10
"""Status line and headers of a response, its interim responses included."""
JOINED_BYTES = 64 << 10
"""A body up to this is sent in one write with its head: one packet train, one TLS record."""
_PARSED_BYTES = 64 << 10
"""A body of which more than this is missing after its head goes past the parser, which copies."""
_AWAITED_BYTES = 2 * _PARSED_BYTES
"""Before a body that is expected to be longer little is read at once, see `bodies.HeadReader`."""
_UNLIMITED = sys.maxsize


class StaleConnection(errors.TransportError):
    """A kept connection ended before the first byte of a response: the peer had closed it."""


class Connection(asyncio.Protocol):
    """The client's side of one connection.

    `on_lost` is called once, when the transport is gone. `peer` is `host:port` for error texts.
    """

    __slots__ = (
        "_announced",
        "_answer",
        "_body",
        "_digest",
        "_drained",
        "_head_bytes",
        "_head_done",
        "_head_only",
        "_headers",
        "_keep",
        "_length",
        "_limit",
        "_loop",
        "_make_digest",
        "_moved",
        "_on_lost",
        "_parser",
        "_paused",
        "_phase",
        "_received",
        "_reused",
        "_sent",
        "_status",
        "_stood_in",
        "_transport",
        "_until_eof",
        "_window_began",
        "_written",
        "moves_body",
        "peer",
        "quiet_sweeps",
        "reusable",
        "slow_sweeps",
    )

    def __init__(self, peer: str, on_lost: Callable[[Connection], None]) -> None:
        self.peer = peer
        self.reusable = True
        """The next request may go over this connection."""
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Response] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._reused = False
        self._keep = True
        self._sent = True
        self._moved: int | None = None
        self._phase: tuple[bool, bool, bool] | None = None
        self._stood_in = False
        self._make_digest: Callable[[Mapping[str, str]], Digest | None] | None = None
        self._digest: Digest | None = None
        self._window_began = 0
        self.quiet_sweeps = 0
        """During so many sweeps, the last one included, nothing moved in either direction."""
        self.slow_sweeps = 0
        """During so many, less moved than makes up a window."""
        self.moves_body = False
        """What the last sweep saw on the move, if anything, was a body of known length."""
        self._reset(head_only=False, limit=None)

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
        self._reset(head_only=method == "HEAD", limit=limit)
        self.reusable = False
        answer: asyncio.Future[Response] = self._loop.create_future()
        self._answer = answer
        self._make_digest = digest
        if awaited_bytes > _AWAITED_BYTES:
            self._stand_in(bodies.HeadReader(self))
        return answer

    def write(self, data: bytes) -> None:
        """Send a whole request; for those of up to JOINED_BYTES."""
        self._written = len(data)
        self._transport.write(data)

    async def upload(self, head: bytes, body: Sequence[bytes]) -> None:
        """Send a request as fast as the peer takes it; return early when there is an answer."""
        self._sent = False
        slices = bodies.slices(body)
        first = next(slices)
        self._written = len(head) + sum(map(len, first))
        self._transport.writelines((head, *first))
        for pieces in slices:
            if self._paused:
                await self._drain()
            else:
                # Lets an early answer be read before more is written: a write that meets a reset
                # would throw the answer away.
                await asyncio.sleep(0)
            if self._answer is None:
                self.reusable = False
                return
            self._written += sum(map(len, pieces))
            self._transport.writelines(pieces)
        self._sent = True

    def abort(self) -> None:
        """Drop the connection and whatever is under way on it."""
        self.reusable = False
        self._answer = None
        self._transport.abort()

    def close(self) -> None:
        """Close politely; for a connection on which nothing is under way."""
        self.reusable = False
        self._transport.close()

    def fail(self, error: Exception) -> None:
        """End the exchange under way with `error` and drop the connection."""
        answer = self._answer
        self.abort()
        if answer is not None and not answer.done():
            answer.set_exception(error)
        self._wake_upload()

    def sweep(self, window_bytes: int) -> None:
        """Look at what has moved. A window ends when `window_bytes` have, and with its phase."""
        unsent = self._unsent_bytes()
        moved = self._received + self._written - unsent
        self.quiet_sweeps = self.quiet_sweeps + 1 if moved == self._moved else 0
        self._moved = moved
        sending = unsent > 0 or not self._sent
        phase = (sending, self._received > 0, self._head_done)
        if phase != self._phase or moved - self._window_began >= window_bytes:
            self._phase, self._window_began = phase, moved
            self.slow_sweeps = 0
        else:
            self.slow_sweeps += 1
        self.moves_body = self._announced is not None if self._received else sending

    @property
    def busy(self) -> bool:
        """Whether a response is being waited for."""
        return self._answer is not None

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for the response."""
        return self._answer is not None and not self._answer.done()

    @property
    def phase(self) -> str:
        """Where the exchange stands, for error texts."""
        if not self._received:
            return "waiting for the response" if self._sent else "sending the request"
        if not self._head_done:
            return "reading the response's head"
        announced = "" if self._announced is None else f" of {self._announced}"
        return f"reading the response, after {self._length}{announced} body bytes"

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

    def _unsent_bytes(self) -> int:
        """Bytes not yet acknowledged by the peer: ours, the transport's and the kernel's."""
        size = self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            reply = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        except OSError:  # the socket is closed, or no such query on this system
            return size
        return size + cast("int", struct.unpack("i", reply)[0])

    # Receiving

    def _reset(self, *, head_only: bool, limit: int | None) -> None:
        self._head_only = head_only
        self._limit = _UNLIMITED if limit is None else limit
        self._status = 0
        self._headers: dict[str, str] = {}
        self._head_done = False
        self._head_bytes = 0
        self._announced: int | None = None
        self._until_eof = False
        self._body: list[bytes] = []
        self._length = 0
        self._received = 0
        self._written = 0
        self._moved = None
        self._phase = None
        self._window_began = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def _stand_in(self, reader: asyncio.BufferedProtocol) -> None:
        """Let another read what comes next."""
        self._stood_in = True
        self._transport.set_protocol(reader)

    def _step_back(self) -> None:
        """Read what comes next here again."""
        if self._stood_in:
            self._stood_in = False
            self._transport.set_protocol(self)

    def data_received(self, data: bytes | memoryview) -> None:
        """Read on in the response."""
        self._received += len(data)
        try:
            if self._head_done or len(data) <= MAX_HEAD_BYTES:
                self._parser.feed_data(data)
            else:
                self._feed_large(data)
        except httptools.HttpParserError as error:
            self._malformed(f"{error}{messages.fault_in(bytes(data))}")
        except httptools.HttpParserUpgrade:
            self._malformed("an upgrade nobody asked for")
        if self._answer is not None:
            self._unfinished(data)

    def _feed_large(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self._parser.feed_data(view[:MAX_HEAD_BYTES])
        if not self._head_done and self._answer is not None:
            self._refuse_head()
        else:
            self._parser.feed_data(view[MAX_HEAD_BYTES:])

    def _unfinished(self, data: bytes | memoryview) -> None:
        """After a read that did not complete the response: bound what it may cost."""
        if self._announced is not None:
            missing = self._announced - self._length
            if missing > _PARSED_BYTES:
                self._read_in_place(missing)
            else:
                self._step_back()
            return
        if self._head_done:
            self._step_back()
        # Without an announced length these are heads, trailers and the frames of chunks.
        self._head_bytes += len(data)
        if not self._until_eof and self._head_bytes > MAX_HEAD_BYTES + 16 * self._length:
            self._refuse_head()

    def _read_in_place(self, missing: int) -> None:
        if self._make_digest is not None:
            self._digest = self._make_digest(self._headers)
        if self._digest is not None:
            for piece in self._body:
                self._digest.update(piece)
        self._stand_in(bodies.BodyReader(self, missing, self._digest))

    def _refuse_head(self) -> None:
        self._fail(f"the response's headers exceed {MAX_HEAD_BYTES} bytes")

    def body_moved(self, size: int) -> None:
        """Take note of body bytes that went past the parser, see `BodyReader`."""
        self._received += size
        self._length += size

    def body_received(self, chunks: list[bytes]) -> None:
        """Complete the response, and read the next one again."""
        self._parser = httptools.HttpResponseParser(self)
        self._body += chunks
        self._complete()

    def on_message_begin(self) -> None:
        """Notice bytes nobody asked for."""
        if self._answer is None or not self._written:
            self._unsolicited()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are dropped."""
        if self._head_done:
            return
        headers = self._headers
        key = name.lower().decode("latin-1")
        text = value.rstrip().decode("latin-1")
        if key in headers:
            headers[key] += ", " + text
        else:
            headers[key] = text

    def on_headers_complete(self) -> None:
        """Decide how the body is framed."""
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            self._headers = {}
            return
        if self._answer is None:
            return
        self._status = status
        self._head_done = True
        headers = self._headers
        if self._head_only:
            self._complete_head_only()
            return
        if not parser.should_keep_alive():
            self._keep = False
        if status in (204, 304):
            return
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                self._fail(f"transfer-encoding {headers['transfer-encoding']!r} is not understood")
        elif "content-length" in headers:
            self._announced = int(headers["content-length"])
            if self._announced > self._limit:
                self._too_large()
        else:
            self._until_eof = True

    def _complete_head_only(self) -> None:
        """Complete the answer to a HEAD. The parser cannot be told that no body follows."""
        version = self._parser.get_http_version()
        if version != "1.1" or "close" in self._headers.get("connection", "").lower():
            self._keep = False
        self._parser = httptools.HttpResponseParser(self)
        self._complete()

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        if self._answer is None:
            self._unsolicited()
            return
        self._body.append(data)
        self._length += len(data)
        if self._length > self._limit:
            self._too_large()

    def on_message_complete(self) -> None:
        """Hand over the response, unless it was an interim one."""
        if self._head_done and self._answer is not None:
            self._complete()

    def _complete(self) -> None:
        answer = self._answer
        if answer is None:
            return
        self._answer = None
        if self._stood_in:
            self._step_back()
        body, self._body = self._body, []  # which an idle connection must not keep alive
        digest, self._digest = self._digest, None
        self._reused = True
        # An answer before the peer has our whole request makes the connection useless.
        self.reusable = self._keep and not self._transport.get_write_buffer_size()
        if not answer.done():
            answer.set_result(Response(self._status, self._headers, body, self._length, 0, digest))
        self._wake_upload()

    # Endings

    def eof_received(self) -> None:
        """End a body that only the end of the connection delimits; anything else is cut short.

        Over TLS this is the peer's close_notify (uvloop does not report a bare end of TCP), so
        whoever can cut the wire cannot shorten such a body.
        """
        self._keep = False
        if self._answer is not None and self._until_eof:
            self._complete()
        else:
            self._lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End whatever was under way."""
        self._lost(error)
        del self._parser
        self._on_lost(self)

    def _lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._answer is None:
            return
        what = f"connection {ending(error)} while {self.phase}"
        if self._reused and not self._received:
            self.fail(StaleConnection(f"{self.peer}: {what}"))
        else:
            self._fail(what)

    def _fail(self, what: str) -> None:
        self.fail(errors.TransportError(f"{self.peer}: {what}"))

    def _malformed(self, what: str) -> None:
        if self._answer is None or not self._written:
            self._unsolicited()
        else:
            text = f"{self.peer}: not HTTP/1.1: {what}, while {self.phase}"
            self.fail(errors.MalformedAnswer(text))

    def _too_large(self) -> None:
        self.fail(
            errors.IntegrityError(f"{self.peer}: the response exceeds {self._limit} body bytes")
        )

    def _unsolicited(self) -> None:
        self._keep = False
        # What comes before a request has gone answers something else.
        self.fail(StaleConnection(f"{self.peer}: sent something before it was asked"))


def ending(error: Exception | None) -> str:
    """Say how a connection ended; None and a broken pipe are an ordinary end."""
    if error is None or isinstance(error, BrokenPipeError):
        return "closed by the server"
    if isinstance(error, ConnectionResetError):
        return "reset by the server"
    return f"lost ({str(error) or type(error).__name__})"
