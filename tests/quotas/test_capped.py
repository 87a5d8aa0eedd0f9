"""Admission while Redis is out of reach, for those whose every limit allows it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import GatewayError
from gateway.identity.principal import Principal, anonymous
from gateway.quotas.capped import Capped
from gateway.quotas.limits import Limit
from gateway.quotas.reservation import Reservation
from tests.harness import TENANT
from tests.quotas.holders import USER, add_tenants, open_holder, rows_of, until
from tests.redis_servers import MakeServer

ACCOUNT = "user:scientist@example.org"
CONCURRENT = Limit(ACCOUNT, "concurrent", "now", 50, capped=True)
RATE = Limit(ACCOUNT, "rate", "1s", 100, burst=100, capped=True)
CLOSED = Limit(ACCOUNT, "bytes", "day", 10**12)


def reservation(number: int, account: str = ACCOUNT) -> Reservation:
    return Reservation(TENANT, f"lease-{number}", (account, "tenant"), "content", (), 10, 10)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_few_at_a_time_and_a_few_in_a_second() -> None:
    clock = Clock()
    capped = Capped(3, clock)
    assert [capped.admit(reservation(number), [CONCURRENT]) for number in range(4)] == [True] * 3 + [False]
    assert capped.admit(reservation(9, "user:another@example.org"), [CONCURRENT])
    clock.now += 5
    assert not capped.admit(reservation(5), [CONCURRENT])
    for number in range(3):
        capped.end(reservation(number), 10, delivered=True)
    assert [capped.admit(reservation(number), [CONCURRENT]) for number in range(10, 14)] == [True] * 3 + [False]
    for number in range(10, 13):
        capped.end(reservation(number), 0, delivered=False)
    assert not capped.waiting().get("other")
    assert len(capped.waiting()[TENANT]) == 3
    capped.recorded(TENANT, capped.waiting()[TENANT][:1])
    assert len(capped.waiting()[TENANT]) == 2


@pytest.mark.parametrize(
    ("account", "limits"),
    [
        (ACCOUNT, []),
        (ACCOUNT, [CONCURRENT, CLOSED]),
        (ACCOUNT, [CONCURRENT, Limit(ACCOUNT, "rate", "1s", 0, capped=True)]),
        ("network:192.0.2.1/32", [Limit("network:192.0.2.1/32", "concurrent", "now", 5, capped=True)]),
    ],
    ids=["without limits", "one is exact", "one forbids", "nobody in particular"],
)
def test_nobody_else_is_admitted(account: str, limits: list[Limit]) -> None:
    assert not Capped(3, Clock()).admit(reservation(1, account), limits)


async def test_without_redis_a_few_are_let_in_and_the_ledger_knows(redis_server: MakeServer, database: str) -> None:
    await add_tenants(database, TENANT)
    server = redis_server()
    async with open_holder(server.url, database) as holder:
        await holder.download("before", 100)
        await until(holder.is_drained, "the ledger has it")
        await asyncio.to_thread(server.kill)
        leases = [await holder.reserve(f"{number}", 1000, USER, CONCURRENT, RATE) for number in range(4)]
        for who, limits in ((USER, [CONCURRENT]), (USER, [CLOSED, CONCURRENT]), (anonymous(TENANT), [CONCURRENT])):
            with pytest.raises(GatewayError) as refused:
                await holder.reserve("more", 1000, who, *limits)
            assert (refused.value.status, "Retry-After" in refused.value.headers) == (503, True)
        other = Principal(TENANT, "other", "other@example.org", "REGISTERED_USER")
        limit = Limit("user:other@example.org", "concurrent", "now", 5, capped=True)
        await holder.settle(await holder.reserve("other", 50, other, limit), 50)
        for number, lease in enumerate(leases):
            await holder.settle(lease, 100 * number)

        async def recorded() -> bool:
            return len(await rows_of(database)) == 2 + 4

        await until(recorded, "the ledger has what was capped")
        # Begun anew, with nothing: all of it is there.
        server.launch()
        await asyncio.to_thread(server.wait)
        await until(holder.is_open, "counters are open")

        async def known() -> bool:
            try:
                return await holder.used() == (1 + 3, 100 + 600) and await holder.used(other) == (1, 50)
            except GatewayError:
                return False

        await until(known, "counters are loaded")
