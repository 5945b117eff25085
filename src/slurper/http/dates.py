"""Dates as servers send them: one reader for all, which gives None for anything else.

Servers send anything: months of other languages, years of twenty digits, the year 1 for "never". No
date here ever raises, neither when it is read nor when seconds are added to it or clocks compared.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, timedelta, timezone

FIRST_YEAR, LAST_YEAR = 1900, 9998
"""Other years are refused. The ends of the calendar are kept free: sums must not overflow."""

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
"""A year of two digits, from this one on, is in the 1900s."""


@functools.lru_cache(maxsize=1024)  # objects are written in bursts: neighbours share their second
def http_date(text: str) -> datetime | None:
    """Read an HTTP date in one of the three forms of RFC 9110 section 5.6.7, or nearly so.

    The answer is in UTC. None: it is no date, or of a year before FIRST_YEAR or after LAST_YEAR.
    """
    # "Wed, 21 Oct 2015 07:28:00 GMT", read by position: patterns take several times as long.
    if len(text) == 29 and text.endswith(" GMT"):
        try:
            day, month, year = int(text[5:7]), _MONTHS[text[8:11]], int(text[12:16])
            hour, minute, second = int(text[17:19]), int(text[20:22]), int(text[23:25])
            if FIRST_YEAR <= year <= LAST_YEAR:
                return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except (KeyError, ValueError):
            pass  # a leap second, or blanks in other places, may have this length too
    found = _DAY_FIRST.fullmatch(text.strip()) or _MONTH_FIRST.fullmatch(text.strip())
    return None if found is None else _matched(found)


def iso_date(text: object) -> datetime | None:
    """Read an ISO 8601 date of XML or JSON. Any text may come instead of one.

    The answer is in UTC; None: it is no date.
    """
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return None
    zone = moment.tzinfo
    if zone is UTC:
        return moment
    if zone is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return None


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
    """Without a zone, or with "-0000", HTTP's dates are in UTC. Raises KeyError for other names."""
    if text is None or text in _UTC_NAMES:
        return UTC
    if text[0] not in "+-":
        raise KeyError(text)
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text[0] == "-" else offset)
