"""What can go wrong with one request, on its way there or back. `FaultProxy` applies them."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable

from tests.chaos.wire import Exchange, Head, Reply

Fault = Callable[[Exchange], Awaitable[bool]]
"""Handles an exchange; True when the client's connection may carry another request."""


async def passed_on(exchange: Exchange) -> bool:
    """No fault at all."""
    reply = await exchange.forward()
    await exchange.pass_back(reply)
    return not reply.is_endless


# Answers in the store's place


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


_NO_STORE = "Location: http://127.0.0.1:1/"
ELSEWHERE = {
    "301": answer(f"301 Moved Permanently\r\n{_NO_STORE}"),
    "301 to a region": answer(
        f"301 Moved Permanently\r\n{_NO_STORE}\r\nx-amz-bucket-region: eu-x-1",
        b"<Error><Code>PermanentRedirect</Code><Region>eu-x-1</Region></Error>",
    ),
    "302": answer(f"302 Found\r\n{_NO_STORE}"),
    "307": answer(f"307 Temporary Redirect\r\n{_NO_STORE}"),
    "308": answer(f"308 Permanent Redirect\r\n{_NO_STORE}"),
    "404 NoSuchBucket": status(404, "NoSuchBucket"),
}
"""Answers that a bucket gives when it is elsewhere, and a key when it leads astray."""


def refused_early(code: int, name: str) -> Fault:
    """An error before the request's body has been read, and then nothing more."""

    async def fault(exchange: Exchange) -> bool:
        body = f"<Error><Code>{name}</Code></Error>".encode()
        head = f"HTTP/1.1 {code} {name}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        await exchange.write(head.encode() + body)
        return False

    return fault


async def done_early(exchange: Exchange) -> bool:
    """A success before the request's body has been read; the store sees nothing of it."""
    await exchange.write(
        b'HTTP/1.1 200 OK\r\nETag: "early"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
    )
    return False


# Lost connections


async def reset_before(exchange: Exchange) -> bool:
    """The connection breaks before the request reaches the store."""
    exchange.reset()
    return False


def reset_in_request(after: int) -> Fault:
    """The connection breaks in the middle of the request's body; the store sees none of it."""

    async def fault(exchange: Exchange) -> bool:
        left = after
        async for piece in exchange.take_body():
            left -= len(piece)
            if left <= 0:
                break
        exchange.reset()
        return False

    return fault


def cut_request(after: int) -> Fault:
    """The store gets the beginning of the request's body and then the end of the connection."""

    async def fault(exchange: Exchange) -> bool:
        _, writer = await exchange.connect()
        writer.write(exchange.request.raw)
        left = after
        async for piece in exchange.take_body():
            writer.write(piece[:left])
            left = max(0, left - len(piece))
        await writer.drain()
        exchange.reset()
        return False

    return fault


async def lost_answer(exchange: Exchange) -> bool:
    """The store did what was asked, but its answer never arrives."""
    reply = await exchange.forward()
    await reply.whole_body()
    exchange.reset()
    return False


def done_but(code: int, name: str) -> Fault:
    """The store did what was asked, and the answer says that it did not."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        await reply.whole_body()
        return await status(code, name)(exchange)

    return fault


async def reset_in_head(exchange: Exchange) -> bool:
    """The answer breaks off in the middle of its headers."""
    reply = await exchange.forward()
    await reply.whole_body()
    await exchange.write(reply.head.raw[: len(reply.head.raw) // 2])
    await asyncio.sleep(0.02)
    exchange.reset()
    return False


def truncated(after: int, *, reset: bool = False) -> Fault:
    """The answer's body ends after some bytes though its head promised more."""

    async def fault(exchange: Exchange) -> bool:
        await _begin_answer(exchange, after)
        if reset:
            await asyncio.sleep(0.02)  # a reset takes with it what the client has not read
            exchange.reset()
        return False

    return fault


# Slowness


def delayed(seconds: float) -> Fault:
    """The answer comes late."""

    async def fault(exchange: Exchange) -> bool:
        await asyncio.sleep(seconds)
        return await passed_on(exchange)

    return fault


def stalled(seconds: float, *, after: int = 0) -> Fault:
    """The answer stops in the middle; the connection stays open for a while, then closes."""

    async def fault(exchange: Exchange) -> bool:
        await _begin_answer(exchange, after)
        await asyncio.sleep(seconds)
        return False

    return fault


def deaf(seconds: float) -> Fault:
    """The store does what was asked, and says nothing for a while, then hangs up."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        await reply.whole_body()
        await asyncio.sleep(seconds)
        return False

    return fault


def slow(bytes_per_second: int, *, piece_bytes: int = 64 * 1024) -> Fault:
    """The answer's body trickles."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        exchange.client_out.write(reply.head.raw)
        async for piece in reply.body(framed=True):
            for start in range(0, len(piece), piece_bytes):
                part = piece[start : start + piece_bytes]
                await exchange.write(part)
                await asyncio.sleep(len(part) / bytes_per_second)
        return True

    return fault


async def _begin_answer(exchange: Exchange, after: int) -> None:
    reply = await exchange.forward()
    exchange.client_out.write(reply.head.raw)
    left = after
    async for piece in reply.body(framed=True):
        exchange.client_out.write(piece[:left])
        left = max(0, left - len(piece))
    await exchange.client_out.drain()


# Changed bytes


def corrupted(at: int, *lines: str) -> Fault:
    """One byte of the answer's body is flipped; `lines` are more headers, of the right body."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        head = reply.head.with_header(*lines) if lines else reply.head
        exchange.client_out.write(head.raw)
        position, flip = 0, _flipped(at)
        async for piece in reply.body(framed=True):
            await exchange.write(flip(position, piece))
            position += len(piece)
        return True

    return fault


def corrupted_request(at: int) -> Fault:
    """One byte of the request's body is flipped on its way to the store."""

    async def fault(exchange: Exchange) -> bool:
        await exchange.pass_back(await exchange.forward(alter=_flipped(at)))
        return True

    return fault


def _flipped(at: int) -> Callable[[int, bytes], bytes]:
    def alter(position: int, piece: bytes) -> bytes:
        if not position <= at < position + len(piece):
            return piece
        altered = bytearray(piece)
        altered[at - position] ^= 0xFF
        return bytes(altered)

    return alter


def replaced(pattern: bytes, replacement: bytes) -> Fault:
    """The answer's body is changed, with its length put right: a store that lies."""
    return rewritten(lambda body: re.sub(pattern, replacement, body, flags=re.DOTALL))


def rewritten(change: Callable[[bytes], bytes]) -> Fault:
    """The answer's body goes through a function; its length is put right."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        if exchange.is_head:
            await exchange.pass_back(reply)
            return True
        body = change(await reply.whole_body())
        head = reply.head.without("content-length", "transfer-encoding")
        await exchange.write(head.with_header(f"Content-Length: {len(body)}").raw + body)
        return True

    return fault


class Flood:
    """An answer without end, of the announced length or chunk after chunk; counts what is taken."""

    def __init__(self, head: str, *, chunks: bool = False, most: int = 1 << 30) -> None:
        self._head = f"HTTP/1.1 {head}\r\n\r\n".encode("latin-1")
        self._piece = bytes(1 << 18)
        if chunks:
            self._piece = b"%x\r\n%b\r\n" % (len(self._piece), self._piece)
        self._most = most
        self.taken = 0
        """Bytes the client took at most in one answer."""

    async def __call__(self, exchange: Exchange) -> bool:
        """Send until the client hangs up."""
        await exchange.write(self._head)
        taken = 0
        while taken < self._most:
            await exchange.write(self._piece)
            taken += len(self._piece)
            self.taken = max(self.taken, taken)
        return False


# Changed heads


def with_headers(*lines: str, without: tuple[str, ...] = ()) -> Fault:
    """The answer has other headers."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        head = reply.head.without(*without)
        await exchange.pass_back(reply, head=head.with_header(*lines) if lines else head)
        return True

    return fault


def with_status(line: str) -> Fault:
    """The answer says another status."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        _, rest = reply.head.raw.split(b"\r\n", 1)
        await exchange.pass_back(reply, head=Head(f"HTTP/1.1 {line}\r\n".encode() + rest))
        return True

    return fault


def with_etag(pattern: str) -> Fault:
    """The answer's ETag is written otherwise; `{}` is its opaque part."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        etag = reply.head.header("etag")
        head = reply.head.without("etag")
        if etag is not None and pattern:
            written = pattern.format(etag.strip('"'))
            head = head.with_header(f"ETag: {written}")
        await exchange.pass_back(reply, head=head)
        return True

    return fault


def with_header(name: str, fault: Fault) -> Fault:
    """Only requests that have this header meet the fault."""

    async def chosen(exchange: Exchange) -> bool:
        has_it = exchange.request.header(name) is not None
        return await (fault if has_it else passed_on)(exchange)

    return chosen


def unless(name: str, value: str | None, fault: Fault) -> Fault:
    """Requests whose header has this value (None: any) are spared."""

    async def chosen(exchange: Exchange) -> bool:
        found = exchange.request.header(name)
        is_spared = found is not None and value in (None, found)
        return await (passed_on if is_spared else fault)(exchange)

    return chosen


def noting(lines: list[str], fault: Fault) -> Fault:
    """Note the first line of each request that meets the fault."""

    async def noted(exchange: Exchange) -> bool:
        lines.append(exchange.request.first_line)
        return await fault(exchange)

    return noted


def compressed(*, weak: bool = True) -> Fault:
    """The answer's body is compressed on the way, as web servers do it."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        if exchange.is_head or reply.head.status != 200:
            await exchange.pass_back(reply)
            return True
        etag = reply.head.header("etag") or ""
        body = gzip.compress(await reply.whole_body())
        head = reply.head.without("content-length", "transfer-encoding", "etag")
        lines = [f"ETag: {'W/' if weak else ''}{etag}", "Content-Encoding: gzip"]
        recoded = head.with_header(*lines, "Transfer-Encoding: chunked")
        exchange.client_out.write(recoded.raw)
        await exchange.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        return True

    return fault


def other_etags(*lines: str) -> Fault:
    """A store whose ETags look like MD5s and are none: here they are those of S3, read backwards.

    Only for stores that check no signature, for the conditions on them do not reach it. `lines` are
    more headers.
    """

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward(request=exchange.request.without("if-match"))
        etag = reply.head.header("etag")
        if etag is not None:
            other = _read_backwards(etag.encode()).decode()
            head = reply.head.without("etag").with_header(f"ETag: {other}", *lines)
            await exchange.pass_back(reply, head=head)
            return True
        await exchange.write(reply.head.raw + _read_backwards(await reply.whole_body()))
        return not reply.is_endless

    return fault


async def other_etags_of_parts(exchange: Exchange) -> bool:
    """A store that gives parts such ETags, and knows them again when it joins the parts."""
    reply = await exchange.forward(alter=lambda _, piece: _read_backwards(piece, exchange))
    etag = reply.head.header("etag")
    head = reply.head
    if etag is not None:
        other = _read_backwards(etag.encode()).decode()
        head = head.without("etag").with_header(f"ETag: {other}")
    await exchange.pass_back(reply, head=head)
    return True


def _read_backwards(text: bytes, exchange: Exchange | None = None) -> bytes:
    """With every MD5 read backwards; of a request, only if it names the parts to be joined."""
    if exchange is not None and exchange.request.method != "POST":
        return text
    return re.sub(rb"[0-9a-f]{32}", lambda found: found[0][::-1], text)


def without_request_headers(*names: str) -> Fault:
    """A store that knows nothing of some (unsigned) request headers."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward(request=exchange.request.without(*names))
        await exchange.pass_back(reply)
        return True

    return fault


def with_request_line(pattern: str, replacement: str) -> Fault:
    """A store that understands a request otherwise. Only for stores that check no signature."""

    async def fault(exchange: Exchange) -> bool:
        line, rest = exchange.request.raw.split(b"\r\n", 1)
        altered = re.sub(pattern.encode(), replacement.encode(), line)
        reply = await exchange.forward(request=Head(altered + b"\r\n" + rest))
        await exchange.pass_back(reply)
        return True

    return fault


def wrong_length(more: int, *, then_close: bool = True) -> Fault:
    """The announced Content-Length is off by some bytes; the body is as it should be."""

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        length = int(reply.head.header("content-length") or 0) + more
        head = reply.head.without("content-length").with_header(f"Content-Length: {length}")
        await exchange.pass_back(reply, head=head)
        return not then_close

    return fault


async def chunked(exchange: Exchange) -> bool:
    """The answer comes in chunked transfer coding, without Content-Length."""
    reply = await exchange.forward()
    if exchange.is_head or reply.head.header("content-length") is None:
        await exchange.pass_back(reply)
        return True
    recoded = reply.head.without("content-length").with_header("Transfer-Encoding: chunked")
    exchange.client_out.write(recoded.raw)
    async for piece in reply.body():
        await exchange.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await exchange.write(b"0\r\n\r\n")
    return True


def close_delimited(*, after: int | None = None) -> Fault:
    """The answer has neither length nor chunks; it ends when the connection does.

    `after` ends it too early, which such an answer cannot tell.
    """

    async def fault(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        recoded = reply.head.without("content-length", "transfer-encoding", "connection")
        exchange.client_out.write(recoded.with_header("Connection: close").raw)
        body = await reply.whole_body()
        await exchange.write(body[:after])
        return False

    return fault


# Events


def preceded_by(event: Callable[[], object], fault: Fault = passed_on) -> Fault:
    """Something happens, in a thread, before the request goes on its way."""

    async def caused(exchange: Exchange) -> bool:
        await asyncio.to_thread(event)
        return await fault(exchange)

    return caused


def followed_by(event: Callable[[], object], fault: Fault = passed_on) -> Fault:
    """Something happens, in a thread, once the store has answered and before the client hears."""

    async def caused(exchange: Exchange) -> bool:
        reply = await exchange.forward()
        await asyncio.to_thread(event)
        return await fault(_Answered(exchange, reply))

    return caused


class _Answered(Exchange):
    """An exchange whose answer is there already."""

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        super().__init__(
            exchange.request, exchange.client_in, exchange.client_out, exchange.connect
        )
        self._reply = reply

    async def forward(self, **_altered: object) -> Reply:
        return self._reply
