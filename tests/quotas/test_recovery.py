"""Redis loses counters, or is replaced by one that has fewer; processes hang and die meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from gateway.errors import GatewayError
from gateway.quotas.keys import Keys
from gateway.quotas.leases import SLICE
from gateway.quotas.ledger import Balance
from gateway.quotas.limits import own_account
from gateway.quotas.upkeep import DRAIN_SECONDS
from tests.quotas.holders import (
    TENANT,
    USER,
    Holder,
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

OTHER = user("other")


@pytest.fixture
async def ledger(database: str) -> str:
    """A ledger that knows the tenant."""
    await add_tenants(database, TENANT)
    return database


@contextlib.asynccontextmanager
async def two_holders(url: str, dsn: str, **settings: float) -> AsyncIterator[tuple[Holder, Holder]]:
    async with (
        open_holder(url, dsn, **settings) as one,  # type: ignore[arg-type]
        open_holder(url, dsn, **settings) as other,  # type: ignore[arg-type]
    ):
        yield one, other


async def reopened(holder: Holder, epoch: int) -> None:
    async def is_so() -> bool:
        return holder.epoch() >= epoch and await holder.is_open()

    await until(is_so, f"epoch {epoch} is open")


async def ledger_has(dsn: str) -> tuple[int, int]:
    """Downloads and bytes of the caller."""
    rows = [row for row in await rows_of(dsn) if row.account == own_account(USER)]
    return sum(row.downloads for row in rows), sum(row.octets for row in rows)


def restart_empty(server: RedisServer) -> None:
    server.kill()
    server.forget()
    server.start()


def restart(server: RedisServer) -> None:
    server.kill()
    server.start()


def stop_and_start(server: RedisServer) -> None:
    server.stop()
    server.start()


def flush(server: RedisServer) -> None:
    server.ask("FLUSHALL")


class TestRedisThatLostSomething:
    @pytest.mark.parametrize("lose", [restart_empty, restart, stop_and_start, flush])
    async def test_all_that_was_charged_is_charged_again_and_what_runs_goes_on(
        self, redis_server: MakeServer, ledger: str, lose: object
    ) -> None:
        server = redis_server("--appendonly", "yes", "--appendfsync", "everysec")
        async with open_holder(server.url, ledger, seconds=(0.05, 60, 60), lease_ttl=6) as holder:
            running = await holder.reserve("running", 4 * SLICE, OTHER)
            ended = await holder.reserve("ended meanwhile", 500)
            for number in range(20):
                await holder.download(f"{number}", 10)
            # Nothing of it is in the ledger yet.
            assert await ledger_has(ledger) == (0, 0)
            assert callable(lose)
            await asyncio.to_thread(lose, server)
            await holder.settle(ended, 300)
            running.transfer.sent = SLICE
            await running.more()
            assert running.granted() > SLICE
            await reopened(holder, 2)
            await until(holder.is_settled, "all is settled")
            assert await holder.used() == (21, 500)
            assert (await ledger_has(ledger))[1] >= 500
            assert await holder.running(OTHER) == 1
            assert await holder.used(OTHER) == (1, 4 * SLICE)
            await holder.download("3", 10)
            assert (await holder.used())[0] == 21, "it is the same download as before"
            await holder.settle(running, SLICE + 1)
            assert await holder.used(OTHER) == (1, SLICE + 1)
            await holder.upkeep.drain_ours()
            await assert_books_agree(holder, ledger)

    async def test_a_stale_replica_that_takes_over_makes_nothing_forgotten(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        primary, replica = redis_server(), redis_server()
        # The first replica of all gives its primary another replication id, and so every tenant another epoch.
        await asyncio.to_thread(_replicate, primary, replica)
        replica.ask("REPLICAOF", "NO", "ONE")
        async with line_to(primary.url) as (line, url), two_holders(url, ledger) as (one, other):
            running = await one.reserve("running", 1000, OTHER)
            await one.download("known to the replica", 10)
            await asyncio.to_thread(_replicate, primary, replica)
            replica.ask("REPLICAOF", "NO", "ONE")
            # From here on the replica knows nothing; and the ledger neither.
            await one.freeze()
            await other.freeze()
            await one.download("of one", 20)
            await other.download("of the other", 40)
            await other.settle(gone := await other.reserve("ended", 100), 70)
            assert gone.sent == 70
            line.lead_to(replica.port)
            primary.kill()
            await one.go_on()
            await other.go_on()
            await assert_unavailable(one)
            await asyncio.gather(reopened(one, 2), reopened(other, 2))
            assert await one.used() == await other.used() == (4, 140)
            assert await ledger_has(ledger) == (4, 140)
            assert await other.running(OTHER) == 1
            await one.settle(running, 600)
            await assert_books_agree(one, ledger)

    async def test_used_is_never_below_the_ledger_while_redis_is_lost_again_and_again(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server()
        async with two_holders(server.url, ledger) as (one, other):
            ended = asyncio.Event()
            done = [0, 0]

            async def go_on_downloading(number: int, holder: Holder) -> None:
                while not ended.is_set():
                    content = f"{number} {done[number]}"
                    with contextlib.suppress(GatewayError):
                        await holder.download(content, 100)
                        done[number] += 1
                    await asyncio.sleep(0.002)

            async def look() -> int:
                looks = 0
                while not ended.is_set():
                    least = await ledger_has(ledger)
                    with contextlib.suppress(GatewayError):
                        used = await other.used()
                        # Promises of running downloads may be corrected downwards, but none is here.
                        assert used[0] >= least[0]
                        assert used[1] >= least[1]
                        looks += 1
                    await asyncio.sleep(0.01)
                return looks

            tasks = [asyncio.create_task(go_on_downloading(*pair)) for pair in enumerate((one, other))]
            looking = asyncio.create_task(look())

            async def both_went_on(since: list[int]) -> bool:
                return all(now >= before + 5 for now, before in zip(done, since, strict=True))

            for epoch in (2, 3, 4):
                since = list(done)
                await until(lambda since=since: both_went_on(since), "both download")  # type: ignore[misc]
                server.ask("FLUSHALL")
                await asyncio.gather(reopened(one, epoch), reopened(other, epoch))
            ended.set()
            await asyncio.gather(*tasks)
            assert await looking > 3
            await asyncio.gather(until(one.is_drained, "drained"), until(other.is_drained, "drained"))
            assert await one.used() == (sum(done), 100 * sum(done))
            await assert_books_agree(one, ledger)


def _replicate(primary: RedisServer, replica: RedisServer) -> None:
    replica.ask("REPLICAOF", "127.0.0.1", primary.port)
    with primary.client() as client:
        deadline = time.monotonic() + 15
        while not client.execute_command("WAIT", 1, 200):
            assert time.monotonic() < deadline
            with contextlib.suppress(redis.RedisError):
                client.set("beat", secrets.token_hex(4))
        client.delete("beat")
        assert client.execute_command("WAIT", 1, 5000) == 1


class TestTwoProcesses:
    async def test_both_tell_what_they_did_before_anybody_is_admitted(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server()
        async with two_holders(server.url, ledger) as (one, other):
            leases = [
                await holder.reserve(f"running {n}", 1000, user(f"user-{n}")) for n, holder in enumerate((one, other))
            ]
            await one.download("a", 10)
            await other.freeze()
            await other.download("b", 20)
            # Only the journal of the other has that download once Redis is empty.
            server.ask("FLUSHALL")
            await assert_unavailable(one)

            async def begun() -> bool:
                return one.epoch() == 1 and await one.ledger.awaited(TENANT, 2, seconds=10) == 1

            await until(begun, "one has told, the other is awaited")
            for _ in range(3):
                await assert_unavailable(one)
            await other.go_on()
            await asyncio.gather(reopened(one, 2), reopened(other, 2))
            assert await one.used() == (2, 30)
            assert await other.used() == (2, 30)
            for n, (holder, lease) in enumerate(zip((one, other), leases, strict=True)):
                assert await one.running(user(f"user-{n}")) == 1
                await holder.settle(lease, 600)
                assert await one.used(user(f"user-{n}")) == (1, 600)
            await until(other.is_drained, "the other is drained")
            await assert_books_agree(one, ledger)

    async def test_one_that_died_is_awaited_until_it_counts_as_dead_and_no_longer(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server()
        async with two_holders(server.url, ledger, process_timeout=1.5) as (one, other):
            await other.download("a", 10)
            await until(other.is_drained, "it is in the ledger")
            await other.freeze()
            died = time.monotonic()
            server.ask("FLUSHALL")
            await assert_unavailable(one)
            await reopened(one, 2)
            assert time.monotonic() - died > 1.2
            assert await one.used() == (1, 10)
            await assert_books_agree(one, ledger)

    async def test_one_that_hung_through_all_of_it_tells_what_it_did_when_it_wakes(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server()
        # Nobody sweeps: else one might bring to the ledger what the other did last.
        seldom = (0.05, 0.05, 60)
        async with (
            open_holder(server.url, ledger, process_timeout=1, lease_ttl=3, seconds=seldom) as one,
            open_holder(server.url, ledger, process_timeout=1, lease_ttl=3, seconds=seldom) as other,
        ):
            await one.download("a", 10)
            running = await other.reserve("running", 1000, OTHER)
            await asyncio.gather(until(one.is_drained, "drained"), until(other.is_drained, "drained"))
            await other.freeze()
            await other.download("late", 20)
            server.ask("FLUSHALL")
            await assert_unavailable(one)
            await reopened(one, 2)
            # Nobody can know of it yet.
            assert await one.used() == (1, 10)
            await other.go_on()
            await reopened(other, 2)
            assert await other.used() == (2, 30)
            assert await one.used() == (2, 30)
            assert await ledger_has(ledger) == (2, 30)
            await other.settle(running, 600)
            assert await one.used(OTHER) == (1, 600)
            await until(other.is_drained, "drained")
            await assert_books_agree(one, ledger)

    async def test_when_a_process_and_redis_die_at_once_what_was_not_drained_is_lost_at_most(
        self, redis_server: MakeServer, ledger: str
    ) -> None:
        server = redis_server()
        seconds = (0.05, DRAIN_SECONDS, 5)
        async with (
            open_holder(server.url, ledger, process_timeout=1, seconds=seconds) as one,
            open_holder(server.url, ledger, process_timeout=1, seconds=seconds) as other,
        ):
            ended_at: list[float] = []
            began = time.monotonic()
            while time.monotonic() < began + 2.5:
                await other.download(f"{len(ended_at)}", 10)
                ended_at.append(time.monotonic())
            await asyncio.gather(other.freeze(), asyncio.to_thread(restart_empty, server))
            # A drain comes at most 1.2 times that later, and takes its time on a busy machine.
            safe = sum(at < ended_at[-1] - 1.2 * DRAIN_SECONDS - 1.5 for at in ended_at)
            assert safe > 10
            await assert_unavailable(one)
            await reopened(one, 2)
            downloads, octets = await ledger_has(ledger)
            assert safe <= downloads <= len(ended_at)
            assert octets == 10 * downloads
            assert await one.used() == (downloads, octets)
            kinds = [row.kind for row in await rows_of(ledger)]
            await assert_books_agree(one, ledger, without_end=kinds.count("grant") - kinds.count("end"))

    async def test_an_account_that_is_loaded_while_a_late_process_tells_what_it_did_has_that(
        self, redis_server: MakeServer, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = redis_server()
        async with two_holders(server.url, ledger, process_timeout=1) as (one, other):
            await one.download("a", 10)
            await asyncio.gather(until(one.is_drained, "drained"), until(other.is_drained, "drained"))
            await other.used()
            await other.freeze()
            await other.download("late", 20)
            server.ask("FLUSHALL")
            await assert_unavailable(one)
            await reopened(one, 2)
            read, going_on, real = asyncio.Event(), asyncio.Event(), one.ledger.balances

            async def balances(*arguments: Any) -> list[Balance]:
                found = await real(*arguments)
                read.set()
                await going_on.wait()
                return found

            monkeypatch.setattr(one.ledger, "balances", balances)
            looking = asyncio.create_task(one.used())
            await read.wait()
            await other.go_on()
            await reopened(other, 2)
            going_on.set()
            await looking
            assert await one.used() == (2, 30)
            await assert_books_agree(one, ledger)


class TestEpochs:
    async def test_whoever_asks_while_a_tenant_is_being_joined_waits_for_that(
        self, redis_url: str, ledger: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with open_holder(redis_url, ledger) as holder:
            joining, going_on, real = asyncio.Event(), asyncio.Event(), holder.ledger.replayed

            async def replayed(tenant: str, epoch: int, process: str) -> None:
                joining.set()
                await going_on.wait()
                await real(tenant, epoch, process)

            monkeypatch.setattr(holder.ledger, "replayed", replayed)
            first = asyncio.create_task(holder.download("a", 10))
            await joining.wait()
            others = [asyncio.create_task(holder.download(f"{number}", 10)) for number in range(5)]
            await asyncio.sleep(0.01)
            going_on.set()
            await asyncio.gather(first, *others)
            assert await holder.used() == (6, 60)
            await assert_books_agree(holder, ledger)

    async def test_keys_of_an_epoch_that_is_over_are_cleared_away(self, redis_server: MakeServer, ledger: str) -> None:
        server = redis_server("--appendonly", "yes")
        async with open_holder(server.url, ledger) as holder:
            await holder.download("a", 10)
            await asyncio.to_thread(restart, server)
            await reopened_after_use(holder, 2)

            async def cleared() -> bool:
                return not [key async for key in holder.scripts.scan(f"{Keys(TENANT, 1).prefix}*")]

            await until(cleared, "nothing is left of the first epoch")
            assert await holder.used() == (1, 10)
            await assert_books_agree(holder, ledger)


async def reopened_after_use(holder: Holder, epoch: int) -> None:
    with contextlib.suppress(GatewayError):
        await holder.used()
    await reopened(holder, epoch)
