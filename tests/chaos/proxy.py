"""A reverse proxy that misbehaves on request: the network and the provider on a bad day.

It streams, passes heads through byte for byte (so signatures hold and hostile keys survive), and
applies to each request the first rule that matches it. Rules can be added and dropped at any time,
each limited by count and by chance; chance comes from a seeded generator, so a schedule of faults
can be repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HOST = "127.0.0.1"
PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """First line and headers of a message, raw, with what is needed to pass its body on."""

    raw: bytes

    @property
    def first_line(self) -> str:
        """Request or status line."""
        return self.raw.partition(b"\r\n")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first_line.split(" ", 2)[1])

    def header(self, name: str) -> str | None:
        """The value of a header."""
        pattern = rb"\r\n" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)"
        found = re.search(pattern, self.raw, re.IGNORECASE)
        return found.group(1).decode("latin-1").strip() if found else None

    def without(self, *names: str) -> Head:
        """The same head lacking some headers."""
        raw = self.raw
        for name in names:
            raw = re.sub(
                rb"\r\n" + re.escape(name.encode()) + rb":[^\r\n]*", b"", raw, flags=re.IGNORECASE
            )
        return Head(raw)

    def with_header(self, line: str) -> Head:
        """The same head with one more header."""
        return Head(self.raw[:-2] + line.encode("latin-1") + b"\r\n\r\n")


@dataclass(slots=True)
class Exchange:
    """One request on its way, and the streams it travels on."""

    request: Head
    client_in: asyncio.StreamReader
    client_out: asyncio.StreamWriter
    upstream: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

    async def drop(self) -> None:
        """Reset the client's connection at once."""
        transport = self.client_out.transport
        transport.abort()

    async def answer(self, head: str, body: bytes = b"") -> None:
        """Answer in the store's place. The request body is read first, as a real store would."""
        async for _ in _body(self.request, self.client_in):
            pass
        text = f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.client_out.write(text.encode() + (b"" if self.is_head else body))
        await self.client_out.drain()

    async def forward(self) -> tuple[Head, asyncio.StreamReader]:
        """Send the request on; return the response's head and the stream its body comes from."""
        reader, writer = await self.upstream()
        writer.write(self.request.raw)
        async for piece in _body(self.request, self.client_in):
            writer.write(piece)
            await writer.drain()
        return await _read_response_head(reader), reader

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body whatever its headers say."""
        return self.request.first_line.startswith("HEAD ")


Fault = Callable[[Exchange], Awaitable[bool]]
"""Handles an exchange; True when the client's connection may carry another request."""


async def passed_on(exchange: Exchange) -> bool:
    """No fault at all."""
    head, reader = await exchange.forward()
    exchange.client_out.write(head.raw)
    if not exchange.is_head:
        async for piece in _body(head, reader, raw=True):
            exchange.client_out.write(piece)
            await exchange.client_out.drain()
    await exchange.client_out.drain()
    return True


def status(code: int, name: str, *, retry_after: str | None = None, zipped: bool = False) -> Fault:
    """An S3 error in the store's place."""

    async def fault(exchange: Exchange) -> bool:
        body = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
        extra = f"\r\nRetry-After: {retry_after}" if retry_after else ""
        if zipped:
            body, extra = gzip.compress(body), f"{extra}\r\nContent-Encoding: gzip"
        await exchange.answer(f"{code} {name}\r\nContent-Type: application/xml{extra}", body)
        return True

    return fault


def answer(head: str, body: bytes = b"") -> Fault:
    """Any answer in the store's place; `head` is the status line's rest and the headers."""

    async def fault(exchange: Exchange) -> bool:
        await exchange.answer(head, body)
        return True

    return fault


async def reset_before(exchange: Exchange) -> bool:
    """The connection breaks before the request reaches the store."""
    await exchange.drop()
    return False


async def lost_answer(exchange: Exchange) -> bool:
    """The store did what was asked, but its answer never arrives."""
    head, reader = await exchange.forward()
    if not exchange.is_head:
        async for _ in _body(head, reader):
            pass
    await exchange.drop()
    return False


def truncated(after: int, *, reset: bool = False) -> Fault:
    """The answer's body ends after some bytes though its head promised more."""

    async def fault(exchange: Exchange) -> bool:
        head, reader = await exchange.forward()
        exchange.client_out.write(head.raw)
        left = after
        async for piece in _body(head, reader, raw=True):
            exchange.client_out.write(piece[:left])
            left = max(0, left - len(piece))
        await exchange.client_out.drain()
        if reset:
            await exchange.drop()
        return False

    return fault


def corrupted(at: int) -> Fault:
    """One byte of the answer's body is flipped."""

    async def fault(exchange: Exchange) -> bool:
        head, reader = await exchange.forward()
        exchange.client_out.write(head.raw)
        position = 0
        async for piece in _body(head, reader, raw=True):
            altered = bytearray(piece)
            if position <= at < position + len(piece):
                altered[at - position] ^= 0xFF
            position += len(piece)
            exchange.client_out.write(bytes(altered))
        await exchange.client_out.drain()
        return True

    return fault


def delayed(seconds: float) -> Fault:
    """The answer comes late."""

    async def fault(exchange: Exchange) -> bool:
        await asyncio.sleep(seconds)
        return await passed_on(exchange)

    return fault


def stalled(seconds: float, *, after: int = 0) -> Fault:
    """The answer stops in the middle; the connection stays open for a while, then closes."""

    async def fault(exchange: Exchange) -> bool:
        head, reader = await exchange.forward()
        exchange.client_out.write(head.raw)
        left = after
        async for piece in _body(head, reader, raw=True):
            exchange.client_out.write(piece[:left])
            left = max(0, left - len(piece))
        await exchange.client_out.drain()
        await asyncio.sleep(seconds)
        return False

    return fault


def slow(bytes_per_second: int) -> Fault:
    """The answer's body trickles."""

    async def fault(exchange: Exchange) -> bool:
        head, reader = await exchange.forward()
        exchange.client_out.write(head.raw)
        async for piece in _body(head, reader, raw=True):
            exchange.client_out.write(piece)
            await exchange.client_out.drain()
            await asyncio.sleep(len(piece) / bytes_per_second)
        return True

    return fault


async def chunked(exchange: Exchange) -> bool:
    """The answer comes in chunked transfer coding, without Content-Length."""
    head, reader = await exchange.forward()
    if exchange.is_head or head.header("content-length") is None:
        exchange.client_out.write(head.raw)
    else:
        recoded = head.without("content-length").with_header("Transfer-Encoding: chunked")
        exchange.client_out.write(recoded.raw)
        async for piece in _body(head, reader):
            exchange.client_out.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.client_out.write(b"0\r\n\r\n")
    await exchange.client_out.drain()
    return True


async def close_delimited(exchange: Exchange) -> bool:
    """The answer has neither length nor chunks; it ends when the connection does."""
    head, reader = await exchange.forward()
    recoded = head.without("content-length", "transfer-encoding", "connection")
    exchange.client_out.write(recoded.with_header("Connection: close").raw)
    if not exchange.is_head:
        async for piece in _body(head, reader):
            exchange.client_out.write(piece)
    await exchange.client_out.drain()
    return False


def replaced(pattern: bytes, replacement: bytes) -> Fault:
    """The answer's body is changed, with its length put right: a store that lies."""

    async def fault(exchange: Exchange) -> bool:
        head, reader = await exchange.forward()
        body = b"".join([piece async for piece in _body(head, reader)])
        body = re.sub(pattern, replacement, body, flags=re.DOTALL)
        recoded = head.without("content-length", "transfer-encoding")
        exchange.client_out.write(recoded.with_header(f"Content-Length: {len(body)}").raw + body)
        await exchange.client_out.drain()
        return True

    return fault


@dataclass(slots=True)
class Rule:
    """Which requests meet a fault. `match` is searched for in the request line."""

    fault: Fault
    match: str = ""
    times: int | None = None
    probability: float = 1.0
    hits: int = field(default=0, init=False)


class FaultProxy:
    """The proxy, running in a thread of its own while the `with` block lasts."""

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        """Stand before `upstream`, an `http://host:port`."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="fault-proxy", daemon=True)
        self._port = 0
        self.requests: list[str] = []
        """Request lines as they came in."""

    @property
    def endpoint(self) -> str:
        """Where to send requests instead of the upstream."""
        return f"http://{HOST}:{self._port}"

    def add(
        self, fault: Fault, match: str = "", *, times: int | None = None, chance: float = 1.0
    ) -> Rule:
        """Apply `fault` from now on to requests whose first line holds the pattern `match`."""
        rule = Rule(fault, match, times, chance)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._rules.clear()

    def count(self, pattern: str) -> int:
        """How many requests so far match the pattern."""
        with self._lock:
            return sum(re.search(pattern, line) is not None for line in self.requests)

    def _choose(self, line: str) -> Fault:
        with self._lock:
            self.requests.append(line)
            for rule in self._rules:
                spent = rule.times is not None and rule.hits >= rule.times
                if spent or not re.search(rule.match, line):
                    continue
                if self._random.random() < rule.probability:
                    rule.hits += 1
                    return rule.fault
        return passed_on

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Serve while the block lasts."""
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the proxy did not start")
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, HOST, 0, limit=1 << 20)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        upstreams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def upstream() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            # A fresh connection for each request: after a fault nobody knows what is left on one.
            opened = await asyncio.open_connection(*self._upstream, limit=1 << 20)
            upstreams.append(opened)
            return opened

        try:
            keep = True
            while keep and (head := await _read_head(reader)) is not None:
                exchange = Exchange(head, reader, writer, upstream)
                keep = await self._choose(head.first_line)(exchange)
                while upstreams:
                    upstreams.pop()[1].close()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            writer.transport.abort()
        finally:
            for _, opened in upstreams:
                opened.close()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._connections.discard(task)


async def _read_head(reader: asyncio.StreamReader) -> Head | None:
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError:
        return None


async def _read_response_head(reader: asyncio.StreamReader) -> Head:
    while True:
        head = Head(await reader.readuntil(b"\r\n\r\n"))
        if head.status >= 200:
            return head


async def _body(
    head: Head, reader: asyncio.StreamReader, *, raw: bool = False
) -> AsyncIterator[bytes]:
    """The pieces of a body as they come; with `raw`, chunk framing is passed on too."""
    length = head.header("content-length")
    if (head.header("transfer-encoding") or "").lower() == "chunked":
        async for piece in _chunks(reader, raw=raw):
            yield piece
    elif length is not None:
        left = int(length)
        while left:
            piece = await reader.read(min(left, PIECE))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


async def _chunks(reader: asyncio.StreamReader, *, raw: bool) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if raw:
            yield line + data
        elif size:
            yield data[:-2]
        if size == 0:
            return
