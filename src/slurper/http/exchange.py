"""One exchange over a connection: how much of the request was sent, and the response so far.

The whole response is collected in memory. A connection has one `Exchange` and uses it again for
each request. A new parser looks up its callbacks, which would cost too much per request.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

import httptools

from slurper import errors
from slurper.http import messages
from slurper.http.messages import Digest, Request, Response
from slurper.http.streams import BodyStream

MAX_HEAD_BYTES = 64 << 10
"""Status lines and headers of a response may have this many bytes, interim responses included."""
_UNLIMITED = sys.maxsize
_READ = frozenset({200, 206})
"""Answers that carry an object."""


_NAMES: dict[bytes, str] = {}
"""Names of headers, each as it came and in lower case. The answers of a store repeat them."""
_MAX_NAMES = 1024
_MAX_NAME_BYTES = 64


def _named(name: bytes) -> str:
    """The name of a header in lower case. It is kept in `_NAMES` if there is room."""
    key = name.lower().decode("latin-1")
    if len(_NAMES) < _MAX_NAMES and len(name) <= _MAX_NAME_BYTES:
        _NAMES[name] = key
    return key


class StaleConnection(errors.TransportError):
    """A kept connection ended before the first byte of a response. The peer had closed it."""


class Owner(Protocol):
    """The connection of an exchange, as the exchange sees it."""

    def completed(self) -> None:
        """The whole response is here. Its future gets it right after this."""
        ...

    def end(self, kind: type[Exception], what: str) -> None:
        """The exchange cannot go on."""
        ...


class Exchange:
    """The request under way on a connection, and its response."""

    __slots__ = (
        "_head_only",
        "_limit",
        "_make_digest",
        "_may_stream",
        "_owner",
        "_parser",
        "announced",
        "answer",
        "head_done",
        "keep_alive",
        "number",
        "received",
        "response",
        "sent",
        "stream",
        "waits",
        "written",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._make_digest: Callable[[Mapping[str, str]], Digest | None] | None = None
        self._may_stream: Callable[[Mapping[str, str]], bool] | None = None
        self._limit = _UNLIMITED
        self._head_only = False
        self.number = 0
        """How many exchanges have begun, this one included."""
        self.answer: asyncio.Future[Response] | None = None
        """Gets the response; None while nothing is under way."""
        self.response = Response(0, {}, [], 0)
        """The response as far as it is here."""
        self.head_done = False
        """The final head is here, not only the head of an interim response."""
        self.announced: int | None = None
        """Bytes of the response's body, if the head names the number."""
        self.received = 0
        """Bytes of the response, its head included."""
        self.written = 0
        """Bytes of the request that the transport was given."""
        self.sent = True
        """The transport was given the whole request, or nothing yet."""
        self.keep_alive = True
        """The connection may be kept, as far as the response says until now."""
        self.stream: BodyStream | None = None
        """Gets the body in place of the response."""
        self.waits = False
        """It is not the peer that this exchange waits for, but the other end of a stream."""

    def begin(self, answer: asyncio.Future[Response], request: Request, limit: int | None) -> None:
        """Get ready for the response to a request."""
        self.number += 1
        self.answer = answer
        self._head_only = request.method == "HEAD"
        self._limit = _UNLIMITED if limit is None else limit
        self._make_digest = request.digest
        self._may_stream = request.may_stream
        self.head_done = False
        self.announced = None
        self.received = 0
        self.written = 0
        self.stream = None
        self.waits = False

    def detach(self) -> None:
        """Break the reference cycles with the parser and the owner. Nothing more is received."""
        del self._parser, self._owner

    @property
    def phase(self) -> str:
        """Where the exchange stands, for error texts."""
        if not self.received:
            return "waiting for the response" if self.sent else "sending the request"
        if not self.head_done:
            return "reading the response's head"
        announced = "" if self.announced is None else f" of {self.announced}"
        return f"reading the response, after {self.response.length}{announced} body bytes"

    # What the connection has read

    def feed(self, data: bytes | memoryview) -> None:
        """Read on in the response."""
        self.received += len(data)
        try:
            if self.head_done or len(data) <= MAX_HEAD_BYTES:
                self._parser.feed_data(data)
            else:
                self._feed_large(data)
        except httptools.HttpParserError as error:
            self._malformed(f"{error}{messages.fault_in(bytes(data))}")
        except httptools.HttpParserUpgrade:
            self._malformed("an upgrade nobody asked for")
        # Beside the body there are heads, trailers and the frames of chunks. All bytes together may
        # be at most MAX_HEAD_BYTES and 16 times the body.
        if (
            self.answer is not None
            and self.announced is None
            and self.received > MAX_HEAD_BYTES + 16 * self.response.length
            and not self._lasts_until_eof()
        ):
            self._refuse_head()

    def _feed_large(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self._parser.feed_data(view[:MAX_HEAD_BYTES])
        if not self.head_done and self.answer is not None:
            self._refuse_head()
        else:
            self._parser.feed_data(view[MAX_HEAD_BYTES:])

    def make_digest(self) -> Digest | None:
        """Make the request's digest for a long body; give it the bytes that are here already."""
        if self._make_digest is None:
            return None
        digest = self.response.digest = self._make_digest(self.response.headers)
        if digest is not None:
            for piece in self.response.body:
                digest.update(piece)
        return digest

    @property
    def is_to_stream(self) -> bool:
        """Whether the final head is here, and the request wants what follows as a stream."""
        return self._may_stream is not None and self.head_done and self.response.status in _READ

    def may_be_streamed(self) -> bool:
        """Whether the request wants this body, by its headers."""
        return self._may_stream is not None and self._may_stream(self.response.headers)

    def open_stream(self, stream: BodyStream) -> None:
        """Hand over the response before its body, which goes into `stream`."""
        self.stream = self.response.stream = stream
        for piece in self.response.body:
            stream.put(piece)
        self.response.body = []
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(self.response)

    def body_moved(self, size: int) -> None:
        """Count body bytes that went past the parser."""
        self.received += size
        self.response.length += size

    def body_received(self, chunks: list[bytes]) -> None:
        """Complete a response whose body went past the parser."""
        self._parser = httptools.HttpResponseParser(self)
        self.response.body += chunks
        self._complete()

    def eof_received(self) -> bool:
        """Complete a body without announced length. False: the response is cut short."""
        self.keep_alive = False
        if self.answer is None or not self._lasts_until_eof():
            return False
        self._complete()
        return True

    def _lasts_until_eof(self) -> bool:
        if not self.head_done or self.announced is not None:
            return False
        return "transfer-encoding" not in self.response.headers

    # What the parser calls

    def on_message_begin(self) -> None:
        """Refuse bytes that answer no request."""
        if self.answer is None or not self.written:
            self._unsolicited()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are dropped."""
        if self.head_done:
            return
        headers = self.response.headers
        key = _NAMES.get(name) or _named(name)
        text = value.rstrip().decode("latin-1")
        if key in headers:
            headers[key] += ", " + text
        else:
            headers[key] = text

    def on_headers_complete(self) -> None:
        """Decide how the body is framed."""
        parser = self._parser
        status = parser.get_status_code()
        response = self.response
        if status < 200:
            response.headers = {}
            return
        if self.answer is None:
            return
        response.status = status
        self.head_done = True
        headers = response.headers
        if self._head_only:
            self._complete_head_only()
            return
        if not parser.should_keep_alive():
            self.keep_alive = False
        if status in (204, 304):
            return
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                coding = headers["transfer-encoding"][:80]
                self._fail(f"transfer-encoding {coding!r} is not understood")
        elif "content-length" in headers:
            self.announced = int(headers["content-length"])
            if self.announced > self._limit:
                self._too_large()

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        if self.answer is None:
            self._unsolicited()
            return
        response = self.response
        response.body.append(data)
        response.length += len(data)
        if response.length > self._limit:
            self._too_large()

    def on_message_complete(self) -> None:
        """Hand over the response, unless it was an interim one."""
        if self.head_done and self.answer is not None:
            self._complete()

    def _complete_head_only(self) -> None:
        """Complete the answer to a HEAD. The parser cannot be told that no body follows."""
        version = self._parser.get_http_version()
        if version != "1.1" or "close" in self.response.headers.get("connection", "").lower():
            self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)
        self._complete()

    def _complete(self) -> None:
        answer = self.answer
        if answer is None:
            return
        self.answer = None
        # An idle connection must not keep the body alive.
        response, self.response = self.response, Response(0, {}, [], 0)
        self._owner.completed()
        if not answer.done():
            answer.set_result(response)
        elif self.stream is not None:
            self.stream.end()

    # What ends it

    def _fail(self, what: str) -> None:
        self._owner.end(errors.TransportError, what)

    def _refuse_head(self) -> None:
        self._fail(f"the response's headers exceed {MAX_HEAD_BYTES} bytes")

    def _malformed(self, what: str) -> None:
        if self.answer is None or not self.written:
            self._unsolicited()
        else:
            text = f"not HTTP/1.1: {what}, while {self.phase}"
            self._owner.end(errors.MalformedAnswer, text)

    def _too_large(self) -> None:
        text = f"the response exceeds {self._limit} body bytes"
        self._owner.end(errors.IntegrityError, text)

    def _unsolicited(self) -> None:
        self.keep_alive = False
        # Bytes that come before a request was sent cannot be its answer.
        self._owner.end(StaleConnection, "sent something before it was asked")
