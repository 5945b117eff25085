"""How a response may be framed, and in what pieces it may come."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.http.connection import Connection
from slurper.http.exchange import MAX_HEAD_BYTES, StaleConnection
from slurper.http.messages import Request, Response
from tests.unit.http.conftest import Connect, Serve, get
from tests.unit.http.scripted import Peer, answer, answering, once

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-late\r\n\r\n"
    b"5\r\nhello\r\n6;note=1\r\n world\r\n0\r\nx-late: 1\r\n\r\n"
)
ONCE = b"4\r\nonce\r\n0\r\n\r\n"


async def test_body_with_content_length_arrives_whole(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(b"hello", 'ETag: "1"')))
    response = await connect(server).send(get())
    assert (response.status, b"".join(response.body), response.length) == (200, b"hello", 5)
    assert response.headers["etag"] == '"1"'
    assert response.retries == 0


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (answer(b"", "x-fine: 1", "x-odd: a\x01b"), "(header 'x-odd')"),
        (answer(b"", "x-fine: 1", "x-o dd: a"), "(header 'x-o dd')"),
        (answer(b"", "x-fine: 1", "x-\xfc: a"), "(header 'x-\\xfc')"),
        (answer(b"", "x-fine: 1", "no colon"), "(a header line without a colon)"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "(it answers in TLS)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1"),
    ],
)
async def test_what_no_parser_takes_is_told_by_the_header_at_fault(
    serve: Serve, connect: Connect, data: bytes, named: str
) -> None:
    server = await serve(once(data))
    with pytest.raises(errors.MalformedAnswer) as failed:
        await connect(server, request_retries=0).send(get())
    assert named in str(failed.value)


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000, 3_000_000])
async def test_bodies_of_every_size_are_complete_and_the_connection_is_kept(
    serve: Serve, connect: Connect, size: int
) -> None:
    body = bytes(index % 251 for index in range(size))
    server = await serve(answering(answer(body), answer(b"next")))
    client = connect(server)
    response = await client.send(get())
    assert b"".join(response.body) == body
    assert response.length == size
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


async def test_the_shortest_delay_of_an_answer_is_kept(serve: Serve, connect: Connect) -> None:
    async def late(peer: Peer) -> None:
        for pause in (1.0, 0.05, 1.0):
            await peer.request()
            await asyncio.sleep(pause)
            await peer.send(answer())

    client = connect(await serve(late))
    assert client.statistics.delay == math.inf
    await client.send(get())
    first = client.statistics.delay
    assert 0.9 <= first < math.inf  # timers may be a little early
    await client.send(get())
    assert 0.04 <= client.statistics.delay < first
    second = client.statistics.delay
    await client.send(get())
    assert client.statistics.delay == second


async def test_bodies_are_never_decompressed(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(b"\x1f\x8b not gzip", "Content-Encoding: gzip")))
    response = await connect(server).send(get())
    assert b"".join(response.body) == b"\x1f\x8b not gzip"
    assert response.headers["content-encoding"] == "gzip"


async def test_chunked_body_with_extensions_and_trailers(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(CHUNKED, answer(b"next")))
    client = connect(server)
    response = await client.send(get())
    assert b"".join(response.body) == b"hello world"
    assert response.length == 11
    assert "x-late" not in response.headers
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


async def test_body_delimited_by_the_end_of_the_connection(serve: Serve, connect: Connect) -> None:
    server = await serve(once(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
    client = connect(server)
    assert b"".join((await client.send(get())).body) == b"all of it"
    assert b"".join((await client.send(get())).body) == b"all of it"
    assert server.connections == 2


@pytest.mark.parametrize("raw", [answer(b"hello", "X-A: b"), CHUNKED, answer(b"")])
async def test_byte_by_byte_delivery(serve: Serve, connect: Connect, raw: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.drip(raw)
        await peer.request()
        await peer.send(answer(b"next"))

    server = await serve(script)
    client = connect(server)
    first = await client.send(get())
    assert b"".join(first.body) in (b"hello", b"hello world", b"")
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
    ],
)
async def test_statuses_without_body(serve: Serve, connect: Connect, raw: bytes) -> None:
    server = await serve(answering(raw, answer(b"next")))
    client = connect(server)
    assert (await client.send(get())).body == []
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
    ],
)
async def test_head_has_no_body_whatever_it_announces(
    serve: Serve, connect: Connect, raw: bytes
) -> None:
    server = await serve(answering(raw, raw, answer(b"next")))
    client = connect(server)
    for _ in range(2):
        response = await client.send(Request("HEAD", "/b/k", {}))
        assert (response.body, response.length) == ([], 0)
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


async def test_head_over_http_1_0_or_closing_is_not_kept(serve: Serve, connect: Connect) -> None:
    server = await serve(
        once(b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n"),
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: Close\r\n\r\n"),
        once(answer(b"third")),
    )
    client = connect(server)
    for _ in range(3):
        assert (await client.send(Request("HEAD", "/b/k", {}))).status == 200
    assert server.connections == 3


async def test_interim_responses_are_skipped(serve: Serve, connect: Connect) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    server = await serve(answering(interim + answer(b"hello"), answer(b"next")))
    client = connect(server)
    response = await client.send(get())
    assert (response.status, b"".join(response.body)) == (200, b"hello")
    assert "link" not in response.headers
    assert b"".join((await client.send(get())).body) == b"next"


async def test_repeated_fields_are_joined_and_values_keep_their_bytes(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(
        answering(answer(b"", "X-A: one", "x-a:two \t", "X-Name: \xc3\xa0", "X-Empty:"))
    )
    headers = (await connect(server).send(get())).headers
    assert headers["x-a"] == "one, two"
    assert headers["x-name"] == "\xc3\xa0"
    assert headers["x-empty"] == ""


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"once", "Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nonce",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + ONCE,
    ],
)
async def test_connection_that_must_not_be_kept(serve: Serve, connect: Connect, raw: bytes) -> None:
    server = await serve(answering(raw))
    client = connect(server)
    for _ in range(2):
        assert b"".join((await client.send(get())).body) == b"once"
    assert server.connections == 2


async def test_http_1_0_with_keep_alive_is_kept(serve: Serve, connect: Connect) -> None:
    raw = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nmore"
    server = await serve(answering(raw))
    client = connect(server)
    for _ in range(2):
        assert b"".join((await client.send(get())).body) == b"more"
    assert server.connections == 1


@pytest.mark.parametrize(
    "extra",
    [b"x", answer(b"second"), b"HTTP/1.1 2", b"x" * 100_000],
)
async def test_bytes_after_the_end_cost_the_connection_not_the_response(
    serve: Serve, connect: Connect, extra: bytes
) -> None:
    server = await serve(answering(answer(b"first") + extra), answering(answer(b"second")))
    client = connect(server)
    assert b"".join((await client.send(get())).body) == b"first"
    assert b"".join((await client.send(get())).body) == b"second"
    assert server.connections == 2


@pytest.mark.asyncio(loop_factories=["uvloop"])  # the other loop reads them a turn too late
async def test_bytes_after_the_end_of_a_large_body(serve: Serve, connect: Connect) -> None:
    large = bytes(1_000_000)
    server = await serve(answering(answer(large) + b"extra"), answering(answer(b"second")))
    client = connect(server)
    assert b"".join((await client.send(get())).body) == large
    assert b"".join((await client.send(get())).body) == b"second"
    assert server.connections == 2


async def test_unsolicited_response_ends_an_idle_connection(serve: Serve, connect: Connect) -> None:
    told = asyncio.Event()
    ended = asyncio.Event()

    async def tells_more(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"first"))
        await told.wait()
        await peer.send(answer(b"forged"))
        await peer.wait_for_end()
        ended.set()

    server = await serve(tells_more, answering(answer(b"second")))
    client = connect(server)
    assert b"".join((await client.send(get())).body) == b"first"
    told.set()
    await ended.wait()
    assert b"".join((await client.send(get())).body) == b"second"


@pytest.mark.parametrize(
    "raw",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_responses_that_are_not_http_are_refused(
    serve: Serve, connect: Connect, raw: bytes
) -> None:
    server = await serve(answering(raw))
    with pytest.raises(errors.TransportError, match=r"127\.0\.0\.1:\d+: "):
        await connect(server).send(get())


async def flood(peer: Peer, start: bytes, more: bytes) -> None:
    """Send `more` until the client has had enough, or 64 MiB have gone."""
    await peer.request()
    await peer.send(start)
    for _ in range((64 << 20) // len(more)):
        await peer.send(more)


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x-padding: 0123456789\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nx-long: ", b"0123456789" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-long: ",
            b"0123456789" * 1000,
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"0123456789" * 1000),
    ],
    ids=["many", "long", "interim", "trailer", "extension"],
)
async def test_endless_heads_are_given_up(
    serve: Serve, connect: Connect, start: bytes, more: bytes
) -> None:
    server = await serve(lambda peer: flood(peer, start, more))
    with pytest.raises(errors.TransportError, match=f"exceed {MAX_HEAD_BYTES} bytes"):
        await connect(server).send(get())


async def test_head_just_below_the_limit_is_fine(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(b"hello", "x-long: " + "x" * (MAX_HEAD_BYTES - 200))))
    response = await connect(server).send(get())
    assert len(response.headers["x-long"]) == MAX_HEAD_BYTES - 200
    assert response.length == 5


async def test_large_head_with_large_body_in_one_go(serve: Serve, connect: Connect) -> None:
    body = bytes(range(256)) * 4000
    server = await serve(answering(answer(body, "x-long: " + "x" * 60_000), answer(b"next")))
    client = connect(server)
    assert b"".join((await client.send(get())).body) == body
    assert b"".join((await client.send(get())).body) == b"next"


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"x" * 11),
        answer(b"x" * 5_000_000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n12345678901",
        answer(b"x" * 11, status="500 Oops"),
    ],
)
async def test_body_over_the_limit_is_refused_while_reading(
    serve: Serve, connect: Connect, raw: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(raw)
        await peer.wait_for_end()  # never ends a body that only EOF would end

    client = connect(await serve(script), request_retries=3)
    with pytest.raises(errors.IntegrityError, match="exceeds 10 body bytes"):
        await client.send(get(), max_body_bytes=10)
    assert client.statistics.retries == 0


async def test_body_of_exactly_the_limit_is_fine(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer(b"0123456789")))
    assert (await connect(server).send(get(), max_body_bytes=10)).length == 10


class _Sink(asyncio.Transport):
    """Stands for a socket where only the reading side is of interest."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        pass


def _received(raw: bytes, cuts: list[int], method: str = "GET") -> tuple[Response, bool]:
    async def run() -> tuple[Response, bool]:
        connection = Connection("peer:80", lambda _: None)
        connection.connection_made(_Sink())
        response = connection.begin(Request(method, "/", {}), None)
        connection.write(b"the request")
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            if start < end:
                connection.data_received(raw[start:end])
        return await response, connection.reusable

    return asyncio.run(run())


async def test_an_answer_before_the_request_went_is_none_to_it() -> None:
    connection = Connection("peer:80", lambda _: None)
    connection.connection_made(_Sink())
    response = connection.begin(Request("PUT", "/", {}), None)
    connection.data_received(answer(b""))
    with pytest.raises(StaleConnection, match="before it was asked"):
        await response
    assert not connection.reusable


@given(
    st.data(),
    st.sampled_from(
        [
            answer(b"hello", "X-A: b"),
            answer(b"z" * 40_000),
            CHUNKED,
            b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"late"),
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ]
    ),
)
def test_where_reads_are_cut_makes_no_difference(data: st.DataObject, raw: bytes) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=12).map(sorted))
    whole, kept = _received(raw, [])
    cut, still_kept = _received(raw, cuts)
    assert (cut.status, cut.headers, b"".join(cut.body), cut.length) == (
        whole.status,
        whole.headers,
        b"".join(whole.body),
        whole.length,
    )
    assert kept
    assert still_kept


class Seen:
    """Takes in a body."""

    def __init__(self) -> None:
        self.data = bytearray()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data


def awaiting(size: int) -> Request:
    return Request("GET", "/b/k", {}, awaited_bytes=size, digest=lambda _: Seen())


@pytest.mark.parametrize("awaited", [0, 1_000_000, 3_000_000, 9_000_000])
async def test_a_digest_sees_all_of_a_long_body(
    serve: Serve, connect: Connect, awaited: int
) -> None:
    body = bytes(index % 251 for index in range(3_000_000))
    head = answer(body, f"X-Long: {'x' * 20_000}")
    server = await serve(answering(head, head, answer(b"next")))
    client = connect(server)
    for _ in range(2):
        response = await client.send(awaiting(awaited))
        assert isinstance(response.digest, Seen)
        assert b"".join(response.body) == response.digest.data == body
    response = await client.send(awaiting(awaited))
    assert (response.body, response.digest) == ([b"next"], None)
    assert server.connections == 1


async def test_a_body_that_is_read_again_is_digested_anew(serve: Serve, connect: Connect) -> None:
    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"x" * 1_000_000)[:-100_000])

    server = await serve(cut, answering(answer(b"y" * 1_000_000)))
    response = await connect(server, request_retries=1).send(awaiting(1_000_000))
    assert isinstance(response.digest, Seen)
    assert response.digest.data == b"y" * 1_000_000
    assert response.retries == 1


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"hello world"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello world"),
        CHUNKED,
        answer(b"", "X-A: b"),
    ],
)
@pytest.mark.parametrize("in_drops", [False, True])
async def test_the_answer_may_be_shorter_than_expected(
    serve: Serve, connect: Connect, raw: bytes, in_drops: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await (peer.drip(raw) if in_drops else peer.send(raw))
        await peer.request()
        await peer.send(answer(b"next"))

    server = await serve(script)
    client = connect(server)
    response = await client.send(awaiting(1_000_000))
    assert b"".join(response.body) in (b"hello world", b"")
    assert response.digest is None
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 1


async def test_an_expected_body_in_chunks_or_up_to_the_end(serve: Serve, connect: Connect) -> None:
    body = bytes(1_000_000)
    chunks = b"".join(b"186a0\r\n" + bytes(100_000) + b"\r\n" for _ in range(10))
    in_chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    to_the_end = b"HTTP/1.1 200 OK\r\n\r\n" + body
    server = await serve(once(in_chunks), once(to_the_end))
    client = connect(server, request_retries=1)
    for _ in range(2):
        response = await client.send(awaiting(len(body)))
        assert b"".join(response.body) == body
        assert response.digest is None


async def test_an_expected_head_without_end_is_refused(serve: Serve, connect: Connect) -> None:
    server = await serve(once(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * (MAX_HEAD_BYTES // 4)))
    with pytest.raises(errors.TransportError, match="headers exceed"):
        await connect(server).send(awaiting(1_000_000))
