from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from slurper.server import acceptor
from slurper.server.acceptor import Acceptor
from slurper.server.connections import Connection, Connections
from slurper.server.limits import Limits


class Listener:
    """A listening socket whose next `accept` calls may fail."""

    def __init__(self) -> None:
        self._real = socket.create_server(("127.0.0.1", 0))
        self.failures: list[int] = []
        self.asked = 0

    @property
    def address(self) -> tuple[str, int]:
        found: tuple[str, int] = self._real.getsockname()
        return found

    def accept(self) -> tuple[socket.socket, Any]:
        self.asked += 1
        if self.failures:
            raise OSError(self.failures.pop(0), "accept")
        return self._real.accept()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a socket has
        return getattr(self._real, name)


class Protocol(asyncio.Protocol):
    """Says what it is, and counts as a connection."""

    def __init__(self, connections: Connections) -> None:
        self.connection = Connection(connections)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.connection.opened(transport)
        transport.write(b"hello")

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connection.closed()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
async def connections(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connections]:
    monkeypatch.setattr(acceptor, "REST_SECONDS", 0.05)
    connections = Connections(Limits())
    accepting = Acceptor(
        cast("socket.socket", listener), lambda: Protocol(connections), connections
    )
    accepting.start()
    yield connections
    accepting.close()
    connections.stop()
    await asyncio.sleep(0)


async def _greeting(listener: Listener) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*listener.address)
    return await reader.read(5), writer


@pytest.mark.usefixtures("connections")
async def test_connections_are_taken_in(listener: Listener) -> None:
    for _ in range(50):
        greeting, writer = await _greeting(listener)
        assert greeting == b"hello"
        writer.close()


async def test_without_a_descriptor_an_old_connection_makes_room(
    listener: Listener, connections: Connections
) -> None:
    _, old = await _greeting(listener)
    listener.failures = [errno.EMFILE]
    greeting, new = await _greeting(listener)
    assert greeting == b"hello"
    assert len(connections) == 1
    old.close()
    new.close()


@pytest.mark.usefixtures("connections")
async def test_without_a_connection_to_close_it_rests(listener: Listener) -> None:
    listener.failures = [errno.EMFILE] * 3
    greeting, writer = await _greeting(listener)
    assert greeting == b"hello"
    assert listener.asked < 10, "it asked again at once"
    writer.close()


@pytest.mark.usefixtures("connections")
async def test_a_client_that_has_gone_already_does_no_harm(listener: Listener) -> None:
    listener.failures = [errno.ECONNABORTED]
    greeting, writer = await _greeting(listener)
    assert greeting == b"hello"
    writer.close()
