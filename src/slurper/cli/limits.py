"""Limits of a job as people write them: `50MB/s`, `1.5 GiB`, `none`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from slurper import errors
from slurper.job.model import LimitChanges

_NONE = "none"
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?(?:/s|ps)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LARGEST = 2**63 - 1

BandwidthLimit = Annotated[
    str | None,
    typer.Option(
        "--bandwidth-limit", metavar="RATE", help="Bytes per second, as 50MB/s or 20MiB/s, or none"
    ),
]
RequestRateLimit = Annotated[
    str | None,
    typer.Option(
        "--request-rate-limit",
        metavar="RATE",
        help="Requests per second, to both sides together, or none",
    ),
]


def changes(bandwidth: str | None, request_rate: str | None) -> LimitChanges:
    """Return the limits that are given.

    Raises:
        ConfigurationError: one of them is no limit.
    """
    given = LimitChanges()
    if bandwidth is not None:
        given["bandwidth_limit"] = _bytes_per_second(bandwidth)
    if request_rate is not None:
        given["request_rate_limit"] = _requests_per_second(request_rate)
    return given


def _bytes_per_second(text: str) -> int | None:
    if text == _NONE:
        return None
    found = _AMOUNT.fullmatch(text.strip())
    if found is not None:
        number, unit, binary = found.groups()
        scale: int = (1024 if binary else 1000) ** _POWERS[unit.lower()]
        limit = round(float(number) * scale)
        if 1 <= limit <= _LARGEST:
            return limit
    raise errors.ConfigurationError(
        f"--bandwidth-limit {text}: give bytes per second, as 50MB/s, 20MiB/s or 1000000, or none"
    )


def _requests_per_second(text: str) -> int | None:
    if text == _NONE:
        return None
    number = text.strip().removesuffix("/s")
    if number.isascii() and number.isdecimal() and 1 <= int(number[:20]) <= _LARGEST:
        return int(number)
    raise errors.ConfigurationError(
        f"--request-rate-limit {text}: give a whole number of requests per second, or none"
    )
