"""TLS on the event loop, by the OpenSSL of the `cryptography` wheels (decision 0011).

Python's own `ssl` uses the OpenSSL that Python was built with. The AES of that OpenSSL is often
half as fast. `ssl` also copies more. Here the bytes of one large read are decrypted into the
receiver's own buffer. Bytes to be sent are encrypted a batch at a time. Encrypted bytes pass
through two small buffers that stay in the processor's caches.

A connection is checked as by `ssl.create_default_context`: it needs TLS 1.2 or later, a chain up to
the system's authorities or those of `ca_file`, and a certificate for the host's name or address.
A connection to a server that was connected before resumes its TLS session (decision 0027).
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import ipaddress
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

from slurper import descriptors, errors
from slurper.http.sessions import KEPT_SECONDS, KeptSession, Peer, SessionCache

_lib: Final[Any] = Binding().lib
_ffi: Final[Any] = Binding.ffi
_NULL: Final[Any] = _ffi.NULL

RECORD_BYTES = 16 << 10
"""The most that one TLS record carries."""
_READ_BYTES = 256 << 10
_WRITE_BYTES = 128 << 10
"""How much is encrypted and sent at a time; `_READ_BYTES` is how much is read and decrypted."""

_SUITES_1_3 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_SUITES_1_2 = (
    b"@SECLEVEL=2:ECDH+AESGCM+AES128:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES"
    b":!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
)
"""The suites of Python's `ssl`, in the order of Go's clients. AES-128 comes first. In practice it
is as safe as AES-256, and it costs less."""


class TlsError(Exception):
    """What OpenSSL says of a handshake that failed, or of a connection that went wrong."""

    def __init__(self, reason: str, *, refused: bool = False, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused
        """The server's certificate was not accepted."""
        self.may_pass = may_pass
        """A session was offered, and the next handshake offers none. So that one may succeed."""


class _Room:
    """Memory that both OpenSSL and Python see."""

    __slots__ = ("memory", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory: Any = _ffi.new("char[]", size)
        self.view = memoryview(_ffi.buffer(self.memory))


class TlsContext:
    """What connections share: trusted authorities, offered cipher suites, and sessions to resume.

    Raises:
        ConfigurationError: `ca_file` cannot be read or holds no certificate.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self.incoming = _Room(_READ_BYTES)
        self.outgoing = _Room(_WRITE_BYTES + _WRITE_BYTES // 32)
        self.record = _Room(RECORD_BYTES)
        """All connections share these three buffers, so that they stay in the processor's caches.
        Between two events of the loop they hold nothing that is still needed."""
        self.sessions = SessionCache()
        self._context = _ffi.gc(_lib.SSL_CTX_new(_lib.TLS_client_method()), _lib.SSL_CTX_free)
        context = self._context
        _must(_lib.SSL_CTX_set_min_proto_version(context, _lib.TLS1_2_VERSION))
        _must(_lib.SSL_CTX_set_ciphersuites(context, _SUITES_1_3))
        _must(_lib.SSL_CTX_set_cipher_list(context, _SUITES_1_2))
        _must(_lib.SSL_CTX_set_alpn_protos(context, b"\x08http/1.1", 9) == 0)
        _lib.SSL_CTX_set_options(context, _lib.SSL_OP_NO_COMPRESSION | _lib.SSL_OP_NO_RENEGOTIATION)
        _lib.SSL_CTX_set_mode(context, _lib.SSL_MODE_RELEASE_BUFFERS)
        _lib.SSL_CTX_set_verify(context, _lib.SSL_VERIFY_PEER, _NULL)
        # The wheel's OpenSSL does not know where this system keeps its authorities; Python does.
        system = ssl.get_default_verify_paths()
        for file, folder in ((system.cafile, None), (None, system.capath)):
            if file or folder:
                self._trust(file, folder)
                _lib.ERR_clear_error()  # it is no error if a system has no authorities
        if ca_file is not None:
            if not os.access(ca_file, os.R_OK):
                raise errors.ConfigurationError(f"CA file {ca_file}: cannot be read")
            if not self._trust(os.fspath(ca_file), None):
                raise errors.ConfigurationError(f"CA file {ca_file}: {_reason()}")

    def _trust(self, file: str | None, folder: str | None) -> bool:
        names = [os.fsencode(name) if name else _NULL for name in (file, folder)]
        return bool(_lib.SSL_CTX_load_verify_locations(self._context, *names) == 1)

    def prepared(self, peer: Peer) -> TlsState:
        """Prepare a connection. Its other end must prove that it is the host of `peer`."""
        return TlsState(self._context, peer, self.sessions)


def shared_context(ca_file: Path | None) -> TlsContext:
    """Return the context of all clients of this process.

    It is made again only when `ca_file`, or where the system keeps its authorities, has changed.
    Reading the system's authorities takes 20 ms of CPU, and a copy has several clients.

    Raises:
        ConfigurationError: as `TlsContext`.
        TooManyOpenFiles: no file descriptor is left to read them with.
    """
    try:
        changed_at = ca_file.stat().st_mtime_ns if ca_file is not None else 0
    except OSError:
        changed_at = 0  # TlsContext reads the file and reports why it cannot be read
    return _context_of(ca_file, changed_at, ssl.get_default_verify_paths())


@functools.lru_cache(maxsize=8)
def _context_of(
    ca_file: Path | None, _changed_at: int, _system: ssl.DefaultVerifyPaths
) -> TlsContext:
    if descriptors.none_left():  # the authorities would be missing for as long as this is kept
        raise descriptors.too_many("the certificates of the authorities")
    return TlsContext(ca_file)


class TlsState:
    """The TLS state of one connection. It takes and gives encrypted bytes, and has no socket."""

    __slots__ = (
        "_encrypted",
        "_fed",
        "_handle",
        "_offered",
        "_peer",
        "_sessions",
        "_source",
        "read",
        "write",
    )

    def __init__(
        self,
        context: Any,  # noqa: ANN401 - cffi's SSL_CTX *
        peer: Peer,
        sessions: SessionCache,
    ) -> None:
        host, _ = peer
        handle = _ffi.gc(_lib.SSL_new(context), _lib.SSL_free)
        wanted = _lib.SSL_get0_param(handle)
        _lib.X509_VERIFY_PARAM_set_hostflags(wanted, _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
        try:
            address = ipaddress.ip_address(host).packed
        except ValueError:
            name = host.encode("ascii")
            _must(_lib.X509_VERIFY_PARAM_set1_host(wanted, name, len(name)))
            _lib.SSL_set_tlsext_host_name(handle, name)
        else:
            _must(_lib.X509_VERIFY_PARAM_set1_ip(wanted, address, len(address)))
        self._handle = handle
        self._peer = peer
        self._sessions = sessions
        self._offered = sessions.find(peer)
        if self._offered is not None:
            _offer(handle, self._offered.data)
        self._fed: Any = None
        self._encrypted = _lib.BIO_new(_lib.BIO_s_mem())
        self._source = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(handle, self._source, self._encrypted)
        _lib.SSL_set_connect_state(handle)
        self.read: Callable[[Any, int], int] = functools.partial(_lib.SSL_read, handle)
        """Decrypt at most one record into memory. If the result is 0 or less, ask `failure`."""
        self.write: Callable[[Any, int], int] = functools.partial(_lib.SSL_write, handle)
        """Encrypt all bytes of a memory."""

    def feed(self, memory: Any, size: int) -> None:  # noqa: ANN401 - cffi's char[]
        """Take encrypted bytes, which must stay as they are until `read` finds no more."""
        self._fed = memory
        self._source = source = _lib.BIO_new_mem_buf(memory, size)
        _lib.BIO_set_mem_eof_return(source, -1)  # the end of `memory` does not end the connection
        _lib.SSL_set_bio(self._handle, source, self._encrypted)  # frees the source before it

    def used_up(self) -> bool:
        """Whether another `read` would find nothing; to be asked after a `read` that had bytes.

        This costs a quarter of a failing `read` and the question why it failed. TLS itself may owe
        the peer an answer to a change of keys. That answer goes out before the next request.
        """
        return not (_lib.BIO_get_mem_data(self._source, _NULL) or _lib.SSL_pending(self._handle))

    def encrypted(self, room: _Room) -> memoryview:
        """Move encrypted bytes that are to be sent into `room`, and return them. May be empty."""
        size = _lib.BIO_read(self._encrypted, room.memory, room.size)
        return room.view[: max(0, size)]

    def agreed(self) -> bool:
        """Go on with the handshake; False when the other end has to send something first.

        Raises:
            TlsError: the handshake has failed.
        """
        _lib.ERR_clear_error()
        status = _lib.SSL_do_handshake(self._handle)
        if status == 1:
            return True
        if _lib.SSL_get_error(self._handle, status) == _lib.SSL_ERROR_WANT_READ:
            return False
        verdict = _lib.SSL_get_verify_result(self._handle)
        if verdict != _lib.X509_V_OK:
            raise TlsError(_verdict(verdict, self._peer[0]), refused=True)
        raise TlsError(_reason(), may_pass=self._offered is not None)

    def keep_session(self) -> None:
        """Keep the session for later connections to this peer.

        To be called after the first bytes were read. In TLS 1.3 the server sends what is needed to
        resume a session after the handshake, but in practice before its first answer. If the
        server has sent nothing, the next handshake will be a full one.
        """
        if self._offered is not None and _lib.SSL_session_reused(self._handle):
            until = self._offered.until  # no certificate was checked in this handshake
        else:
            limit = self._sessions.clock() + KEPT_SECONDS
            until = min([limit, *_ends_of_validity(self._handle)])
        data = _written(_lib.SSL_get_session(self._handle))
        self._sessions.keep(self._peer, KeptSession(data, until))

    def distrust_session(self) -> None:
        """If a session was offered, let the next connections to this peer do a full handshake."""
        if self._offered is not None:
            self._sessions.distrust(self._peer)

    def failure(self, status: int) -> TlsError | EOFError | None:
        """Say why `read` had nothing. None: the record is not complete. EOFError: the peer ended.

        The peer ends a connection by close_notify.
        """
        code = _lib.SSL_get_error(self._handle, status)
        if code == _lib.SSL_ERROR_WANT_READ:
            return None
        return EOFError() if code == _lib.SSL_ERROR_ZERO_RETURN else TlsError(_reason())

    def end(self) -> None:
        """Prepare close_notify, by which TLS ends a connection."""
        _lib.SSL_shutdown(self._handle)


async def handshake(context: TlsContext, sock: socket.socket, peer: Peer) -> TlsState:
    """Do the TLS handshake over a connected socket, and resume the peer's session if possible.

    A server that does not accept the session goes on with a full handshake.

    Raises:
        TlsError: the handshake failed. OSError: the connection ended.
    """
    state = context.prepared(peer)
    try:
        await _agree(state, sock)
    except BaseException:  # also when the time is over
        state.distrust_session()  # some servers may not cope with an old one
        raise
    return state


async def _agree(state: TlsState, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    room = _Room(RECORD_BYTES)
    try:
        while not state.agreed():
            await loop.sock_sendall(sock, state.encrypted(room))
            data = await loop.sock_recv(sock, RECORD_BYTES)
            if not data:
                raise BrokenPipeError
            state.feed(_ffi.from_buffer(data), len(data))
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
        _lib.ERR_clear_error()
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
        start, filled, size = _ffi.from_buffer(room), 0, 1
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
        if self._unsent or self._ended or not 0 < len(data) <= _WRITE_BYTES:
            self.writelines((data,))
        else:
            self._state.write(_ffi.from_buffer(data), len(data))
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
        queue, room = self._queue, _WRITE_BYTES
        while queue and room:
            piece = queue.popleft()
            if len(piece) > room:
                view = memoryview(piece)
                queue.appendleft(view[room:])
                piece = view[:room]
            self._state.write(_ffi.from_buffer(piece), len(piece))
            room -= len(piece)
        self._queued -= _WRITE_BYTES - room

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


def _offer(handle: Any, data: bytes) -> None:  # noqa: ANN401 - cffi's SSL *
    """Let a handshake resume a session, if the server accepts that.

    Each connection gets a copy. OpenSSL marks a session as not resumable if its connection ends
    without close_notify.
    """
    start = _ffi.new("unsigned char **", _ffi.from_buffer("unsigned char[]", data))
    session = _lib.d2i_SSL_SESSION(_NULL, start, len(data))
    _must(session != _NULL)
    _must(_lib.SSL_set_session(handle, session))
    _lib.SSL_SESSION_free(session)


def _written(session: Any) -> bytes:  # noqa: ANN401 - cffi's SSL_SESSION *
    size = _lib.i2d_SSL_SESSION(session, _NULL)
    memory = _ffi.new("unsigned char[]", size)
    _must(_lib.i2d_SSL_SESSION(session, _ffi.new("unsigned char **", memory)) == size)
    return bytes(_ffi.buffer(memory))


def _ends_of_validity(handle: Any) -> list[float]:  # noqa: ANN401 - cffi's SSL *
    """When each certificate of the chain that was checked ends, in seconds since 1970."""
    chain = _lib.SSL_get0_verified_chain(handle)
    numbers = range(_lib.sk_X509_num(chain))
    return [_seconds(_lib.X509_getm_notAfter(_lib.sk_X509_value(chain, at))) for at in numbers]


def _seconds(when: Any) -> float:  # noqa: ANN401 - cffi's ASN1_TIME *
    general = _lib.ASN1_TIME_to_generalizedtime(when, _NULL)
    string = _ffi.cast("ASN1_STRING *", general)
    data = _ffi.buffer(_lib.ASN1_STRING_get0_data(string), _lib.ASN1_STRING_length(string))
    text = bytes(data).decode("ascii")
    _lib.ASN1_GENERALIZEDTIME_free(general)
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))  # the form of RFC 5280, 4.1.2.5.2


def _must(done: object) -> None:
    if not done:
        raise AssertionError(f"OpenSSL: {_reason()}")


def _reason() -> str:
    """OpenSSL's words for the last error."""
    code = _lib.ERR_peek_error()
    text = _lib.ERR_reason_error_string(code)
    _lib.ERR_clear_error()
    return _text(text) if text != _NULL else "no certificate or crl found"


def _text(text: Any) -> str:  # noqa: ANN401 - cffi's char *
    words: bytes = _ffi.string(text)
    return words.decode("ascii", "replace")


def _verdict(verdict: int, host: str) -> str:
    if verdict in (_lib.X509_V_ERR_HOSTNAME_MISMATCH, _lib.X509_V_ERR_IP_ADDRESS_MISMATCH):
        return f"it is not valid for {host}"
    return _text(_lib.X509_verify_cert_error_string(verdict))
