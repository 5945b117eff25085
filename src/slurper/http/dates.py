"""Reads dates as servers send them. The result is None for a text that is no date.

Servers send many things: months of other languages, years of twenty digits, the year 1 for "never".
Reading a date never raises. Neither does adding the difference of two dates to a third one, nor
subtracting it: all of them are near enough to the present.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta, timezone

FIRST_YEAR, LAST_YEAR = 1900, 2199
"""Other years are refused, so that no sum or difference leaves Python's calendar."""

_MAX_CHARACTERS = 64
"""A longer text is no date. It is not kept in the cache either."""

_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_TIME = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_ZONE = r"(?: *(?P<zone>[A-Z]{1,4}|[+-][0-9]{4}))?"
_DAY_FIRST = re.compile(
    rf"(?:[A-Za-z]+, *)?(?P<day>[0-9]{{1,2}})[ -](?P<month>[A-Za-z]{{3}})[ -]"
    rf"(?P<year>[0-9]{{4}}|[0-9]{{2}}) +{_TIME}{_ZONE}"
)
_MONTH_FIRST = re.compile(
    rf"[A-Za-z]{{3}} +(?P<month>[A-Za-z]{{3}}) +(?P<day>[0-9]{{1,2}}) +{_TIME}"
    r" +(?P<year>[0-9]{4})"
)
_UTC_NAMES = frozenset({"GMT", "UTC", "UT", "Z"})
_CENTURY_TURNS = 69
"""A year of two digits is in the 1900s from this number on, and in the 2000s below it."""


def http_date(text: str) -> datetime | None:
    """Read an HTTP date in a form of RFC 9110 section 5.6.7; small deviations are accepted.

    The result is in UTC. None: it is no date, or its year is not in FIRST_YEAR to LAST_YEAR.
    """
    return _http_date(text) if len(text) <= _MAX_CHARACTERS else None


@functools.lru_cache(maxsize=1024)  # many objects in a listing were written in the same second
def _http_date(text: str) -> datetime | None:
    # "Wed, 21 Oct 2015 07:28:00 GMT" is read by position. A pattern takes several times as long.
    if len(text) == 29 and text.endswith(" GMT"):
        try:
            day, month, year = int(text[5:7]), _MONTHS[text[8:11]], int(text[12:16])
            hour, minute, second = int(text[17:19]), int(text[20:22]), int(text[23:25])
            if FIRST_YEAR <= year <= LAST_YEAR:
                return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except (KeyError, ValueError):
            pass  # a date with a leap second, or with other blanks, may have this length too
    found = _DAY_FIRST.fullmatch(text.strip()) or _MONTH_FIRST.fullmatch(text.strip())
    return None if found is None else _matched(found)


def iso_date(text: object) -> datetime | None:
    """Read an ISO 8601 date of XML or JSON.

    The result is in UTC. None: it is no date, or its year is not in FIRST_YEAR to LAST_YEAR.
    """
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
        zone = moment.tzinfo
        if zone is not UTC:
            moment = moment.replace(tzinfo=UTC) if zone is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def _matched(found: re.Match[str]) -> datetime | None:
    parts = found.groupdict()
    try:
        moment = datetime(
            _year(parts["year"]),
            _MONTHS[parts["month"].title()],
            int(parts["day"]),
            int(parts["hour"]),
            int(parts["minute"]),
            min(int(parts["second"]), 59),  # RFC 9110 knows leap seconds, Python does not
            tzinfo=_zone(parts.get("zone")),
        ).astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None
    return moment if FIRST_YEAR <= moment.year <= LAST_YEAR else None


def _year(digits: str) -> int:
    if len(digits) == 4:
        return int(digits)
    return int(digits) + (1900 if int(digits) >= _CENTURY_TURNS else 2000)


def _zone(text: str | None) -> timezone:
    """Read a time zone; a date without one is in UTC. Raises KeyError for an unknown name."""
    if text is None or text in _UTC_NAMES:
        return UTC
    if text[0] not in "+-":
        raise KeyError(text)
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text[0] == "-" else offset)
