"""HTTP messages as raw bytes on their way through a proxy, which does not repair them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

PIECE = 256 * 1024
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Alteration = Callable[[int, bytes], bytes]
"""Changes a piece of a body; gets its position in the body, and the piece."""


@dataclass(frozen=True, slots=True)
class Head:
    """First line and headers of a message, raw, with what is needed to pass its body on."""

    raw: bytes

    @property
    def first_line(self) -> str:
        """Request or status line."""
        return self.raw.partition(b"\r\n")[0].decode("latin-1")

    @property
    def method(self) -> str:
        """Of a request."""
        return self.first_line.partition(" ")[0]

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first_line.split(" ", 2)[1])

    @property
    def is_chunked(self) -> bool:
        """The body comes in chunks."""
        return (self.header("transfer-encoding") or "").lower() == "chunked"

    def header(self, name: str) -> str | None:
        """The value of a header."""
        pattern = rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)"
        found = re.search(pattern, self.raw, re.IGNORECASE)
        return found.group(1).decode("latin-1").strip() if found else None

    def without(self, *names: str) -> Head:
        """The same head lacking some headers."""
        raw = self.raw
        for name in names:
            pattern = rb"\r\n" + re.escape(name.encode()) + rb":[^\r\n]*"
            raw = re.sub(pattern, b"", raw, flags=re.IGNORECASE)
        return Head(raw)

    def with_header(self, *lines: str) -> Head:
        """The same head with more headers."""
        added = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        return Head(self.raw[:-2] + added + b"\r\n")


@dataclass(slots=True)
class Reply:
    """A response of the store: its head, and the stream its body comes from."""

    head: Head
    stream: asyncio.StreamReader
    to_head: bool
    """The request was a HEAD."""
    is_read: bool = field(default=False, init=False)
    """The body was read to its end."""

    @property
    def is_bare(self) -> bool:
        """There is no body whatever the headers say."""
        return self.to_head or self.head.status in (204, 304)

    @property
    def is_endless(self) -> bool:
        """The body ends with the connection."""
        framed = self.head.is_chunked or self.head.header("content-length") is not None
        return not self.is_bare and not framed

    @property
    def leaves_the_connection(self) -> bool:
        """The connection that it came on can carry another request.

        Only after a success: some stores hang up after an error without saying so, and some send
        a body after a HEAD.
        """
        is_kept = (self.head.header("connection") or "").lower() != "close"
        is_plain = self.head.first_line.startswith("HTTP/1.1 2") and not self.is_endless
        return self.is_read and is_kept and is_plain and not self.to_head

    async def body(self, *, framed: bool = False) -> AsyncIterator[bytes]:
        """The pieces of the body as they come; `framed` keeps the framing of chunks."""
        if self.is_endless:
            async for piece in _until_the_end(self.stream):
                yield piece
        elif not self.is_bare:
            async for piece in body_of(self.head, self.stream, framed=framed):
                yield piece
        self.is_read = True

    async def whole_body(self) -> bytes:
        """The body, without the framing of chunks."""
        return b"".join([piece async for piece in self.body()])


@dataclass(slots=True)
class Exchange:
    """One request on its way, and the streams it travels on."""

    request: Head
    client_in: asyncio.StreamReader
    client_out: asyncio.StreamWriter
    connect: Callable[[], Awaitable[Streams]]
    """Opens a connection to the store."""
    _body_taken: bool = field(default=False, init=False)
    _forwarded: list[tuple[Streams, Reply]] = field(default_factory=list, init=False)

    @property
    def clean(self) -> list[Streams]:
        """Connections to the store on which all was sent and all was read."""
        return [streams for streams, reply in self._forwarded if reply.leaves_the_connection]

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body whatever its headers say."""
        return self.request.method == "HEAD"

    def reset(self) -> None:
        """Reset the client's connection at once; what it has not read yet is lost to it."""
        transport = self.client_out.transport
        connection = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()

    async def take_body(self) -> AsyncIterator[bytes]:
        """The pieces of the request's body."""
        if not self._body_taken:
            self._body_taken = True
            async for piece in body_of(self.request, self.client_in):
                yield piece

    async def answer(self, head: str, body: bytes = b"") -> None:
        """Answer in the store's place. The request body is read first, as a real store would."""
        async for _ in self.take_body():
            pass
        text = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.write(text.encode("latin-1") + (b"" if self.is_head else body))

    async def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.client_out.write(data)
        await self.client_out.drain()

    async def forward(
        self, *, request: Head | None = None, alter: Alteration = lambda _, piece: piece
    ) -> Reply:
        """Send the request on, perhaps altered; return the store's answer as it begins.

        A store may answer and hang up before it has read everything.
        """
        reader, writer = await self.connect()
        writer.write((request or self.request).raw)
        position, gone = 0, False
        async for piece in self.take_body():
            if not gone:
                writer.write(alter(position, piece))
                position += len(piece)
                try:
                    await writer.drain()
                except OSError:
                    gone = True
        reply = Reply(await _read_response_head(reader), reader, self.is_head)
        if not gone:
            self._forwarded.append(((reader, writer), reply))
        return reply

    async def pass_back(self, reply: Reply, *, head: Head | None = None) -> None:
        """Send the answer to the client as it is, or with another head."""
        self.client_out.write((head or reply.head).raw)
        async for piece in reply.body(framed=True):
            await self.write(piece)
        await self.client_out.drain()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next request's head; None when the connection ends before there is one."""
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError:
        return None


async def _read_response_head(reader: asyncio.StreamReader) -> Head:
    while True:
        head = Head(await reader.readuntil(b"\r\n\r\n"))
        if head.status >= 200:
            return head


async def body_of(
    head: Head, reader: asyncio.StreamReader, *, framed: bool = False
) -> AsyncIterator[bytes]:
    """The pieces of a body that has a length or chunks; of any other there are none."""
    length = head.header("content-length")
    if head.is_chunked:
        async for piece in _chunks(reader, framed=framed):
            yield piece
    elif length is not None:
        left = int(length)
        while left:
            piece = await reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


async def _chunks(reader: asyncio.StreamReader, *, framed: bool) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if framed:
            yield line + data
        elif size:
            yield data[:-2]
        if size == 0:
            return


async def _until_the_end(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(PIECE):
        yield piece
