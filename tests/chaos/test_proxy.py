"""The proxy does to messages what it says, and nothing else."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chaos import faults
from tests.chaos.proxy import FaultProxy

BODY = bytes(range(256)) * 1000


@dataclass
class Upstream:
    """A small HTTP server that keeps what it was sent."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def serving() -> Iterator[Upstream]:
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._note(b"")
            self.send_response(200)
            self.send_header("X-Kept", "as is")
            if self.path == "/endless":
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(BODY)
                return
            if self.path == "/chunked":
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for start in range(0, len(BODY), 50_000):
                    piece = BODY[start : start + 50_000]
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
                return
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(BODY)

        do_HEAD = do_GET  # noqa: N815 - its name there

        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return
            self._note(body)
            self.send_response(204)
            self.end_headers()

        def _note(self, body: bytes) -> None:
            upstream.requests.append((self.path, dict(self.headers), body))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        upstream.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield upstream
        server.shutdown()
        thread.join()


@pytest.fixture
def upstream(serving: Upstream) -> Upstream:
    serving.requests.clear()
    return serving


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(f"http://127.0.0.1:{upstream.port}").running() as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=10)
    yield connection
    connection.close()


Client = http.client.HTTPConnection


def get(client: Client, path: str = "/", method: str = "GET") -> tuple[int, bytes]:
    client.request(method, path)
    with client.getresponse() as response:
        return response.status, response.read()


def put(client: Client, body: bytes = BODY) -> int:
    client.request("PUT", "/kept", body, {"X-Sent": "as is"})
    with client.getresponse() as response:
        response.read()
        return response.status


@pytest.mark.parametrize("path", ["/", "/chunked", "/endless"])
def test_answers_of_every_framing_pass(client: Client, path: str) -> None:
    assert get(client, path) == (200, BODY)
    assert get(client, path) == (200, BODY)
    assert get(client, path, "HEAD") == (200, b"")
    assert get(client) == (200, BODY)


def test_requests_pass_byte_for_byte(client: Client, upstream: Upstream, proxy: FaultProxy) -> None:
    for path in ("/a//b/../%2e%2F?x=%2B+&&y", "/%00%ff"):
        assert get(client, path)[0] == 200
    assert put(client) == 204
    assert put(client, b"") == 204
    assert [request[0] for request in upstream.requests[:2]] == [
        "/a//b/../%2e%2F?x=%2B+&&y",
        "/%00%ff",
    ]
    _, headers, body = upstream.requests[2]
    assert (headers["X-Sent"], body) == ("as is", BODY)
    assert proxy.count("^PUT /kept") == 2


def test_rules_match_spare_end_and_are_cleared(client: Client, proxy: FaultProxy) -> None:
    rule = proxy.add(faults.status(500, "InternalError"), "^GET /broken", skip=1, times=2)
    seen = [get(client, "/broken")[0] for _ in range(5)]
    assert seen == [200, 500, 500, 200, 200]
    assert (rule.hits, get(client, "/other")[0]) == (2, 200)
    proxy.add(faults.status(403, "AccessDenied"))
    assert get(client)[0] == 403
    proxy.clear()
    assert get(client)[0] == 200


def test_chance_repeats_with_its_seed(upstream: Upstream) -> None:
    def outcomes(seed: int) -> list[int]:
        with FaultProxy(f"http://127.0.0.1:{upstream.port}", seed=seed).running() as proxy:
            proxy.add(faults.status(500, "InternalError"), chance=0.5)
            client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=10)
            seen = [get(client)[0] for _ in range(40)]
            client.close()
            return seen

    assert outcomes(7) == outcomes(7) != outcomes(8)


def test_error_answers(client: Client, proxy: FaultProxy) -> None:
    fault = faults.status(503, "SlowDown", retry_after="3", zipped=True)
    proxy.add(fault, times=2)
    client.request("GET", "/")
    with client.getresponse() as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "3")
        assert b"<Code>SlowDown</Code>" in gzip.decompress(response.read())
    assert put(client) == 503
    assert put(client) == 204


def test_an_early_refusal_does_not_wait_for_the_body(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.add(faults.refused_early(403, "AccessDenied"))
    host, port = proxy.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 403 AccessDenied\r\n")
    assert upstream.requests == []


BROKEN = (ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError)


def test_resets_before_the_store(client: Client, proxy: FaultProxy, upstream: Upstream) -> None:
    for fault in (faults.reset_before, faults.reset_in_request(70_000), faults.cut_request(70_000)):
        proxy.add(fault, times=1)
        with pytest.raises(BROKEN):
            put(client)
        client.close()
    assert upstream.requests == []
    assert put(client) == 204


def test_resets_after_the_store(client: Client, proxy: FaultProxy, upstream: Upstream) -> None:
    for fault in (faults.lost_answer, faults.reset_in_head):
        proxy.add(fault, times=1)
        with pytest.raises(BROKEN):
            put(client)
        client.close()
    assert [body for _, _, body in upstream.requests] == [BODY, BODY]


@pytest.mark.parametrize("reset", [False, True])
def test_a_truncated_answer(client: Client, proxy: FaultProxy, reset: bool) -> None:
    proxy.add(faults.truncated(1000, reset=reset))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as caught:
        get(client)
    if not reset:
        assert isinstance(caught.value, http.client.IncompleteRead)
        assert caught.value.partial == BODY[:1000]


def test_flipped_bytes(client: Client, proxy: FaultProxy, upstream: Upstream) -> None:
    flipped = BODY[:100_000] + bytes([BODY[100_000] ^ 0xFF]) + BODY[100_001:]
    proxy.add(faults.corrupted(100_000), "^GET", times=1)
    proxy.add(faults.corrupted_request(100_000), "^PUT", times=1)
    assert get(client) == (200, flipped)
    assert put(client) == 204
    assert upstream.requests[-1][2] == flipped
    assert get(client) == (200, BODY)


def test_changed_bodies_have_their_own_length(client: Client, proxy: FaultProxy) -> None:
    proxy.add(faults.replaced(rb"\x00\x01", b"long"))
    for path in ("/", "/chunked", "/endless"):
        assert get(client, path) == (200, BODY.replace(b"\x00\x01", b"long"))


def test_other_framings_of_the_same_body(client: Client, proxy: FaultProxy) -> None:
    for fault in (faults.chunked, faults.close_delimited()):
        proxy.clear()
        proxy.add(fault)
        client.request("GET", "/")
        with client.getresponse() as response:
            assert response.headers["Content-Length"] is None
            assert response.read() == BODY
    proxy.clear()
    proxy.add(faults.close_delimited(after=10))
    assert get(client) == (200, BODY[:10])


def test_changed_heads(client: Client, proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.add(faults.with_headers("X-New: 1", without=("x-kept",)), "^GET", times=1)
    client.request("GET", "/")
    with client.getresponse() as response:
        assert (response.headers["X-New"], response.headers["X-Kept"]) == ("1", None)
        assert response.read() == BODY
    proxy.add(faults.without_request_headers("x-sent"), "^PUT", times=1)
    assert put(client) == 204
    assert "X-Sent" not in upstream.requests[-1][1]
    proxy.add(faults.with_request_line(r"x=\d", "x=9"), times=1)
    assert get(client, "/?x=1")[0] == 200
    assert upstream.requests[-1][0] == "/?x=9"


def test_lengths_that_are_off(client: Client, proxy: FaultProxy) -> None:
    proxy.add(faults.wrong_length(10), times=1)
    with pytest.raises(http.client.IncompleteRead):
        get(client)
    client.close()
    proxy.add(faults.wrong_length(-10), times=1)
    assert get(client) == (200, BODY[:-10])


def test_slow_late_and_stalled_answers(client: Client, proxy: FaultProxy) -> None:
    for fault in (faults.delayed(0.1), faults.slow(10_000_000)):
        proxy.add(fault, times=1)
        assert get(client) == (200, BODY)
    client.timeout = 0.5
    for fault in (faults.stalled(5), faults.stalled(5, after=1000), faults.deaf(5)):
        client.close()
        proxy.add(fault, times=1)
        with pytest.raises(TimeoutError):
            get(client)


def test_events_before_and_after(client: Client, proxy: FaultProxy, upstream: Upstream) -> None:
    seen: list[int] = []

    def note() -> None:
        seen.append(len(upstream.requests))

    proxy.add(faults.preceded_by(note), times=1)
    proxy.add(faults.followed_by(note, faults.truncated(5)), times=1)
    assert get(client) == (200, BODY)
    with pytest.raises(http.client.IncompleteRead):
        get(client)
    assert seen == [0, 2]


def test_a_proxy_without_its_store_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with FaultProxy(f"http://127.0.0.1:{port}").running() as proxy:
        client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=10)
        with pytest.raises(BROKEN):
            get(client)
        client.close()


def test_stopping_does_not_wait_for_a_stalled_exchange(upstream: Upstream) -> None:
    with FaultProxy(f"http://127.0.0.1:{upstream.port}").running() as proxy:
        proxy.add(faults.stalled(60))
        client = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=10)
        client.request("GET", "/")
        while not proxy.requests:
            time.sleep(0.01)
    assert not proxy._thread.is_alive()
    client.close()
