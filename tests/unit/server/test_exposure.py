from __future__ import annotations

import pytest

from slurper import errors
from slurper.server import exposure


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, []),
        ("", []),
        ("10.0.0.5", ["10.0.0.5"]),
        (" 10.0.0.0/24 , fd00::/8,", ["10.0.0.0/24", "fd00::/8"]),
    ],
)
def test_proxies_are_addresses_and_networks(text: str | None, found: list[str]) -> None:
    assert exposure.proxies(text) == found


@pytest.mark.parametrize("text", ["*", "proxy", "10.0.0.5/24", "0.0.0.0/0", "::/0", "10.0.0.5:80"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="--behind-proxy"):
        exposure.proxies(f"10.0.0.5, {text}")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - nothing listens there
        ("::", False),
        ("192.168.0.7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_only_loopback_needs_no_cover(address: str, loopback: bool) -> None:
    exposure.require_cover("host", address, tls=True, proxied=False)
    exposure.require_cover("host", address, tls=False, proxied=True)
    if loopback:
        exposure.require_cover("host", address, tls=False, proxied=False)
        return
    with pytest.raises(errors.ConfigurationError, match="--host host can be reached"):
        exposure.require_cover("host", address, tls=False, proxied=False)
