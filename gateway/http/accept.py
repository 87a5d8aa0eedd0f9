"""What kind of answer a request would rather have: Accept (RFC 9110 §12.5.1) and Fetch Metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable

from multidict import MultiMapping

_WEIGHT = re.compile(r"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE | re.ASCII)
_MOST_RANGES = 64
"""Media ranges that are read; whoever sends more means nothing by it."""


def quality(values: Iterable[str], media_type: str) -> float:
    """How welcome ``media_type`` is, from 0 (not at all) to 1, by the lines ``values`` of an Accept field.

    The most specific range that fits counts. Parameters other than ``q`` are passed over; a weight that cannot be read
    is 1. Without any range everything is welcome.
    """
    ranges = _ranges(values)
    if not ranges:
        return 1.0
    for fitting in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if fitting in ranges:
            return ranges[fitting]
    return 0.0


def prefers(headers: MultiMapping[str], media_type: str, usual: str) -> bool:
    """Whether a request names ``media_type`` itself, and would rather have it than ``usual``."""
    values = headers.getall("Accept", [])
    return media_type in _ranges(values) and quality(values, media_type) > quality(values, usual)


def is_navigation(headers: MultiMapping[str]) -> bool:
    """Whether a person sees the answer in a browser's window, rather than a program.

    Browsers tell by Sec-Fetch-Mode (W3C Fetch Metadata); old ones only by asking for HTML before all else, which
    programs do not do.
    """
    if not prefers(headers, "text/html", "application/json"):
        return False
    if any(name.lower().startswith("sec-fetch-") for name in headers):
        return headers.getall("Sec-Fetch-Mode", []) == ["navigate"]
    return True


def _ranges(values: Iterable[str]) -> dict[str, float]:
    """Weight by media range, both without parameters and in lower case; the first of a name counts."""
    found: dict[str, float] = {}
    for element in ",".join(values).split(",", _MOST_RANGES)[:_MOST_RANGES]:
        name, *parameters = element.split(";")
        name = name.strip(" \t").lower()
        if name:
            weights = [float(match[1]) for one in parameters if (match := _WEIGHT.fullmatch(one))]
            found.setdefault(name, weights[0] if weights else 1.0)
    return found
