"""Carries connections over TLS on the event loop, whichever OpenSSL does the TLS (decision 0011).

Encrypted bytes pass through two small buffers that stay in the processor's caches. The bytes of one
large read are decrypted into the receiver's own buffer. Bytes to be sent are encrypted a batch at a
time.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from slurper.http.sessions import Peer

RECORD_BYTES = 16 << 10
"""The most that one TLS record carries."""
READ_BYTES = 256 << 10
WRITE_BYTES = 128 << 10
"""How much is encrypted and sent at a time; `READ_BYTES` is how much is read and decrypted."""
OUTGOING_BYTES = WRITE_BYTES + WRITE_BYTES // 32
"""How much that is when it is encrypted."""


class TlsError(Exception):
    """What OpenSSL says of a handshake that failed, or of a connection that went wrong."""

    def __init__(self, reason: str, *, refused: bool = False, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        """The server's certificate was not accepted."""
        self.may_pass = may_pass
        """A session was offered, and the next handshake offers none. So that one may succeed."""


class Room(Protocol):
    """Memory that both the TLS library and Python see."""

    size: int
    memory: Any
    """As the library sees it. To add a number gives a place further on."""
    view: memoryview


class TlsState(Protocol):
    """The TLS state of one connection. It takes and gives encrypted bytes, and has no socket."""

    place: Callable[[Any], Any]
    """Return how the library sees a buffer of Python's."""
    read: Callable[[Any, int], int]
    """Decrypt at most one record into memory. If the result is 0 or less, ask `failure`."""
    write: Callable[[Any, int], int]
    """Encrypt all bytes of a memory."""
    forget_failures: Callable[[], object]
    """To be called before the first `read` after a while."""

    def feed(self, memory: Any, size: int) -> None:  # noqa: ANN401 - as `Room.memory`
        """Take encrypted bytes, which must stay as they are until `read` finds no more."""

    def used_up(self) -> bool:
        """Whether another `read` would find nothing; to be asked after a `read` that had bytes.

        TLS itself may owe the peer an answer to a change of keys. That answer goes out before the
        next request.
        """

    def encrypted(self, room: Any) -> memoryview:  # noqa: ANN401 - a Room of the same library
        """Move encrypted bytes that are to be sent into `room`, and return them. May be empty."""

    def agreed(self) -> bool:
        """Go on with the handshake; False when the other end has to send something first.

        Raises:
            TlsError: the handshake has failed, or nobody has checked the certificate.
        """

    def keep_session(self) -> None:
        """Keep the session for later connections to this peer, if sessions are kept.

        To be called after the first bytes were read.
        """

    def distrust_session(self) -> None:
        """If a session was offered, let the next connections to this peer do a full handshake."""

    def failure(self, status: int) -> TlsError | EOFError | None:
        """Say why `read` had nothing. None: the record is not complete. EOFError: the peer ended.

        The peer ends a connection by close_notify.
        """

    def end(self) -> None:
        """Prepare close_notify, by which TLS ends a connection."""


class TlsContext(Protocol):
    """What connections share: trusted authorities, rules, and memory.

    All connections share these buffers, so that they stay in the processor's caches. Between two
    events of the loop they hold nothing that is still needed.
    """

    incoming: Any
    outgoing: Any
    record: Any

    def room(self, size: int) -> Any:  # noqa: ANN401 - a Room of this library
        """Return new memory."""

    def prepared(self, peer: Peer) -> Any:  # noqa: ANN401 - a TlsState of this library
        """Prepare a connection. Its other end must prove that it is the host of `peer`."""


async def handshake(context: TlsContext, sock: socket.socket, peer: Peer) -> TlsState:
    """Do the TLS handshake over a connected socket, and resume the peer's session if possible.

    A server that does not accept the session goes on with a full handshake.

    Raises:
        TlsError: the handshake failed. OSError: the connection ended.
    """
    state: TlsState = context.prepared(peer)
    try:
        await _agree(state, sock, context.room(RECORD_BYTES))
    except BaseException:  # also when the time is over
        state.distrust_session()  # some servers may not cope with an old one
        raise
    return state


async def _agree(state: TlsState, sock: socket.socket, room: Room) -> None:
    loop = asyncio.get_running_loop()
    try:
        while not state.agreed():
            await loop.sock_sendall(sock, state.encrypted(room))
            data = await loop.sock_recv(sock, RECORD_BYTES)
            if not data:
                raise BrokenPipeError
            state.feed(state.place(data), len(data))
    except TlsError:
        await loop.sock_sendall(sock, state.encrypted(room))  # an alert that tells the peer why
        raise
    await loop.sock_sendall(sock, state.encrypted(room))


class TlsTransport(asyncio.Transport):
    """Carries one connection after its handshake.

    It reads as long as it is open. The bytes for a `BufferedProtocol` are decrypted into the
    protocol's own buffer. For any other protocol `data_received` is called once per record.
    """

    def __init__(
        self,
        context: TlsContext,
        sock: socket.socket,
        state: TlsState,
        protocol: asyncio.BaseProtocol,
    ) -> None:
        super().__init__({"socket": sock})
        self._loop = asyncio.get_running_loop()
        self._incoming = context.incoming
        self._outgoing = context.outgoing
        self._record = context.record
        self._sock = sock
        self._state = state
        self._is_kept = False
        self._queue: deque[bytes | bytearray | memoryview] = deque()
        self._queued = 0
        self._unsent = b""
        self._ended = False
        self.set_protocol(protocol)
        protocol.connection_made(self)
        self._loop.call_soon(self._begin)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol receive what is read from now on."""
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def is_closing(self) -> bool:
        """Whether nothing more can be sent or received."""
        return self._ended

    def get_write_buffer_size(self) -> int:
        """Bytes not yet given to the kernel."""
        return self._queued + len(self._unsent)

    # Reading

    def _begin(self) -> None:
        if not self._ended:
            self._decrypt()  # what came together with the end of the handshake
        self.resume_reading()

    def pause_reading(self) -> None:
        """Leave what comes to the kernel. What is decrypted already is still handed over."""
        self._loop.remove_reader(self._sock)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._ended:
            self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        try:
            size = self._sock.recv_into(self._incoming.view)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not size:
            self._end(None)
            return
        self._state.feed(self._incoming.memory, size)
        self._decrypt()

    def _decrypt(self) -> None:
        """Hand over every record that is complete."""
        self._state.forget_failures()
        status = 1
        while status > 0:
            status = self._read_in_place() if self._buffered else self._read_record()
            if status > 0 and not self._is_kept:
                self._is_kept = True
                self._state.keep_session()
            if self._ended or (status > 0 and self._state.used_up()):
                return
        failure = self._state.failure(status)
        if isinstance(failure, EOFError):
            self._protocol.eof_received()
            self._end(None)
        elif failure is not None:
            self._end(failure)
        elif not self._unsent:
            self._send_encrypted()  # TLS itself may have an answer to send

    def _read_record(self) -> int:
        record = self._record
        size = self._state.read(record.memory, RECORD_BYTES)
        if size > 0:
            self._protocol.data_received(bytes(record.view[:size]))
        return size

    def _read_in_place(self) -> int:
        """Fill the protocol's buffer as far as possible."""
        protocol, read = self._protocol, self._state.read
        room = protocol.get_buffer(-1)
        end = len(room)
        start, filled, size = self._state.place(room), 0, 1
        while filled < end:
            size = read(start + filled, end - filled)
            if size <= 0:
                break
            filled += size
        if filled:
            # OpenSSL explains only its last call. So this may not use TLS: `size` is asked later.
            protocol.buffer_updated(filled)
        return size

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, and keep what the kernel does not take yet."""
        if self._unsent or self._ended or not 0 < len(data) <= WRITE_BYTES:
            self.writelines((data,))
        else:
            self._state.write(self._state.place(data), len(data))
            self._send_encrypted()

    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send pieces. A piece that has to wait is kept without a copy, so it must not change."""
        if self._ended:
            return
        for piece in pieces:
            if len(piece):
                self._queue.append(piece)
                self._queued += len(piece)
        if not self._unsent:
            self._flush()

    def _flush(self) -> None:
        while self._queue and not self._unsent:
            self._encrypt()
            self._send_encrypted()

    def _encrypt(self) -> None:
        """Encrypt a batch of what is queued."""
        queue, room = self._queue, WRITE_BYTES
        while queue and room:
            piece = queue.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                queue.appendleft(view[room:])
                piece = view[:room]
            self._state.write(self._state.place(piece), len(piece))
            room -= len(piece)
        self._queued -= WRITE_BYTES - room

    def _send_encrypted(self) -> None:
        encrypted = self._state.encrypted(self._outgoing)
        if not encrypted:
            return
        sent = self._sent(encrypted)
        if sent < len(encrypted) and not self._ended:
            self._unsent = bytes(encrypted[sent:])
            self._loop.add_writer(self._sock, self._writable)
            self._protocol.pause_writing()

    def _writable(self) -> None:
        self._unsent = self._unsent[self._sent(self._unsent) :]
        if self._unsent or self._ended:
            return
        self._loop.remove_writer(self._sock)
        self._flush()
        if not self.is_closing() and not self.get_write_buffer_size():
            self._protocol.resume_writing()

    def _sent(self, data: bytes | memoryview) -> int:
        """Give bytes to the kernel; return how many it took."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end(error)
            return 0

    # Endings

    def close(self) -> None:
        """Close. Send close_notify first if nothing else waits to be sent."""
        if not self._ended and not self._unsent:
            self._state.end()
            self._send_encrypted()
        self._end(None)

    def abort(self) -> None:
        """Close at once."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._queue.clear()
        self._queued, self._unsent = 0, b""
        self._loop.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        self._sock.close()
        self._protocol.connection_lost(error)
