"""When a restore will be done, and when it is worth to ask again: pure, and the SQL that says what it is told by."""

from __future__ import annotations

import datetime
import math

LEAST_SECONDS, MOST_SECONDS = 3, 3600
"""Of one Retry-After. Whoever comes back after the longest finds out whether the estimate still holds."""
_LATE_SECONDS = 60
"""At most, between two looks at a restore that takes longer than it was expected to."""
_POLLS = 3
"""Without anything to go by, a restore is expected to be seen done when a storage was asked so many times."""

WAITING = "('QUEUED', 'STAGING')"


def estimating(relation: str) -> str:
    """Common table expressions ``typical`` and ``ahead`` about restores in ``relation``.

    That has ``storage``, ``priority`` and ``state`` of each. ``typical`` is, by storage, how many ``seconds`` the last
    50 restores took since the storage was asked; ``ahead``, by storage and priority, how ``many`` are queued that come
    before, or at the same time. Both say nothing of what does not wait.
    """
    waiting = f"SELECT DISTINCT storage, priority FROM {relation} WHERE state IN {WAITING}"  # noqa: S608 - made of constants
    return f"""
typical AS (
    SELECT s.storage, (
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY h.seconds) FROM (
            SELECT extract(epoch FROM r.restored_at - coalesce(r.started_at, r.requested_at)) AS seconds
            FROM restores r WHERE r.storage = s.storage AND r.restored_at IS NOT NULL
            ORDER BY r.restored_at DESC LIMIT 50
        ) h
    ) AS seconds FROM (SELECT DISTINCT storage FROM ({waiting}) w) s
), ahead AS (
    SELECT w.storage, w.priority, (
        SELECT count(*) FROM restores q
        WHERE q.storage = w.storage AND q.state = 'QUEUED' AND q.priority <= w.priority
    ) AS many FROM ({waiting}) w
)"""  # noqa: S608 - made of constants


def expected(
    *,
    now: datetime.datetime,
    started: datetime.datetime | None,
    told: datetime.datetime | None,
    typical: float | None,
    ahead: int,
    at_a_time: int,
    poll: float,
) -> datetime.datetime:
    """When a restore that goes on will be done; what is past says that it is late.

    Args:
        now: by PostgreSQL's clock.
        started: when the storage was asked, if it was.
        told: what the storage itself said, which counts most.
        typical: seconds that restores took there, once they were asked for; None if there were none yet.
        ahead: restores that are queued there and come before, or at the same time; itself counts, too.
        at_a_time: restores that the storage is asked for at a time.
        poll: seconds between two questions to the storage.
    """
    if told is not None:
        return told
    seconds = _POLLS * poll if typical is None else typical
    if started is not None:
        return started + datetime.timedelta(seconds=seconds)
    rounds = 1 + max(ahead - 1, 0) // at_a_time
    return now + datetime.timedelta(seconds=seconds * rounds)


def retry_after(ready: datetime.datetime | None, now: datetime.datetime) -> int:
    """Seconds after which to ask again for what is expected to be ``ready``.

    One that is late is looked at soon, and less often the later it is; it may never come.
    """
    if ready is None:
        return LEAST_SECONDS
    seconds = (ready - now).total_seconds()
    if seconds <= 0:
        return max(LEAST_SECONDS, min(_LATE_SECONDS, math.ceil(-seconds / 4)))
    return max(LEAST_SECONDS, min(MOST_SECONDS, math.ceil(seconds)))
