"""Objects that are passed on while they come in, with a checksum that is known before.

The target compares the bytes with that checksum before it keeps the object. So nothing is computed
here, and the object is never in memory as a whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from slurper import errors
from slurper.http.streams import BodyStream, StreamBroken, StreamDeclined
from slurper.objectstore.base import ObjectHeaders, StoredObject
from slurper.objectstore.checksums import Algorithm, Told

RESUMES = 3
"""A read that breaks is resumed where it broke, at most so often without a byte in between."""
RESUME_SECONDS = 20.0
"""How long a resumed read may take to begin. The target waits meanwhile, and stores wait for about
so long. The limit also ends a wait for each other, of objects that hold connections of one store
and wait for those of the other."""


class StreamedBody:
    """The bytes of an object on their way from its store. Each `open` begins at the first byte."""

    def __init__(
        self,
        length: int,
        told: Told,
        first: BodyStream,
        read_from: Callable[[int], Awaitable[BodyStream]],
    ) -> None:
        """Take the stream that is open already. `read_from` opens one that begins at an offset."""
        self.length = length
        self.told = told
        """The checksum that the source tells of these bytes."""
        self._first: BodyStream | None = first
        self._read_from = read_from

    async def open(self) -> _Pieces:
        """Begin the body. Raises StreamBroken."""
        stream, self._first = self._first, None
        if stream is None:
            stream = await self._opened(0)
        return _Pieces(stream, self.length, self._resumed)

    def close(self) -> None:
        """Give up a stream that was never used."""
        if self._first is not None:
            self._first.close()

    async def _opened(self, start: int) -> BodyStream:
        try:
            return await self._read_from(start)
        except (errors.SlurperError, StreamDeclined) as error:
            raise StreamBroken(error) from error

    async def _resumed(self, start: int, error: errors.TransportError) -> BodyStream:
        try:
            async with asyncio.timeout(RESUME_SECONDS):
                return await self._opened(start)
        except TimeoutError:
            raise StreamBroken(error) from error


class _Pieces:
    """One passage of a body. A read that breaks is resumed at the byte where it broke."""

    def __init__(
        self,
        stream: BodyStream,
        length: int,
        resumed: Callable[[int, errors.TransportError], Awaitable[BodyStream]],
    ) -> None:
        self._stream = stream
        self._length = length
        self._resumed = resumed
        self._done = 0
        self._resumes = 0

    async def read(self) -> bytes | bytearray:
        """Return the next bytes; none at the end. Raises StreamBroken."""
        while True:
            try:
                piece = await self._stream.read()
            except errors.TransportError as error:
                if self._done == self._length:
                    return b""
                self._resumes += 1
                if self._resumes > RESUMES:
                    raise StreamBroken(error) from error
                self._stream = await self._resumed(self._done, error)
                continue
            if piece:
                self._done += len(piece)
                self._resumes = 0
            if self._done > self._length or not (piece or self._done == self._length):
                text = f"{self._done} bytes came of an object of {self._length}"
                raise StreamBroken(errors.IntegrityError(text))
            return piece

    def close(self) -> None:
        """Give the rest up, if there is any."""
        self._stream.close()


@dataclass(slots=True)
class StreamedDownload:
    """A GET's answer whose body is still to come."""

    stored: StoredObject
    body: StreamedBody


@runtime_checkable
class StreamingStore(Protocol):
    """A store that can pass objects on while they come in."""

    async def get_stream(
        self, key: str, *, if_match: str, size: int, algorithms: Collection[Algorithm]
    ) -> StreamedDownload:
        """Begin to read an object of `size` bytes that tells one of these checksums.

        Raises:
            StreamDeclined: the store tells no such checksum of the object.
            SlurperError: as `ObjectStore.get`.
        """
        ...

    async def put_stream(
        self, key: str, body: StreamedBody, headers: ObjectHeaders, *, if_absent: bool = False
    ) -> str:
        """Write an object in one request, with its source's checksum; return its ETag.

        Raises:
            StreamBroken: the body could not be read to its end.
            SlurperError: as `ObjectStore.put`.
        """
        ...
