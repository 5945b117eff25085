"""A forwarder that makes the way to endpoints long and narrow: a process with a line in it.

    python -m benchmarks.delay --milliseconds 30 [--megabytes 200] URL...

It prints an address for each URL, and forwards until its standard input ends. All connections to
all URLs share one line (`benchmarks.lines`), as those of one machine do:

- Bytes of both ways arrive half a round trip later. Many may be under way.
- Each way has the bandwidth. Connections that have something to send take turns.
- A connection has at most `WINDOW_BYTES` under way each way. So a round trip bounds its speed.
- The first bytes of a connection leave a round trip late, as after a handshake of TCP.

What a forwarder cannot do:

- A program that connects is told at once that it is connected. It waits with its first request.
- There is no slow start and no loss. A new connection is as fast as an old one.
- The sockets of the forwarder hold bytes too. A program can hand over its first megabytes at once.
- A connection that is reset ends like one that is closed.
"""

from __future__ import annotations

import argparse
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.companion import HOST
from benchmarks.lines import Line, Way

WINDOW_BYTES = 3 << 20
"""Linux lets 6 MiB be under way and not acknowledged (`tcp_rmem`). Half of that is on the way
there. The other half has arrived, and its acknowledgement is on the way back."""

PIECES_AT_ONCE = 8
"""So many pieces are taken in at most before those that are due are delivered."""

_BACKLOG = 4096
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class _Stream:
    """What one end of a connection sends to the other."""

    def __init__(self, way: Way, sender: socket.socket, receiver: socket.socket) -> None:
        self.way = way
        self.sender = sender
        self.receiver = receiver
        self.open = False
        """The connection is established, as far as the sender's end knows."""
        self.readable = False
        self.at_end = False
        """The sender has sent everything."""
        self.queued = False
        """It is in the queue of those that have something to send."""
        self.held = 0
        """Bytes that were taken in and not yet given to the receiver."""
        self.arrived: deque[memoryview] = deque()
        """Bytes that the receiver does not take yet. An empty piece says that none follow."""
        self.ended = False
        """The receiver was told that no more follows."""

    @property
    def may_send(self) -> bool:
        """Whether the next piece can be taken in when it is the sender's turn."""
        can_be_read = self.open and self.readable and not self.at_end
        return can_be_read and not self.queued and self.held < WINDOW_BYTES


class _Connection:
    """Both streams of a connection."""

    def __init__(self, there: _Stream, back: _Stream) -> None:
        self.there = there
        self.back = back
        self.closed = False

    def stream_from(self, end: int) -> _Stream:
        """What the end with this file descriptor sends."""
        return self.there if end == self.there.sender.fileno() else self.back

    def stream_to(self, end: int) -> _Stream:
        """What the end with this file descriptor receives."""
        return self.back if end == self.there.sender.fileno() else self.there


class Forwarder:
    """One process's line, with all connections over it."""

    def __init__(self, line: Line) -> None:
        self._epoll = select.epoll()
        self._round_trip = line.round_trip_seconds
        self._piece_bytes = line.piece_bytes
        self._there, self._back = Way(line), Way(line)
        self._queues: dict[Way, deque[tuple[_Connection, _Stream]]] = {
            self._there: deque(),
            self._back: deque(),
        }
        """Who has something to send, by way. They take turns."""
        self._under_way: dict[Way, deque[tuple[float, _Connection, _Stream, memoryview]]] = {
            self._there: deque(),
            self._back: deque(),
        }
        """What arrives when, by way: the first one first."""
        self._opening: deque[tuple[float, _Connection]] = deque()
        """Connections whose handshake is under way."""
        self._listeners: dict[int, tuple[socket.socket, tuple[str, int]]] = {}
        self._connections: dict[int, _Connection] = {}
        """By the file descriptors of both ends."""
        self._spare: list[bytearray] = []

    def listen(self, host: str, port: int) -> int:
        """Forward to an address; return the port from which it is a line away."""
        listener = socket.create_server((HOST, 0), backlog=_BACKLOG)
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener, (socket.gethostbyname(host), port)
        self._epoll.register(listener, select.EPOLLIN)
        opened: int = listener.getsockname()[1]
        return opened

    def run(self, until_readable: int) -> None:
        """Forward until a file descriptor can be read, or its other end is closed."""
        self._epoll.register(until_readable, select.EPOLLIN)
        while True:
            # The timeout of epoll counts milliseconds, which is too coarse for a short line.
            select.select([self._epoll], [], [], self._seconds_to_wait())
            for descriptor, event in self._epoll.poll(0):
                if descriptor == until_readable:
                    return
                self._note(descriptor, event)
            self._open()
            for way in self._queues:
                self._deliver(way)
                self._take_in(way)

    def _seconds_to_wait(self) -> float | None:
        """None: only an event can bring anything to do."""
        times = [pieces[0][0] for pieces in self._under_way.values() if pieces]
        times += [way.open_at for way, queue in self._queues.items() if queue]
        if self._opening:
            times.append(self._opening[0][0])
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _note(self, descriptor: int, event: int) -> None:
        if descriptor in self._listeners:
            self._accept(*self._listeners[descriptor])
            return
        connection = self._connections.get(descriptor)
        if connection is None:  # closed by an event before this one
            return
        if event & ~select.EPOLLOUT:
            stream = connection.stream_from(descriptor)
            stream.readable = True
            self._queue(connection, stream)
        if event & ~select.EPOLLIN:
            self._pass_on(connection, connection.stream_to(descriptor))

    def _accept(self, listener: socket.socket, address: tuple[str, int]) -> None:
        with suppress(BlockingIOError):
            while True:
                near, _ = listener.accept()
                far = socket.socket()
                for end in (near, far):
                    end.setblocking(False)
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far.connect_ex(address)
                connection = _Connection(
                    _Stream(self._there, near, far), _Stream(self._back, far, near)
                )
                for end in (near, far):
                    self._connections[end.fileno()] = connection
                    self._epoll.register(end, _EVENTS)
                self._opening.append((time.monotonic() + self._round_trip, connection))

    def _open(self) -> None:
        now = time.monotonic()
        while self._opening and self._opening[0][0] <= now:
            _, connection = self._opening.popleft()
            for stream in (connection.there, connection.back):
                stream.open = True
                self._queue(connection, stream)

    def _queue(self, connection: _Connection, stream: _Stream) -> None:
        if stream.may_send:
            stream.queued = True
            self._queues[stream.way].append((connection, stream))

    def _take_in(self, way: Way) -> None:
        """Let those who have something to send take turns while the line is open."""
        queue = self._queues[way]
        for _ in range(min(len(queue), PIECES_AT_ONCE)):
            now = time.monotonic()
            if now < way.open_at:
                return
            connection, stream = queue.popleft()
            stream.queued = False
            if not connection.closed:
                self._read(connection, stream, now)

    def _read(self, connection: _Connection, stream: _Stream, now: float) -> None:
        buffer = self._spare.pop() if self._spare else bytearray(self._piece_bytes)
        try:
            size = stream.sender.recv_into(buffer)
        except BlockingIOError:
            stream.readable = False
            self._spare.append(buffer)
            return
        except OSError:  # it was reset
            size = 0
        stream.held += size
        arrives = stream.way.take(now, size)
        piece = memoryview(buffer)[:size]
        self._under_way[stream.way].append((arrives, connection, stream, piece))
        stream.at_end = size == 0
        self._queue(connection, stream)

    def _deliver(self, way: Way) -> None:
        pieces, now = self._under_way[way], time.monotonic()
        while pieces and pieces[0][0] <= now:
            _, connection, stream, piece = pieces.popleft()
            stream.arrived.append(piece)
            self._pass_on(connection, stream)

    def _pass_on(self, connection: _Connection, stream: _Stream) -> None:
        """Give the receiver what has arrived, as far as it takes it."""
        try:
            while stream.arrived and not connection.closed:
                self._send(connection, stream)
        except BlockingIOError:
            pass
        except OSError:  # the receiver has gone
            self._close(connection)
        self._queue(connection, stream)

    def _send(self, connection: _Connection, stream: _Stream) -> None:
        piece = stream.arrived[0]
        if not piece:
            stream.arrived.popleft()
            stream.receiver.shutdown(socket.SHUT_WR)
            stream.ended = True
            if connection.there.ended and connection.back.ended:
                self._close(connection)
            return
        sent = stream.receiver.send(piece)
        stream.held -= sent
        if sent < len(piece):
            stream.arrived[0] = piece[sent:]
            return
        stream.arrived.popleft()
        if isinstance(piece.obj, bytearray):
            self._spare.append(piece.obj)

    def _close(self, connection: _Connection) -> None:
        connection.closed = True
        for end in (connection.there.sender, connection.back.sender):
            self._connections.pop(end.fileno(), None)
            end.close()


@contextmanager
def distant(urls: list[str], line: Line) -> Iterator[list[str]]:
    """Forward to endpoints, in a process; yields the URLs from which they are a line away."""
    command = [sys.executable, "-m", "benchmarks.delay"]
    command += ["--milliseconds", str(line.round_trip_seconds * 1e3)]
    if line.bytes_per_second is not None:
        command += ["--megabytes", str(line.bytes_per_second / 1e6)]
    process = subprocess.Popen(
        [*command, *urls],
        cwd=machine.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # it outlives Ctrl-C, as long as somebody needs it
    )
    with process:  # it ends when its standard input is closed
        assert process.stdout is not None  # noqa: S101 - a pipe
        far = process.stdout.readline().split()
        if len(far) != len(urls):
            raise SystemExit("the forwarder does not listen")
        yield far


def main() -> None:
    """Forward until standard input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--milliseconds", type=float, required=True, help="of a round trip")
    parser.add_argument("--megabytes", type=float, help="a second each way; else unlimited")
    parser.add_argument("urls", nargs="+", metavar="URL")
    arguments = parser.parse_args()
    rate = None if arguments.megabytes is None else arguments.megabytes * 1e6
    forwarder = Forwarder(Line(arguments.milliseconds / 1e3, rate))
    far = []
    for url in arguments.urls:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        far.append(f"{parts.scheme}://{HOST}:{forwarder.listen(parts.hostname or HOST, port)}")
    print(*far, flush=True)
    forwarder.run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
