"""How long a source is waited for, and how often it is asked again."""

from __future__ import annotations

import dataclasses
import datetime
import re

from gateway.http.dates import parse_http_date

RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses after which the same request may succeed later."""


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """All in seconds but ``attempts``."""

    connect: float = 10.0
    """For a connection."""
    read: float = 60.0
    """Without a single byte."""
    total: float = 300.0
    """For an answer as a whole."""
    attempts: int = 6
    """How often a request is sent in all."""
    first_pause: float = 1.0
    """Before the second attempt at most; doubled each time."""
    longest_pause: float = 60.0
    longest_wait: float = 600.0
    """That a source may ask for by Retry-After; if it asks for more the load stops."""

    def pause(self, attempt: int, asked: float | None, chance: float) -> float | None:
        """Seconds to wait after the failed ``attempt``, from 1; None: give up.

        What the source ``asked`` for is the least. Else it is by ``chance`` (0 to 1) between half of the pause and all
        of it, so that several loads do not come back at once.
        """
        if attempt >= self.attempts:
            return None
        if asked is not None and asked > self.longest_wait:
            return None
        own: float = min(self.longest_pause, self.first_pause * 2 ** (attempt - 1)) * (0.5 + chance / 2)
        return own if asked is None else max(asked, own)


def retry_after(field: str | None, now: datetime.datetime) -> float | None:
    """Seconds that a Retry-After field asks for (RFC 9110 §10.2.3); None if it is absent or is none."""
    if field is None:
        return None
    if re.fullmatch("[0-9]{1,9}", field.strip(), re.ASCII):
        return float(field)
    date = parse_http_date(field, now)
    return None if date is None else max(0.0, (date - now).total_seconds())
