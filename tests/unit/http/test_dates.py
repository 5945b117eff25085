"""One reader for every date a server sends: it reads what is one, and bears what is none."""

from __future__ import annotations

import email.utils
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurper.http import dates
from slurper.http.dates import FIRST_YEAR, LAST_YEAR, http_date, iso_date

MOMENTS = st.datetimes(
    datetime(FIRST_YEAR, 1, 1),  # noqa: DTZ001 - `timezones` gives it one
    datetime(LAST_YEAR, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=0))

HUGE = "9" * 5000
HOSTILE = [
    "",
    " ",
    "soon",
    "0",
    "-1",
    HUGE,
    f"Wed, 21 Oct {HUGE} 07:28:00 GMT",
    f"Wed, {HUGE} Oct 2015 07:28:00 GMT",
    f"Wed, 21 Oct 2015 {HUGE}:28:00 GMT",
    f"Wed, 21 Oct 2015 07:28:00 +{HUGE}",
    "Wed, 21 Oct 2015 07:28:00 +9999",
    "Wed, 21 Oct 2015 07:28:00 -2400",
    "Wed, 21 Okt 2015 07:28:00 GMT",
    "Wed, 99 Oct 2015 07:28:00 GMT",
    "Wed, 21 Oct 2015 25:28:00 GMT",
    "Wed, 31 Feb 2015 07:28:00 GMT",
    "Wed, 21 Oct 2015 07:28:00 CEST",
    "Mon, 01 Jan 0001 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Fri, 31 Dec 9998 23:59:59 -1400",
    "Wed, 21 Oct 99999 07:28:00 GMT",
    "²1 Oct 2015 07:28:00 GMT",
    "Wed, ²1 Oct 2015 07:28:00 GMT",
    "Wed,",
    ",",
    ", , , ,",
    ":::",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    f"{HUGE}-01-01T00:00:00Z",
    f"2015-10-21T07:28:00.{HUGE}Zz",
]


@given(MOMENTS)
def test_the_three_forms_of_http_dates_are_read(moment: datetime) -> None:
    assert http_date(email.utils.format_datetime(moment, usegmt=True)) == moment
    assert http_date(moment.strftime("%a %b ") + f"{moment.day:2d} {moment:%H:%M:%S %Y}") == moment
    if 1970 <= moment.year < 2069:
        assert http_date(moment.strftime("%A, %d-%b-%y %H:%M:%S GMT")) == moment


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Wednesday, 21-Oct-15 07:28:00 GMT",
        "Wed Oct 21 07:28:00 2015",
        "Wed, 21 Oct 2015 09:28:00 +0200",
        "Wed, 21 Oct 2015 07:28:00 -0000",
        "Wed, 21 Oct 2015 07:28:00 UTC",
        "21 Oct 2015 07:28:00 GMT",
        "Wed, 21 Oct 2015 7:28:00 GMT",
        " Wed, 21 Oct 2015 07:28:00 GMT ",
        "Wed, 21 OCT 2015 07:28:00 GMT",
    ],
)
def test_dates_that_are_nearly_right_are_read(text: str) -> None:
    assert http_date(text) == datetime(2015, 10, 21, 7, 28, tzinfo=UTC)


def test_a_leap_second_is_the_second_before() -> None:
    last = datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert http_date("Sat, 31 Dec 2016 23:59:60 GMT") == last


@pytest.mark.parametrize("text", HOSTILE)
def test_a_malformed_date_is_no_date_and_no_exception(text: str) -> None:
    assert http_date(text) is None
    found = iso_date(text)
    assert found is None or found.tzinfo is UTC


@given(st.text() | st.from_regex(r"(\w{3}, )?[0-9]+[ -]\w{3}[ -][0-9]+ [0-9:]+ ?.{0,6}"))
def test_whatever_text_comes_for_a_date_never_raises(text: str) -> None:
    for found in (http_date(text), iso_date(text)):
        assert found is None or found.tzinfo is UTC


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,20}([+-][0-9:]{4,9}|Z)?"))
def test_whatever_looks_like_a_date_of_xml_or_json_never_raises(text: str) -> None:
    found = iso_date(text)
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize("value", [None, 0, 1.5, True, [], {}, b"2015-10-21", "", "soon"])
def test_what_stands_for_a_date_in_json_may_be_anything(value: object) -> None:
    assert iso_date(value) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2015-10-21T07:28:00.000Z", datetime(2015, 10, 21, 7, 28, tzinfo=UTC)),
        ("2015-10-21T07:28:00", datetime(2015, 10, 21, 7, 28, tzinfo=UTC)),
        ("2015-10-21T09:28:00+02:00", datetime(2015, 10, 21, 7, 28, tzinfo=UTC)),
    ],
)
def test_dates_of_xml_and_json_are_in_utc(text: str, moment: datetime) -> None:
    assert iso_date(text) == moment


def test_sums_with_any_date_do_not_overflow() -> None:
    first = http_date("Mon, 01 Jan 1900 00:00:00 GMT")
    last = http_date("Tue, 31 Dec 2199 23:59:59 GMT")
    assert first is not None
    assert last is not None
    whole = last - first
    assert last + whole > last
    assert first - whole < first
    assert iso_date("1899-12-31T23:59:59Z") is iso_date("2200-01-01T00:00:00Z") is None


def test_no_long_text_is_kept() -> None:
    kept = dates._http_date.cache_info().currsize
    assert http_date(f"Wed, 21 Oct 2015 07:28:00 GMT{' ' * 60_000}") is None
    assert dates._http_date.cache_info().currsize == kept
