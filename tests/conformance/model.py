"""What RFC 9110 has a server answer to GET and HEAD, a second time: slow, obvious, without the gateway's code.

Ranges are in `tests.http.oracle`. Where the RFC leaves a choice this model takes the gateway's, which the modules of
`gateway.http` state: what cannot be read harms nobody.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Literal

from tests.conformance.answers import Outcome
from tests.http import oracle

SHORT_DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
LONG_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclasses.dataclass(frozen=True)
class File:
    length: int
    opaque: str
    """Of its strong entity-tag, without the quotes."""
    modified: datetime.datetime


def answer(method: str, fields: Mapping[str, Sequence[str]], file: File, now: datetime.datetime) -> Outcome:
    """What becomes of a request with ``fields``: the lines of each, by name in small letters."""
    fields = {name: [oracle.without_ows(line) for line in lines] for name, lines in fields.items()}

    if "if-match" in fields:
        tags = tag_list(fields["if-match"])
        if tags != "any" and (tags is None or ("", file.opaque) not in tags):
            return Outcome(412)
    else:
        date = single_date(fields.get("if-unmodified-since"), now)
        if date is not None and file.modified > date:
            return Outcome(412)

    if "if-none-match" in fields:
        tags = tag_list(fields["if-none-match"])
        if tags == "any" or (isinstance(tags, list) and file.opaque in [opaque for _, opaque in tags]):
            return Outcome(304)
    else:
        date = single_date(fields.get("if-modified-since"), now)
        if date is not None and file.modified <= date:
            return Outcome(304)

    if method != "GET" or len(fields.get("range", ())) != 1 or not range_holds(fields.get("if-range"), file, now):
        return Outcome(200)
    found = oracle.answer(fields["range"][0], file.length)
    if found == "ignore":
        return Outcome(200)
    if found == "unsatisfiable":
        return Outcome(416)
    return Outcome(206, tuple((positions[0], positions[-1]) for positions in found))


def range_holds(lines: Sequence[str] | None, file: File, now: datetime.datetime) -> bool:
    if lines is None:
        return True
    if len(lines) != 1:
        return False
    if one_tag(lines[0]) == ("", file.opaque):
        return True
    return http_date(lines[0], now) == file.modified  # which lies years back: a strong validator


def tag_list(lines: Sequence[str]) -> list[tuple[str, str]] | Literal["any"] | None:
    """The tags as (``W/`` or nothing, opaque); ``"any"`` for an asterisk, None where the list cannot be read."""
    text = ",".join(lines)
    if oracle.without_ows(text) == "*":
        return "any"
    members = [""]
    quoted = False
    for character in text:
        if character == '"':
            quoted = not quoted
        if character == "," and not quoted:
            members.append("")
        else:
            members[-1] += character
    tags = [one_tag(member) for member in map(oracle.without_ows, members) if member]
    return None if None in tags else [tag for tag in tags if tag is not None]


def one_tag(text: str) -> tuple[str, str] | None:
    weak = "W/" if text[:2] == "W/" else ""
    quoted = text[len(weak) :]
    if len(quoted) < 2 or quoted[0] != '"' or quoted[-1] != '"':
        return None
    opaque = quoted[1:-1]
    if any(character == '"' or ord(character) <= 0x20 or ord(character) == 0x7F for character in opaque):
        return None
    return weak, opaque


def single_date(lines: Sequence[str] | None, now: datetime.datetime) -> datetime.datetime | None:
    return http_date(lines[0], now) if lines is not None and len(lines) == 1 else None


def http_date(text: str, now: datetime.datetime) -> datetime.datetime | None:
    """§5.6.7; the name of the day is not compared with the date."""
    words = text.split(" ")
    if len(words) == 6 and words[0][-1:] == "," and words[0][:-1] in SHORT_DAYS:
        _, day, month, year, time, zone = words
        return moment(day, month, year, time) if zone == "GMT" and len(year) == 4 else None
    if len(words) == 4 and words[0][-1:] == "," and words[0][:-1] in LONG_DAYS:
        _, date, time, zone = words
        parts = date.split("-")
        if zone != "GMT" or len(parts) != 3 or len(parts[2]) != 2 or not oracle.is_number(parts[2]):
            return None
        # The latest year with these digits that does not make it more than fifty years from now.
        for century in (22, 21, 20, 19):
            found = moment(parts[0], parts[1], f"{century}{parts[2]}", time)
            if found is not None and found <= now.replace(year=now.year + 50):
                return found
        return None
    if words[0] in SHORT_DAYS and len(words) == 6 and words[2] == "" and len(words[3]) == 1:
        words[2:4] = ["0" + words[3]]
    if len(words) == 5 and words[0] in SHORT_DAYS:
        _, month, day, time, year = words
        return moment(day, month, year, time) if len(year) == 4 else None
    return None


def moment(day: str, month: str, year: str, time: str) -> datetime.datetime | None:
    clock = time.split(":")
    numbers = [day, *clock]
    if len(clock) != 3 or month not in MONTHS or not oracle.is_number(year):
        return None
    if not all(len(number) == 2 and oracle.is_number(number) for number in numbers):
        return None
    hour, minute, second = map(oracle.value, clock)
    leap = (hour, minute, second) == (23, 59, 60)
    try:
        found = datetime.datetime(
            oracle.value(year),
            MONTHS.index(month) + 1,
            oracle.value(day),
            hour,
            minute,
            59 if leap else second,
            tzinfo=datetime.UTC,
        )
        return found + datetime.timedelta(seconds=1) if leap else found
    except (ValueError, OverflowError):
        return None
