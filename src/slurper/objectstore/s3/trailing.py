"""Puts a body into chunks and its checksum behind it: `aws-chunked` with a trailer.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

from __future__ import annotations

from slurper.http.streams import Pieces
from slurper.objectstore import checksums
from slurper.objectstore.checksums import Algorithm
from slurper.objectstore.streamed import StreamedPart

CHUNK_BYTES = 1 << 20
"""The same as in botocore. So this size is what stores meet most often."""

_LINE = b"\r\n"


class Trailed:
    """The body of a request: the bytes of a part in chunks, and their checksum."""

    def __init__(self, part: StreamedPart, algorithm: Algorithm) -> None:
        self._part = part
        self._name = checksums.header_of(algorithm)
        self.headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": str(part.length),
            "x-amz-trailer": self._name,
        }
        """What must go with this body."""
        full, rest = divmod(part.length, CHUNK_BYTES)
        frames = full * len(_head(CHUNK_BYTES)) + (len(_head(rest)) if rest else 0)
        ends = (full + bool(rest)) * len(_LINE)
        value = checksums.encode(algorithm, ())  # each is as long as any other
        self.length = frames + part.length + ends + len(self._trailer(value))

    async def open(self) -> Pieces:
        """Begin the body. Raises StreamBroken."""
        return _Framed(self, await self._part.open(), self._part.length)

    def _trailer(self, value: str) -> bytes:
        return b"0\r\n" + f"{self._name}:{value}".encode() + 2 * _LINE

    def end(self) -> bytes:
        """What follows the last chunk, when all bytes have passed."""
        return self._trailer(self._part.checksum)


class _Framed:
    """One passage of the body."""

    def __init__(self, body: Trailed, pieces: Pieces, length: int) -> None:
        self._body = body
        self._pieces = pieces
        self._left = length
        """Bytes that no chunk has taken yet."""
        self._room = 0
        """Bytes that the current chunk still takes."""
        self._is_first = True
        self._is_over = False

    async def read(self) -> bytes | bytearray:
        """Return the next bytes; none at the end. Raises StreamBroken."""
        piece = await self._pieces.read()
        if piece:
            return self._framed(piece)
        if self._is_over:
            return b""
        self._is_over = True
        return (b"" if self._is_first else _LINE) + self._body.end()

    def close(self) -> None:
        """Give the rest up, if there is any."""
        self._pieces.close()

    def _framed(self, piece: bytes | bytearray) -> bytes | bytearray:
        if len(piece) <= self._room:  # the usual case copies nothing
            self._room -= len(piece)
            return piece
        framed = list[bytes | memoryview]()
        view = memoryview(piece)
        while view:
            if not self._room:
                framed.append(self._next_head())
            framed.append(view[: self._room])
            view = view[self._room :]
            self._room -= len(framed[-1])
        return b"".join(framed)

    def _next_head(self) -> bytes:
        """End the chunk before, and begin one."""
        self._room = min(CHUNK_BYTES, self._left)
        self._left -= self._room
        end = b"" if self._is_first else _LINE
        self._is_first = False
        return end + _head(self._room)


def _head(size: int) -> bytes:
    return b"%x\r\n" % size
