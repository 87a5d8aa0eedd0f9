"""Redis and PostgreSQL go away, hang, fill up or lose answers: charged once or 503, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re

import asyncpg
import pytest
import redis

from gateway.errors import GatewayError
from gateway.quotas.calls import SCRIPTS
from gateway.quotas.keys import Keys
from gateway.quotas.leases import SLICE
from tests.quotas.holders import (
    TENANT,
    TIMEOUT,
    Holder,
    Row,
    add_tenants,
    assert_books_agree,
    assert_unavailable,
    line_to,
    open_holder,
    rows_of,
    until,
    user,
)
from tests.redis_servers import MakeServer, RedisServer

LOST_REPLIES = 1000
RESERVE = re.compile(SCRIPTS["reserve"].sha.encode())


@pytest.fixture
async def ledger(database: str) -> str:
    """A ledger that knows the tenant."""
    await add_tenants(database, TENANT)
    return database


def sums(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """Downloads and bytes of each reservation."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        downloads, octets = found.get(row.reservation, (0, 0))
        found[row.reservation] = (downloads + row.downloads, octets + row.octets)
    return found


class TestLostReplies:
    async def test_a_thousand_reservations_whose_reply_is_lost_are_charged_once_or_given_back(
        self, redis_url: str, ledger: str
    ) -> None:
        chance = random.Random(1000)
        lost = 0

        def loses(piece: bytes) -> bool:
            nonlocal lost
            found = len(RESERVE.findall(piece))
            if found and chance.random() < 0.6:
                lost += found
                return True
            return False

        async with line_to(redis_url) as (line, url), open_holder(url, ledger) as holder:
            charged: dict[str, int] = {}
            statuses: set[int] = set()
            line.loses = loses

            async def download(number: int) -> None:
                try:
                    lease = await holder.reserve(f"content {number}", 1000, user(f"user-{number % 7}"))
                except GatewayError as error:
                    statuses.add(error.status)
                    return
                charged[lease.reservation.identifier] = sent = number % 1000 + 1
                await holder.settle(lease, sent)

            number = 0
            while lost < LOST_REPLIES:
                await asyncio.gather(*(download(number + one) for one in range(40)))
                number += 40
            line.loses = lambda _: False
            assert 0 < len(charged) < number
            assert statuses == {503}
            await assert_books_agree(holder, ledger)
        found = sums(await rows_of(ledger))
        assert {name: found.pop(name) for name in charged} == {name: (1, sent) for name, sent in charged.items()}
        # The others were given back.
        assert set(found.values()) == {(0, 0)}
        assert len({row.reservation for row in await rows_of(ledger)}) >= LOST_REPLIES / 3

    async def test_settlements_whose_replies_are_lost_count_once(self, redis_url: str, ledger: str) -> None:
        async with line_to(redis_url) as (line, url), open_holder(url, ledger) as holder:
            leases = [await holder.reserve(f"{number}", 1000) for number in range(20)]
            chance = random.Random(2)
            line.loses = lambda piece: b"settle" in piece and chance.random() < 0.7
            await asyncio.gather(*(holder.settle(lease, 300) for lease in leases))
            line.loses = lambda _: False
            await assert_books_agree(holder, ledger)
            assert await holder.used() == (20, 20 * 300)

    async def test_a_lease_that_is_reserved_anew_for_nobody_is_given_back(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        """Its process heard nothing of the new one, and so would never end it."""
        server = redis_server()
        async with line_to(server.url) as (line, url), open_holder(url, ledger) as holder:
            lease = await holder.reserve("a", 4 * SLICE)
            await outlive(holder, server)
            line.loses = lambda piece: RESERVE.search(piece) is not None
            lease.transfer.sent = lease.mark
            with pytest.raises(Exception, match="does not answer"):
                await lease.more()
            line.loses = lambda _: False
            await holder.settle(lease, SLICE)
            await assert_books_agree(holder, ledger)
            assert await holder.used() == (1, SLICE)


async def outlive(holder: Holder, server: RedisServer) -> None:
    """Let all leases run out, and be swept."""
    server.ask("HINCRBY", Keys(TENANT, holder.epoch()).state, "shift", 3_600_000_000)
    await swept(holder)


async def swept(holder: Holder) -> None:
    """Wait until no lease is left."""
    await until(lambda: _holds(holder, 0), "the leases are swept")


async def _holds(holder: Holder, number: int) -> bool:
    return await holder.leases() == number


class TestRedisOutOfReach:
    @pytest.mark.parametrize("how", ["hangs", "is gone", "is paused", "takes no changes", "is slow"])
    async def test_it_is_503_in_time_and_nothing_is_lost(self, redis_server: MakeServer, ledger: str, how: str) -> None:
        server = redis_server("--appendonly", "yes")
        async with open_holder(server.url, ledger, timeout=TIMEOUT, lease_ttl=6) as holder:
            await holder.download("before", 70)
            running = await holder.reserve("running", 4 * SLICE, user("other"))
            ending = await holder.reserve("ending", 100)
            epoch = holder.epoch()
            if how == "hangs":
                server.pause()
            elif how == "is gone":
                server.kill()
            elif how == "is paused":
                server.ask("CLIENT", "PAUSE", 60_000, "ALL")
            elif how == "takes no changes":
                server.ask("REPLICAOF", "127.0.0.1", "1")
            else:
                server.ask("CONFIG", "SET", "busy-reply-threshold", 10)
                busy = asyncio.create_task(asyncio.to_thread(_keep_busy, server))
                await asyncio.sleep(0.1)
            await assert_unavailable(holder)
            await holder.settle(ending, 42)
            for _ in range(4):
                await assert_unavailable(holder)
            running.transfer.sent = SLICE
            more = asyncio.create_task(running.more())
            if how == "hangs":
                server.resume()
            elif how == "is gone":
                server.start()
            elif how == "is paused":
                # Nobody is heard meanwhile, not even who would end the pause.
                server.kill()
                server.start()
            elif how == "takes no changes":
                server.ask("REPLICAOF", "NO", "ONE")
            else:
                server.ask("SCRIPT", "KILL")
                await busy
            await more
            assert running.granted() > SLICE
            await until(lambda: _admitted(holder, "after"), "downloads are admitted again")
            assert await holder.running(user("other")) == 1
            await holder.settle(running, 2 * SLICE)
            await until(holder.is_settled, "all is settled")
            assert await holder.used() == (3, 70 + 42 + 5)
            assert await holder.used(user("other")) == (1, 2 * SLICE)
            assert holder.epoch() == epoch + (how in ("is gone", "is paused", "takes no changes"))
            await assert_books_agree(holder, ledger)

    async def test_when_it_is_full_it_grants_nothing_but_ends_what_it_granted(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server("--maxmemory-policy", "noeviction")
        async with open_holder(server.url, ledger, lease_ttl=1) as holder:
            lease = await holder.reserve("a", 100)
            lost = await holder.reserve("b", 1000, user("other"))
            server.ask("CONFIG", "SET", "maxmemory", "1")
            await assert_unavailable(holder)
            await holder.settle(lease, 42)
            assert await holder.used() == (1, 42)
            # What was never settled is ended, too: else a full Redis would keep slots for ever.
            holder.upkeep.leases.drop(lost)
            await swept(holder)
            assert await holder.used(user("other")) == (1, 1000)
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await until(lambda: _admitted(holder, "c"), "downloads are admitted again")
            await assert_books_agree(holder, ledger)

    async def test_scripts_that_are_forgotten_at_every_step_are_loaded_again(self, redis_url: str, ledger: str) -> None:
        async with open_holder(redis_url, ledger) as holder:
            for number in range(5):
                await holder.scripts.call("SCRIPT", "FLUSH")
                lease = await holder.reserve(f"{number}", 10)
                await holder.scripts.call("SCRIPT", "FLUSH")
                await holder.settle(lease, 4)
            assert await holder.used() == (5, 20)
            await assert_books_agree(holder, ledger)


async def _admitted(holder: Holder, content: str) -> bool:
    await holder.download(content, 5)
    return True


def _keep_busy(server: RedisServer) -> None:
    """A script of somebody else that never ends: BUSY, until it is killed."""
    with contextlib.suppress(redis.ResponseError), redis.Redis.from_url(server.url) as client:
        client.eval("while true do end", 0)


class TestPostgresqlOutOfReach:
    async def test_what_is_settled_while_it_hangs_is_in_the_ledger_afterwards(
        self, redis_url: str, ledger: str
    ) -> None:
        async with line_to(_with_port(ledger)) as (line, dsn), open_holder(redis_url, dsn) as holder:
            await holder.download("before", 10)
            await until(holder.is_drained, "the first is in the ledger")
            running = await holder.reserve("running", 100)
            good, line.port = line.port, 1
            line.cut()
            for number in range(10):
                await holder.download(f"{number}", 10)
            await holder.settle(running, 40)
            # Redis has the caller's counters; those of somebody new are in the ledger.
            with pytest.raises(GatewayError) as caught:
                await holder.reserve("new", 10, user("new"))
            assert caught.value.status == 503
            assert int(caught.value.headers["Retry-After"]) >= 1
            assert await holder.used() == (12, 150)
            assert len({row.reservation for row in await rows_of(ledger)}) <= 2
            line.port = good
            await until(lambda: _admitted_to(holder, "new"), "downloads are admitted again")
            await assert_books_agree(holder, ledger)
            assert await holder.used() == (12, 150)

    async def test_a_statement_whose_answer_is_lost_is_not_counted_twice(self, redis_url: str, ledger: str) -> None:
        async with line_to(_with_port(ledger)) as (line, dsn), open_holder(redis_url, dsn) as holder:
            chance = random.Random(3)
            line.loses = lambda _: chance.random() < 0.3
            for number in range(100):
                await until(lambda name=f"{number}": _admitted(holder, name), "it is admitted")  # type: ignore[misc]
            line.loses = lambda _: False
            await assert_books_agree(holder, ledger)
            assert await holder.used() == (100, 500)

    async def test_a_ledger_too_far_behind_closes_admission_until_it_has_caught_up(
        self, redis_url: str, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_holder(redis_url, ledger, max_unconfirmed=100) as holder:
            await holder.download("before", 10)
            blocked, real = asyncio.Event(), holder.ledger.drain

            async def drain(*positional: object, **named: object) -> bool:
                await blocked.wait()
                return await real(*positional, **named)  # type: ignore[arg-type]

            monkeypatch.setattr(holder.ledger, "drain", drain)
            running = await holder.reserve("running", 10)
            number = 0
            with contextlib.suppress(GatewayError):
                for number in range(200):
                    await holder.download(f"{number}", 10)
            assert 40 <= number <= 51
            await assert_unavailable(holder)
            # What runs is ended all the same.
            await holder.settle(running, 5)
            assert await holder.used() == (number + 2, 10 + 10 * number + 5)
            blocked.set()
            await until(lambda: _admitted(holder, "after"), "it is admitted again")
            await assert_books_agree(holder, ledger)

    async def test_the_stream_is_trimmed_only_below_what_the_ledger_has(self, redis_url: str, ledger: str) -> None:
        connection = await asyncpg.connect(ledger)
        async with open_holder(redis_url, ledger, seconds=(0.05, 0.01, 0.05)) as holder:
            await holder.download("first", 1)
            keys = Keys(TENANT, holder.epoch())
            ended = asyncio.Event()

            async def watch() -> int:
                looks = 0
                while not ended.is_set():
                    entries = await holder.scripts.call("XRANGE", keys.events, "-", "+", "COUNT", 1)
                    position = await connection.fetchval("SELECT max(position) FROM quota_epochs")
                    if entries:
                        looks += 1
                        assert int(entries[0][0].partition(b"-")[0]) <= position + 1
                return looks

            watching = asyncio.create_task(watch())
            for number in range(40):
                await asyncio.gather(*(holder.download(f"{number}-{one}", 10) for one in range(10)))
            ended.set()
            assert await watching > 5
            await until(holder.is_drained, "all is in the ledger")
            assert await holder.scripts.call("XLEN", keys.events) == 0
            await assert_books_agree(holder, ledger)
        await connection.close()


async def _admitted_to(holder: Holder, name: str) -> bool:
    await holder.download("new", 10, user(name))
    return True


def _with_port(dsn: str) -> str:
    assert re.search(r":\d+/", dsn), dsn
    return dsn
