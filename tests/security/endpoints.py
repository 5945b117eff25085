"""What a tenant's endpoint may be in these tests: programs that are no stores, and names."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.program import Service

HERE = "127.0.0.1"

_NAMES = """
import itertools, os, socket, sys, time

_real = socket.getaddrinfo
_turns = itertools.count()

def _addresses(host, *arguments, **more):
    if not isinstance(host, str) or not host.endswith(".test"):
        return _real(host, *arguments, **more)
    is_worker = sys.argv[:1] == ["-c"]
    while host.startswith("dead") or (is_worker and host.startswith("dies")):
        time.sleep(3600)
    if host.startswith("rebind") and next(_turns) % 2 == 0:
        return _real("127.0.0.2", *arguments, **more)
    return _real("127.0.0.1", *arguments, **more)

socket.getaddrinfo = _addresses
"""


def names(folder: Path) -> dict[str, str]:
    """Variables with which a program knows the names below `test`.

    All are this machine. The answer for `dead...` never comes, nor does one for `dies...` in a
    worker process. `rebind...` is 127.0.0.2 and 127.0.0.1 by turns.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_NAMES)
    return {"PYTHONPATH": str(folder)}


@dataclass
class Program:
    """A program that gives every connection the same answer, whatever it is asked."""

    port: int
    answer: bytes
    """Empty: it says nothing, and keeps the connection."""
    requests: list[bytes] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def take(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.requests.append(connection.recv(1 << 16))
            if self.answer:
                connection.sendall(self.answer)
                connection.close()


@contextmanager
def answering(body: bytes = b"", *headers: str, status: str = "200 OK") -> Iterator[Program]:
    """Run a program that answers everything with `body`; without a status it says nothing."""
    lines = [f"HTTP/1.1 {status}", "connection: close", f"content-length: {len(body)}", *headers]
    head = "".join(f"{line}\r\n" for line in lines).encode()
    with socket.create_server((HERE, 0)) as listener:
        program = Program(listener.getsockname()[1], head + b"\r\n" + body if status else b"")
        taking = threading.Thread(target=program.take, args=(listener,), daemon=True)
        taking.start()
        yield program
        listener.shutdown(socket.SHUT_RDWR)
        for connection in program.connections:
            connection.close()
    taking.join(60)


def check(
    service: Service, endpoint: str, *, account: str = "", side: str = "source"
) -> httpx.Response:
    """Have the service check an endpoint."""
    return service.client.put(
        f"{service.url}/accounts/{account or service.account}/slurper/{side}/connectivity-precheck",
        headers={"authorization": f"Bearer {service.token}"},
        json={
            "vendor": "s3",
            "bucket": "photos",
            "endpoint": endpoint,
            "secret": {"accessKeyId": "AKIDEXAMPLE", "secretAccessKey": "hunter2hunter2"},
        },
    )
