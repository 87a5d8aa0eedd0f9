"""The requests that every server here is asked, and what RFC 9110 has them answer.

A row is: id, section of RFC 9110, field lines, expected status, and for 206 the positions expected, first and last.
In braces stands what differs between files and servers; see `Filling`. Where the RFC leaves a choice, the row holds
the gateway's; that of nginx is then in `differences`.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
from collections.abc import Mapping

from tests.conformance.answers import Outcome, Plain
from tests.conformance.http1 import Lines


@dataclasses.dataclass(frozen=True)
class Case:
    """One request."""

    id: str
    section: str
    lines: tuple[str, ...]
    status: int
    spans: str = ""
    method: str = "GET"
    missing: bool = False
    """Whether to ask for a file that is not there."""

    def filled(self, filling: Mapping[str, str]) -> Lines:
        fields = (line.partition(": ") for line in self.lines)
        return [(name, value.format_map(filling)) for name, _, value in fields]

    def expected(self, filling: Mapping[str, str]) -> Outcome:
        spans = (span.partition("-") for span in self.spans.format_map(filling).split(",") if span)
        return Outcome(self.status, tuple((int(first), int(last)) for first, _, last in spans))


def filling(plain: Plain) -> dict[str, str]:
    """What stands for the names in braces, by the server's own answer to a plain GET."""
    etag = str(plain.response.get("ETag"))
    length, half = len(plain.data), len(plain.data) // 2
    modified = email.utils.parsedate_to_datetime(str(plain.response.get("Last-Modified")))
    now = email.utils.parsedate_to_datetime(str(plain.response.get("Date")))
    second = datetime.timedelta(seconds=1)
    moments = {"lm": modified, "older": modified - second, "newer": modified + second, "now": now}
    return {
        "n": str(length),
        "last": str(length - 1),
        "half": str(half),
        "before_half": str(half - 1),
        "last_ten": str(length - 10),
        "beyond": str(length + 10),
        "huge": "9" * 30,
        "zeros": "0" * 5000,
        "etag": etag,
        "weak": f"W/{etag}",
        "opaque": etag.strip('"'),
        "capitals": etag.swapcase(),
        **{name: email.utils.format_datetime(moment, usegmt=True) for name, moment in moments.items()},
        **{f"{name}_850": f"{moment:%A, %d-%b-%y %H:%M:%S GMT}" for name, moment in moments.items()},
        **{
            f"{name}_asctime": f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S %Y}" for name, moment in moments.items()
        },
    }


SEVENTEEN = ",".join(f"{start}-{start}" for start in range(0, 34, 2))
SIXTEEN = ",".join(f"{start}-{start}" for start in range(0, 32, 2))
R = "Range: bytes=0-9"
TEN = "0-9"

RANGES = [
    Case("no range", "9.3.1", (), 200),
    Case("the first byte", "14.1.2", ("Range: bytes=0-0",), 206, "0-0"),
    Case("the first ten", "14.1.2", (R,), 206, TEN),
    Case("the last byte by position", "14.1.2", ("Range: bytes={last}-{last}",), 206, "{last}-{last}"),
    Case("all but the first", "14.1.2", ("Range: bytes=1-",), 206, "1-{last}"),
    Case("from the middle", "14.1.2", ("Range: bytes={half}-",), 206, "{half}-{last}"),
    Case("to the middle", "14.1.2", ("Range: bytes=0-{before_half}",), 206, "0-{before_half}"),
    Case("the whole, end open", "14.2", ("Range: bytes=0-",), 206, "0-{last}"),
    Case("the whole, end given", "14.2", ("Range: bytes=0-{last}",), 206, "0-{last}"),
    Case("an end at the length", "14.1.2", ("Range: bytes=0-{n}",), 206, "0-{last}"),
    Case("an end beyond the length", "14.1.2", ("Range: bytes={half}-{beyond}",), 206, "{half}-{last}"),
    Case("an end beyond 64 bits", "14.1.2", ("Range: bytes={half}-{huge}",), 206, "{half}-{last}"),
    Case("a suffix of one", "14.1.2", ("Range: bytes=-1",), 206, "{last}-{last}"),
    Case("a suffix of all", "14.1.2", ("Range: bytes=-{n}",), 206, "0-{last}"),
    Case("a suffix of more than all", "14.1.2", ("Range: bytes=-{beyond}",), 206, "0-{last}"),
    Case("a suffix beyond 64 bits", "14.1.2", ("Range: bytes=-{huge}",), 206, "0-{last}"),
    Case("a suffix of nothing", "14.1.2", ("Range: bytes=-0",), 416),
    Case("a suffix of nothing, longer", "14.1.2", ("Range: bytes=-000",), 416),
    Case("a start at the length", "14.1.2", ("Range: bytes={n}-",), 416),
    Case("a start at the length, end given", "14.1.2", ("Range: bytes={n}-{beyond}",), 416),
    Case("a start beyond the length", "14.1.2", ("Range: bytes={beyond}-",), 416),
    Case("a start beyond 64 bits", "14.1.2", ("Range: bytes={huge}-",), 416),
    Case("leading zeros", "14.1.2", ("Range: bytes=000-0009",), 206, TEN),
    Case("leading zeros in a suffix", "14.1.2", ("Range: bytes=-0001",), 206, "{last}-{last}"),
    Case("a unit with a capital", "14.1", ("Range: Bytes=0-9",), 206, TEN),
    Case("a unit in capitals", "14.1", ("Range: BYTES=0-9",), 206, TEN),
    Case("a name in capitals", "5.1", ("RANGE: bytes=0-9",), 206, TEN),
    Case("a name in small letters", "5.1", ("range: bytes=0-9",), 206, TEN),
    Case("space around the value", "5.5", ("Range:  \t bytes=0-9 \t ",), 206, TEN),
    Case("an unknown unit", "14.2", ("Range: items=0-9",), 200),
    Case("an unknown unit, beyond the end", "14.2", ("Range: items={beyond}-",), 200),
    Case("an unknown unit that begins alike", "14.2", ("Range: bytesize=0-9",), 200),
    Case("no unit", "14.2", ("Range: 0-9",), 200),
    Case("no ranges", "14.1.1", ("Range: bytes=",), 200),
    Case("no equals sign", "14.1.1", ("Range: bytes",), 200),
    Case("a colon for the equals sign", "14.1.1", ("Range: bytes:0-9",), 200),
    Case("an empty field", "14.2", ("Range: ",), 200),
    Case("space before the equals sign", "14.1.1", ("Range: bytes =0-9",), 200),
    Case("space after the equals sign", "14.1.1", ("Range: bytes= 0-9",), 206, TEN),
    Case("space before the hyphen", "14.1.1", ("Range: bytes=0 -9",), 200),
    Case("space after the hyphen", "14.1.1", ("Range: bytes=0- 9",), 200),
    Case("space in a number", "14.1.1", ("Range: bytes=0-1 9",), 200),
    Case("an end before the start", "14.1.2", ("Range: bytes=9-0",), 200),
    Case("an end just before the start", "14.1.2", ("Range: bytes=5-4",), 200),
    Case("an end before a start beyond 64 bits", "14.1.2", ("Range: bytes={huge}-5",), 200),
    Case("an end before the start beyond the length", "14.1.2", ("Range: bytes={beyond}-{n}",), 200),
    Case("a hyphen alone", "14.1.1", ("Range: bytes=-",), 200),
    Case("two hyphens", "14.1.1", ("Range: bytes=--5",), 200),
    Case("a hyphen too many", "14.1.1", ("Range: bytes=0-9-",), 200),
    Case("a number alone", "14.1.1", ("Range: bytes=5",), 200),
    Case("letters", "14.1.1", ("Range: bytes=a-b",), 200),
    Case("a letter behind", "14.1.1", ("Range: bytes=0-9x",), 200),
    Case("hexadecimal", "14.1.1", ("Range: bytes=0x0-0x9",), 200),
    Case("a plus sign", "14.1.1", ("Range: bytes=+0-9",), 200),
    Case("a decimal point", "14.1.1", ("Range: bytes=0.0-9.0",), 200),
    Case("an underscore in a number", "14.1.1", ("Range: bytes=0-1_0",), 200),
    Case("a parameter", "14.1.1", ("Range: bytes=0-9;q=1",), 200),
    Case("quotes", "14.1.1", ('Range: bytes="0-9"',), 200),
    Case("digits of another alphabet", "14.1.1", ("Range: bytes=\u0660-\u0669",), 200),
    Case("bytes that are no text", "14.1.1", ("Range: bytes=0-\udcff9",), 200),
    Case("an asterisk", "14.4", ("Range: bytes=*",), 200),
    Case("a Content-Range", "14.4", ("Range: bytes 0-9/{n}",), 200),
    Case("a length behind", "14.4", ("Range: bytes=0-9/{n}",), 200),
    Case("numbers of five thousand digits", "17.15", ("Range: bytes=0-{zeros}9",), 200),
    Case("two lines", "5.3", ("Range: bytes=0-9", "Range: bytes=20-29"), 200),
    Case("two lines alike", "5.3", ("Range: bytes=0-9", "Range: bytes=0-9"), 200),
    Case("If-Range alone", "13.1.5", ('If-Range: "other"',), 200),
]

SEVERAL = [
    Case("two ranges", "14.6", ("Range: bytes=0-0,20-29",), 206, "0-0,20-29"),
    Case("two ranges and space", "5.6.1", ("Range: bytes=0-0 , 20-29",), 206, "0-0,20-29"),
    Case("first and last", "14.6", ("Range: bytes=0-0,-1",), 206, "0-0,{last}-{last}"),
    Case("the later first", "15.3.7.2", ("Range: bytes=20-29,0-9",), 206, "20-29,0-9"),
    Case("neighbours", "15.3.7.2", ("Range: bytes=0-4,5-9",), 206, "0-4,5-9"),
    Case("the same twice", "15.3.7.2", ("Range: bytes=0-4,0-4",), 206, "0-4,0-4"),
    Case("overlapping", "15.3.7.2", ("Range: bytes=0-9,5-14",), 206, "0-9,5-14"),
    Case("one in the other", "15.3.7.2", ("Range: bytes=0-19,5-9",), 206, "0-19,5-9"),
    Case("three ranges", "14.6", ("Range: bytes=0-0,50-59,-10",), 206, "0-0,50-59,{last_ten}-{last}"),
    Case("both halves", "14.6", ("Range: bytes=0-{before_half},{half}-",), 206, "0-{before_half},{half}-{last}"),
    Case(
        "the second half first", "14.6", ("Range: bytes={half}-,0-{before_half}",), 206, "{half}-{last},0-{before_half}"
    ),
    Case("sixteen ranges", "17.15", (f"Range: bytes={SIXTEEN}",), 206, SIXTEEN),
    Case("seventeen ranges", "17.15", (f"Range: bytes={SEVENTEEN}",), 200),
    Case("more than the whole", "17.15", ("Range: bytes=0-,0-",), 200),
    Case("a byte more than the whole", "17.15", ("Range: bytes=0-,-1",), 200),
    Case("one of two beyond the end", "15.3.7.2", ("Range: bytes=0-9,{n}-",), 206, TEN),
    Case("the first of two beyond the end", "15.3.7.2", ("Range: bytes={beyond}-,0-9",), 206, TEN),
    Case("one of three beyond the end", "15.3.7.2", ("Range: bytes=0-0,{n}-,5-5",), 206, "0-0,5-5"),
    Case("a suffix of nothing beside a range", "14.1.2", ("Range: bytes=-0,0-9",), 206, TEN),
    Case("all beyond the end", "15.5.17", ("Range: bytes={n}-,{beyond}-",), 416),
    Case("all beyond the end, a suffix of nothing", "15.5.17", ("Range: bytes={n}-,-0",), 416),
    Case("an empty element", "5.6.1.2", ("Range: bytes=0-4,,6-8",), 206, "0-4,6-8"),
    Case("an empty element first", "5.6.1.2", ("Range: bytes=,0-9",), 206, TEN),
    Case("an empty element last", "5.6.1.2", ("Range: bytes=0-9,",), 206, TEN),
    Case("an empty element with space", "5.6.1.2", ("Range: bytes=0-4, ,6-8",), 206, "0-4,6-8"),
    Case("empty elements alone", "5.6.1.2", ("Range: bytes=,,",), 200),
    Case("a tab between ranges", "5.6.1", ("Range: bytes=0-4,\t6-8",), 206, "0-4,6-8"),
    Case("a semicolon between ranges", "14.1.1", ("Range: bytes=0-4;6-8",), 200),
    Case("a space between ranges", "14.1.1", ("Range: bytes=0-4 6-8",), 200),
    Case("garbage behind a range", "14.1.1", ("Range: bytes=0-4,x",), 200),
    Case("garbage before a range", "14.1.1", ("Range: bytes=x,0-4",), 200),
    Case("an inverted range behind a good one", "14.1.2", ("Range: bytes=0-4,9-8",), 200),
    Case("the unit again", "14.1.1", ("Range: bytes=0-4,bytes=6-8",), 200),
]

TAGS = [
    Case("If-Match: the tag", "13.1.1", ("If-Match: {etag}",), 200),
    Case("If-Match: another", "13.1.1", ('If-Match: "other"',), 412),
    Case("If-Match: any", "13.1.1", ("If-Match: *",), 200),
    Case("If-Match: weak", "13.1.1", ("If-Match: {weak}",), 412),
    Case("If-Match: weak, then strong", "13.1.1", ("If-Match: {weak}, {etag}",), 200),
    Case("If-Match: in a list", "13.1.1", ('If-Match: "a", "b", {etag}',), 200),
    Case("If-Match: in a list without space", "5.6.1", ('If-Match: "a",{etag},"b"',), 200),
    Case("If-Match: not in a list", "13.1.1", ('If-Match: "a", "b"',), 412),
    Case("If-Match: an empty element", "5.6.1.2", ('If-Match: "a",, {etag}',), 200),
    Case("If-Match: on the second line", "5.3", ('If-Match: "a"', "If-Match: {etag}"), 200),
    Case("If-Match: on no line", "5.3", ('If-Match: "a"', 'If-Match: "b"'), 412),
    Case("If-Match: in other case", "8.8.3", ("If-Match: {capitals}",), 412),
    Case("If-Match: without quotes", "8.8.3", ("If-Match: {opaque}",), 412),
    Case("If-Match: quote not closed", "8.8.3", ('If-Match: "{opaque}',), 412),
    Case("If-Match: inside another tag", "8.8.3", ('If-Match: "x,{opaque}"',), 412),
    Case("If-Match: empty", "13.1.1", ("If-Match: ",), 412),
    Case("If-Match: any in quotes", "8.8.3", ('If-Match: "*"',), 412),
    Case("If-Match: garbage behind the tag", "13.1.1", ("If-Match: {etag} x",), 412),
    Case("If-None-Match: the tag", "13.1.2", ("If-None-Match: {etag}",), 304),
    Case("If-None-Match: another", "13.1.2", ('If-None-Match: "other"',), 200),
    Case("If-None-Match: any", "13.1.2", ("If-None-Match: *",), 304),
    Case("If-None-Match: weak", "13.1.2", ("If-None-Match: {weak}",), 304),
    Case("If-None-Match: in a list", "13.1.2", ('If-None-Match: "a", W/"b", {etag}',), 304),
    Case("If-None-Match: weak in a list", "13.1.2", ('If-None-Match: "a", {weak}, "b"',), 304),
    Case("If-None-Match: not in a list", "13.1.2", ('If-None-Match: "a", W/"b"',), 200),
    Case("If-None-Match: an empty element", "5.6.1.2", ('If-None-Match: "a", ,{etag}',), 304),
    Case("If-None-Match: on the second line", "5.3", ('If-None-Match: "a"', "If-None-Match: {etag}"), 304),
    Case("If-None-Match: in other case", "8.8.3", ("If-None-Match: {capitals}",), 200),
    Case("If-None-Match: without quotes", "8.8.3", ("If-None-Match: {opaque}",), 200),
    Case("If-None-Match: inside another tag", "8.8.3", ('If-None-Match: "x,{opaque}"',), 200),
    Case("If-None-Match: empty", "13.1.2", ("If-None-Match: ",), 200),
    Case("If-None-Match: any in quotes", "8.8.3", ('If-None-Match: "*"',), 200),
    Case("If-None-Match: garbage behind the tag", "13.1.2", ("If-None-Match: {etag} x",), 200),
]

DATES = [
    Case("If-Modified-Since: the very second", "13.1.3", ("If-Modified-Since: {lm}",), 304),
    Case("If-Modified-Since: later", "13.1.3", ("If-Modified-Since: {newer}",), 304),
    Case("If-Modified-Since: now", "13.1.3", ("If-Modified-Since: {now}",), 304),
    Case("If-Modified-Since: earlier", "13.1.3", ("If-Modified-Since: {older}",), 200),
    Case("If-Modified-Since: RFC 850", "5.6.7", ("If-Modified-Since: {lm_850}",), 304),
    Case("If-Modified-Since: RFC 850, earlier", "5.6.7", ("If-Modified-Since: {older_850}",), 200),
    Case("If-Modified-Since: asctime", "5.6.7", ("If-Modified-Since: {lm_asctime}",), 304),
    Case("If-Modified-Since: asctime, earlier", "5.6.7", ("If-Modified-Since: {older_asctime}",), 200),
    Case("If-Modified-Since: ISO 8601", "13.1.3", ("If-Modified-Since: 2026-03-01T12:00:00Z",), 200),
    Case("If-Modified-Since: a number", "13.1.3", ("If-Modified-Since: 4102444800",), 200),
    Case(
        "If-Modified-Since: no day of the calendar",
        "13.1.3",
        ("If-Modified-Since: Mon, 30 Feb 2026 12:00:00 GMT",),
        200,
    ),
    Case("If-Modified-Since: empty", "13.1.3", ("If-Modified-Since: ",), 200),
    Case("If-Modified-Since: a tag", "13.1.3", ("If-Modified-Since: {etag}",), 200),
    Case("If-Unmodified-Since: the very second", "13.1.4", ("If-Unmodified-Since: {lm}",), 200),
    Case("If-Unmodified-Since: later", "13.1.4", ("If-Unmodified-Since: {newer}",), 200),
    Case("If-Unmodified-Since: earlier", "13.1.4", ("If-Unmodified-Since: {older}",), 412),
    Case("If-Unmodified-Since: RFC 850", "5.6.7", ("If-Unmodified-Since: {lm_850}",), 200),
    Case("If-Unmodified-Since: RFC 850, earlier", "5.6.7", ("If-Unmodified-Since: {older_850}",), 412),
    Case("If-Unmodified-Since: asctime", "5.6.7", ("If-Unmodified-Since: {lm_asctime}",), 200),
    Case("If-Unmodified-Since: asctime, earlier", "5.6.7", ("If-Unmodified-Since: {older_asctime}",), 412),
    Case("If-Unmodified-Since: no date", "13.1.4", ("If-Unmodified-Since: yesterday",), 200),
    Case("If-Unmodified-Since: empty", "13.1.4", ("If-Unmodified-Since: ",), 200),
]

ORDER = [
    Case("tag before date, not modified", "13.2.2", ("If-None-Match: {etag}", "If-Modified-Since: {older}"), 304),
    Case("tag before date, modified", "13.2.2", ('If-None-Match: "other"', "If-Modified-Since: {newer}"), 200),
    Case("tag before date, unmodified", "13.2.2", ("If-Match: {etag}", "If-Unmodified-Since: {older}"), 200),
    Case("tag before date, failed", "13.2.2", ('If-Match: "other"', "If-Unmodified-Since: {newer}"), 412),
    Case("If-Match fails before If-None-Match", "13.2.2", ("If-None-Match: {etag}", 'If-Match: "other"'), 412),
    Case("If-Match holds, If-None-Match hits", "13.2.2", ("If-Match: {etag}", "If-None-Match: {etag}"), 304),
    Case("If-Match holds, the date hits", "13.2.2", ("If-Match: {etag}", "If-Modified-Since: {lm}"), 304),
    Case(
        "unmodified fails before If-None-Match",
        "13.2.2",
        ("If-Unmodified-Since: {older}", "If-None-Match: {etag}"),
        412,
    ),
    Case("unmodified holds, not modified", "13.2.2", ("If-Unmodified-Since: {lm}", "If-Modified-Since: {lm}"), 304),
    Case("all hold", "13.2.2", ("If-Match: *", 'If-None-Match: "other"', "If-Unmodified-Since: {lm}"), 200),
    Case("Range: If-Match fails", "13.2.2", (R, 'If-Match: "other"'), 412),
    Case("Range: If-Match holds", "13.2.2", (R, "If-Match: {etag}"), 206, TEN),
    Case("Range: unmodified fails", "13.2.2", (R, "If-Unmodified-Since: {older}"), 412),
    Case("Range: unmodified holds", "13.2.2", (R, "If-Unmodified-Since: {lm}"), 206, TEN),
    Case("Range: If-None-Match hits", "13.2.2", (R, "If-None-Match: {etag}"), 304),
    Case("Range: If-None-Match misses", "13.2.2", (R, 'If-None-Match: "other"'), 206, TEN),
    Case("Range: not modified since", "13.2.2", (R, "If-Modified-Since: {lm}"), 304),
    Case("Range: modified since", "13.2.2", (R, "If-Modified-Since: {older}"), 206, TEN),
    Case("304 before 416", "13.2.2", ("Range: bytes={n}-", "If-None-Match: {etag}"), 304),
    Case("412 before 416", "13.2.2", ("Range: bytes={n}-", 'If-Match: "other"'), 412),
    Case(
        "several ranges, If-Match holds",
        "13.2.2",
        ("Range: bytes=0-0,-1", "If-Match: {etag}"),
        206,
        "0-0,{last}-{last}",
    ),
]

IF_RANGE = [
    Case("If-Range: the tag", "13.1.5", (R, "If-Range: {etag}"), 206, TEN),
    Case("If-Range: another tag", "13.1.5", (R, 'If-Range: "other"'), 200),
    Case("If-Range: weak", "13.1.5", (R, "If-Range: {weak}"), 200),
    Case("If-Range: in other case", "8.8.3", (R, "If-Range: {capitals}"), 200),
    Case("If-Range: without quotes", "13.1.5", (R, "If-Range: {opaque}"), 200),
    Case("If-Range: quote not closed", "13.1.5", (R, 'If-Range: "{opaque}'), 200),
    Case("If-Range: a list", "13.1.5", (R, 'If-Range: "other", {etag}'), 200),
    Case("If-Range: any", "13.1.5", (R, "If-Range: *"), 200),
    Case("If-Range: empty", "13.1.5", (R, "If-Range: "), 200),
    Case("If-Range: twice", "5.3", (R, "If-Range: {etag}", "If-Range: {etag}"), 200),
    Case("If-Range: the date", "13.1.5", (R, "If-Range: {lm}"), 206, TEN),
    Case("If-Range: an older date", "13.1.5", (R, "If-Range: {older}"), 200),
    Case("If-Range: a newer date", "13.1.5", (R, "If-Range: {newer}"), 200),
    Case("If-Range: now", "13.1.5", (R, "If-Range: {now}"), 200),
    Case("If-Range: RFC 850", "5.6.7", (R, "If-Range: {lm_850}"), 206, TEN),
    Case("If-Range: asctime", "5.6.7", (R, "If-Range: {lm_asctime}"), 206, TEN),
    Case("If-Range: no date", "13.1.5", (R, "If-Range: soon"), 200),
    Case(
        "If-Range: the tag, several ranges",
        "13.1.5",
        ("Range: bytes=0-0,-1", "If-Range: {etag}"),
        206,
        "0-0,{last}-{last}",
    ),
    Case("If-Range: another tag, several ranges", "13.1.5", ("Range: bytes=0-0,-1", 'If-Range: "other"'), 200),
    Case("If-Range: the tag, beyond the end", "13.1.5", ("Range: bytes={n}-", "If-Range: {etag}"), 416),
    Case("If-Range: another tag, beyond the end", "14.2", ("Range: bytes={n}-", 'If-Range: "other"'), 200),
    Case("If-Range: a newer date, beyond the end", "14.2", ("Range: bytes={n}-", "If-Range: {newer}"), 200),
    Case("If-Range: all of it", "13.2.2", (R, "If-Match: {etag}", 'If-None-Match: "x"', "If-Range: {etag}"), 206, TEN),
    Case("If-Range: If-None-Match hits first", "13.2.2", (R, "If-None-Match: {etag}", "If-Range: {etag}"), 304),
]

HEAD = [
    Case("HEAD", "9.3.2", (), 200, method="HEAD"),
    Case("HEAD: If-Match", "13.1.1", ("If-Match: {etag}",), 200, method="HEAD"),
    Case("HEAD: If-Match fails", "13.1.1", ('If-Match: "other"',), 412, method="HEAD"),
    Case("HEAD: If-None-Match", "13.1.2", ("If-None-Match: {etag}",), 304, method="HEAD"),
    Case("HEAD: If-None-Match misses", "13.1.2", ('If-None-Match: "other"',), 200, method="HEAD"),
    Case("HEAD: If-Modified-Since", "13.1.3", ("If-Modified-Since: {lm}",), 304, method="HEAD"),
    Case("HEAD: If-Modified-Since earlier", "13.1.3", ("If-Modified-Since: {older}",), 200, method="HEAD"),
    Case("HEAD: If-Unmodified-Since", "13.1.4", ("If-Unmodified-Since: {lm}",), 200, method="HEAD"),
    Case("HEAD: If-Unmodified-Since fails", "13.1.4", ("If-Unmodified-Since: {older}",), 412, method="HEAD"),
    Case("HEAD: order", "13.2.2", ("If-None-Match: {etag}", 'If-Match: "other"'), 412, method="HEAD"),
    Case("HEAD: a range", "14.2", (R,), 200, method="HEAD"),
    Case("HEAD: several ranges", "14.2", ("Range: bytes=0-0,-1",), 200, method="HEAD"),
    Case("HEAD: a range beyond the end", "14.2", ("Range: bytes={n}-",), 200, method="HEAD"),
    Case("HEAD: an unreadable range", "14.2", ("Range: bytes=x",), 200, method="HEAD"),
    Case("HEAD: If-Range fails", "13.1.5", (R, 'If-Range: "other"'), 200, method="HEAD"),
]

OTHERS = [
    Case("no such file", "15.5.5", (), 404, missing=True),
    Case("no such file, HEAD", "15.5.5", (), 404, method="HEAD", missing=True),
    Case("no such file, If-Match: any", "13.2.1", ("If-Match: *",), 404, missing=True),
    Case("no such file, If-Match", "13.2.1", ('If-Match: "other"',), 404, missing=True),
    Case("no such file, If-None-Match: any", "13.2.1", ("If-None-Match: *",), 404, missing=True),
    Case("no such file, If-Modified-Since", "13.2.1", ("If-Modified-Since: {now}",), 404, missing=True),
    Case("no such file, a range", "14.2", (R,), 404, missing=True),
    Case("POST", "15.5.6", ("Content-Length: 0",), 405, method="POST"),
    Case("POST: If-Match fails", "13.2.1", ("Content-Length: 0", 'If-Match: "other"'), 405, method="POST"),
    Case("PUT: a range", "14.2", ("Content-Length: 0", R), 405, method="PUT"),
    Case("DELETE: If-Match", "13.2.1", ("If-Match: {etag}",), 405, method="DELETE"),
    Case("PATCH: If-None-Match", "13.2.1", ("Content-Length: 0", "If-None-Match: *"), 405, method="PATCH"),
]

TABLE = [*RANGES, *SEVERAL, *TAGS, *DATES, *ORDER, *IF_RANGE, *HEAD, *OTHERS]
"""For files of 100 bytes and more."""

EMPTY = [
    Case("empty", "9.3.1", (), 200),
    Case("empty: HEAD", "9.3.2", (), 200, method="HEAD"),
    Case("empty: the first byte", "15.5.17", ("Range: bytes=0-0",), 416),
    Case("empty: from the start", "15.5.17", ("Range: bytes=0-",), 416),
    Case("empty: a suffix", "14.1.2", ("Range: bytes=-1",), 200),
    Case("empty: a suffix of nothing", "14.1.2", ("Range: bytes=-0",), 416),
    Case("empty: several", "15.5.17", ("Range: bytes=0-0,5-9",), 416),
    Case("empty: unreadable", "14.1.1", ("Range: bytes=x",), 200),
    Case("empty: If-None-Match", "13.1.2", ("If-None-Match: {etag}",), 304),
    Case("empty: If-Match fails", "13.1.1", ('If-Match: "other"', "Range: bytes=0-"), 412),
    Case("empty: If-Range fails", "13.1.5", ('If-Range: "other"', "Range: bytes=0-"), 200),
]
"""For a file of 0 bytes."""
