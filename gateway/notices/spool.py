"""Notices that wait to be sent, in PostgreSQL: taken under a lease, forgotten once they are sent.

A trigger of schema.sql writes them, in the very transaction that changes an order, for the channels that its session
names: what was rolled back is not told, what was committed is, whoever dies then. A lease is but a time before which
nobody else looks at a notice. It is sent at least once; by its ``message`` whoever gets it can tell a second time.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
import uuid
from collections.abc import Collection, Sequence

import asyncpg

from gateway.db import Database
from gateway.notices.model import Notice
from gateway.text import escaped

TOPIC = "notices"
"""What senders are woken by."""
SUBSCRIBE = "SELECT set_config('gateway.notices', $1, false)"
"""Has the trigger write notices for the channels of a JSON text, as long as the session lasts."""
_FIRST_PAUSE, _LONGEST_PAUSE = 20.0, 3600.0
"""Seconds before a notice that failed is tried again; doubled each time up to the longest."""
_MOST_REASON = 500
_KEPT_DAYS = 90
"""That notices which were given up are kept."""

_COLUMNS = "notice_id, message, channel, tenant, order_id, kind, body::text AS body, created_at, tries"
_CLAIM = f"""
UPDATE notices SET lease = $1, due_at = now() + $2::interval, tries = tries + 1
WHERE notice_id = ANY (ARRAY(
    SELECT notice_id FROM notices WHERE channel = $3 AND given_up_at IS NULL AND due_at <= now()
    ORDER BY due_at, notice_id LIMIT $4 FOR UPDATE SKIP LOCKED
)) RETURNING {_COLUMNS}"""  # noqa: S608 - made of constants
_PROLONG = """
UPDATE notices SET due_at = now() + $3::interval WHERE notice_id = $1 AND lease = $2 RETURNING notice_id"""
_SENT = "DELETE FROM notices WHERE notice_id = $1 AND lease = $2"
_FAILED = """
UPDATE notices
SET lease = NULL, error = $3, due_at = now() + $4::interval,
    given_up_at = CASE WHEN $5 OR created_at < now() - $6::interval THEN now() END
WHERE notice_id = $1 AND lease = $2 RETURNING given_up_at"""
_GIVE_BACK = """
UPDATE notices SET lease = NULL, due_at = now(), tries = tries - 1 WHERE notice_id = ANY ($1) AND lease = $2"""
_FORGET = "DELETE FROM notices WHERE given_up_at < now() - $1::interval"
_TALLY = """
SELECT channel, count(*) FILTER (WHERE given_up_at IS NULL) AS waiting, count(given_up_at) AS given_up,
       min(created_at) FILTER (WHERE given_up_at IS NULL) AS oldest
FROM notices GROUP BY channel ORDER BY channel"""
_TROUBLED = """
SELECT notice_id, channel, tenant, order_id, kind, tries, created_at, given_up_at, error FROM notices
WHERE error IS NOT NULL ORDER BY given_up_at IS NULL, notice_id DESC LIMIT $1"""
_REVIVE = """
WITH again AS (
    UPDATE notices SET given_up_at = NULL, due_at = now(), tries = 0, created_at = now()
    WHERE given_up_at IS NOT NULL RETURNING notice_id
), told AS (SELECT pg_notify('gateway', $1) FROM again LIMIT 1)
SELECT (SELECT count(*) FROM again) AS notices, (SELECT count(*) FROM told) AS told"""
_WAKE = json.dumps({"topic": TOPIC, "tenant": None, "id": None})


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """Notices that a sender has in hand."""

    lease: uuid.UUID
    notices: Sequence[Notice]


async def claim(database: Database, channel: str, *, most: int, lease_seconds: float) -> Held:
    """Take some that are due, the longest waiting first.

    Raises:
        GatewayError: 503.
    """
    lease, length = uuid.uuid4(), datetime.timedelta(seconds=lease_seconds)
    rows = await database.fetch(_CLAIM, lease, length, channel, most)
    return Held(lease, sorted(map(_notice, rows), key=lambda notice: notice.notice_id))


async def prolong(database: Database, notice: Notice, lease: uuid.UUID, lease_seconds: float) -> bool:
    """Whether ``notice`` is still in hand; it is for so long again, then.

    Raises:
        GatewayError: 503.
    """
    length = datetime.timedelta(seconds=lease_seconds)
    return bool(await database.fetch(_PROLONG, notice.notice_id, lease, length))


async def sent(database: Database, notice: Notice, lease: uuid.UUID) -> None:
    """Forget a notice.

    Raises:
        GatewayError: 503.
    """
    await database.fetch(_SENT, notice.notice_id, lease)


async def failed(
    database: Database, notice: Notice, lease: uuid.UUID, reason: str, *, for_ever: bool, give_up_seconds: float
) -> bool:
    """Try a notice again later; whether it is given up instead.

    Raises:
        GatewayError: 503.
    """
    pause, patience = datetime.timedelta(seconds=pause_after(notice.tries)), datetime.timedelta(seconds=give_up_seconds)
    rows = await database.fetch(
        _FAILED, notice.notice_id, lease, escaped(reason, _MOST_REASON), pause, for_ever, patience
    )
    return bool(rows) and rows[0]["given_up_at"] is not None


async def give_back(database: Database, notices: Collection[Notice], lease: uuid.UUID) -> None:
    """Leave notices that were not begun to others, at once.

    Raises:
        GatewayError: 503.
    """
    await database.fetch(_GIVE_BACK, [notice.notice_id for notice in notices], lease)


async def forget_old(database: Database) -> None:
    """Forget what was given up long ago.

    Raises:
        GatewayError: 503.
    """
    await database.fetch(_FORGET, datetime.timedelta(days=_KEPT_DAYS))


async def tally(database: Database) -> list[asyncpg.Record]:
    """By channel: how many wait, since when the oldest does, and how many were given up.

    Raises:
        GatewayError: 503.
    """
    return await database.fetch(_TALLY)


async def troubled(database: Database, most: int) -> list[asyncpg.Record]:
    """Notices that were given up, then those that failed and are tried again.

    Raises:
        GatewayError: 503.
    """
    return await database.fetch(_TROUBLED, most)


async def revive(database: Database) -> int:
    """Try all again that were given up; how many.

    Raises:
        GatewayError: 503.
    """
    rows = await database.fetch(_REVIVE, _WAKE)
    count: int = rows[0]["notices"]
    return count


def pause_after(tries: int) -> float:
    """Seconds before the next attempt, some of it random, so that all that failed together does not come together."""
    longest = min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 20), _LONGEST_PAUSE)
    return longest * random.uniform(0.75, 1)  # noqa: S311 - no secret


def _notice(row: asyncpg.Record) -> Notice:
    return Notice(
        row["notice_id"],
        row["message"],
        row["channel"],
        row["tenant"],
        row["order_id"],
        row["kind"],
        json.loads(row["body"]),
        row["created_at"],
        row["tries"],
    )
