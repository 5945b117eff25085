"""TLS by Python's own `ssl`: the way out when `openssl` cannot be used. It is slower.

The certificate is checked in the same way. What `openssl` does beside that is left out: sessions
are not resumed, and cipher suites come in Python's order.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurper import errors
from slurper.http.sessions import Peer
from slurper.http.tls_transport import OUTGOING_BYTES, READ_BYTES, RECORD_BYTES, TlsError

_NO_MATCH = (62, 64)
"""OpenSSL's codes for a certificate of another name, and of another address."""


class _Place:
    """A place in a buffer, from which one can go on as from a pointer."""

    __slots__ = ("view",)

    def __init__(self, buffer: Any) -> None:  # noqa: ANN401 - any buffer of bytes
        self.view = memoryview(buffer)

    def __add__(self, count: int) -> _Place:
        return _Place(self.view[count:])


class _Room:
    """A buffer, as `ssl` and as the transport see it."""

    __slots__ = ("memory", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.view = memoryview(bytearray(size))
        self.memory = _Place(self.view)


class PythonContext:
    """What connections share: trusted authorities, rules, and memory.

    Raises:
        ConfigurationError: `ca_file` cannot be read or holds no certificate.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self.incoming = _Room(READ_BYTES)
        self.outgoing = _Room(OUTGOING_BYTES)
        self.record = _Room(RECORD_BYTES)
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(["http/1.1"])
        context.set_default_verify_paths()
        if ca_file is not None:
            self._trust(ca_file)

    def _trust(self, ca_file: Path) -> None:
        try:
            self._context.load_verify_locations(os.fspath(ca_file))
        except ssl.SSLError as error:
            raise errors.ConfigurationError(f"CA file {ca_file}: {_words(error)}") from error
        except OSError as error:
            raise errors.ConfigurationError(f"CA file {ca_file}: cannot be read") from error

    def room(self, size: int) -> _Room:
        """Return new memory."""
        return _Room(size)

    def prepared(self, peer: Peer) -> PythonState:
        """Prepare a connection. Its other end must prove that it is the host of `peer`."""
        return PythonState(self._context, peer)


class PythonState:
    """The TLS state of one connection. It takes and gives encrypted bytes, and has no socket."""

    def __init__(self, context: ssl.SSLContext, peer: Peer) -> None:
        self._host, _ = peer
        self._source, self._encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._source, self._encrypted, server_hostname=self._host)
        self._failure: TlsError | EOFError | None = None
        self.place: Callable[[Any], Any] = _Place
        self.forget_failures: Callable[[], object] = _nothing

    def feed(self, memory: _Place, size: int) -> None:
        """Take encrypted bytes."""
        self._source.write(memory.view[:size])

    def read(self, memory: _Place, size: int) -> int:
        """Decrypt at most one record into memory. If the result is 0 or less, ask `failure`."""
        self._failure = None
        try:
            count: Any = self._tls.read(size, memory.view[:size])  # a number, with a buffer
        except ssl.SSLWantReadError:
            return -1
        except ssl.SSLZeroReturnError:
            count = 0
        except ssl.SSLError as error:
            self._failure = TlsError(_words(error))
            return -1
        if not count:
            self._failure = EOFError()
        return int(count)

    def write(self, memory: _Place, size: int) -> int:
        """Encrypt all bytes of a memory."""
        return self._tls.write(memory.view[:size])

    def used_up(self) -> bool:
        """Whether another `read` would find nothing."""
        return not (self._source.pending or self._tls.pending())

    def encrypted(self, room: _Room) -> memoryview:
        """Move encrypted bytes that are to be sent into `room`, and return them. May be empty."""
        data = self._encrypted.read(room.size)
        room.view[: len(data)] = data
        return room.view[: len(data)]

    def agreed(self) -> bool:
        """Go on with the handshake; False when the other end has to send something first.

        Raises:
            TlsError: the handshake has failed, or nobody has checked the certificate.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as error:
            raise TlsError(self._verdict(error), refused=True) from error
        except ssl.SSLError as error:
            raise TlsError(_words(error)) from error
        if not self._tls.getpeercert():  # it has none if the certificate was not checked
            raise TlsError("it was not checked", refused=True)
        return True

    def keep_session(self) -> None:
        """Do nothing: no session is resumed."""

    def distrust_session(self) -> None:
        """Do nothing: no session was offered."""

    def failure(self, _status: int) -> TlsError | EOFError | None:
        """Say why `read` had nothing. None: the record is not complete. EOFError: the peer ended.

        The peer ends a connection by close_notify.
        """
        return self._failure

    def end(self) -> None:
        """Prepare close_notify, by which TLS ends a connection."""
        with contextlib.suppress(ssl.SSLError):  # it also waits for the peer's, which we do not
            self._tls.unwrap()

    def _verdict(self, error: ssl.SSLCertVerificationError) -> str:
        if error.verify_code in _NO_MATCH:
            return f"it is not valid for {self._host}"
        return str(error.verify_message)


def _nothing() -> None:
    pass


def _words(error: ssl.SSLError) -> str:
    """OpenSSL's words for an error. `ssl` gives them in capitals."""
    return error.reason.lower().replace("_", " ") if error.reason else str(error)
