"""Large bodies. They are received without copying, and sent in slices."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from slurper.http import streams
from slurper.http.exchange import Exchange

HEAD_BYTES = 8 << 10
"""The most that one read takes while the head of a large response is awaited. Bytes of the body
that come with the head have to be copied."""
CHUNK_BYTES = 1 << 20
"""Large bodies are received into chunks of this size."""
SLICE_BYTES = 1 << 20
"""Large bodies are handed to the transport in slices of this size, as fast as the peer takes them.
The kernel wakes a peer on this machine for each slice."""

_raw_bytearray = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyByteArray_FromStringAndSize", ctypes.pythonapi)
)
"""Makes a bytearray without filling it with zeros first. The zeros would only be overwritten."""


class Receiver(Protocol):
    """The connection that a response is received for."""

    def data_received(self, data: memoryview) -> None:
        """Take some bytes of the response. The memory of `data` is used again afterwards."""
        ...

    def pause_writing(self) -> None: ...  # noqa: D102 - as in asyncio.BaseProtocol
    def resume_writing(self) -> None: ...  # noqa: D102
    def eof_received(self) -> None: ...  # noqa: D102
    def connection_lost(self, error: Exception | None) -> None: ...  # noqa: D102


class _StandIn(asyncio.BufferedProtocol):
    """Reads in place of a connection. It passes every other event on to the connection."""

    __slots__ = ("_receiver",)

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def pause_writing(self) -> None:
        """Pass the event on."""
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """Pass the event on."""
        self._receiver.resume_writing()

    def eof_received(self) -> None:
        """Pass the event on."""
        self._receiver.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Pass the event on."""
        self._receiver.connection_lost(error)


class HeadReader(_StandIn):
    """Reads in place of a connection until the head of a large response is here.

    It reads little at a time, so that nearly all of the body is left for a `BodyReader`.
    """

    __slots__ = ("_room",)

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver)
        self._room = memoryview(_raw_bytearray(None, HEAD_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the memory for the next bytes."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on the bytes that came."""
        self._receiver.data_received(self._room[:nbytes])


class BodyReader(_StandIn):
    """Reads in place of a connection while the rest of a body of known length comes in.

    The transport reads straight into the chunks, so nothing is copied. It reads no byte after the
    body: the connection itself reads those. A digest gets each piece as soon as it is here, while
    the piece is still in the processor's caches.
    """

    __slots__ = (
        "_chunk",
        "_chunk_bytes",
        "_chunks",
        "_digest",
        "_exchange",
        "_missing",
        "_room",
        "_stream",
    )

    def __init__(self, receiver: Receiver, exchange: Exchange, missing: int) -> None:
        super().__init__(receiver)
        self._exchange = exchange
        self._missing = missing
        self._stream = exchange.stream
        self._chunk_bytes = CHUNK_BYTES if self._stream is None else streams.CHUNK_BYTES
        self._digest = exchange.make_digest()
        self._chunks: list[bytearray] = []
        self._next_chunk()

    def _next_chunk(self) -> None:
        self._chunk = _raw_bytearray(None, min(self._missing, self._chunk_bytes))
        self._room = memoryview(self._chunk)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the memory for the next bytes; it is never empty."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came; go on to the next chunk, or hand over the body."""
        self._exchange.body_moved(nbytes)
        if self._digest is not None:
            self._digest.update(self._room[:nbytes])
        self._room = self._room[nbytes:]
        if self._room:
            return
        self._missing -= len(self._chunk)
        if self._stream is None:
            self._chunks.append(self._chunk)
        else:
            self._stream.put(self._chunk)
        if self._missing:
            self._next_chunk()
        else:
            # A bytearray can be read like bytes, and nothing writes to it any more.
            chunks = cast("list[bytes]", self._chunks)
            # A transport may hold this reader for a long time. That must not keep the body alive.
            self._chunks, self._chunk, self._room = [], bytearray(), memoryview(b"")
            self._stream = None
            self._exchange.body_received(chunks)


def slices(body: Sequence[bytes]) -> Iterator[list[bytes | memoryview]]:
    """Group a body's chunks, without copying, into lists of about SLICE_BYTES each."""
    pieces: list[bytes | memoryview] = []
    size = 0
    for chunk in body:
        view = memoryview(chunk)
        for start in range(0, len(chunk), SLICE_BYTES):
            piece = chunk if len(chunk) <= SLICE_BYTES else view[start : start + SLICE_BYTES]
            pieces.append(piece)
            size += len(piece)
            if size >= SLICE_BYTES:
                yield pieces
                pieces, size = [], 0
    if pieces:
        yield pieces
