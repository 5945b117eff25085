"""Who can reach the service, and whether what they send is protected on its way."""

from __future__ import annotations

import ipaddress

from pydantic import SecretStr

from slurper import errors

MIN_TOKEN_CHARACTERS = 32


def proxies(text: str | None) -> list[str]:
    """Return the addresses and networks of a list such as `10.0.0.5, fd00::/8`.

    Raises:
        ConfigurationError: one is neither, or all addresses are in it.
    """
    found = [each.strip() for each in (text or "").split(",") if each.strip()]
    for each in found:
        _require_network(each)
    return found


def _require_network(text: str) -> None:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise errors.ConfigurationError(
            f"--behind-proxy {text}: give addresses or networks, such as 10.0.0.5 or 10.0.0.0/24, "
            f"separated by commas ({error})"
        ) from error
    if network.prefixlen == 0:
        raise errors.ConfigurationError(
            f"--behind-proxy {text}: these are all addresses, and a proxy has one of its own; "
            "a trusted address can say that a request came from anywhere"
        )


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def require_cover(host: str, address: str, *, tls: bool, proxied: bool) -> None:
    """Refuse to listen where tokens and credentials would cross a network in clear text.

    Raises:
        ConfigurationError: the message names the ways out.
    """
    if tls or proxied or is_loopback(address):
        return
    raise errors.ConfigurationError(
        f"--host {host} can be reached from other machines, and tokens and credentials would cross "
        "the network in clear text: give --tls-cert and --tls-key, or give --behind-proxy the "
        "addresses of the proxy that does TLS in front of it, or listen on 127.0.0.1"
    )


def check_static_token(token: SecretStr | None, host: str, *, proxied: bool = False) -> None:
    """Refuse a token of the settings that could be guessed, if others can reach the service.

    Args:
        token: that token.
        host: the address that the service listens on.
        proxied: a proxy on this machine lets others in, although that address is of loopback.

    Raises:
        ConfigurationError: others can reach the service, and the token is short.
    """
    if token is None or (is_loopback(host) and not proxied):
        return
    length = len(token.get_secret_value())
    if length < MIN_TOKEN_CHARACTERS:
        raise errors.ConfigurationError(
            f"SLURPER_API_TOKEN has {length} characters; a service that others can reach (it "
            f"listens on {host}) needs one of at least {MIN_TOKEN_CHARACTERS}. Make it with "
            "`openssl rand -hex 32`, or leave it unset and use `slurper token create`"
        )
