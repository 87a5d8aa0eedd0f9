"""HTTP dates (RFC 9110 §5.6.7) and the Last-Modified of a representation (RFC 9110 §8.8.2)."""

from __future__ import annotations

import datetime
import re

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHORT_DAY = f"(?:{'|'.join(_DAYS)})"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"

_IMF_FIXDATE = re.compile(f"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT")
_RFC850_DATE = re.compile(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT")
_ASCTIME_DATE = re.compile(f"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})")

_SECOND = datetime.timedelta(seconds=1)


def parse_http_date(text: str, now: datetime.datetime) -> datetime.datetime | None:
    """Read an HTTP date in any of its three forms; None if it is none of them or no day of the calendar.

    The name of the day must be one, but is not compared with the date. ``now`` (with a timezone) places the two-digit
    year of the RFC 850 form: the latest year with these digits that is not more than 50 years ahead.
    """
    text = text.strip(" \t")
    if found := _IMF_FIXDATE.fullmatch(text) or _ASCTIME_DATE.fullmatch(text):
        return _moment(found, int(found["year"]))
    if found := _RFC850_DATE.fullmatch(text):
        return _moment(found, _full_year(found, now.astimezone(datetime.UTC)))
    return None


def format_http_date(moment: datetime.datetime) -> str:
    """``moment`` (with a timezone) as an IMF-fixdate, the only form a sender may use; parts of a second are cut off."""
    day = moment.astimezone(datetime.UTC)
    return (
        f"{_DAYS[day.weekday()]}, {day.day:02} {_MONTHS[day.month - 1]} {day.year:04} "
        f"{day.hour:02}:{day.minute:02}:{day.second:02} GMT"
    )


def last_modified(modified: datetime.datetime, now: datetime.datetime) -> datetime.datetime:
    """What Last-Modified says of bytes that changed at ``modified``: whole seconds, rounded down, never after ``now``.

    Rounded up it could lie after Date, and hide a second change within the same second (RFC 9110 §8.8.2.1).
    """
    return min(modified, now).astimezone(datetime.UTC).replace(microsecond=0)


def _full_year(found: re.Match[str], now: datetime.datetime) -> int:
    """The year of an RFC 850 date."""
    within = (_MONTHS.index(found["month"]) + 1, int(found["day"]), found["hour"], found["minute"], found["second"])
    limit = (now.month, now.day, f"{now:%H}", f"{now:%M}", f"{now:%S}")
    year = now.year // 100 * 100 + 100 + int(found["year"])
    while (year, *within) > (now.year + 50, *limit):
        year -= 100
    return year


def _moment(found: re.Match[str], year: int) -> datetime.datetime | None:
    month = _MONTHS.index(found["month"]) + 1
    time = found["hour"], found["minute"], found["second"]
    leap = time == ("23", "59", "60")
    try:
        hour, minute, second = (23, 59, 59) if leap else map(int, time)
        moment = datetime.datetime(year, month, int(found["day"]), hour, minute, second, tzinfo=datetime.UTC)
        return moment + _SECOND if leap else moment
    except (ValueError, OverflowError):
        return None
