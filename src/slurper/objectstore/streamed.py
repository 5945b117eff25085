"""Objects, and parts of objects, that are passed on while they come in.

A whole object goes with a checksum that is known before. The target compares the bytes with it
before it keeps the object. So nothing is computed here. The checksum of a part is computed while
its bytes pass, and follows them. Neither is ever in memory as a whole.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from slurper import errors
from slurper.http.streams import BodyStream, Feed, Pieces, StreamBroken, StreamDeclined
from slurper.objectstore import checksums
from slurper.objectstore.base import ByteRange, ObjectHeaders, Part, StoredObject
from slurper.objectstore.checksums import Algorithm, Told

RESUMES = 3
"""A read that breaks is resumed where it broke, at most so often without a byte in between."""
RESUME_SECONDS = 20.0
"""How long a resumed read may take to begin. The target waits meanwhile, and stores wait for about
so long. The limit also ends a wait for each other, of objects that hold connections of one store
and wait for those of the other."""


class StreamedBytes:
    """Bytes on their way from a store. Each `open` begins at the first byte."""

    def __init__(
        self, length: int, first: BodyStream, read_from: Callable[[int], Awaitable[BodyStream]]
    ) -> None:
        """Take the stream that is open already. `read_from` opens one that begins at an offset."""
        self.length = length
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


class StreamedBody(StreamedBytes):
    """The bytes of a whole object, whose checksum the source tells."""

    def __init__(
        self,
        length: int,
        told: Told,
        first: BodyStream,
        read_from: Callable[[int], Awaitable[BodyStream]],
    ) -> None:
        """Take the checksum, and the rest as `StreamedBytes` do."""
        super().__init__(length, first, read_from)
        self.told = told


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


class StreamedPart:
    """The bytes of a part on their way. Their checksums are computed while they pass."""

    def __init__(
        self,
        body: Feed,
        trailing: Algorithm | None,
        *,
        also: Algorithm | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        """Take the bytes, and which checksums are wanted. Only those of `QUICK` may be.

        `trailing` is that of all bytes, and follows them. `also` is that of each piece; `sizes` are
        the sizes of all pieces, in bytes.
        """
        self._body = body
        self.trailing = trailing
        self._also = also
        self._sizes = sizes
        self.length = body.length
        self.checksum = ""
        """Base64. It is known when all bytes have passed."""
        self.source_sums: tuple[str, ...] = ()
        """Base64, of each piece. They are known when all bytes have passed."""
        self.has_passed = False
        """All bytes have passed in the last send."""
        self._mislabels = False

    @classmethod
    def held(cls, chunk: bytes, algorithm: Algorithm, *, mislabels: bool = False) -> StreamedPart:
        """A part of bytes in memory, whose checksum trails.

        With `mislabels` it is the checksum of other bytes. A store that compares it refuses them.
        """
        part = cls(_Held(chunk), algorithm)
        part._mislabels = mislabels
        return part

    async def open(self) -> Pieces:
        """Begin the body. Raises StreamBroken."""
        self.has_passed = False
        return _Summed(self, await self._body.open())

    def passed(self, whole: str, pieces: Sequence[str]) -> None:
        """Take the checksums of all bytes and of each piece: all bytes have passed."""
        if self._mislabels and self.trailing is not None:
            whole = checksums.encode(self.trailing, [whole.encode()])
        self.checksum, self.source_sums = whole, tuple(pieces)
        self.has_passed = True

    def sums(self) -> tuple[_PieceSums | None, _PieceSums | None]:
        """Begin the checksums: of the whole part, and of its pieces."""
        trailing, also = self.trailing, self._also
        return (
            None if trailing is None else _PieceSums(trailing, (self.length,)),
            None if also is None else _PieceSums(also, self._sizes),
        )


class _Held:
    """Bytes in memory, as the body of a request."""

    def __init__(self, chunk: bytes) -> None:
        self._chunk = chunk
        self.length = len(chunk)

    async def open(self) -> BodyStream:
        return BodyStream.complete([self._chunk])


class _PieceSums:
    """The checksum of each piece of some bytes."""

    def __init__(self, algorithm: Algorithm, sizes: Sequence[int]) -> None:
        self._algorithm = algorithm
        self._sizes = iter(sizes)
        self._begin()
        self.values: list[str] = []
        """Base64, of the pieces that are complete."""

    def _begin(self) -> None:
        self._room = next(self._sizes, sys.maxsize)
        self._sum = checksums.Running([self._algorithm])

    def update(self, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            taken = view[: self._room]
            self._sum.update(taken)
            view = view[len(taken) :]
            self._room -= len(taken)
            if self._room == 0:
                self.values.append(self._sum.encoded()[self._algorithm])
                self._begin()


class _Summed:
    """One passage of a part."""

    def __init__(self, part: StreamedPart, pieces: Pieces) -> None:
        self._part = part
        self._pieces = pieces
        self._whole, self._cut = part.sums()

    async def read(self) -> bytes | bytearray:
        """Return the next bytes; none at the end. Raises StreamBroken."""
        piece = await self._pieces.read()
        for sums in (self._whole, self._cut):
            if sums is not None and piece:
                sums.update(piece)
        if not piece:
            whole, cut = self._whole, self._cut
            self._part.passed(whole.values[0] if whole else "", cut.values if cut else ())
        return piece

    def close(self) -> None:
        """Give the rest up, if there is any."""
        self._pieces.close()


@dataclass(slots=True)
class StreamedDownload:
    """A GET's answer whose body is still to come."""

    stored: StoredObject
    body: StreamedBody


@dataclass(slots=True)
class StreamedRange:
    """The answer to a GET of a range, whose bytes are still to come."""

    stored: StoredObject
    body: StreamedBytes


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

    async def get_range_stream(
        self, key: str, byte_range: ByteRange, *, if_match: str, size: int
    ) -> StreamedRange:
        """Begin to read a range of an object of `size` bytes.

        Raises:
            StreamDeclined: the answer is another range, or came as a whole.
            SlurperError: as `ObjectStore.get`.
        """
        ...

    async def put_part_stream(
        self, key: str, upload_id: str, number: int, part: StreamedPart
    ) -> Part:
        """Write part `number` (from 1).

        Raises:
            StreamBroken: the body could not be read to its end.
            SlurperError: as `ObjectStore.put_part`.
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
