"""Redis loses counters, or is replaced by one that has fewer; processes hang and die meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gateway.quotas.keys import Keys
from gateway.quotas.limits import Limit, own_account
from tests.quotas.holders import (
    TENANT,
    USER,
    Holder,
    add_tenants,
    assert_books_agree,
    assert_unavailable,
    open_holder,
    rows_of,
    until,
    user,
)
from tests.redis_servers import MakeServer, RedisServer


@pytest.fixture
async def ledger(database: str) -> str:
    """A ledger that knows the tenant."""
    await add_tenants(database, TENANT)
    return database


@contextlib.asynccontextmanager
async def two_holders(url: str, dsn: str, **settings: float) -> AsyncIterator[tuple[Holder, Holder]]:
    async with open_holder(url, dsn, **settings) as one, open_holder(url, dsn, **settings) as other:  # type: ignore[arg-type]
        yield one, other


async def reopened(holder: Holder, epoch: int) -> None:
    async def is_so() -> bool:
        return holder.epoch() >= epoch and await holder.is_open()

    await until(is_so, f"epoch {epoch} is open")


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
