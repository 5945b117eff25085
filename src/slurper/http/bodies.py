"""Bodies too large to be copied: received in place, sent in slices."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

from slurper.http.messages import Digest

HEAD_BYTES = 8 << 10
"""Before a large body no more is read at once: what comes with the head has to be copied."""
CHUNK_BYTES = 1 << 20
"""Large bodies are received into chunks of this."""
SLICE_BYTES = 1 << 20
"""Large bodies are handed to the transport in slices of this, as the peer takes them. The kernel
wakes a peer on this machine for every one of them."""

_raw_bytearray = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyByteArray_FromStringAndSize", ctypes.pythonapi)
)
"""Makes a bytearray of what happens to be in memory: zeros would only be overwritten."""


class Receiver(Protocol):
    """Who a response is received for: a connection."""

    def data_received(self, data: memoryview) -> None:
        """Some bytes of the response, which change afterwards."""
        ...

    def body_moved(self, size: int) -> None:
        """`size` more bytes of the body are here."""
        ...

    def body_received(self, chunks: list[bytes]) -> None:
        """The body is complete."""
        ...

    def pause_writing(self) -> None: ...  # noqa: D102 - as in asyncio.BaseProtocol
    def resume_writing(self) -> None: ...  # noqa: D102
    def eof_received(self) -> None: ...  # noqa: D102
    def connection_lost(self, error: Exception | None) -> None: ...  # noqa: D102


class _StandIn(asyncio.BufferedProtocol):
    """Stands in for a connection, and tells it of everything but what is read."""

    __slots__ = ("_receiver",)

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def pause_writing(self) -> None:
        """As the connection."""
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        """As the connection."""
        self._receiver.resume_writing()

    def eof_received(self) -> None:
        """As the connection."""
        self._receiver.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """As the connection."""
        self._receiver.connection_lost(error)


class HeadReader(_StandIn):
    """Stands in for a connection until the head of a large response is there.

    It reads little at once, so that nearly all of the body is left for a `BodyReader`.
    """

    __slots__ = ("_room",)

    def __init__(self, receiver: Receiver) -> None:
        super().__init__(receiver)
        self._room = memoryview(_raw_bytearray(None, HEAD_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what came."""
        self._receiver.data_received(self._room[:nbytes])


class BodyReader(_StandIn):
    """Stands in for a connection while the rest of a body of known length comes in.

    The transport reads straight into the chunks, so nothing is copied, and nothing after the body
    is read: what follows goes to the connection again. What a digest is to take in it gets right
    away: of a whole body the first bytes would have to be fetched from memory again.
    """

    __slots__ = ("_chunk", "_chunks", "_digest", "_missing", "_room")

    def __init__(self, receiver: Receiver, missing: int, digest: Digest | None) -> None:
        super().__init__(receiver)
        self._missing = missing
        self._digest = digest
        self._chunks: list[bytearray] = []
        self._next_chunk()

    def _next_chunk(self) -> None:
        self._chunk = _raw_bytearray(None, min(self._missing, CHUNK_BYTES))
        self._room = memoryview(self._chunk)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where the next bytes go; never empty."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came; go on to the next chunk, or hand over the body."""
        self._receiver.body_moved(nbytes)
        if self._digest is not None:
            self._digest.update(self._room[:nbytes])
        self._room = self._room[nbytes:]
        if self._room:
            return
        self._chunks.append(self._chunk)
        self._missing -= len(self._chunk)
        if self._missing:
            self._next_chunk()
        else:
            # A bytearray can be read like bytes, and nothing writes to it any more.
            chunks = cast("list[bytes]", self._chunks)
            # A transport may remember this reader for long; it must not keep the body alive.
            self._chunks, self._chunk, self._room = [], bytearray(), memoryview(b"")
            self._receiver.body_received(chunks)


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
