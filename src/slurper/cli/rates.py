"""Limits of a job as people write them: `50MB/s`, `1.5 GiB`, `none`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from slurper import errors
from slurper.cli import options
from slurper.job import rules
from slurper.job.model import LimitChanges

_NONE = "none"
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kmgt]?)(i?)b?(?:/s|ps)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def changes(
    bandwidth_limit: Annotated[
        str | None,
        typer.Option(
            "--bandwidth-limit",
            metavar="RATE",
            help="Bytes per second, as 50MB/s or 20MiB/s, or none",
        ),
    ] = None,
    request_rate_limit: Annotated[
        str | None,
        typer.Option(
            "--request-rate-limit",
            metavar="RATE",
            help="Requests per second, to both sides together, or none",
        ),
    ] = None,
) -> LimitChanges:
    """Return the limits that are given. Raises ConfigurationError: a text is not a limit."""
    limits = LimitChanges()
    if bandwidth_limit is not None:
        limits["bandwidth_limit"] = _bytes_per_second(bandwidth_limit)
    if request_rate_limit is not None:
        limits["request_rate_limit"] = _requests_per_second(request_rate_limit)
    return limits


given = options.as_value("limits", changes)
"""Gives a command the parameter `limits`."""


def _bytes_per_second(text: str) -> int | None:
    if text == _NONE:
        return None
    found = _AMOUNT.fullmatch(text.strip())
    if found is not None:
        number, unit, binary = found.groups()
        scale: int = (1024 if binary else 1000) ** _POWERS[unit.lower()]
        limit = round(float(number) * scale)
        if 1 <= limit <= rules.MAX_NUMBER:
            return limit
    raise errors.ConfigurationError(
        f"--bandwidth-limit {text}: give bytes per second, as 50MB/s, 20MiB/s or 1000000, or none"
    )


def _requests_per_second(text: str) -> int | None:
    if text == _NONE:
        return None
    number = text.strip().removesuffix("/s")
    if number.isascii() and number.isdecimal() and 1 <= int(number[:20]) <= rules.MAX_NUMBER:
        return int(number)
    raise errors.ConfigurationError(
        f"--request-rate-limit {text}: give a whole number of requests per second, or none"
    )
