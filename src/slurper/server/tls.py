"""TLS for clients, by Python's own `ssl`, with a certificate that can be replaced while it runs."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from pathlib import Path
from typing import NoReturn, cast

from typing_extensions import override

from slurper import errors, private_files, telemetry
from slurper.server.http_protocol import HttpProtocol

_SHUTDOWN_SECONDS = 2.0
"""How long a client has to say that it closes as well."""
_READ_AHEAD_BYTES = 16 << 10

_log = telemetry.get_logger(__name__)


class Certificate:
    """A certificate with its key, as they were when the files were last read."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files.

        Raises:
            ConfigurationError: they cannot be read, or do not belong together.
        """
        self._certificate, self._key = certificate, key
        self.context = self._load()
        """For the connections that come next."""

    def reload(self) -> None:
        """Read the files again. If that fails, the log says so, and the old ones stay."""
        try:
            self.context = self._load()
        except errors.ConfigurationError as error:
            _log.error("the certificate was not reloaded; the old one stays", error=str(error))
        else:
            _log.info("the certificate was reloaded", file=str(self._certificate))

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # older releases of OpenSSL would allow it
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, self._refuse_password)
        except ssl.SSLError as error:
            raise errors.ConfigurationError(
                f"--tls-cert {self._certificate} and --tls-key {self._key}: {_in_words(error)}"
            ) from error
        except OSError as error:
            option, path = self._unreadable()
            raise errors.ConfigurationError(f"{option} {path}: {error.strerror}") from error
        self._warn_of_readers()
        return context

    def _warn_of_readers(self) -> None:
        """Log that everybody may use the key. It is not refused: volumes often show such modes."""
        try:
            private_files.check_file(self._key, group_may=True)
        except errors.ConfigurationError as error:
            _log.warning("the private key of the certificate is not private", error=str(error))

    def _refuse_password(self) -> NoReturn:
        raise errors.ConfigurationError(
            f"--tls-key {self._key}: the key is encrypted; give one that needs no passphrase"
        )

    def _unreadable(self) -> tuple[str, Path]:
        """`ssl` does not say which of the files it could not read."""
        try:
            self._certificate.read_bytes()
        except OSError:
            return "--tls-cert", self._certificate
        return "--tls-key", self._key


def _in_words(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate; the server's own must come first"
    if error.reason == "NO_START_LINE" or error.reason is None:
        return "both must be PEM files: a certificate with its chain, and its private key"
    return f"they cannot be used: {error.reason.replace('_', ' ').lower()}"


class TlsProtocol(sslproto.SSLProtocol):
    """One connection with TLS, from its first byte on.

    asyncio lets a server see a connection only after its handshake. One that is never completed
    could neither be counted nor be closed in favour of others.
    """

    max_size = 16 << 10  # the buffer that each connection gets; asyncio's own are 256 KiB

    def __init__(
        self, http: HttpProtocol, context: ssl.SSLContext, handshake_seconds: float
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            http,
            context,
            cast("asyncio.Future[None]", None),  # nobody waits for the handshake
            server_side=True,
            ssl_handshake_timeout=cast("int", handshake_seconds),
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
        self._connection = http.connection
        self._app_transport.set_read_buffer_limits(_READ_AHEAD_BYTES)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.opened(cast("asyncio.Transport", transport))
        super().connection_made(transport)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection.closed()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._connection.unsent()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._connection.sent()
