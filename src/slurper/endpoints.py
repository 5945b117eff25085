"""Which addresses may be connected to: the endpoint policy, a pure decision.

    | address                                 | allowed                                          |
    |-----------------------------------------|--------------------------------------------------|
    | link-local, or of a metadata service    | only if it is listed by itself                   |
    | of the name of a metadata service       | only if name and address are both listed         |
    | any other that is not global            | if it, its network or its name is listed, or all |
    |                                         | private endpoints are allowed                    |
    | global                                  | always                                           |

What the operator has chosen in a setting of its own is not judged at all.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from slurper import errors

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_IN_BRACKETS = re.compile(r"\[([^\]]*:[^\]]*)\](?::([0-9]+))?")

_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ENDS_IN_IPV4 = tuple(
    ipaddress.IPv6Network(network) for network in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48")
)
"""Other forms of addresses whose last four bytes are an IPv4 address."""
_REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4: leads to the IPv4 address that it contains
        "3fff::/20",
    )
)
"""Refused addresses that some supported Python versions call global."""

_METADATA_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure, on a public address
        "192.0.0.192/32",  # Oracle
        "fd00:42::42/128",  # Scaleway
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:ec2::/32",  # Amazon: metadata, credentials of containers, names, time
        "fd20:ce::254/128",  # Google
    )
)
"""Metadata services outside the link-local networks, where most are."""

_METADATA_NAMES = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.packet.net",
        "metadata.platformequinix.com",
        "metadata.tencentyun.com",
    }
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of SLURPER_ALLOWED_ENDPOINTS: a network or a name, and perhaps one port."""

    network: Network | None = None
    host: str = ""
    """A name; `.example.com` stands for every name below it."""
    port: int | None = None

    def has(self, host: str, ip: Address, port: int) -> bool:
        """Whether a connection to `ip`, which the name `host` has, is listed here."""
        if self.port not in (None, port):
            return False
        return self.names(host) if self.network is None else ip in self.network

    def names(self, host: str) -> bool:
        """Whether this is an entry for the name."""
        return host.endswith(self.host) if self.host.startswith(".") else host == self.host

    def is_for(self, ip: Address, port: int) -> bool:
        """Whether the entry lists this one address, and no other."""
        network = self.network
        is_one = network is not None and network.num_addresses == 1 and ip in network
        return is_one and self.port in (None, port)


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """Which addresses the connections to an origin may go to."""

    trusted: bool = False
    """The operator has chosen the origin: every address is allowed."""
    allow_private: bool = False
    listed: tuple[Listed, ...] = ()

    def refusal(self, host: str, address: str, port: int) -> str | None:
        """Say why `address`, which the name `host` has, is refused; None if it is allowed."""
        if self.trusted:
            return None
        host, ip = host.lower().rstrip("."), _judged(address)
        if _is_guarded(ip):
            is_listed = any(entry.is_for(ip, port) for entry in self.listed)
            return None if is_listed else "an address of a metadata service, or link-local"
        if host in _METADATA_NAMES and not any(entry.host == host for entry in self.listed):
            return "the name of a metadata service"
        if self.allow_private or any(entry.has(host, ip, port) for entry in self.listed):
            return None
        return refusal(address)


def parse(text: str) -> tuple[Listed, ...]:
    """Read a list such as `10.0.0.0/8, minio.internal:9000, *.example.com, [fd00::1]:9000`.

    Raises:
        ConfigurationError: an entry is none; the message names it and the fix.
    """
    return tuple(_entry(entry.strip()) for entry in text.split(",") if entry.strip())


def refusal(address: str) -> str | None:
    """Say why an address is refused that is not listed; None if it is allowed.

    If an IPv6 address contains an IPv4 address, that one is judged.
    """
    ip = _judged(address)
    if _is_guarded(ip):
        return "an address of a metadata service, or link-local"
    for word in ("loopback", "multicast", "unspecified", "private", "reserved"):
        if getattr(ip, f"is_{word}"):
            return f"a {word} address"
    if not ip.is_global or (ip.version == 6 and ip not in _UNICAST_V6):
        return "not a global address"
    if any(ip in network for network in _REFUSED_NETWORKS):
        return "an address reserved for special purposes"
    return None


def _judged(address: str) -> Address:
    """The address that is connected to: an IPv6 address may be another way to write IPv4."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in _NAT64:
            return _last_four_bytes(ip)
    return ip


def _is_guarded(ip: Address) -> bool:
    return any(
        each.is_link_local or any(each in network for network in _METADATA_NETWORKS)
        for each in (ip, *_contained(ip))
    )


def _contained(ip: Address) -> Iterator[Address]:
    """IPv4 addresses that a gateway of some kind may find in an IPv6 address."""
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in _ENDS_IN_IPV4):
            yield _last_four_bytes(ip)
        if ip.sixtofour is not None:
            yield ip.sixtofour
        yield from ip.teredo or ()


def _last_four_bytes(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)


def _entry(text: str) -> Listed:
    host, port = _parted(text)
    if "/" in host or ":" in host or _is_ipv4(host):
        try:
            return Listed(network=ipaddress.ip_network(host), port=port)
        except ValueError as error:
            raise errors.ConfigurationError(
                f"{text}: {error}; write a network such as 10.0.0.0/8"
            ) from None
    name = host.lower().rstrip(".")
    # A name of digits alone would be read as an address by some programs.
    if _HOST.fullmatch(name) is None or name.rpartition(".")[2].isdecimal():
        raise errors.ConfigurationError(
            f"{text}: not a network (10.0.0.0/8), an address, a host (minio.example) or all hosts "
            "of a domain (*.example.com); a port may follow (minio.example:9000)"
        )
    return Listed(host=name.removeprefix("*"), port=port)


def _parted(text: str) -> tuple[str, int | None]:
    """The host or network of an entry, and its port."""
    bracketed = _IN_BRACKETS.fullmatch(text)
    if bracketed is not None:
        host, digits = bracketed[1], bracketed[2] or ""
    elif text.count(":") > 1:
        return text, None
    else:
        host, colon, digits = text.partition(":")
        if colon and not digits:
            digits = "none"
    if digits and not (digits.isascii() and digits.isdecimal() and 0 < int(digits) < 65_536):
        raise errors.ConfigurationError(f"{text}: the port is not a number from 1 to 65535")
    return host, int(digits) if digits else None


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
