"""Peers that break off, stall or vanish."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from slurper import errors
from slurper.http import stall
from slurper.http.messages import Request
from tests.unit.http.conftest import Connect, Serve, get, put
from tests.unit.http.scripted import Peer, Script, answer, answering, once, silent

SECRET = "hunter2"


def resetting(response: bytes = b"") -> Script:
    async def script(peer: Peer) -> None:
        await peer.request()
        if response:
            await peer.send(response)
            await asyncio.sleep(0.05)  # let it be read before the reset discards it
        peer.reset()

    return script


async def reset_at_once(peer: Peer) -> None:
    await peer.head()
    peer.reset()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (once(b""), "closed by the server while waiting for the response"),
        (resetting(), "reset by the server while waiting for the response"),
        (once(b"HTTP/1.1 200 OK\r\nX-A"), "while reading the response's head"),
        (resetting(b"HTTP/1.1 200 OK\r\nX-A"), "while reading the response's head"),
        (once(answer(b"abcde")[:-2]), "after 3 of 5 body bytes"),
        (resetting(answer(b"abcde")[:-2]), "after 3 of 5 body bytes"),
        (once(answer(bytes(200_000))[:-1]), "after 199999 of 200000 body bytes"),
        (
            once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"),
            "after 5 body bytes",
        ),
        (resetting(b"HTTP/1.1 200 OK\r\n\r\nabc"), "after 3 body bytes"),
    ],
)
async def test_cut_responses_are_transport_errors(
    serve: Serve, connect: Connect, script: Script, text: str
) -> None:
    server = await serve(script)
    with pytest.raises(errors.TransportError) as caught:
        await connect(server).send(get(f"/b/k?X-Amz-Signature={SECRET}", authorization=SECRET))
    assert text in str(caught.value)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.retryable


async def test_cut_response_is_retried(serve: Serve, connect: Connect) -> None:
    server = await serve(once(answer(b"abcde")[:-2]), answering(answer(b"abcde")))
    response = await connect(server, request_retries=2).send(get())
    assert (b"".join(response.body), response.retries) == (b"abcde", 1)


@pytest.mark.parametrize("size", [10, 4 << 20])
async def test_reset_while_sending(serve: Serve, connect: Connect, size: int) -> None:
    server = await serve(reset_at_once)
    with pytest.raises(errors.TransportError, match=r"while (sending the request|waiting for)"):
        await connect(server).send(put(bytes(size)))


async def test_refused_connection_names_the_address(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(errors.TransportError) as caught:
        await connect(f"http://127.0.0.1:{port}").send(get())
    assert f"127.0.0.1:{port}: not connected (connect): Connection refused" in str(caught.value)


async def test_unknown_host_is_a_transport_error(connect: Connect) -> None:
    with pytest.raises(errors.TransportError, match="host name not found"):
        await connect("http://no-such-host.invalid").send(get())


async def test_connect_timeout(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as sock:
        address = sock.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:  # a full backlog makes the system drop further attempts
            filler.setblocking(False)
            filler.connect_ex(address)
        client = connect(f"http://127.0.0.1:{address[1]}", connect_timeout_seconds=0.2)
        with pytest.raises(errors.TransportError, match=r"timed out|no connection within 0\.2 s"):
            await client.send(get())
        for filler in fillers:
            filler.close()


async def test_stalled_peer_is_given_up(serve: Serve, connect: Connect) -> None:
    client = connect(await serve(silent), idle_timeout_seconds=0.2)
    with pytest.raises(
        errors.TransportError, match=r"nothing moved for 0\.2 s while waiting for the response"
    ):
        await client.send(get())


async def test_peer_that_stalls_in_the_body_is_given_up(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"abcde")[:-2])
        await silent(peer)

    client = connect(await serve(script), idle_timeout_seconds=0.2)
    with pytest.raises(errors.TransportError, match="after 3 of 5 body bytes"):
        await client.send(get())


async def test_peer_that_takes_no_body_is_given_up(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await asyncio.sleep(3600)

    client = connect(await serve(script), idle_timeout_seconds=0.2)
    with pytest.raises(errors.TransportError, match="while sending the request"):
        await client.send(put(*[bytes(1 << 20)] * 32))


async def test_slow_response_that_moves_is_not_given_up(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.drip(answer(b"slow but sure"), pause_seconds=0.01)

    client = connect(await serve(script), idle_timeout_seconds=0.4)
    assert b"".join((await client.send(get())).body) == b"slow but sure"


async def test_slow_reader_that_moves_is_not_given_up(serve: Serve, connect: Connect) -> None:
    """The last bytes sit in the kernel only, where nothing but its queue shows that they move."""

    async def script(peer: Peer) -> None:
        await peer.head()
        for _ in range(64):
            await peer.reader.readexactly(1 << 14)
            await asyncio.sleep(0.01)
        await peer.send(answer(b"done"))

    client = connect(await serve(script, buffer_bytes=1 << 14), idle_timeout_seconds=0.4)
    assert b"".join((await client.send(put(bytes(1 << 20)))).body) == b"done"


FLOOR: dict[str, Any] = {"idle_timeout_seconds": 0.4, "min_bytes_per_second": 1000}
"""A window of 400 bytes, which the peers below do not come to."""


async def trickling_body(peer: Peer) -> None:
    await peer.request()
    await peer.send(answer(bytes(100_000))[:-90_000])
    await peer.drip(bytes(90_000), pause_seconds=0.02)


async def trickling_reader(peer: Peer) -> None:
    await peer.head()
    while True:
        await peer.reader.readexactly(1)
        await asyncio.sleep(0.02)


async def test_a_body_that_trickles_is_given_up_and_asked_for_again(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(trickling_body, answering(answer(b"at last")))
    response = await connect(server, request_retries=1, **FLOOR).send(get())
    assert (b"".join(response.body), response.retries) == (b"at last", 1)


async def test_a_peer_that_always_trickles_is_a_transport_error(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(trickling_body)
    with pytest.raises(
        errors.TransportError,
        match=r"fewer than 1000 bytes per second moved while reading the response, after \d+ of "
        r"100000 body bytes; gave up after 1 retry",
    ) as caught:
        await connect(server, request_retries=1, **FLOOR).send(get())
    assert caught.value.retryable
    assert server.connections == 2


async def test_a_short_body_that_trickles_is_given_up(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.drip(answer(bytes(200)), pause_seconds=0.02)

    client = connect(await serve(script), **FLOOR)
    with pytest.raises(errors.TransportError, match="of 200 body bytes"):
        await client.send(get())


async def test_a_peer_that_takes_a_body_in_a_trickle_is_given_up(
    serve: Serve, connect: Connect
) -> None:
    client = connect(await serve(trickling_reader, buffer_bytes=1 << 14), **FLOOR)
    with pytest.raises(errors.TransportError, match=r"fewer than|nothing moved") as caught:
        await client.send(put(*[bytes(1 << 20)] * 8))
    assert "while sending the request" in str(caught.value)


async def test_a_peer_above_the_floor_is_kept(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(bytes(6_000))[:-6_000])
        for _ in range(60):
            await peer.send(bytes(100))
            await asyncio.sleep(0.02)

    client = connect(await serve(script), **FLOOR)
    assert sum(map(len, (await client.send(get())).body)) == 6_000


async def test_blanks_that_keep_the_line_open_are_waited_for(
    serve: Serve, connect: Connect
) -> None:
    """As from a store that puts a large upload together."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(60):
            await peer.send(b"1\r\n \r\n")
            await asyncio.sleep(0.02)
        await peer.send(b"4\r\ndone\r\n0\r\n\r\n")

    client = connect(await serve(script), **FLOOR)
    assert b"".join((await client.send(get())).body).strip() == b"done"


async def test_blanks_without_end_are_given_up(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"1\r\n \r\n")
            await asyncio.sleep(0.02)

    monkeypatch.setattr(stall, "_UNMEASURED_PATIENCE", 2)
    client = connect(await serve(script), **FLOOR)
    with pytest.raises(errors.TransportError, match="fewer than 1000 bytes per second moved"):
        await client.send(get())


async def test_without_a_floor_a_trickle_is_waited_for(serve: Serve, connect: Connect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.drip(answer(bytes(40)), pause_seconds=0.02)

    client = connect(await serve(script), idle_timeout_seconds=0.4, min_bytes_per_second=0)
    assert sum(map(len, (await client.send(get())).body)) == 40


async def test_error_from_the_signer_is_the_callers(serve: Serve, connect: Connect) -> None:
    def sign(request: Request) -> str:
        raise errors.ConfigurationError(f"cannot sign {request.method}")

    client = connect(await serve(answering(answer())), sign=sign, max_connections=1)
    for _ in range(3):  # the connection's slot is given back
        with pytest.raises(errors.ConfigurationError, match="cannot sign GET"):
            await client.send(get())
