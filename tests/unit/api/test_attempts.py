"""Failed attempts are limited per address, in bounded memory."""

from __future__ import annotations

import ipaddress
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.api import attempts
from slurper.api.attempts import (
    BURST,
    SECONDS_EACH,
    TOTAL_BURST,
    TOTAL_SECONDS_EACH,
    Attempts,
    group_of,
)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_after_a_burst_one_failure_each_few_seconds(clock: Clock) -> None:
    limit = Attempts(clock)
    assert [limit.failed("192.0.2.1") for _ in range(BURST)] == [0.0] * BURST
    wait = limit.failed("192.0.2.1")
    assert wait == pytest.approx(SECONDS_EACH)
    assert limit.failed("192.0.2.2") == 0, "another address"
    clock.at += wait + 1e-6
    assert limit.failed("192.0.2.1") == 0
    assert limit.failed("192.0.2.1") > 0
    clock.at += BURST * SECONDS_EACH
    assert [limit.failed("192.0.2.1") for _ in range(BURST)] == [0.0] * BURST


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20)), max_size=300))
def test_no_window_of_time_holds_more(steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    limit = Attempts(clock)
    counted: dict[str, list[float]] = {"": [], "::": []}
    for name, pause in steps:
        clock.at += pause
        address = "::1" if name == "a" else None
        wait = limit.failed(address)
        times = counted["::" if name == "a" else ""]
        if wait == 0:
            times.append(clock.at)
        else:
            assert 0 < wait <= SECONDS_EACH + 1e-6, "one that waits so long is heard"
    for times in counted.values():
        for first, begun in enumerate(times):
            for last in range(first, len(times)):
                allowed = BURST + math.floor((times[last] - begun) / SECONDS_EACH + 1e-6)
                assert last - first + 1 <= allowed


def test_very_many_addresses_have_a_limit_together_and_are_forgotten(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MOST_ADDRESSES", 100)
    limit = Attempts(clock)
    every = [str(ipaddress.IPv4Address(number)) for number in range(5_000)]
    assert sum(limit.failed(address) == 0 for address in every) == TOTAL_BURST
    assert len(limit) == 100
    for address in every:
        clock.at += TOTAL_SECONDS_EACH * 1.001
        assert limit.failed(address) == 0
        assert len(limit) == 100


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, ""),
        ("", ""),
        ("/run/slurper.sock", ""),
    ],
)
def test_what_counts_as_one_address(address: str | None, group: str) -> None:
    assert group_of(address) == group


@given(st.ip_addresses())
def test_every_address_has_a_group(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert group_of(str(address))
