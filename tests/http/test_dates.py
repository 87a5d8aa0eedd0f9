from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.dates import format_http_date, last_modified, parse_http_date
from tests.http.support import NOW


def utc(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime.datetime:
    return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC)


EXAMPLE = utc(1994, 11, 6, 8, 49, 37)

# name (RFC 9110 section: what), text, its moment; now is 2026-11-20 08:30:00
ROWS = [
    ("5.6.7: IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
    ("5.6.7: RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", EXAMPLE),
    ("5.6.7: asctime", "Sun Nov  6 08:49:37 1994", EXAMPLE),
    ("5.6.7: asctime with a day of two digits", "Wed Nov 16 08:49:37 1994", utc(1994, 11, 16, 8, 49, 37)),
    ("5.6.7: asctime with a zero before the day", "Sun Nov 06 08:49:37 1994", EXAMPLE),
    ("5.5: space around", "  Sun, 06 Nov 1994 08:49:37 GMT\t", EXAMPLE),
    ("5.6.7: the name of the day is not compared", "Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE),
    ("5.6.7: leap day", "Thu, 29 Feb 2024 00:00:00 GMT", utc(2024, 2, 29)),
    ("5.6.7: leap second", "Sat, 31 Dec 2016 23:59:60 GMT", utc(2017, 1, 1)),
    ("5.6.7: midnight", "Sun, 01 Mar 2026 00:00:00 GMT", utc(2026, 3, 1)),
    ("5.6.7: the future", "Fri, 31 Dec 9999 23:59:59 GMT", utc(9999, 12, 31, 23, 59, 59)),
    # two-digit years
    ("5.6.7: this year", "Friday, 20-Nov-26 08:30:00 GMT", utc(2026, 11, 20, 8, 30)),
    ("5.6.7: 50 years ahead to the second", "Friday, 20-Nov-76 08:30:00 GMT", utc(2076, 11, 20, 8, 30)),
    ("5.6.7: a second more is the past", "Friday, 20-Nov-76 08:30:01 GMT", utc(1976, 11, 20, 8, 30, 1)),
    ("5.6.7: year 99", "Friday, 31-Dec-99 23:59:59 GMT", utc(1999, 12, 31, 23, 59, 59)),
    ("5.6.7: year 00", "Saturday, 01-Jan-00 00:00:00 GMT", utc(2000, 1, 1)),
    # none of the three
    ("5.6.7: empty", "", None),
    ("5.6.7: a number", "784111777", None),
    ("5.6.7: ISO 8601", "1994-11-06T08:49:37Z", None),
    ("5.6.7: another zone", "Sun, 06 Nov 1994 08:49:37 CET", None),
    ("5.6.7: UTC is not GMT", "Sun, 06 Nov 1994 08:49:37 UTC", None),
    ("5.6.7: an offset", "Sun, 06 Nov 1994 08:49:37 +0000", None),
    ("5.6.7: no zone", "Sun, 06 Nov 1994 08:49:37", None),
    ("5.6.7: names have case", "sun, 06 nov 1994 08:49:37 gmt", None),
    ("5.6.7: a day of one digit", "Sun, 6 Nov 1994 08:49:37 GMT", None),
    ("5.6.7: no such month", "Sun, 06 Nev 1994 08:49:37 GMT", None),
    ("5.6.7: no such day name", "Son, 06 Nov 1994 08:49:37 GMT", None),
    ("5.6.7: no such day", "Thu, 30 Feb 2024 00:00:00 GMT", None),
    ("5.6.7: no leap year", "Sun, 29 Feb 2026 00:00:00 GMT", None),
    ("5.6.7: day zero", "Sun, 00 Mar 2026 00:00:00 GMT", None),
    ("5.6.7: hour 24", "Sun, 01 Mar 2026 24:00:00 GMT", None),
    ("5.6.7: minute 60", "Sun, 01 Mar 2026 12:60:00 GMT", None),
    ("5.6.7: second 60 elsewhere", "Sun, 01 Mar 2026 12:00:60 GMT", None),
    ("5.6.7: year zero", "Sun, 01 Mar 0000 12:00:00 GMT", None),
    ("5.6.7: leap second at the end of time", "Fri, 31 Dec 9999 23:59:60 GMT", None),
    ("5.6.7: Arabic digits", "Sun, ٠٦ Nov 1994 08:49:37 GMT", None),
    ("5.6.7: a parameter of old browsers", "Sun, 06 Nov 1994 08:49:37 GMT; length=5", None),
    ("5.6.7: two dates", "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT", None),
    ("5.6.7: a line feed at the end", "Sun, 06 Nov 1994 08:49:37 GMT\n", None),
    ("5.6.7: quotes", '"Sun, 06 Nov 1994 08:49:37 GMT"', None),
    ("5.6.7: RFC 850 with a short day name", "Sun, 06-Nov-94 08:49:37 GMT", None),
    ("5.6.7: RFC 850 with four digits", "Sunday, 06-Nov-1994 08:49:37 GMT", None),
    ("5.6.7: RFC 850, a day that its year lacks", "Friday, 29-Feb-26 00:00:00 GMT", None),
]


@pytest.mark.parametrize(("text", "moment"), [pytest.param(*row, id=name) for name, *row in ROWS])
def test_parse(text: str, moment: datetime.datetime | None) -> None:
    assert parse_http_date(text, NOW) == moment


@pytest.mark.parametrize(
    ("now", "year"),
    [(utc(1999, 12, 31), 2005), (utc(2080, 1, 1), 2105), (utc(1940, 1, 1), 1905), (utc(2055, 11, 6, 8, 49, 37), 2105)],
    ids=str,
)
def test_two_digit_years_move_with_the_clock(now: datetime.datetime, year: int) -> None:
    assert parse_http_date("Sunday, 06-Nov-05 08:49:37 GMT", now) == utc(year, 11, 6, 8, 49, 37)


def test_two_digit_years_go_by_the_clock_of_greenwich() -> None:
    east = datetime.timezone(datetime.timedelta(hours=14))
    now = datetime.datetime(2027, 1, 1, 1, 0, 0, tzinfo=east)  # still 2026-12-31 11:00 in Greenwich
    assert parse_http_date("Thursday, 31-Dec-76 12:00:00 GMT", now) == utc(1976, 12, 31, 12, 0, 0)


moments = st.datetimes(timezones=st.sampled_from([datetime.UTC, datetime.timezone(datetime.timedelta(hours=-7))]))


@given(moments.filter(lambda moment: 2 < moment.year < 9998))
def test_a_formatted_date_reads_back_without_its_fraction(moment: datetime.datetime) -> None:
    text = format_http_date(moment)
    assert text.isascii()
    assert len(text) == 29
    assert parse_http_date(text, NOW) == moment.replace(microsecond=0)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_http_date(text, NOW)


@pytest.mark.parametrize("microsecond", [0, 1, 499_999, 500_000, 999_999])
def test_last_modified_is_rounded_down(microsecond: int) -> None:
    modified = utc(2026, 3, 1, 12, 0, 0).replace(microsecond=microsecond)
    assert last_modified(modified, NOW) == utc(2026, 3, 1, 12, 0, 0)


def test_last_modified_is_never_after_now() -> None:
    now = NOW.replace(microsecond=700_000)
    assert last_modified(now + datetime.timedelta(days=3), now) == NOW
    assert last_modified(now, now) == NOW


def test_last_modified_is_in_utc() -> None:
    modified = datetime.datetime(2026, 3, 1, 12, 0, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert format_http_date(last_modified(modified, NOW)) == "Sun, 01 Mar 2026 10:00:00 GMT"
