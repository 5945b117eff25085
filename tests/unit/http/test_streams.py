"""Bodies that are passed on while they come in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from slurper import errors
from slurper.http import client
from slurper.http.client import HttpClient
from slurper.http.messages import Request
from slurper.http.streams import CHUNK_BYTES, HELD_BYTES, BodyStream, StreamBroken, StreamDeclined
from tests.unit.http.conftest import Connect, Serve, get
from tests.unit.http.scripted import Peer, Script, answer, answering, once

MIB = 1 << 20
BODY = bytes(range(256)) * (8 * MIB // 256)


def streamed(request: Request | None = None, *, wanted: bool = True) -> Request:
    request = request or get()
    request.awaited_bytes = len(BODY)
    request.may_stream = lambda _: wanted
    return request


async def drained(stream: BodyStream | None, into: bytearray | None = None) -> bytes:
    assert stream is not None
    found = bytearray() if into is None else into
    while piece := await stream.read():
        found += piece
    return bytes(found)


class Copied:
    """A feed of bytes in memory that breaks after `whole` bytes, if told so."""

    def __init__(self, body: bytes, *, whole: int | None = None) -> None:
        self.length = len(body)
        self.opened = self.closed = 0
        self._body = body[:whole]

    async def open(self) -> Copied:
        self.opened += 1
        self._at = 0
        return self

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        piece = self._body[self._at : self._at + CHUNK_BYTES]
        self._at += len(piece)
        if not piece and len(self._body) < self.length:
            raise StreamBroken(errors.TransportError("the source went away"))
        return piece

    def close(self) -> None:
        self.closed += 1


async def test_a_body_comes_in_order_and_its_connection_is_used_again(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer(BODY)))
    http = connect(server)
    for _ in range(3):
        response = await http.send(streamed())
        assert (response.status, response.body) == (200, [])
        assert await drained(response.stream) == BODY
    assert server.connections == 1


async def test_a_slow_consumer_slows_the_peer_down(serve: Serve, connect: Connect) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {64 * MIB}\r\n\r\n".encode())
        for _ in range(64):
            await peer.send(bytes(MIB))
            sent += 1

    server = await serve(script)
    response = await connect(server).send(streamed())
    assert response.stream is not None
    first = await response.stream.read()
    await asyncio.sleep(0.5)
    before = sent
    await asyncio.sleep(0.2)
    # What is held here, and what the kernel keeps for both ends.
    assert sent == before < 48
    assert len(first) + len(await drained(response.stream)) == 64 * MIB


async def test_a_consumer_that_waits_is_no_fault_of_the_peer(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer(BODY * 4)))
    http = connect(server, idle_timeout_seconds=0.2)
    response = await http.send(streamed())
    assert response.stream is not None
    first = await response.stream.read()
    await asyncio.sleep(1)
    assert first + await drained(response.stream) == BODY * 4


async def test_a_peer_that_stalls_ends_the_stream(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(BODY)[:-MIB])
        await peer.wait_for_end()

    response = await connect(await serve(script), idle_timeout_seconds=0.2).send(streamed())
    with pytest.raises(errors.TransportError, match=r"nothing moved .* 7340\d+ of 8388608"):
        await drained(response.stream)


async def test_a_cut_body_ends_the_stream_after_what_came(serve: Serve, connect: Connect) -> None:
    server = await serve(once(answer(BODY)[:-1]))
    response = await connect(server).send(streamed())
    found = bytearray()
    with pytest.raises(errors.TransportError, match="after 8388607 of 8388608 body bytes"):
        await drained(response.stream, found)
    assert len(found) >= len(BODY) - CHUNK_BYTES
    assert BODY.startswith(found)


async def test_a_stream_that_is_given_up_closes_its_connection(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer(BODY)))
    http = connect(server, max_connections=1)
    for expected in (1, 2):
        response = await http.send(streamed())
        assert response.stream is not None
        await response.stream.read()
        response.stream.close()
        response.stream.close()
        assert server.connections == expected


@pytest.mark.parametrize(
    "script",
    [
        answering(answer(BODY)),
        answering(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"100000\r\n" + bytes(MIB) + b"\r\n0\r\n\r\n"
        ),
    ],
    ids=["unwanted", "without-length"],
)
async def test_an_answer_that_is_not_to_be_streamed_is_declined(
    serve: Serve, connect: Connect, script: Script
) -> None:
    server = await serve(script)
    http = connect(server, max_connections=1, request_retries=3)
    for _ in range(2):
        with pytest.raises(StreamDeclined):
            await http.send(streamed(wanted=False))
    assert len(server.requests) == 2


async def test_an_error_is_collected_and_retried(serve: Serve, connect: Connect) -> None:
    refused = answer(bytes(200_000), status="503 Slow Down")
    server = await serve(answering(refused, answer(bytes(200_000), status="404 No"), answer(BODY)))
    http = connect(server)
    response = await http.send(streamed())
    assert (response.status, response.length, response.stream) == (404, 200_000, None)
    assert await drained((await http.send(streamed())).stream) == BODY


async def test_the_head_decides_by_its_headers(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(BODY, "x-sum: abc")))
    seen: list[Mapping[str, str]] = []
    request = streamed()
    request.may_stream = lambda headers: not seen.append(headers)  # type: ignore[func-returns-value]
    response = await connect(server).send(request)
    assert await drained(response.stream) == BODY
    assert [headers["x-sum"] for headers in seen] == ["abc"]


async def test_a_closed_client_ends_its_streams(serve: Serve, connect: Connect) -> None:
    http = connect(await serve(answering(answer(BODY * 8))))
    response = await http.send(streamed())
    await http.close()
    with pytest.raises(errors.TransportError, match="the client was closed"):
        await drained(response.stream)


async def test_a_feed_is_sent_as_it_comes(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    feed, http = Copied(BODY), connect(server)
    for _ in range(2):
        assert (await http.send(Request("PUT", "/b/k", {}, feed=feed))).status == 200
    assert [received.body == BODY for received in server.requests] == [True, True]
    assert (feed.opened, feed.closed, server.connections) == (2, 2, 1)


async def test_each_retry_opens_the_feed_anew(serve: Serve, connect: Connect) -> None:
    async def reset(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    server = await serve(reset, answering(answer(status="500 No"), answer()))
    feed = Copied(BODY)
    response = await connect(server, request_retries=3).send(Request("PUT", "/b/k", {}, feed=feed))
    assert (response.status, response.retries) == (200, 2)
    assert (feed.opened, feed.closed) == (3, 3)
    assert [received.body == BODY for received in server.requests] == [True, True]


async def test_a_feed_that_breaks_is_no_failure_of_the_peer(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    feed = Copied(BODY, whole=3 * MIB)
    http = connect(server, request_retries=3, max_connections=1)
    with pytest.raises(StreamBroken, match="the source went away"):
        await http.send(Request("PUT", "/b/k", {}, feed=feed))
    assert (feed.opened, feed.closed, http.statistics.retries) == (1, 1, 0)
    assert (await http.send(get())).status == 200, "its slot was given back"


async def test_an_early_answer_ends_the_feed(serve: Serve, connect: Connect) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(status="412 No"))
        await peer.wait_for_end()

    server = await serve(refuse, answering(answer()))
    feed, http = Copied(BODY * 16), connect(server, max_connections=1)
    assert (await http.send(Request("PUT", "/b/k", {}, feed=feed))).status == 412
    assert (await http.send(get())).status == 200
    assert server.connections == 2


async def test_a_peer_is_not_blamed_for_a_slow_feed(serve: Serve, connect: Connect) -> None:
    class Slow(Copied):
        async def read(self) -> bytes:
            if self._at == MIB:
                await asyncio.sleep(1)
            return await super().read()

    server = await serve(answering(answer()))
    http = connect(server, idle_timeout_seconds=0.2)
    assert (await http.send(Request("PUT", "/b/k", {}, feed=Slow(BODY)))).status == 200


async def test_a_peer_that_takes_nothing_is_given_up(serve: Serve, connect: Connect) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(30)

    server = await serve(deaf, buffer_bytes=64 << 10)
    with pytest.raises(errors.TransportError, match=r"nothing moved for 0\.2 s while sending"):
        await connect(server, idle_timeout_seconds=0.2).send(
            Request("PUT", "/b/k", {}, feed=Copied(BODY * 8))
        )


async def test_a_body_is_relayed_from_server_to_server(serve: Serve, connect: Connect) -> None:
    source, target = await serve(answering(answer(BODY * 4))), await serve(answering(answer()))

    class Relayed:
        length = len(BODY) * 4

        async def open(self) -> BodyStream:
            response = await source_client.send(streamed())
            assert response.stream is not None
            return response.stream

    source_client = connect(source)
    response = await connect(target).send(Request("PUT", "/b/k", {}, feed=Relayed()))
    assert response.status == 200
    assert target.requests[0].body == BODY * 4


async def test_two_that_wait_for_each_other_do_not_wait_for_ever(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FEED_WAIT_SECONDS", 0.1)
    server = await serve(answering(answer(BODY * 4)))
    one, other = connect(server, max_connections=1), connect(server, max_connections=1)

    class Held:
        """A body that holds the only connection of a client."""

        length = len(BODY) * 4

        def __init__(self, of: HttpClient) -> None:
            self._of = of

        async def open(self) -> BodyStream:
            response = await self._of.send(streamed())
            assert response.stream is not None
            return response.stream

    crossing = (
        other.send(Request("PUT", "/b/k", {}, feed=Held(one))),
        one.send(Request("PUT", "/b/k", {}, feed=Held(other))),
    )
    ends = await asyncio.gather(*crossing, return_exceptions=True)
    assert StreamDeclined in map(type, ends)
    for free in (one, other):
        assert (await free.send(get())).status == 200, "its connection was given back"


async def test_a_target_that_fails_first_is_the_one_that_is_named(
    serve: Serve, connect: Connect
) -> None:
    gone = asyncio.Event()

    async def vanish(peer: Peer) -> None:
        await peer.head()
        peer.reset()
        gone.set()

    class Breaking(Copied):
        async def read(self) -> bytes:
            await gone.wait()
            await asyncio.sleep(0.1)
            raise StreamBroken(errors.TransportError("the source went away"))

    server = await serve(vanish)
    with pytest.raises(errors.TransportError, match="by the server while sending the request"):
        await connect(server).send(Request("PUT", "/b/k", {}, feed=Breaking(BODY)))


async def test_a_stream_holds_few_bytes() -> None:
    class Counted:
        holds = flows = 0

        def hold(self) -> None:
            self.holds += 1

        def flow(self) -> None:
            self.flows += 1

    valve = Counted()
    stream = BodyStream(valve)
    for _ in range(HELD_BYTES // CHUNK_BYTES):
        assert valve.holds == 0
        stream.put(bytes(CHUNK_BYTES))
    assert (valve.holds, valve.flows) == (1, 0)
    while valve.flows == 0:
        await stream.read()
    stream.end()
    assert len(await drained(stream)) == HELD_BYTES // 2
    assert (valve.holds, valve.flows) == (1, 1)
