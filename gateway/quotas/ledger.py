"""The ledger in PostgreSQL: what was charged, for ever, and its sums."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from gateway.db import Database

_TOLD = """
    SELECT * FROM json_to_recordset($2::json)
        AS e(r text, k text, u text[], c text, d integer, b bigint, at bigint, w integer[])"""
"""Events as JSON."""

_FRESH = """
fresh AS (
    INSERT INTO quota_ledger
        (tenant_id, reservation, kind, accounts, content, downloads, bytes, began_at, windows)
    SELECT tenant.tenant_id, e.r, e.k, e.u, e.c, e.d, e.b, 'epoch'::timestamptz + e.at * interval '1 microsecond', e.w
    FROM tenant CROSS JOIN told e
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, accounts, downloads, bytes, began_at, windows
), by_caller AS (
    -- Most events of a batch share their accounts and periods: these are taken apart once for all of them.
    SELECT tenant_id, accounts, periods, sum(downloads) AS downloads, sum(bytes) AS bytes
    FROM fresh CROSS JOIN LATERAL (
        SELECT ARRAY['total', to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
                     to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM')] || ARRAY(
            SELECT format('r%s:%s', w, div((extract(epoch FROM began_at) * 1000000)::bigint,
                                           ceil(w::bigint * 1000000 / 60.0)::bigint))
            FROM unnest(windows) AS w
        ) AS periods
    ) AS began
    GROUP BY tenant_id, accounts, periods
), summed AS (
    INSERT INTO quota_usage AS u (tenant_id, account, period, downloads, bytes)
    SELECT tenant_id, account, period, sum(downloads), sum(bytes)
    FROM by_caller CROSS JOIN unnest(accounts) AS account CROSS JOIN unnest(periods) AS period
    GROUP BY tenant_id, account, period ORDER BY tenant_id, account, period
    ON CONFLICT (tenant_id, account, period)
        DO UPDATE SET downloads = u.downloads + excluded.downloads, bytes = u.bytes + excluded.bytes
    RETURNING account
)"""
"""Events become rows, each at most once, and their sums. It wants ``tenant``, a row or none, and ``told``, the events.
The buckets of rolling windows are those of ``lua/common.lua``."""

_DRAIN = f"""
WITH tenant AS (
    UPDATE quota_epochs SET position = $4, clock = greatest(clock, $5)
    WHERE (tenant_id, epoch) IN (
        SELECT tenant_id, epoch FROM quota_epochs JOIN tenants USING (tenant_id)
        WHERE name = $1 AND epoch = $6 AND position = $3
        FOR UPDATE OF quota_epochs SKIP LOCKED
    )
    RETURNING tenant_id
), told AS ({_TOLD}), {_FRESH}
SELECT (SELECT count(*) FROM tenant) AS moved"""  # noqa: S608 - of constants

_RECORD = f"""
WITH tenant AS (SELECT tenant_id FROM tenants WHERE name = $1), latest AS (
    SELECT tenant_id, max(epoch) AS epoch FROM quota_epochs JOIN tenant USING (tenant_id) GROUP BY tenant_id
), clocked AS (
    UPDATE quota_epochs e SET clock = greatest(clock, $3) FROM latest
    WHERE e.tenant_id = latest.tenant_id AND e.epoch = latest.epoch
), heard AS ({_TOLD}), told AS (
    SELECT * FROM heard e WHERE k = 'grant' OR EXISTS (SELECT FROM heard g WHERE g.r = e.r AND g.k = 'grant')
        OR EXISTS (SELECT FROM quota_ledger g JOIN tenant USING (tenant_id)
                   WHERE g.reservation = e.r AND g.kind = 'grant')
), {_FRESH}
SELECT DISTINCT account FROM summed"""  # noqa: S608 - as above

_CLOCK = """
SELECT max(clock) AS clock FROM quota_epochs JOIN tenants USING (tenant_id) WHERE name = $1"""

_ENDED = """
SELECT reservation FROM quota_ledger JOIN tenants USING (tenant_id)
WHERE name = $1 AND kind = 'end' AND reservation = ANY ($2::text[])"""

_BALANCES = """
SELECT asked.account, e.position, (
    SELECT json_object_agg(u.period, json_build_array(u.downloads, u.bytes))::text FROM quota_usage u
    WHERE u.tenant_id = e.tenant_id AND u.account = asked.account
        AND (u.period IN ('total', $3, $4) OR u.period LIKE 'r%')
) AS usage
FROM quota_epochs e JOIN tenants t USING (tenant_id) CROSS JOIN unnest($5::text[]) AS asked(account)
WHERE t.name = $1 AND e.epoch = $2"""

_DOWNLOADS = """
WITH lately AS (
    SELECT l.content, l.reservation, l.bytes, l.began_at, l.recorded_at, l.kind = 'grant' AND l.downloads = 1
        AND NOT bool_or(l.kind = 'release') OVER (PARTITION BY l.reservation) AS opens
    FROM quota_ledger l JOIN tenants t USING (tenant_id)
    WHERE t.name = $1 AND l.accounts[1] = $2 AND l.recorded_at > now() - $3 * interval '1 second'
), opened AS (
    SELECT *, max(began_at) FILTER (WHERE opens) OVER (PARTITION BY content) AS since FROM lately
)
SELECT content, min(reservation) FILTER (WHERE opens AND began_at = since) AS opener, sum(bytes)::bigint AS octets,
       (extract(epoch FROM since) * 1000000)::bigint AS began,
       (extract(epoch FROM max(recorded_at)) * 1000000)::bigint AS last
FROM opened WHERE began_at >= since
GROUP BY content, since ORDER BY last DESC LIMIT 1000"""
"""Window functions, no joins: a caller may have tens of thousands of entries in an hour."""

_WRONG_SUMS = """
WITH summed AS (
    SELECT tenant_id, account, sum(downloads)::bigint AS downloads, sum(bytes)::bigint AS bytes
    FROM quota_ledger CROSS JOIN unnest(accounts) AS account GROUP BY tenant_id, account
)
SELECT t.name, coalesce(u.account, s.account) AS account, u.downloads, u.bytes,
       s.downloads AS summed_downloads, s.bytes AS summed_bytes
FROM (SELECT * FROM quota_usage WHERE period = 'total') u FULL JOIN summed s USING (tenant_id, account)
JOIN tenants t ON t.tenant_id = coalesce(u.tenant_id, s.tenant_id)
WHERE (u.downloads, u.bytes) IS DISTINCT FROM (s.downloads, s.bytes)"""

_LOOK = """
WITH me AS (
    INSERT INTO quota_processes (process, seen) VALUES ($1, now()) ON CONFLICT (process) DO UPDATE SET seen = now()
)
SELECT DISTINCT ON (e.tenant_id) t.name, e.epoch, e.opened, e.position,
       concat_ws('-', current_database(), t.tenant_id, extract(epoch FROM t.created_at)) AS ledger
FROM quota_epochs e JOIN tenants t USING (tenant_id) ORDER BY e.tenant_id, e.epoch DESC"""

_BEGIN = """
WITH latest AS (
    SELECT t.tenant_id, max(e.epoch) AS epoch, max(e.clock) AS clock
    FROM tenants t LEFT JOIN quota_epochs e USING (tenant_id) WHERE t.name = $1 GROUP BY t.tenant_id
)
INSERT INTO quota_epochs (tenant_id, epoch, clock)
SELECT tenant_id, $2, coalesce(clock, 0) FROM latest WHERE coalesce(epoch, 0) = $2 - 1
ON CONFLICT DO NOTHING"""

_REPLAYED = """
INSERT INTO quota_replays (tenant_id, epoch, process)
SELECT tenant_id, $2, $3 FROM tenants WHERE name = $1 ON CONFLICT DO NOTHING"""

_AWAITED = """
SELECT count(*) AS processes FROM quota_processes p
WHERE p.seen > now() - $3 * interval '1 second' AND NOT EXISTS (
    SELECT FROM quota_replays r JOIN tenants t USING (tenant_id)
    WHERE t.name = $1 AND r.epoch = $2 AND r.process = p.process
)"""

_OPENED = """
UPDATE quota_epochs e SET opened = true FROM tenants t
WHERE t.tenant_id = e.tenant_id AND t.name = $1 AND e.epoch = $2"""

_POSITION = """
SELECT e.position FROM quota_epochs e JOIN tenants t USING (tenant_id) WHERE t.name = $1 AND e.epoch = $2"""

_TIDY = """
DELETE FROM quota_usage USING tenants t
WHERE t.tenant_id = quota_usage.tenant_id AND (
    CASE WHEN period LIKE 'r%' THEN
        -- The bucket after which all of it has left the window, and a day more.
        (split_part(period, ':', 2)::bigint + 61) * ceil(substring(period FROM 'r([0-9]+):')::bigint * 1000000 / 60.0)
            < (extract(epoch FROM now()) - 86400) * 1000000
    ELSE account LIKE 'network:%' AND period <> 'total'
        AND period < to_char(now() AT TIME ZONE 'UTC' - interval '2 months', 'YYYY-MM') END)"""

_LEAVE = "DELETE FROM quota_processes WHERE process = $1 OR seen < now() - interval '1 day'"


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """A row of ``quota_epochs``: see there."""

    number: int
    opened: bool
    position: int
    ledger: str
    """A name of this very ledger: another one may have counted in the same Redis."""


@dataclasses.dataclass(frozen=True, slots=True)
class Balance:
    """What the ledger has of one account, up to ``position`` of the stream: downloads and bytes by period."""

    account: str
    position: int
    usage: Mapping[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True, slots=True)
class Download:
    """A caller's last download of one content; times in microseconds."""

    content: str
    opener: str
    """The reservation that was charged as the download."""
    octets: int
    began: int
    last: int
    """When something was recorded of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSum:
    """A total that is not the sum of its entries; downloads and bytes each, None where there is none."""

    tenant: str
    account: str
    told: tuple[int | None, int | None]
    summed: tuple[int | None, int | None]


class Ledger:
    """Reads and writes the ledger. Every call is one statement, and so a transaction.

    Every method raises GatewayError (503) when PostgreSQL does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def drain(
        self, tenant: str, epoch: int, entries: Sequence[tuple[int, str]], *, position: int, clock: int
    ) -> bool:
        """Record ``entries`` of the stream that follow ``position``; False when somebody else did that, or is at it.

        Args:
            tenant: by name.
            epoch: whose stream it is.
            entries: number and event of each, in order.
            position: up to which the ledger has them.
            clock: the latest time that Redis knows.
        """
        body = _array([event for _, event in entries])
        rows = await self._database.fetch(_DRAIN, tenant, body, position, entries[-1][0], clock, epoch)
        return bool(rows[0]["moved"])

    async def record(self, tenant: str, events: Sequence[str]) -> list[str]:
        """Record events wherever they come from. Gives the accounts it changed.

        Those that it has are passed over, and those that give back what nobody told was charged.
        """
        clock = max((json.loads(event)["at"] for event in events), default=0)
        return [row["account"] for row in await self._database.fetch(_RECORD, tenant, _array(events), clock)]

    async def clock(self, tenant: str) -> int:
        """The latest time that is known, microseconds."""
        rows = await self._database.fetch(_CLOCK, tenant)
        return rows[0]["clock"] or 0

    async def ended(self, tenant: str, reservations: Sequence[str]) -> set[str]:
        """Which of these reservations have an end."""
        return {row["reservation"] for row in await self._database.fetch(_ENDED, tenant, list(reservations))}

    async def balances(self, tenant: str, epoch: int, accounts: Sequence[str], day: datetime.date) -> list[Balance]:
        """What is charged to each of ``accounts``: in all, on ``day``, in its month, in rolling windows."""
        rows = await self._database.fetch(_BALANCES, tenant, epoch, day.isoformat(), f"{day:%Y-%m}", list(accounts))
        return [Balance(row["account"], row["position"], _usage(row)) for row in rows]

    async def downloads(self, tenant: str, account: str, seconds: int) -> list[Download]:
        """What the caller with ``account`` downloaded in the last ``seconds``: 1000 contents at most."""
        rows = await self._database.fetch(_DOWNLOADS, tenant, account, seconds)
        return [Download(row["content"], row["opener"], row["octets"], row["began"], row["last"]) for row in rows]

    async def wrong_sums(self) -> list[WrongSum]:
        """The totals that are not the sums of their entries: none, ever. It reads the whole ledger."""
        return [
            WrongSum(
                row["name"],
                row["account"],
                (row["downloads"], row["bytes"]),
                (row["summed_downloads"], row["summed_bytes"]),
            )
            for row in await self._database.fetch(_WRONG_SUMS)
        ]

    async def position(self, tenant: str, epoch: int) -> int | None:
        """Up to where the ledger has the stream of an epoch; None if there is no such epoch."""
        rows = await self._database.fetch(_POSITION, tenant, epoch)
        return rows[0]["position"] if rows else None

    async def look(self, process: str) -> dict[str, Epoch]:
        """The latest epoch of each tenant; ``process`` lives."""
        rows = await self._database.fetch(_LOOK, process)
        return {row["name"]: Epoch(row["epoch"], row["opened"], row["position"], row["ledger"]) for row in rows}

    async def begin(self, tenant: str, epoch: int) -> None:
        """Begin an epoch, closed, unless somebody did."""
        await self._database.fetch(_BEGIN, tenant, epoch)

    async def replayed(self, tenant: str, epoch: int, process: str) -> None:
        """``process`` has told all it knows of the epochs before ``epoch``."""
        await self._database.fetch(_REPLAYED, tenant, epoch, process)

    async def awaited(self, tenant: str, epoch: int, *, seconds: float) -> int:
        """How many processes that were seen within ``seconds`` have not."""
        rows = await self._database.fetch(_AWAITED, tenant, epoch, seconds)
        return int(rows[0]["processes"])

    async def opened(self, tenant: str, epoch: int) -> None:
        """The epoch is open."""
        await self._database.fetch(_OPENED, tenant, epoch)

    async def tidy(self) -> None:
        """Delete sums that nothing counts any more: old buckets of rolling windows, and what networks used long ago."""
        await self._database.fetch(_TIDY)

    async def leave(self, process: str) -> None:
        """``process`` ends, and knows nothing that the ledger does not."""
        await self._database.fetch(_LEAVE, process)


def _array(events: Sequence[str]) -> str:
    return f"[{','.join(events)}]"


def _usage(row: asyncpg.Record) -> dict[str, tuple[int, int]]:
    found: dict[str, Any] = json.loads(row["usage"] or "{}")
    return {period: (downloads, octets) for period, (downloads, octets) in found.items()}
