"""``gateway quotas``."""

from __future__ import annotations

import redis

from gateway.config import load
from tests.commands.support import Stand, run
from tests.harness import SCIENTIST, running_gateway


async def test_counters_are_compared_repaired_and_rebuilt(stand: Stand) -> None:
    config = stand.configure(server={"port": 0, "shutdown_timeout": 1})
    async with running_gateway(load(config), stand.root) as gateway:
        await stand.catalogue.limit("user", "scientist@example.org", downloads=100)
        entries = [await stand.catalogue.file(b"%d" % number * 10, item=f"{number}") for number in range(3)]
        for entry in entries:
            assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
        used = await gateway.usage(SCIENTIST)

        found = await run("quotas", "check", "--config", config)
        assert (found.exit_code, found.output) == (0, "1 accounts of 1 tenants: all as the ledger says\n")
        with redis.Redis.from_url(stand.redis_url) as client:
            (key,) = client.scan_iter("gateway:{esa}:1:account:user:*")
            downloads, octets, day, of_day, octets_of_day, month, of_month, octets_of_month = map(
                int, str(client.hget(key, "c").decode()).split()
            )
            wrong = (downloads, octets - 7, day, of_day, octets_of_day, month, of_month + 1, octets_of_month)
            client.hset(key, "c", " ".join(map(str, wrong)))
        found = await run("quotas", "check", "--config", config)
        lines = found.output.splitlines()
        assert (found.exit_code, len(lines)) == (1, 2)
        assert lines[0] == "esa: user:scientist@example.org: b is 23, should be 30; md is 4, should be 3"
        assert (await run("quotas", "check", "--config", config, "--repair")).exit_code == 1
        assert (await run("quotas", "check", "--config", config)).exit_code == 0
        assert await gateway.usage(SCIENTIST) == used

        with redis.Redis.from_url(stand.redis_url) as client:
            client.hset(key, "c", f"{10**9} {10**9} 1 0 0 1 0 0")
            rebuilt = await run("quotas", "rebuild", "--config", config)
            assert (rebuilt.exit_code, rebuilt.output) == (0, "esa: counters are loaded anew from the ledger\n")
            assert await gateway.usage(SCIENTIST) == used
            assert (await gateway.get(entries[0].stac, SCIENTIST))[0].status == 200
            assert await gateway.usage(SCIENTIST) == (used[0], used[1] + 10)
            client.flushdb()
        assert (await run("quotas", "rebuild", "--config", config, "--tenant", "esa")).exit_code == 0
        assert (await gateway.get(entries[1].stac, SCIENTIST))[0].status == 200
        assert await gateway.usage(SCIENTIST) == (used[0], used[1] + 20)

        unknown = await run("quotas", "rebuild", "--config", config, "--tenant", "nobody")
        assert (unknown.exit_code, "tenant 'nobody' has no counters; there are: esa" in unknown.output) == (1, True)


async def test_sums_that_are_not_those_of_the_entries_are_told(stand: Stand) -> None:
    config = stand.configure(server={"port": 0, "shutdown_timeout": 1})
    async with running_gateway(load(config), stand.root) as gateway:
        entry = await stand.catalogue.file(b"content")
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    await stand.catalogue.connection.execute("UPDATE quota_usage SET bytes = bytes + 1 WHERE account = 'tenant'")
    found = await run("quotas", "check", "--config", config)
    assert found.exit_code == 1
    assert "esa: tenant: the sums of the ledger say (1, 8), its entries (1, 7)" in found.output
