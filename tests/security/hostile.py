"""A store that answers whatever a test wants, over real HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Asked(NamedTuple):
    """A request as the store sees it."""

    method: str
    path: str
    query: Mapping[str, str]


class Reply(NamedTuple):
    """What it answers."""

    body: bytes
    headers: Mapping[str, str] = {}
    status: int = 200
    more: Sequence[tuple[str, str]] = ()
    """Headers that may come more than once."""
    chunk_bytes: int = 0
    """If this is not 0, the body comes in chunks of this size."""

    def framed(self) -> tuple[str, str, bytes]:
        """The header that frames the body, and the body as it is sent."""
        if not self.chunk_bytes:
            return "Content-Length", str(len(self.body)), self.body
        begins = range(0, len(self.body), self.chunk_bytes)
        pieces = [self.body[begin : begin + self.chunk_bytes] for begin in begins]
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        return "Transfer-Encoding", "chunked", chunks + b"0\r\n\r\n"


Answers = Callable[[Asked], Reply]


class HostileStore:
    """Its address, and what it answers from now on."""

    def __init__(self, url: str, answers: Answers) -> None:
        self.url = url
        self.answers = answers


@contextlib.contextmanager
def hostile_store(answers: Answers) -> Iterator[HostileStore]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            reply = store.answers(Asked(self.command, parts.path, query))
            self.send_response_only(reply.status)
            name, value, body = reply.framed()
            for header in (*reply.headers.items(), *reply.more, (name, value)):
                self.send_header(*header)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may have read enough
                if self.command != "HEAD":
                    self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - their names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store = HostileStore(f"http://127.0.0.1:{server.server_address[1]}", answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
