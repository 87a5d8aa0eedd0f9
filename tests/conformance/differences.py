"""Where nginx 1.22, serving the same file by itself, answers otherwise than the gateway: all of it, and why.

The sections are those of RFC 9110. Where it leaves a choice both answers are right; the gateway's is the one that a
client can always use: the whole file.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Difference:
    """Cases in which nginx differs for one reason."""

    status: int
    """That of nginx."""
    reason: str
    cases: tuple[str, ...]


DIFFERENCES = [
    Difference(
        416,
        "14.2 and 15.5.17: a Range that cannot be read may be ignored or refused; nginx refuses it. A client that "
        "wrote it wrongly still gets its file from the gateway.",
        (
            "an end before the start",
            "an end just before the start",
            "an end before a start beyond 64 bits",
            "an end before the start beyond the length",
            "a hyphen alone",
            "two hyphens",
            "a hyphen too many",
            "a number alone",
            "letters",
            "a letter behind",
            "hexadecimal",
            "a plus sign",
            "a decimal point",
            "an underscore in a number",
            "a parameter",
            "quotes",
            "digits of another alphabet",
            "bytes that are no text",
            "an asterisk",
            "a length behind",
            "space in a number",
            "empty elements alone",
            "a semicolon between ranges",
            "a space between ranges",
            "garbage behind a range",
            "garbage before a range",
            "the unit again",
            "empty: unreadable",
        ),
    ),
    Difference(
        206,
        "14.1.1: no space may stand in a range-spec, so the set cannot be read and may be ignored (14.2); nginx reads "
        "over the space.",
        ("space before the hyphen", "space after the hyphen"),
    ),
    Difference(
        206,
        "14.1.2: one invalid range-spec makes the set invalid, which may be ignored (14.2); nginx drops that one.",
        ("an inverted range behind a good one",),
    ),
    Difference(
        416,
        "5.6.1.2: a recipient MUST ignore empty elements of a list; nginx does not.",
        ("an empty element", "an empty element first", "an empty element last", "an empty element with space"),
    ),
    Difference(
        416,
        "5.6.1 and 5.6.3: a tab is optional whitespace like a space; not to nginx.",
        ("a tab between ranges",),
    ),
    Difference(
        200,
        "5.5: whitespace around a value, tabs too, is no part of it; nginx takes off spaces alone.",
        ("space around the value",),
    ),
    Difference(
        416,
        "14.1.2: an end or a suffix beyond the length stands for what there is, however large the number; nginx gives "
        "up at 64 bits.",
        ("an end beyond 64 bits", "a suffix beyond 64 bits"),
    ),
    Difference(
        206,
        "17.15 and 14.2: a server may ignore Range where many ranges or long fields are sent to do harm; nginx has no "
        "limit unless max_ranges is set.",
        ("seventeen ranges", "numbers of five thousand digits"),
    ),
    Difference(
        206,
        "5.3: Range is no list, so that it cannot be given twice, and which one was meant cannot be known; nginx takes "
        "the first.",
        ("two lines", "two lines alike"),
    ),
    Difference(
        400,
        "5.3: a list may be given on several lines, and If-Match and If-None-Match are lists; nginx refuses that.",
        ("If-Match: on the second line", "If-Match: on no line", "If-None-Match: on the second line"),
    ),
    Difference(
        400,
        "13.1.5: If-Range has one validator. Two are malformed, and may be refused; the gateway takes them for a "
        "condition that does not hold.",
        ("If-Range: twice",),
    ),
    Difference(
        412,
        "13.1.4: a recipient MUST ignore If-Unmodified-Since if it is no HTTP date; nginx takes it for one long past.",
        ("If-Unmodified-Since: no date", "If-Unmodified-Since: empty"),
    ),
    Difference(
        412,
        "13.1.4 and 13.2.2: a recipient MUST ignore If-Unmodified-Since beside If-Match; nginx reads both.",
        ("tag before date, unmodified",),
    ),
    Difference(
        200,
        "13.1.3 and 13.2.2: a recipient MUST ignore If-Modified-Since beside If-None-Match; nginx wants both to hold.",
        ("tag before date, not modified",),
    ),
    Difference(
        206,
        "14.2: Range is defined for GET alone, and MUST be ignored with any other method; nginx honours it for HEAD.",
        ("HEAD: a range", "HEAD: several ranges"),
    ),
    Difference(
        416,
        "14.2: Range is defined for GET alone, and MUST be ignored with any other method; nginx honours it for HEAD.",
        ("HEAD: a range beyond the end", "HEAD: an unreadable range"),
    ),
    Difference(
        200,
        "14.1.2: an int-range whose first position is not below the length is unsatisfiable, as is a suffix of "
        "nothing, and a length of 0 has no such position; 416 SHOULD follow (14.2). nginx answers an empty file whole.",
        ("empty: the first byte", "empty: from the start", "empty: a suffix of nothing", "empty: several"),
    ),
]

BY_CASE = {case: difference for difference in DIFFERENCES for case in difference.cases}

REFUSED_BY_THE_PROXY = {
    "If-Match: on the second line",
    "If-Match: on no line",
    "If-None-Match: on the second line",
    "If-Range: twice",
}
"""What nginx before the gateway answers with 400 by itself: it takes these fields on one line only, and lets the client
know. RFC 9110 5.3 allows the first three, but no client is known that sends them."""
