"""Conditional requests (RFC 9110 §13) for GET and HEAD.

Where a field cannot be read, the answer is the one that harms nobody: If-Match that cannot be read is not met (412),
since the caller asked for nothing unless the condition holds; If-None-Match that cannot be read matches nothing (the
body is sent) and still hides If-Modified-Since; If-Range that cannot be read is not met (the whole is sent).
Dates that cannot be read are ignored, as §13.1.3 and §13.1.4 demand.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import re
from collections.abc import Sequence

from multidict import MultiMapping

from gateway.http.dates import parse_http_date

_ETAGC = "[\x21\x23-\x7e\x80-\U0010ffff]"
# Possessive, so that no text is looked at twice.
_TAG = re.compile(f'(W/)?"({_ETAGC}*+)"')
_MEMBER = re.compile(f'[ \t]*+(?:(W/)?"({_ETAGC}*+)")?[ \t]*+(?:,|\\Z)')


class Outcome(enum.Enum):
    """What the preconditions of a request say."""

    PROCEED = enum.auto()
    NOT_MODIFIED = enum.auto()
    """304."""
    FAILED = enum.auto()
    """412."""


@dataclasses.dataclass(frozen=True, slots=True)
class EntityTag:
    """An entity-tag (RFC 9110 §8.8.3)."""

    opaque: str
    """What stands between the quotes."""
    weak: bool = False

    def matches_strongly(self, other: EntityTag) -> bool:
        """Whether both are strong and the same (§8.8.3.2)."""
        return self == other and not self.weak

    def matches_weakly(self, other: EntityTag) -> bool:
        """Whether they are the same but for the ``W/`` (§8.8.3.2)."""
        return self.opaque == other.opaque


@dataclasses.dataclass(frozen=True, slots=True)
class TagList:
    """The value of If-Match or If-None-Match: ``*``, or a list that may be empty."""

    tags: tuple[EntityTag, ...] = ()
    any: bool = False


def parse_entity_tag(text: str) -> EntityTag | None:
    """Read one entity-tag; None if ``text`` is none."""
    found = _TAG.fullmatch(text.strip(" \t"))
    return EntityTag(found[2], found[1] is not None) if found else None


def parse_entity_tags(lines: Sequence[str]) -> TagList | None:
    """Read the field lines of If-Match or If-None-Match; None if any part of them is malformed."""
    field = ", ".join(lines)
    if field.strip(" \t") == "*":
        return TagList(any=True)
    tags = []
    position = 0
    while position < len(field):
        found = _MEMBER.match(field, position)
        if found is None:
            return None
        if found[2] is not None:
            tags.append(EntityTag(found[2], found[1] is not None))
        position = found.end()
    return TagList(tuple(tags))


def check_preconditions(
    headers: MultiMapping[str], etag: EntityTag, last_modified: datetime.datetime | None, now: datetime.datetime
) -> Outcome:
    """Judge the preconditions of a GET or HEAD in the order of RFC 9110 §13.2.2, Range apart.

    Args:
        headers: the request's; names without regard to case.
        etag: of the current representation.
        last_modified: what Last-Modified says of it (whole seconds), None if unknown: dates are then ignored.
        now: the time of the answer, with a timezone.
    """
    if "If-Match" in headers:
        wanted = parse_entity_tags(headers.getall("If-Match"))
        if wanted is None or not (wanted.any or any(etag.matches_strongly(tag) for tag in wanted.tags)):
            return Outcome.FAILED
    elif last_modified and (date := _date(headers, "If-Unmodified-Since", now)) and last_modified > date:
        return Outcome.FAILED

    if "If-None-Match" in headers:
        known = parse_entity_tags(headers.getall("If-None-Match"))
        if known is not None and (known.any or any(etag.matches_weakly(tag) for tag in known.tags)):
            return Outcome.NOT_MODIFIED
    elif last_modified and (date := _date(headers, "If-Modified-Since", now)) and last_modified <= date:
        return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def range_holds(
    headers: MultiMapping[str], etag: EntityTag, last_modified: datetime.datetime | None, now: datetime.datetime
) -> bool:
    """Whether Range may be honoured: there is no If-Range, or it is met (RFC 9110 §13.1.5).

    A tag must match strongly. A date must be Last-Modified exactly, and that a strong validator: at least one second
    old, so that no later change can carry it (§8.8.2.2). Arguments as for ``check_preconditions``.
    """
    lines = headers.getall("If-Range", ())
    if not lines:
        return True
    if len(lines) > 1:
        return False
    if tag := parse_entity_tag(lines[0]):
        return etag.matches_strongly(tag)
    if last_modified is None or now - last_modified < datetime.timedelta(seconds=1):
        return False
    return parse_http_date(lines[0], now) == last_modified


def _date(headers: MultiMapping[str], name: str, now: datetime.datetime) -> datetime.datetime | None:
    """The date in the field ``name``; None if it is absent, unreadable or given more than once."""
    lines = headers.getall(name, ())
    return parse_http_date(lines[0], now) if len(lines) == 1 else None
