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

from slurper import descriptors, errors
from slurper.http.connection import Connection, ending
from slurper.http.tls import TlsContext, TlsError, TlsTransport, handshake

T = TypeVar("T")

_PORTS = {"http": 80, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")

_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # a cloud platform's own services on a public address
        "192.0.0.0/24",  # protocol assignments; a cloud platform has its metadata service here
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4: leads to the IPv4 address that it contains
        "3fff::/20",
    )
)
"""Refused addresses that some supported Python versions call global."""

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
    def peer(self) -> str:
        """`host:port`, for error texts."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def authority(self) -> str:
        """The Host header. It has a port only if that is not the scheme's default."""
        if self.port != _PORTS[self.scheme]:
            return self.peer
        return f"[{self.host}]" if ":" in self.host else self.host


def refusal(address: str) -> str | None:
    """Say why the endpoint policy refuses an IP address; None if it is allowed.

    If an IPv6 address contains an IPv4 address, that one is judged.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return refusal(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return refusal(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    for word in ("loopback", "link_local", "multicast", "unspecified", "private", "reserved"):
        if getattr(ip, f"is_{word}"):
            return f"a {word.replace('_', '-')} address"
    if not ip.is_global or (ip.version == 6 and ip not in _UNICAST_V6):
        return "not a global address"
    if any(ip in network for network in _REFUSED_NETWORKS):
        return "an address reserved for special purposes"
    return None


@dataclass(frozen=True, slots=True)
class _Address:
    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

    @property
    def ip(self) -> str:
        return str(self.sockaddr[0])


class Dialer:
    """Opens connections to one origin.

    `any_address` switches the endpoint policy off, for addresses the operator has chosen.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        tls: TlsContext | None,
        connect_timeout_seconds: float,
        any_address: bool,
    ) -> None:
        self.origin = origin
        self._tls = tls
        self._timeout = connect_timeout_seconds
        self.any_address = any_address

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

    async def _resolve(self) -> list[_Address]:
        origin = self.origin
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            detail = error.strerror if isinstance(error, OSError) else error
            raise NotSent(f"{origin.peer}: host name not found (connect): {detail}") from error
        addresses = [_Address(family, sockaddr) for family, _, _, _, sockaddr in found]
        return addresses if self.any_address else self._allowed(addresses)

    def _allowed(self, addresses: list[_Address]) -> list[_Address]:
        verdicts = [(address, refusal(address.ip)) for address in addresses]
        allowed = [address for address, verdict in verdicts if verdict is None]
        if verdicts and not allowed:
            address, verdict = verdicts[0]
            raise errors.EndpointRefused(
                f"{self.origin.peer} is at {address.ip}, {verdict}, which the endpoint policy"
                " forbids; SLURPER_ALLOW_PRIVATE_ENDPOINTS=true allows such endpoints"
            )
        return allowed

    async def _connect(self, addresses: list[_Address], give_up: float) -> socket.socket:
        """Try the addresses in order, each with an equal share of the time that is left."""
        loop = asyncio.get_running_loop()
        failures = []
        for index, address in enumerate(addresses):
            share = (give_up - loop.time()) / (len(addresses) - index)
            try:
                async with asyncio.timeout(share):
                    return await _connected(address)
            except OSError as error:  # the TimeoutError of asyncio has no errno
                if descriptors.is_shortage(error):
                    raise descriptors.too_many(self.origin.peer) from error
                reason = os.strerror(error.errno) if error.errno else "timed out"
                failures.append(f"{address.ip} {reason}")
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


async def _connected(address: _Address) -> socket.socket:
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
