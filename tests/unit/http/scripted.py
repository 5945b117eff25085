"""A TCP server that follows a script, so that every way a peer may behave can be acted out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Received:
    """One request as it came in."""

    head: bytes
    body: bytes

    @property
    def line(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0]


class Peer:
    """The server's side of one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, log: list[Received]
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._log = log

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Received:
        head = await self.head()
        size = 0
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length: "):
                size = int(line[16:])
        received = Received(head, await self.reader.readexactly(size))
        self._log.append(received)
        return received

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, *, pause_seconds: float = 0.0) -> None:
        """Send byte by byte, each in a segment of its own."""
        for index in range(len(data)):
            await self.send(data[index : index + 1])
            await asyncio.sleep(pause_seconds)

    def reset(self) -> None:
        """End the connection with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def wait_for_end(self) -> bytes:
        """Return what the client still sends until it closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Plays one script per connection, in order; the last one for all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self._players: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.requests: list[Received] = []
        self.connections = 0
        self.failures: list[Exception] = []
        self.port = 0
        self._scheme = "http"

    async def start(
        self, tls: ssl.SSLContext | None = None, *, buffer_bytes: int = 1 << 20, port: int = 0
    ) -> None:
        """`buffer_bytes` is what this side takes in before a script asks for it.

        `port` may be the one of a server that was stopped.
        """
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.bind(("127.0.0.1", port))
        self.port = sock.getsockname()[1]
        self._scheme = "http" if tls is None else "https"
        self._server = await asyncio.start_server(
            self._play, sock=sock, ssl=tls, limit=buffer_bytes
        )

    async def stop(self) -> None:
        self._server.close()
        for player in tuple(self._players):
            player.cancel()
        await asyncio.gather(*self._players, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def origin(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        player = asyncio.current_task()
        assert player is not None
        self._players.add(player)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        try:
            await script(Peer(reader, writer, self.requests))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        except Exception as error:  # shown by the fixture when the test ends
            self.failures.append(error)
        finally:
            self._players.discard(player)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()


def answer(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A response with Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answering(*responses: bytes) -> Script:
    """Answer the requests of a connection with these; the last one for all that follow."""

    async def script(peer: Peer) -> None:
        index = 0
        while True:
            await peer.request()
            await peer.send(responses[min(index, len(responses) - 1)])
            index += 1

    return script


def once(response: bytes) -> Script:
    """Answer one request, then close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(response)

    return script


async def silent(peer: Peer) -> None:
    """Read, and never answer."""
    await peer.wait_for_end()
