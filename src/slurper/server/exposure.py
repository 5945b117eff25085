"""Who can reach the service, and whether what they send is protected on its way."""

from __future__ import annotations

import ipaddress

from pydantic import SecretStr

from slurper import errors
from slurper.settings import Settings, variable

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


def check_tokens(settings: Settings, host: str, *, proxied: bool = False) -> None:
    """Refuse a token of the settings that could be guessed, if others can reach the service.

    Args:
        settings: they may have a token of the API, and one of the metrics.
        host: the address that the service listens on.
        proxied: a proxy on this machine lets others in, although that address is of loopback.

    Raises:
        ConfigurationError: others can reach the service, and a token is short.
    """
    if is_loopback(host) and not proxied:
        return
    _require_length("api_token", settings.api_token, host, "use `slurper token create`")
    others = "let only those reach /metrics who may read it"
    _require_length("metrics_token", settings.metrics_token, host, others)


def _require_length(name: str, token: SecretStr | None, host: str, otherwise: str) -> None:
    if token is None or (length := len(token.get_secret_value())) >= MIN_TOKEN_CHARACTERS:
        return
    raise errors.ConfigurationError(
        f"{variable(name)} has {length} characters; a service that others can reach (it "
        f"listens on {host}) needs one of at least {MIN_TOKEN_CHARACTERS}. Make it with "
        f"`openssl rand -hex 32`, or leave it unset and {otherwise}"
    )
