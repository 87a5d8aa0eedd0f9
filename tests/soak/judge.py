"""What must hold when all has ended: ledger, counters, leases, and what each process remembers of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio

from gateway.db import connect
from gateway.quotas.keys import Keys
from gateway.quotas.upkeep import open_audit
from tests.soak.scenario import BURST, RATE, ROLLING_DOWNLOADS, ROLLING_SECONDS, TENANTS, USERS, Scenario, email

DRAIN_LAG = 2.0
"""Seconds that an event waits for the ledger at most, on a machine that is busy; a fifth of a second on others."""
REPLAY = 8.0
"""Seconds until all processes have told what they did, after Redis was lost."""

_WRONG_SUMS = """
WITH summed AS (
    SELECT tenant_id, account, period, sum(downloads) AS downloads, sum(bytes) AS bytes
    FROM quota_ledger, unnest(accounts) AS account, LATERAL (
        SELECT 'total' UNION ALL SELECT to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')
        UNION ALL SELECT to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM')
        UNION ALL SELECT 'r' || w || ':' || floor(extract(epoch FROM began_at) * 1000000 / ceil(w * 1000000 / 60.0))
        FROM unnest(windows) AS w
    ) AS periods(period) GROUP BY tenant_id, account, period
)
SELECT coalesce(u.account, s.account) AS account, coalesce(u.period, s.period) AS period,
       u.downloads, u.bytes, s.downloads AS summed_downloads, s.bytes AS summed_bytes
FROM quota_usage u FULL JOIN summed s USING (tenant_id, account, period)
WHERE (u.downloads, u.bytes) IS DISTINCT FROM (s.downloads, s.bytes) LIMIT 20"""

_DIARY = """
CREATE TEMPORARY TABLE diary (
    at double precision, tenant text, reservation text, kind text, downloads integer, bytes bigint, worker integer
)"""

_MISSING = """
SELECT d.worker, d.at FROM diary d JOIN tenants t ON t.name = d.tenant
LEFT JOIN quota_ledger l USING (tenant_id, reservation, kind)
WHERE d.kind <> 'sent' AND l.reservation IS NULL ORDER BY d.worker, d.at"""

_OTHERWISE = """
SELECT d.reservation, d.kind, d.downloads, d.bytes, l.downloads AS recorded_downloads, l.bytes AS recorded_bytes
FROM diary d JOIN tenants t ON t.name = d.tenant JOIN quota_ledger l USING (tenant_id, reservation, kind)
WHERE (d.downloads, d.bytes) <> (l.downloads, l.bytes) LIMIT 20"""

_UNCHARGED = """
SELECT d.reservation, d.bytes AS sent, l.bytes FROM diary d JOIN (
    SELECT reservation, sum(bytes) AS bytes FROM quota_ledger GROUP BY reservation
) l USING (reservation) WHERE d.kind = 'sent' AND d.bytes > l.bytes LIMIT 20"""

_UNFOUNDED = """
SELECT e.reservation, e.kind FROM quota_ledger e WHERE e.kind <> 'grant' AND NOT EXISTS (
    SELECT FROM quota_ledger g WHERE (g.tenant_id, g.reservation, g.kind) = (e.tenant_id, e.reservation, 'grant')
) LIMIT 20"""

_GRANTS = """
SELECT extract(epoch FROM began_at)::double precision AS at, sum(downloads)::integer AS downloads
FROM quota_ledger JOIN tenants USING (tenant_id) WHERE name = $1 AND accounts[1] = $2
GROUP BY reservation, began_at HAVING bool_or(kind = 'grant') ORDER BY began_at"""

_LEFT = """
-- A page of all keys: leases among them that neither ended nor were handed over whole.
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 5000)
local left = {}
local time = redis.call('TIME')
for _, key in ipairs(page[2]) do
    local runs_out, whole = string.match(redis.call('GET', key), '^%d+ %d+ %d+ %d+ %d+ (%d+) (%d)')
    if runs_out and whole == '0' then
        left[#left + 1] = key .. ', which runs out in ' .. runs_out / 1000000 - time[1] .. ' s'
    end
end
return {page[1], left}
"""


@dataclasses.dataclass(slots=True)
class Verdict:
    """What was found."""

    violations: list[str] = dataclasses.field(default_factory=list)
    accounts: int = 0
    """That were compared."""
    told: int = 0
    """Events that processes remember."""
    events: int = 0
    """In the ledger."""
    lost: int = 0
    """Events of processes that were killed in the same instant as Redis, which came back empty."""
    oldest_lost: float = 0.0
    """Seconds that the oldest of them had waited for the ledger."""

    def hold(self, what: str, rows: Iterable[object]) -> None:
        """There must be no ``rows``."""
        self.violations += [f"{what}: {row}" for row in rows]


@dataclasses.dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed."""

    worker: int
    at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """Redis was killed, and came back empty."""

    at: float


async def judge(
    scenario: Scenario, redis_url: str, kills: Sequence[Kill], losses: Sequence[Loss], restarts: int
) -> Verdict:
    """Look at all that is left; nobody else is at work."""
    verdict = Verdict()
    await _counters(verdict, scenario, redis_url)
    connection = await asyncpg.connect(scenario.dsn, command_timeout=120)
    try:
        verdict.events = await connection.fetchval("SELECT count(*) FROM quota_ledger")
        verdict.hold("sums that are wrong", map(dict, await connection.fetch(_WRONG_SUMS)))
        verdict.hold("an end without a beginning", map(dict, await connection.fetch(_UNFOUNDED)))
        await _diaries(verdict, connection, scenario, kills, losses)
        for number in range(USERS):
            await _windows(verdict, connection, scenario, number, restarts)
    finally:
        await connection.close()
    return verdict


async def _counters(verdict: Verdict, scenario: Scenario, redis_url: str) -> None:
    settings = dataclasses.replace(scenario, redis_url=redis_url)
    async with (
        connect(settings.database, ()) as database,
        open_audit(settings.redis, settings.quotas, database) as audit,
    ):
        findings = [finding async for finding in audit.check(repair=False)]
        # Who opened an epoch clears the one before away, unless he is killed.
        verdict.hold("counters", (finding for finding in findings if finding.what != "keys"))
        verdict.accounts = audit.tally.accounts
        prefixes = [Keys(tenant, epoch).prefix for tenant, epoch in (await _epochs(scenario)).items()]
    async with redis.asyncio.Redis.from_url(redis_url, socket_timeout=30) as client:
        for prefix in prefixes:
            verdict.hold("a lease that is left", await _left(client, f"{prefix}lease:*"))
            running = [key async for key in client.scan_iter(f"{prefix}running:*", count=5000)]
            verdict.hold("running after all ended", running)


async def _epochs(scenario: Scenario) -> dict[str, int]:
    connection = await asyncpg.connect(scenario.dsn)
    rows = await connection.fetch(
        "SELECT name, max(epoch) AS epoch FROM quota_epochs JOIN tenants USING (tenant_id) GROUP BY name"
    )
    await connection.close()
    return {row["name"]: row["epoch"] for row in rows}


async def _left(client: redis.asyncio.Redis, pattern: str) -> list[bytes]:
    cursor, left = b"0", list[bytes]()
    while True:
        cursor, page = await client.eval(_LEFT, 0, cursor, pattern)
        left += page
        if cursor == b"0":
            return left


async def _diaries(
    verdict: Verdict,
    connection: asyncpg.Connection[Any],
    scenario: Scenario,
    kills: Sequence[Kill],
    losses: Sequence[Loss],
) -> None:
    await connection.execute(_DIARY)
    for path in sorted(Path(scenario.directory).glob("diary-*")):
        number = int(path.name.partition("-")[2])
        await connection.execute(f"ALTER TABLE diary ALTER worker SET DEFAULT {number}")
        columns = ["at", "tenant", "reservation", "kind", "downloads", "bytes"]
        await connection.copy_to_table("diary", source=path, columns=columns)
    await connection.execute("ANALYZE diary")
    verdict.told = await connection.fetchval("SELECT count(*) FROM diary WHERE kind <> 'sent'")
    verdict.hold("recorded otherwise", map(dict, await connection.fetch(_OTHERWISE)))
    verdict.hold("sent but not charged", map(dict, await connection.fetch(_UNCHARGED)))
    missing: dict[int, list[float]] = {}
    for row in await connection.fetch(_MISSING):
        missing.setdefault(row["worker"], []).append(row["at"])
    for worker, times in missing.items():
        last = _last_moment(worker, kills, losses)
        if last is None:
            verdict.violations.append(
                f"{len(times)} events of process {worker} are lost, and nobody may have lost them"
            )
            continue
        verdict.lost += len(times)
        verdict.oldest_lost = max(verdict.oldest_lost, last - times[0])
        if last - times[0] > DRAIN_LAG:
            verdict.violations.append(f"an event of process {worker} was lost that waited for {last - times[0]:.1f} s")


def _last_moment(worker: int, kills: Sequence[Kill], losses: Sequence[Loss]) -> float | None:
    """When the first of ``worker`` and Redis was killed, if both were before either could tell the ledger."""
    for kill in kills:
        for loss in losses:
            if kill.worker == worker and -DRAIN_LAG <= kill.at - loss.at <= REPLAY:
                return min(kill.at, loss.at)
    return None


async def _windows(
    verdict: Verdict, connection: asyncpg.Connection[Any], scenario: Scenario, number: int, restarts: int
) -> None:
    """Limits that no counter alone tells."""
    tenant = TENANTS[1]
    metrics = {(limit.metric, limit.period) for limit in scenario.limits(tenant, number)}
    rows = await connection.fetch(_GRANTS, tenant, f"user:{email(number)}")
    if ("downloads", f"{ROLLING_SECONDS}s") in metrics:
        most = most_within([(row["at"], row["downloads"]) for row in rows], ROLLING_SECONDS)
        if most > ROLLING_DOWNLOADS:
            verdict.violations.append(f"{email(number)}: {most} downloads in {ROLLING_SECONDS} s")
    if ("rate", "1s") in metrics:
        # What was let in at once is known to Redis alone: each epoch begins anew. It counts whole microseconds.
        most = most_at_once([row["at"] for row in rows], 1e6 / (1_000_000 // RATE))
        if most > BURST * (restarts + 1):
            verdict.violations.append(f"{email(number)}: {most} starts at once, of {BURST} at most")


def most_within(downloads: Sequence[tuple[float, int]], seconds: float) -> int:
    """Most downloads in any window of so many seconds."""
    first = running = most = 0
    for at, count in downloads:
        running += count
        while downloads[first][0] <= at - seconds:
            running -= downloads[first][1]
            first += 1
        most = max(most, running)
    return most


def most_at_once(times: Sequence[float], rate: float) -> int:
    """The least burst that a bucket of this rate needs to let all of them in."""
    level, before, most = 0.0, 0.0, 0.0
    for at in times:
        level = max(level - (at - before) * rate, 0.0) + 1
        before, most = at, max(most, level)
    return math.ceil(most - 0.01)
