"""The Range field (RFC 9110 §14): from its text to spans of a representation.

A field that cannot be read is ignored, as §14.2 allows: the answer is then the whole representation. So is one that
asks for more bytes than there are, or for many pieces, since answering it would cost more than the whole (§17.15).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

MAX_FIELD = 4096
"""Longest Range field that is read, in characters."""
MAX_RANGES = 16
"""Most ranges that one request may ask for."""

_INT_RANGE = re.compile("([0-9]+)-([0-9]*)")
_SUFFIX_RANGE = re.compile("-([0-9]+)")
_DIGITS = 19
"""Decimal digits of the largest length a 64-bit file system knows; positions beyond it need not be told apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class IntRange:
    """``first-last``, both inclusive; ``last`` is None in ``first-``. Positions beyond 10**19 are cut to it."""

    first: int
    last: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class SuffixRange:
    """``-length``: the last ``length`` bytes."""

    length: int


RangeSpec = IntRange | SuffixRange


def parse_range(lines: Sequence[str]) -> tuple[RangeSpec, ...] | None:
    """Read the field lines of Range; None means that Range is to be ignored.

    That is the case without Range, with several lines (Range is no list field), another unit than ``bytes``, a set
    with any invalid member, more than MAX_RANGES members, or more than MAX_FIELD characters.
    """
    if len(lines) != 1 or len(lines[0]) > MAX_FIELD:
        return None
    unit, equals, members = lines[0].strip(" \t").partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    specs: list[RangeSpec] = []
    for member in members.split(","):
        text = member.strip(" \t")
        if not text:  # a recipient skips empty list elements, RFC 9110 §5.6.1.2
            continue
        spec = _spec(text)
        if spec is None or len(specs) == MAX_RANGES:
            return None
        specs.append(spec)
    return tuple(specs) or None


def resolve(specs: Sequence[RangeSpec], length: int) -> tuple[tuple[int, int], ...] | None:
    """The satisfiable ranges as half-open spans ``(start, stop)`` of a representation of ``length`` bytes.

    They come in the order asked for. ``()`` means that none is satisfiable. None means that Range is to be ignored:
    the ranges hold more than ``length`` bytes together, or the representation is empty and a non-empty suffix of it
    was asked for, which is satisfiable (§14.1.2) but which no Content-Range can express (§14.4).
    """
    spans = []
    for spec in specs:
        match spec:
            case IntRange(first, last) if first < length:
                spans.append((first, length if last is None else min(last + 1, length)))
            case SuffixRange(suffix) if suffix > 0:
                spans.append((max(length - suffix, 0), length))
    if length == 0 and spans:
        return None
    if sum(stop - start for start, stop in spans) > length:
        return None
    return tuple(spans)


def _spec(text: str) -> RangeSpec | None:
    if found := _SUFFIX_RANGE.fullmatch(text):
        return SuffixRange(_number(found[1]))
    found = _INT_RANGE.fullmatch(text)
    if found is None:
        return None
    first, last = found[1].lstrip("0"), found[2].lstrip("0")
    if not found[2]:
        return IntRange(_number(first), None)
    if (len(last), last) < (len(first), first):  # compared as digits: exact at any size
        return None
    return IntRange(_number(first), _number(last))


def _number(digits: str) -> int:
    """The value of decimal digits, cut to 10**19: Python refuses to read numbers of thousands of digits."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _DIGITS else 10**_DIGITS
