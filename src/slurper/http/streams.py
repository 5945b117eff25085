"""Bodies that are passed on while they come in.

A stream holds few bytes. If its consumer is slower than the peer, the connection stops reading, and
TCP slows the peer down.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

CHUNK_BYTES = 256 << 10
"""A streamed body is received, and passed on, in chunks of this size. They fit into the processor's
caches between the read and the write."""
HELD_BYTES = 1 << 20
"""When a stream holds so many bytes, its connection stops reading."""


class StreamDeclined(Exception):
    """The head of the answer shows that its body must not be streamed. Nothing was passed on."""


class StreamBroken(Exception):
    """A body that was being passed on cannot be read to its end. `cause` says why."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Pieces(Protocol):
    """A body on its way, from its first byte to its last."""

    async def read(self) -> bytes | bytearray:
        """Return the next bytes; none are left if it returns no bytes.

        Raises:
            StreamBroken: the rest cannot be had.
        """
        ...

    def close(self) -> None:
        """Give the rest up, if there is any."""
        ...


class Feed(Protocol):
    """The body of a request that comes from somewhere else while it is sent."""

    @property
    def length(self) -> int:
        """In bytes."""
        ...

    async def open(self) -> Pieces:
        """Begin the body; each send of the request begins it anew. Raises StreamBroken."""
        ...


class Valve(Protocol):
    """The connection that a stream is read from."""

    def hold(self) -> None:
        """Stop reading."""
        ...

    def flow(self) -> None:
        """Go on reading."""
        ...


class _Closed:
    """In place of a connection: there is nothing more to read."""

    def hold(self) -> None:
        """Do nothing."""

    def flow(self) -> None:
        """Do nothing."""


class BodyStream:
    """The body of a response, from its connection to one consumer."""

    __slots__ = (
        "_ended",
        "_error",
        "_held",
        "_is_held",
        "_on_end",
        "_pieces",
        "_valve",
        "_waiter",
    )

    def __init__(self, valve: Valve) -> None:
        self._valve = valve
        self._pieces: deque[bytes | bytearray] = deque()
        self._held = 0
        self._is_held = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        """Nothing more comes: the body is here as a whole, or it was cut or given up."""
        self._on_end: Callable[[], None] | None = None

    @classmethod
    def complete(cls, body: Iterable[bytes]) -> BodyStream:
        """A stream of a body that is here already. It needs no connection."""
        stream = cls(_Closed())
        for piece in body:
            stream.put(piece)
        stream.end()
        return stream

    # The connection's side

    def put(self, piece: bytes | bytearray) -> None:
        """Take the next bytes."""
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= HELD_BYTES and not self._is_held:
            self._is_held = True
            self._valve.hold()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Take note that nothing more comes. Without an error, the body is here as a whole."""
        if self._ended:
            return
        self._ended, self._error = True, error
        if self._is_held:
            self._is_held = False
            self._valve.flow()
        self._wake()
        if self._on_end is not None:
            self._on_end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The consumer's side

    async def read(self) -> bytes | bytearray:
        """Return the next bytes; the body is complete if it returns no bytes.

        Raises:
            TransportError: the connection was lost before the end of the body.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._is_held and self._held <= HELD_BYTES // 2:
            self._is_held = False
            self._valve.flow()
        return piece

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call `call` once, as soon as the connection is not needed any more."""
        if self._ended:
            call()
        else:
            self._on_end = call

    def close(self) -> None:
        """Give the rest of the body up, if there is any; its connection is closed then."""
        self._pieces.clear()
        self.end()
