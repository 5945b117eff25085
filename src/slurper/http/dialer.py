"""Opens connections: the endpoint policy, TCP and TLS.

The policy is enforced here, on the address that is then connected to. A host name is resolved once
per connection. So a name server cannot give one address to the check and another one to the
connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from slurper import descriptors, errors, telemetry
from slurper.endpoints import EndpointPolicy
from slurper.http.connection import Connection, ending
from slurper.http.places import NOBODY, Owner
from slurper.http.resolver import Address, Resolver
from slurper.http.tls_transport import TlsContext, TlsError, TlsTransport, handshake

T = TypeVar("T")

_log = telemetry.get_logger(__name__)

_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")

_TLS_SETUP_REASONS = frozenset(
    {
        "http request",
        "no shared cipher",
        "ssl/tls alert handshake failure",
        "sslv3 alert handshake failure",
        "tls alert handshake failure",
        "tlsv1 alert protocol version",
        "unsupported protocol",
        "wrong version number",
    }
)
"""OpenSSL's texts for a handshake that will fail again each time."""


class NotSent(errors.TransportError):
    """No connection could be opened, so the server has not seen the request."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a server."""

    scheme: str
    host: str
    """Without the brackets of an IPv6 address."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read `scheme://host[:port]`.

        Raises:
            ConfigurationError: another scheme than http and https, or anything after the port.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise errors.ConfigurationError(f"not an http(s) origin: {text!r}") from None
        host = parts.hostname or ""
        if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise errors.ConfigurationError("an origin has no path, query or user name")
        if ":" not in host and _HOST_NAME.fullmatch(host) is None:
            raise errors.ConfigurationError(f"not a host name: {host!r}")
        return cls(parts.scheme, host, port)

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address, and no name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def peer(self) -> str:
        """`host:port`, for error texts."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The Host header. It has a port only if that is not the scheme's default."""
        if self.port != _PORTS[self.scheme]:
            return self.peer
        return f"[{self.host}]" if ":" in self.host else self.host


class Dialer:
    """Opens connections to one origin. `owner` is for whom its name is looked up."""

    def __init__(
        self,
        origin: Origin,
        *,
        tls: TlsContext | None,
        connect_timeout_seconds: float,
        policy: EndpointPolicy,
        owner: Owner = NOBODY,
    ) -> None:
        self.origin = origin
        self._tls = tls
        self._timeout = connect_timeout_seconds
        self.policy = policy
        self.owner = owner

    async def dial(self, on_lost: Callable[[Connection], None]) -> Connection:
        """Resolve, connect and do the TLS handshake, within the connect timeout.

        Raises:
            NotSent: there was no connection in time. EndpointRefused: the policy forbids it.
            TlsRefused: one side does not accept the other's TLS or certificate.
            TooManyOpenFiles: no file descriptor is left.
        """
        give_up = asyncio.get_running_loop().time() + self._timeout
        addresses = await self._within(give_up, "resolving the host name", self._resolve())
        sock = await self._connect(addresses, give_up)
        return await self._within(give_up, "TLS handshake", self._wrap(sock, on_lost))

    async def _within(self, give_up: float, what: str, step: Coroutine[None, None, T]) -> T:
        try:
            async with asyncio.timeout_at(give_up):
                return await step
        except TimeoutError:
            raise NotSent(
                f"{self.origin.peer}: no connection within {self._timeout:g} s (connect, {what})"
            ) from None

    async def _resolve(self) -> list[Address]:
        origin = self.origin
        try:
            found = await Resolver.of_this_loop().look_up(origin.host, owner=self.owner)
        except (OSError, UnicodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else error
            raise NotSent(f"{origin.peer}: host name not found (connect): {detail}") from error
        return [address.at(origin.port) for address in self._allowed(found)]

    def _allowed(self, addresses: list[Address]) -> list[Address]:
        """Leave out what the endpoint policy refuses. Raises EndpointRefused: nothing is left."""
        origin = self.origin
        allowed, refused = list[Address](), list[tuple[str, str]]()
        for address in addresses:
            why = self.policy.refusal(origin.host, address.ip, origin.port)
            if why is None:
                allowed.append(address)
            else:
                refused.append((address.ip, why))
        if refused and not allowed:
            raise self._refusal(*refused[0])
        return allowed

    def _refusal(self, ip: str, why: str) -> errors.EndpointRefused:
        """Only the log tells which address a name has: its user may not have to do with it."""
        peer = self.origin.peer
        _log.info(
            "endpoint refused", endpoint=peer, address=ip, why=why, account=self.owner.account
        )
        what = f"is {why}" if self.origin.is_literal else "has an address"
        return errors.EndpointRefused(f"{peer} {what} that the endpoint policy forbids")

    async def _connect(self, addresses: list[Address], give_up: float) -> socket.socket:
        """Try the addresses in order, each with an equal share of the time that is left."""
        loop = asyncio.get_running_loop()
        failures = dict[str, None]()  # each once, without the addresses: see `_refusal`
        for index, address in enumerate(addresses):
            share = (give_up - loop.time()) / (len(addresses) - index)
            try:
                async with asyncio.timeout(share):
                    return await _connected(address)
            except OSError as error:  # the TimeoutError of asyncio has no errno
                if descriptors.is_shortage(error):
                    raise descriptors.too_many(self.origin.peer) from error
                failures[os.strerror(error.errno) if error.errno else "timed out"] = None
        raise NotSent(f"{self.origin.peer}: not connected (connect): {', '.join(failures)}")

    async def _wrap(self, sock: socket.socket, on_lost: Callable[[Connection], None]) -> Connection:
        try:
            if self._tls is not None:
                return await self._secured(sock, self._tls, on_lost)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self.origin.peer, on_lost), sock=sock
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _secured(
        self, sock: socket.socket, context: TlsContext, on_lost: Callable[[Connection], None]
    ) -> Connection:
        peer = self.origin.peer
        try:
            state = await handshake(context, sock, (self.origin.host, self.origin.port))
        except TlsError as error:
            raise _tls_failure(peer, error) from error
        except OSError as error:
            raise NotSent(f"{peer}: {ending(error)} in the handshake (tls)") from error
        connection = Connection(peer, on_lost)
        TlsTransport(context, sock, state, connection)
        return connection


async def _connected(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _tls_failure(peer: str, error: TlsError) -> errors.TransportError:
    if error.refused:
        return errors.TlsRefused(
            f"{peer}: certificate not accepted (tls): {error};"
            " SLURPER_CA_FILE names further authorities to trust"
        )
    if str(error) in _TLS_SETUP_REASONS and not error.may_pass:
        return errors.TlsRefused(f"{peer}: no common TLS (tls): {error}; is this an https port?")
    return NotSent(f"{peer}: handshake failed (tls): {error}")
