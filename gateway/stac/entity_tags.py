"""Entity-tags of Items and Collections: what optimistic locking by If-Match compares."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from http import HTTPStatus

from gateway.errors import GatewayError
from gateway.http.conditional import EntityTag, parse_entity_tags

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


def tag_of(updated: datetime.datetime) -> EntityTag:
    """The tag of what was last written at ``updated``: writers take turns, so no two states of it share a moment."""
    return EntityTag(f"{(updated - _EPOCH) // _MICROSECOND:x}")


def field(updated: datetime.datetime) -> str:
    """The value of ETag."""
    return f'"{tag_of(updated).opaque}"'


def check_match(lines: Sequence[str], updated: datetime.datetime) -> None:
    """See that the If-Match ``lines`` of a request are met by what was last written at ``updated`` (RFC 9110 §13.1.1).

    Raises:
        GatewayError: 412 they are not, or cannot be read.
    """
    if not lines:
        return
    wanted = parse_entity_tags(lines)
    if wanted is not None and (wanted.any or any(tag.matches_strongly(tag_of(updated)) for tag in wanted.tags)):
        return
    raise GatewayError(HTTPStatus.PRECONDITION_FAILED, "It has changed since; look again (If-Match).")
