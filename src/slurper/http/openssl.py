"""TLS by the OpenSSL of the `cryptography` wheels (decision 0011).

Python's own `ssl` uses the OpenSSL that Python was built with. The AES of that OpenSSL is often
half as fast. `ssl` also copies more. Here the bytes of one large read are decrypted into the
receiver's own buffer.

A connection is checked as by `ssl.create_default_context`: it needs TLS 1.2 or later, a chain up to
the system's authorities or those of `ca_file`, and a certificate for the host's name or address.
The name must be a subject alternative name. The older place, the common name, does not count.
A connection to a server that was connected before resumes its TLS session (decision 0027).

The binding is for experts and may change. So nothing here trusts it blindly: to import this module
fails if a name is missing, a call that fails ends in an error, and after each handshake we ask
whether the certificate was checked (`_prove`). `python_ssl` is the way out if this fails.
"""

from __future__ import annotations

import calendar
import functools
import ipaddress
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

from slurper import errors
from slurper.http.sessions import KEPT_SECONDS, KeptSession, Peer, SessionCache
from slurper.http.tls_transport import OUTGOING_BYTES, READ_BYTES, RECORD_BYTES, TlsError

_lib: Final[Any] = Binding().lib
_ffi: Final[Any] = Binding.ffi
_NULL: Final[Any] = _ffi.NULL

_USED = """
    ASN1_GENERALIZEDTIME_free ASN1_STRING_get0_data ASN1_STRING_length
    ASN1_TIME_to_generalizedtime BIO_get_mem_data BIO_new BIO_new_mem_buf BIO_read BIO_s_mem
    BIO_set_mem_eof_return ERR_clear_error ERR_peek_error ERR_reason_error_string SSL_CTX_free
    SSL_CTX_get_verify_mode SSL_CTX_load_verify_locations SSL_CTX_new SSL_CTX_set_alpn_protos
    SSL_CTX_set_cipher_list SSL_CTX_set_ciphersuites SSL_CTX_set_min_proto_version
    SSL_CTX_set_mode SSL_CTX_set_options SSL_CTX_set_verify SSL_ERROR_WANT_READ
    SSL_ERROR_ZERO_RETURN SSL_MODE_RELEASE_BUFFERS SSL_OP_NO_COMPRESSION SSL_OP_NO_RENEGOTIATION
    SSL_SESSION_free SSL_VERIFY_PEER SSL_do_handshake SSL_free SSL_get0_param
    SSL_get0_verified_chain SSL_get_error SSL_get_session SSL_get_verify_result SSL_new
    SSL_pending SSL_read SSL_session_reused SSL_set_bio SSL_set_connect_state SSL_set_session
    SSL_set_tlsext_host_name SSL_shutdown SSL_write TLS1_2_VERSION TLS_client_method
    X509_CHECK_FLAG_NEVER_CHECK_SUBJECT X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
    X509_VERIFY_PARAM_set1_host X509_VERIFY_PARAM_set1_ip X509_VERIFY_PARAM_set_hostflags
    X509_V_ERR_HOSTNAME_MISMATCH X509_V_ERR_IP_ADDRESS_MISMATCH X509_V_OK X509_getm_notAfter
    X509_verify_cert_error_string d2i_SSL_SESSION i2d_SSL_SESSION sk_X509_num sk_X509_value
"""
USED = frozenset(_USED.split())
"""What this module uses of the binding."""


def require(lib: Any) -> None:  # noqa: ANN401 - the binding's own
    """Refuse a binding that lacks something. Raises ImportError: with the names."""
    missing = sorted(name for name in USED if not hasattr(lib, name))
    if missing:
        raise ImportError(f"the binding of cryptography lacks {', '.join(missing)}")


require(_lib)

_SUITES_1_3 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_SUITES_1_2 = (
    b"@SECLEVEL=2:ECDH+AESGCM+AES128:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES"
    b":!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
)
"""The suites of Python's `ssl`, in the order of Go's clients. AES-128 comes first. In practice it
is as safe as AES-256, and it costs less."""

_HOST_FLAGS = _lib.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT


class _Room:
    """Memory that both OpenSSL and Python see."""

    __slots__ = ("memory", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory: Any = _ffi.new("char[]", size)
        self.view = memoryview(_ffi.buffer(self.memory))


class OpensslContext:
    """What connections share: trusted authorities, offered cipher suites, and sessions to resume.

    Raises:
        ConfigurationError: `ca_file` cannot be read or holds no certificate.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self.incoming = _Room(READ_BYTES)
        self.outgoing = _Room(OUTGOING_BYTES)
        self.record = _Room(RECORD_BYTES)
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
        _must(_lib.SSL_CTX_get_verify_mode(context) == _lib.SSL_VERIFY_PEER)
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

    def room(self, size: int) -> _Room:
        """Return new memory."""
        return _Room(size)

    def prepared(self, peer: Peer) -> OpensslState:
        """Prepare a connection. Its other end must prove that it is the host of `peer`."""
        return OpensslState(self._context, peer, self.sessions)


class OpensslState:
    """The TLS state of one connection. It takes and gives encrypted bytes, and has no socket."""

    __slots__ = (
        "_encrypted",
        "_fed",
        "_handle",
        "_offered",
        "_peer",
        "_sessions",
        "_source",
        "forget_failures",
        "place",
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
        _lib.X509_VERIFY_PARAM_set_hostflags(wanted, _HOST_FLAGS)
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
        self.place: Callable[[Any], Any] = _ffi.from_buffer
        self.forget_failures: Callable[[], object] = _lib.ERR_clear_error

    def feed(self, memory: Any, size: int) -> None:  # noqa: ANN401 - cffi's char[]
        """Take encrypted bytes, which must stay as they are until `read` finds no more."""
        self._fed = memory
        self._source = source = _lib.BIO_new_mem_buf(memory, size)
        _lib.BIO_set_mem_eof_return(source, -1)  # the end of `memory` does not end the connection
        _lib.SSL_set_bio(self._handle, source, self._encrypted)  # frees the source before it

    def used_up(self) -> bool:
        """Whether another `read` would find nothing; to be asked after a `read` that had bytes.

        This costs a quarter of a failing `read` and the question why it failed.
        """
        return not (_lib.BIO_get_mem_data(self._source, _NULL) or _lib.SSL_pending(self._handle))

    def encrypted(self, room: _Room) -> memoryview:
        """Move encrypted bytes that are to be sent into `room`, and return them. May be empty."""
        size = _lib.BIO_read(self._encrypted, room.memory, room.size)
        return room.view[: max(0, size)]

    def agreed(self) -> bool:
        """Go on with the handshake; False when the other end has to send something first.

        Raises:
            TlsError: the handshake has failed, or nobody has checked the certificate.
        """
        _lib.ERR_clear_error()
        status = _lib.SSL_do_handshake(self._handle)
        if status == 1:
            self._prove()
            return True
        if _lib.SSL_get_error(self._handle, status) == _lib.SSL_ERROR_WANT_READ:
            return False
        verdict = _lib.SSL_get_verify_result(self._handle)
        if verdict != _lib.X509_V_OK:
            raise TlsError(_verdict(verdict, self._peer[0]), refused=True)
        raise TlsError(_reason(), may_pass=self._offered is not None)

    def _prove(self) -> None:
        """Refuse a connection whose certificate was not checked.

        This cannot happen while OpenSSL does as it was told. If it was not told, because a call of
        the binding no longer does what it did, this is what notices.
        """
        resumed = self._offered is not None and _lib.SSL_session_reused(self._handle)
        verdict = _lib.SSL_get_verify_result(self._handle)
        if verdict != _lib.X509_V_OK:
            raise TlsError(_verdict(verdict, self._peer[0]), refused=True)
        chain = _lib.SSL_get0_verified_chain(self._handle)
        if not resumed and _lib.sk_X509_num(chain) < 1:
            raise TlsError("it was not checked", refused=True)

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
        raise errors.TlsRefused(f"TLS cannot be set up as it must be (tls): {_reason()}")


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
