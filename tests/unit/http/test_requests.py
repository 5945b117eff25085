"""What goes on the wire, and what never does."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper import errors
from slurper.http.bodies import SLICE_BYTES
from slurper.http.client import HttpClient
from slurper.http.connection import JOINED_BYTES
from slurper.http.messages import Request, encode_head, header_lines
from tests.unit.http.conftest import Connect, Serve, get, put
from tests.unit.http.scripted import Peer, answer, answering

HOSTILE_TARGETS = [
    "/b/a//b",
    "//b",
    "/b/a/../b",
    "/b/..",
    "/b/./a/.",
    "/b/%2e%2e",
    "/b/%2E%2e/",
    "/b/a%2Fb",
    "/b/dir/",
    "/b/x%20y+%25&=%3F%23",
    "/b/%C3%BC%CC%88%00%0D%0A",
    "/b/k?list-type=2&start-after=%2F..%2F&prefix=",
    "/b/k?",
    "/b/k#not-a-fragment",
    "/b/a;b:c@d!$'()*,~",
]


@pytest.mark.parametrize("target", HOSTILE_TARGETS)
async def test_target_goes_on_the_wire_unchanged(
    serve: Serve, connect: Connect, target: str
) -> None:
    server = await serve(answering(answer()))
    await connect(server).send(get(target))
    assert server.requests[0].line == f"GET {target} HTTP/1.1".encode()


async def test_head_is_the_headers_those_of_the_signer_and_nothing_else(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(answering(answer()))
    client = connect(server, sign=lambda _: header_lines({"x-amz-meta-100%": "\xe9\xff", "z": ""}))
    await client.send(Request("GET", "/k", {"range": "bytes=0-1"}))
    assert server.requests[0].head == (
        b"GET /k HTTP/1.1\r\nrange: bytes=0-1\r\nhost: 127.0.0.1:%d\r\n"
        b"x-amz-meta-100%%: \xe9\xff\r\nz: \r\n\r\n" % server.port
    )


async def test_host_and_content_length_are_added(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    client = connect(server)
    for request in (put(b"ab", b"c"), put(), Request("POST", "/b/k", {}), get()):
        await client.send(request)
    host = f"host: 127.0.0.1:{server.port}".encode()
    assert [received.head.split(b"\r\n")[1:-2] for received in server.requests] == [
        [host, b"content-length: 3"],
        [host, b"content-length: 0"],
        [host, b"content-length: 0"],
        [host],
    ]
    assert server.requests[0].body == b"abc"


async def test_request_may_state_its_length_itself(serve: Serve, connect: Connect) -> None:
    server = await serve(answering(answer()))
    client = connect(server)
    await client.send(Request("PUT", "/b/k", {"content-length": "3"}, (b"abc",)))
    assert server.requests[0].head.count(b"content-length") == 1
    with pytest.raises(errors.ConfigurationError, match="content-length"):
        await client.send(Request("PUT", "/b/k", {"content-length": "3"}, (b"abcd",)))
    assert len(server.requests) == 1


INJECTIONS = [
    ("GET", "/k\r\nx: y", {}),
    ("GET", "/k\n", {}),
    ("GET", "/k\r", {}),
    ("GET", "/k\0", {}),
    ("GET", "/k HTTP/1.1", {}),
    ("GET", "/k\tx", {}),
    ("GET", "/k\x7f", {}),
    ("GET", "/\u00fc", {}),
    ("GET", "/\u2028", {}),
    ("GET", "", {}),
    ("GET /x HTTP/1.1\r\n\r\nGET", "/k", {}),
    ("GET ", "/k", {}),
    ("", "/k", {}),
    ("GET", "/k", {"x": "a\r\nb: c"}),
    ("GET", "/k", {"x": "a\nb: c"}),
    ("GET", "/k", {"x": "a\rb"}),
    ("GET", "/k", {"x": "a\0b"}),
    ("GET", "/k", {"x": "\r", "y": "\n"}),
    ("GET", "/k", {"x": "\u0100"}),
    ("GET", "/k", {"x: y\r\nz": "a"}),
    ("GET", "/k", {"x y": "a"}),
    ("GET", "/k", {"x:": "a"}),
    ("GET", "/k", {"": "a"}),
    ("GET", "/k", {"x-\u00fc": "a"}),
    ("PUT", "/k", {"transfer-encoding": "chunked"}),
    ("PUT", "/k", {"Transfer-Encoding": "chunked"}),
    ("PUT", "/k", {"expect": "100-continue"}),
    ("GET", "/k", {"connection": "close"}),
    ("GET", "/k", {"host": "elsewhere"}),
    ("GET", "/k", {"upgrade": "h2c"}),
]


@pytest.mark.parametrize(("method", "target", "headers"), INJECTIONS)
async def test_requests_that_would_say_something_else_are_never_sent(
    serve: Serve, connect: Connect, method: str, target: str, headers: dict[str, str]
) -> None:
    server = await serve(answering(answer()))
    client = connect(server)
    with pytest.raises(errors.ConfigurationError) as caught:
        await client.send(Request(method, target, headers))
    assert "b: c" not in str(caught.value)  # values may be secret
    await client.send(get("/after"))
    assert [received.line for received in server.requests] == [b"GET /after HTTP/1.1"]


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    st.dictionaries(
        st.from_regex(r"[a-z0-9-]+", fullmatch=True).filter(
            lambda name: name not in ("connection", "expect", "host", "te", "trailer", "upgrade")
        ),
        st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0")),
    ),
)
def test_whatever_is_accepted_is_written_as_it_is(target: str, headers: dict[str, str]) -> None:
    head = encode_head("GET", target, headers, 0)
    line, *fields, end, last = head.decode("latin-1").split("\r\n")
    assert line == f"GET {target} HTTP/1.1"
    assert dict(field.split(": ", 1) for field in fields) == headers
    assert (end, last) == ("", "")


@given(st.text(), st.sampled_from("\r\n\0"), st.text())
def test_line_breaks_are_refused_wherever_they_stand(before: str, bad: str, after: str) -> None:
    value = before + bad + after
    with pytest.raises(errors.ConfigurationError):
        encode_head("GET", "/k", {"a": "1", "x": value}, 0)
    with pytest.raises(errors.ConfigurationError):
        encode_head("GET", value, {}, 0)
    with pytest.raises(errors.ConfigurationError):
        header_lines({"a": "1", "x": value})


@pytest.mark.parametrize(
    "chunks",
    [
        [b"x" * JOINED_BYTES],
        [b"x" * (JOINED_BYTES + 1)],
        [b"ab" * 700_000],
        [bytes([number % 256]) * 9_999 for number in range(500)],
        [b"", b"a" * 300_000, b"", b"b" * 262_144, b"c"],
    ],
    ids=["joined", "over", "one", "many", "mixed"],
)
async def test_bodies_of_every_shape_arrive_as_they_are(
    serve: Serve, connect: Connect, chunks: list[bytes]
) -> None:
    server = await serve(answering(answer()))
    client = connect(server)
    for _ in range(2):
        await client.send(put(*chunks))
    assert [received.body for received in server.requests] == [b"".join(chunks)] * 2
    assert server.connections == 1


def buffered_bytes(client: HttpClient) -> int:
    (connection,) = client._pool._open
    return connection._transport.get_write_buffer_size()


async def test_slow_reader_does_not_make_the_transport_hold_the_body(
    serve: Serve, connect: Connect
) -> None:
    go_on = asyncio.Event()

    async def reads_late(peer: Peer) -> None:
        await peer.head()
        await go_on.wait()
        digest = hashlib.sha256(await peer.reader.readexactly(len(chunk) * 4))
        await peer.send(answer(digest.hexdigest().encode()))

    chunk = bytes(range(256)) * (8 << 12)
    server = await serve(reads_late)
    client = connect(server)
    sending = asyncio.create_task(client.send(put(chunk, chunk, chunk, chunk)))
    (before, now) = (-1, 0)
    while now != before or not now:
        await asyncio.sleep(0.1)
        (before, now) = (now, buffered_bytes(client) if client._pool._open else 0)
    assert now <= 2 * SLICE_BYTES
    go_on.set()
    response = await sending
    assert b"".join(response.body).decode() == hashlib.sha256(chunk * 4).hexdigest()


@pytest.mark.parametrize("closes", [True, False])
async def test_answer_before_the_body_went_is_returned_and_the_connection_closed(
    serve: Serve, connect: Connect, closes: bool
) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(b"no", status="403 Forbidden"))
        if not closes:
            await peer.reader.read(1 << 20)
            await asyncio.sleep(3600)

    server = await serve(refuses, refuses, refuses, answering(answer(b"next")))
    client = connect(server)
    chunk = bytes(1 << 20)
    for _ in range(3):
        response = await client.send(put(*[chunk] * 16))
        assert (response.status, b"".join(response.body)) == (403, b"no")
    assert b"".join((await client.send(get())).body) == b"next"
    assert server.connections == 4


async def test_answer_that_streams_while_the_request_still_goes(
    serve: Serve, connect: Connect
) -> None:
    """Both directions move at once, and the connection is whole afterwards."""
    size = 8 << 20

    async def echoes(peer: Peer) -> None:
        while True:
            await peer.head()
            await peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size >> 16):
                await peer.send(await peer.reader.readexactly(1 << 16))

    server = await serve(echoes, buffer_bytes=1 << 16)
    client = connect(server)
    body = bytes(range(256)) * (size >> 8)
    for chunks in ([body], [body[start : start + 77_777] for start in range(0, size, 77_777)]):
        response = await client.send(put(*chunks))
        assert b"".join(response.body) == body
    assert server.connections == 1


async def test_large_answer_before_the_body_went(serve: Serve, connect: Connect) -> None:
    async def refuses(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer(bytes(3 << 20), status="400 Bad Request"))
        await asyncio.sleep(3600)

    client = connect(await serve(refuses))
    response = await client.send(put(*[bytes(1 << 20)] * 16))
    assert (response.status, response.length) == (400, 3 << 20)
