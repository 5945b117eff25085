"""Takes new connections in.

asyncio's own server takes in as many in one step as may wait. Without a free descriptor it logs
each of them, and then it rests. Here few are taken in at a time, and if there is no descriptor, an
old connection is closed for the new one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from slurper.server.connections import Connections

QUEUE = 1_024
"""How many connections may wait in the system until they are taken in."""
AT_ONCE = 32
"""How many are taken in in one step of the loop."""
REST_SECONDS = 0.5

_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """One listening socket. It has the methods that uvicorn calls of a server."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        connections: Connections,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._resting: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take connections in from now on."""
        self._listener.setblocking(False)
        self._listener.listen(QUEUE)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Take no more in. Those that are open stay open."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Return at once: uvicorn itself waits for the connections."""

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NONE_LEFT and not self._connections.drop_one("no descriptor"):
                    self._rest()
                return
            opening = self._loop.create_task(self._open(client))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError:  # it is closed already
            client.close()

    def _rest(self) -> None:
        """Wait until others give descriptors back. Until then the loop would only turn."""
        self._loop.remove_reader(self._listener)
        self._resting = self._loop.call_later(
            REST_SECONDS, self._loop.add_reader, self._listener, self._accept
        )
