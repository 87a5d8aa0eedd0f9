"""Looks at counters, running downloads and the ledger while all goes on: no limit is ever passed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

import asyncpg
import redis.asyncio
from redis.exceptions import RedisError

from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit
from tests.soak.scenario import TENANTS, USERS, Scenario

INTERVAL = 0.1
"""Seconds between two samples."""
MOST_TOLD = 50

_SNAPSHOT = """
-- Of each account, at one moment: d, b, of today dd and db, and how many leases run. By the time of the scripts.
local kept = redis.call('HMGET', KEYS[1], 'run', 'clock')
if not kept[1] or not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. kept[1], 1, true) then
    return false
end
local time = redis.call('TIME')
local now = math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), tonumber(kept[2]))
local day = math.floor(now / 86400000000)
local answer = {}
for key = 2, #KEYS, 2 do
    local have = {string.match(redis.call('HGET', KEYS[key], 'c') or '', '^(%S+) (%S+) (%S+) (%S+) (%S+) ')}
    local today = tonumber(have[3]) == day
    answer[#answer + 1] = have[1] and {have[1], have[2], today and have[4] or '0', today and have[5] or '0',
        redis.call('ZCOUNT', KEYS[key + 1], '(' .. string.format('%.0f', now), '+inf')} or {}
end
return answer
"""

_EPOCHS = """
SELECT DISTINCT ON (tenant_id) name, epoch, opened FROM quota_epochs JOIN tenants USING (tenant_id)
ORDER BY tenant_id, epoch DESC"""

_USAGE = """
SELECT name, account, downloads, bytes FROM quota_usage JOIN tenants USING (tenant_id) WHERE period = 'total'"""


@dataclasses.dataclass(frozen=True, slots=True)
class Counters:
    """Of one account."""

    downloads: int
    octets: int
    downloads_today: int
    octets_today: int
    running: int


class Sampler:
    """Samples until it is cancelled, and keeps what is wrong."""

    def __init__(self, scenario: Scenario, redis_url: str) -> None:
        self._scenario = scenario
        self._redis_url = redis_url
        self._limits = {tenant: _limits(scenario, tenant) for tenant in TENANTS}
        self.samples = 0
        self.ledger_samples = 0
        self.at_limit = 0
        """Times that an account was seen exactly at a limit: the races were real."""
        self.violations: list[str] = []

    async def sample_for_ever(self) -> None:
        """Redis may be away; then there is nothing to see."""
        connection = await asyncpg.connect(self._scenario.dsn)
        try:
            async with redis.asyncio.Redis.from_url(self._redis_url, socket_timeout=5) as client:
                while True:
                    with contextlib.suppress(OSError, RedisError, TimeoutError):
                        await self._sample(connection, client)
                    await asyncio.sleep(INTERVAL)
        finally:
            connection.terminate()

    async def _sample(self, connection: asyncpg.Connection[Any], client: redis.asyncio.Redis) -> None:
        before = await self._epochs(connection)
        for tenant, epoch in before.items():
            accounts = tuple(self._limits[tenant])
            keys = Keys(tenant, epoch)
            names = (keys.state, *keys.of_accounts(accounts))
            answer = await client.eval(_SNAPSHOT, len(names), *names)
            if answer is None:
                continue
            found = {
                account: Counters(*map(int, values)) for account, values in zip(accounts, answer, strict=True) if values
            }
            self._check(tenant, found)
            self.samples += 1
        rows = await connection.fetch(_USAGE)
        after = await self._epochs(connection)
        for row in rows:
            # While processes tell what they did, one may have told grants before another told ends.
            if before.get(row["name"]) == after.get(row["name"], -1):
                self._check_ledger(row["name"], row["account"], row["downloads"], row["bytes"])
        self.ledger_samples += 1

    @staticmethod
    async def _epochs(connection: asyncpg.Connection[Any]) -> dict[str, int]:
        """Those that are open."""
        return {row["name"]: row["epoch"] for row in await connection.fetch(_EPOCHS) if row["opened"]}

    def _check(self, tenant: str, found: dict[str, Counters]) -> None:
        for account, counters in found.items():
            if min(dataclasses.astuple(counters)) < 0:
                self._tell(f"{tenant} {account}: negative: {counters}")
            for limit in self._limits[tenant][account]:
                used = _used(limit, counters)
                self.at_limit += used == limit.value
                if used > limit.value:
                    self._tell(f"{tenant} {account}: {used} {limit.metric} {limit.period}, of {limit.value} at most")
        users = [counters for account, counters in found.items() if account.startswith("user:")]
        if len(users) == USERS and "tenant" in found:
            everyone = found["tenant"]
            summed = sum(user.downloads for user in users), sum(user.octets for user in users)
            if summed != (everyone.downloads, everyone.octets):
                self._tell(f"{tenant}: users have {summed} together, the tenant {everyone}")

    def _check_ledger(self, tenant: str, account: str, downloads: int, octets: int) -> None:
        if min(downloads, octets) < 0:
            self._tell(f"{tenant} {account}: negative in the ledger: {downloads} downloads, {octets} bytes")
        for limit in self._limits[tenant][account]:
            used = {"downloads": downloads, "bytes": octets}.get(limit.metric, 0)
            if limit.period == "total" and used > limit.value:
                self._tell(f"{tenant} {account}: {used} {limit.metric} in the ledger, of {limit.value} at most")

    def _tell(self, text: str) -> None:
        if len(self.violations) < MOST_TOLD:
            self.violations.append(f"sample {self.samples}: {text}")


def _used(limit: Limit, counters: Counters) -> int:
    """What counts for ``limit``; 0 for what no counter alone tells, which is checked afterwards."""
    return {
        ("downloads", "total"): counters.downloads,
        ("bytes", "total"): counters.octets,
        ("downloads", "day"): counters.downloads_today,
        ("bytes", "day"): counters.octets_today,
        ("concurrent", "now"): counters.running,
    }.get((limit.metric, limit.period), 0)


def _limits(scenario: Scenario, tenant: str) -> dict[str, list[Limit]]:
    found: dict[str, dict[Limit, None]] = {"tenant": {}}
    for number in range(USERS):
        for limit in scenario.limits(tenant, number):
            found.setdefault(limit.account, {})[limit] = None
    return {account: list(limits) for account, limits in found.items()}
