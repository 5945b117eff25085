from __future__ import annotations

import pytest

from slurper import errors
from slurper.cli import rates


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1", 1),
        ("1000000", 1_000_000),
        ("50MB/s", 50_000_000),
        ("50 MB/s", 50_000_000),
        ("50mb", 50_000_000),
        ("1.5k", 1_500),
        ("20MiB/s", 20 << 20),
        ("2Gi", 2 << 30),
        ("1TBps", 10**12),
        ("none", None),
    ],
)
def test_a_bandwidth_as_people_write_it(text: str, limit: int | None) -> None:
    assert rates.changes(text, None) == {"bandwidth_limit": limit}


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "1XB", "1e6", "0.1", "1 2", "9" * 30])
def test_what_is_no_bandwidth(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="--bandwidth-limit"):
        rates.changes(text, None)


@pytest.mark.parametrize(("text", "limit"), [("7", 7), ("100/s", 100), ("none", None)])
def test_a_request_rate(text: str, limit: int | None) -> None:
    assert rates.changes(None, text) == {"request_rate_limit": limit}


@pytest.mark.parametrize("text", ["", "0", "1.5", "many", "\u0665", "9" * 40])
def test_what_is_no_request_rate(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="--request-rate-limit"):
        rates.changes(None, text)


def test_nothing_given_is_nothing_changed() -> None:
    assert rates.changes(None, None) == {}
