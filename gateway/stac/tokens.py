"""Tokens of pages: a place in the order of items, sealed, so that it neither tells nor can be made.

A token holds a place, not rights: whatever it says, each item of its page is judged anew.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import time
from collections.abc import Callable
from http import HTTPStatus

from gateway.errors import GatewayError
from gateway.identity.sealing import Seal
from gateway.stac.model import Direction, Search

LIFETIME = 30 * 24 * 3600.0
"""Seconds that a token is good for."""
OLDEST = datetime.datetime.min.replace(tzinfo=datetime.UTC)
"""Stands for the start of items that have none."""
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an item stands among all: by its start, of those that begin together by its number."""

    start: datetime.datetime
    """`OLDEST` for an item without one."""
    product_id: int


class Tokens:
    """Makes and reads tokens."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        """Seal with ``secret``, of at least 32 bytes, which all processes of a gateway share.

        ``clock`` gives seconds since the epoch.
        """
        self._seal = Seal(secret, "page", clock)

    def make(self, tenant: str, search: Search, direction: Direction, place: Place) -> str:
        """The token of the page of ``search`` that begins after ``place``, or ends before it."""
        value = {
            "for": _fingerprint(tenant, search),
            "to": direction,
            "start": (place.start - _EPOCH) // _MICROSECOND,
            "id": place.product_id,
        }
        return self._seal.close(value, LIFETIME)

    def read(self, tenant: str, search: Search) -> tuple[Direction, Place] | None:
        """What the token of ``search`` says; None if it has none.

        Raises:
            GatewayError: 400; it was not made here, was changed, is too old, or is of another search.
        """
        if search.token is None:
            return None
        value = self._seal.open(search.token)
        if value is None or value["for"] != _fingerprint(tenant, search):
            raise GatewayError(
                HTTPStatus.BAD_REQUEST,
                "Parameter 'token': it is not, or no longer, the token of a page of this search.",
                code="InvalidParameterValue",
            )
        direction: Direction = "next" if value["to"] == "next" else "previous"
        return direction, Place(_EPOCH + value["start"] * _MICROSECOND, value["id"])


def _fingerprint(tenant: str, search: Search) -> str:
    """Tells searches apart; how many items a page has does not matter."""
    members = (tenant, dataclasses.astuple(dataclasses.replace(search, token=None, limit=1)))
    return hashlib.sha256(json.dumps(members, default=str).encode()).hexdigest()[:32]
