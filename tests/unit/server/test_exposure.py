from __future__ import annotations

import pytest

from slurper import errors
from slurper.server import exposure
from slurper.settings import Settings, variable


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


def with_token(name: str, token: str | None) -> Settings:
    return Settings.model_validate({name: token})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0"])  # noqa: S104 - nothing listens
@pytest.mark.parametrize("name", ["api_token", "metrics_token"])
def test_a_short_token_of_the_settings_is_for_loopback_only(host: str, name: str) -> None:
    for short in ("x", "x" * 31):
        with pytest.raises(errors.ConfigurationError, match=f"{variable(name)} has") as caught:
            exposure.check_tokens(with_token(name, short), host)
        assert f"listens on {host}) needs one of at least 32" in str(caught.value)
        assert "openssl rand -hex 32" in str(caught.value)
        assert short * 2 not in str(caught.value)
    for allowed in (None, "x" * 32):
        exposure.check_tokens(with_token(name, allowed), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_on_loopback_it_may_be_short_unless_a_proxy_is_in_front(host: str) -> None:
    for name in ("api_token", "metrics_token"):
        short = with_token(name, "x")
        exposure.check_tokens(short, host)
        with pytest.raises(errors.ConfigurationError, match="others can reach"):
            exposure.check_tokens(short, host, proxied=True)
