"""A running `slurper serve` under attack: raw connections to it, and what it costs."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import psutil

from slurper import descriptors
from tests.e2e import program
from tests.e2e.program import ACCOUNT, Process

MIB = 1 << 20
ALLOWED = 50 * MIB
"""How much memory a flood may cost."""
JOBS = f"/accounts/{ACCOUNT}/slurper/jobs"


@dataclass(frozen=True)
class Served:
    """A running service."""

    process: Process
    port: int
    token: str
    log: list[str]
    """The lines that it has logged so far."""
    context: ssl.SSLContext | None = None

    def connect(self, *, room: int | None = None) -> socket.socket:
        """Open a connection; `room` is how much it takes in that is not read."""
        raw = self.connect_raw(room=room)
        if self.context is None:
            return raw
        return self.context.wrap_socket(raw, server_hostname="127.0.0.1")

    def connect_raw(self, *, room: int | None = None) -> socket.socket:
        """Open a connection, and do no handshake on it."""
        raw = socket.socket()
        if room is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        raw.settimeout(program.SECONDS)
        raw.connect(("127.0.0.1", self.port))
        return raw

    def answers(self) -> bool:
        """Whether another client is answered."""
        with self.connect() as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return read_all(client).startswith(b"HTTP/1.1 200 ")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Ask for something as a usual client does."""
        scheme = "http" if self.context is None else "https"
        url = f"{scheme}://127.0.0.1:{self.port}{path}"
        return httpx.get(url, headers=headers, verify=self.context or True)

    def descriptors(self) -> int:
        """How many files it has open."""
        return psutil.Process(self.process.pid).num_fds()


@contextmanager
def serving(
    data_dir: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    anew: bool = False,
) -> Iterator[Served]:
    """Run `slurper serve` on a free port, and warm it up."""
    descriptors.raise_limit()
    token = secrets.token_urlsafe(32)
    settings = {"SLURPER_API_TOKEN": token, "SLURPER_WORKERS": "1", **(env or {})}
    command = ("serve", "--port", "0", "--data-dir", str(data_dir), *arguments)
    with program.started(*command, env=settings, anew=anew) as process:
        announced = process.stdout.readline()
        assert announced.startswith("slurper listens on "), program.end(process)
        port = int(announced.rpartition(":")[2])
        served = Served(process, port, token, [], context)
        reading = threading.Thread(target=_read, args=(process.stderr, served.log))
        reading.start()
        try:
            for _ in range(20):
                assert served.answers()
            yield served
        finally:
            process.kill()
            reading.join()


def _read(stream: Iterable[str], log: list[str]) -> None:
    """Read on, so that a service that logs much is not stopped by that."""
    for line in stream:
        log.append(line)  # noqa: PERF402 - the others see each line at once


class Growth:
    """How much the memory of a service grows at most while a block runs."""

    def __init__(self, served: Served) -> None:
        self._process = psutil.Process(served.process.pid)
        self._before = self._now()
        self._most = self._before
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def _now(self) -> int:
        found: int = self._process.memory_info().rss
        return found

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._most = max(self._most, self._now())

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._most = max(self._most, self._now())
        self._ended.set()
        self._watching.join()

    @property
    def bytes(self) -> int:
        """The growth."""
        return self._most - self._before


@contextmanager
def many(served: Served, count: int, *, room: int | None = None) -> Iterator[list[socket.socket]]:
    """Open many connections at once. Some of them may be closed again by the service."""
    with ExitStack() as stack:
        yield [stack.enter_context(served.connect_raw(room=room)) for _ in range(count)]


def send_until_closed(client: socket.socket, block: bytes, most: int = 256 * MIB) -> bytes:
    """Send `block` again and again until the service closes; return what it has answered."""
    sent, received = 0, b""
    client.settimeout(program.SECONDS)
    try:
        while sent < most:
            sent += client.send(block)
    except OSError:
        received = read_all(client)
    assert sent < most, "the service never closed"
    return received


def try_send(client: socket.socket, data: bytes) -> bool:
    """Send, unless the service has closed the connection or reads no more."""
    client.settimeout(1)
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def read_all(client: socket.socket) -> bytes:
    """Read until the service closes."""
    received = bytearray()
    try:
        while data := client.recv(1 << 16):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


def read_answer(client: socket.socket) -> bytes:
    """Read one answer with a body whose length is told."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(client)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.findall(rb"\r\ncontent-length: (\d+)", head)[0])
    while len(body) < length:
        body += _more(client)
    return head


def _more(client: socket.socket) -> bytes:
    data = client.recv(1 << 16)
    assert data, "the service closed the connection"
    return data


def is_closed_within(client: socket.socket, seconds: float) -> bool:
    """Whether the service closes the connection in this time."""
    client.settimeout(seconds)
    try:
        while client.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
