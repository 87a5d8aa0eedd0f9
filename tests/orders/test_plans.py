"""Whatever is asked of orders is found by indexes: no table of orders is ever read from end to end."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.orders import queue, reading, upkeep
from gateway.orders.lifecycle import FileState, Status
from gateway.orders.model import Nearline, NoStager, Staged
from gateway.orders.reading import Filters, Scope
from tests.harness import SCIENTIST, TENANT
from tests.orders.support import MINE, NO_WISH, Shop, fill, open_shop, selection

Plan = dict[str, Any]

ALL = Scope(TENANT, None)
_MANY = """
INSERT INTO orders (tenant_id, owner, owner_subject, owner_role, owner_groups, label, status, expires_at, files_count)
    SELECT tenant_id, 'user-' || n % 500, 'x', 'x', '{}', 'label ' || n, 'DONE', now() + interval '1 day', 5
    FROM tenants, generate_series(1, 5000) n;
INSERT INTO order_tasks (order_id, dataset, label, query, data_types) SELECT order_id, 'd', 'l', '', '{}' FROM orders;
INSERT INTO suborders (order_id, number, task_id, tenant_id, owner, state, first_file, files_count, files_size,
                       files_pending)
    SELECT order_id, n, 1, tenant_id, owner, 'ENDED', (order_id << 24) + n, 1, 1, 0
    FROM orders, generate_series(1, 5) n;
INSERT INTO order_files (order_file_id, suborder, file_id, state, size)
    SELECT first_file, number, 1, 'DOWNLOADED', 1 FROM suborders;
ANALYZE orders, order_tasks, suborders, order_files;
"""
_SCANS = """
SELECT relname, seq_scan FROM pg_stat_user_tables
WHERE relname IN ('orders', 'order_tasks', 'suborders', 'order_files') AND seq_scan > 0"""


class Waiting:
    async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
        return {one.order_file_id: Staged("PENDING") for one in files}


async def scans(shop: Shop) -> dict[str, int]:
    await shop.database.fetch("SELECT pg_stat_force_next_flush()")
    await shop.database.fetch("SELECT 1")
    return {row["relname"]: row["seq_scan"] for row in await shop.connection.fetch(_SCANS)}


async def test_no_table_of_orders_is_read_from_end_to_end(database: str) -> None:
    async with open_shop(database, suborder_files=50) as shop:
        await fill(shop.connection, products=200, files=2)
        await shop.connection.execute(_MANY)
        await shop.connection.execute("SELECT pg_stat_force_next_flush()")
        before = await scans(shop)
        order_id = await shop.order(selection("many"))
        await shop.see(order_id)
        await shop.actions.pause(MINE, order_id)
        await shop.actions.resume(MINE, order_id)
        held = await queue.claim(shop.database, 30)
        assert held is not None
        await queue.prolong(shop.database, held, 30)
        await queue.finish(shop.database, held, {}, least=datetime.timedelta(0))
        workers = shop.workers(Waiting())
        while await workers.step():
            pass
        order = await shop.see(order_id)
        assert order.status is Status.DONE
        for filters in (
            Filters(),
            Filters(owner="user-7"),
            Filters(owner="user-7", statuses=frozenset({Status.DONE})),
            Filters(statuses=frozenset({Status.PAUSED, Status.FAILED})),
            Filters(waiting=True),
            Filters(after=datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)),
        ):
            # A count of all there is may well read all there is.
            if filters != Filters():
                await reading.page(shop.database, ALL, filters, limit=20, offset=0)
            async for _ in reading.pieces(shop.database, ALL, filters):
                break
        await reading.page(shop.database, MINE, Filters(), limit=20, offset=0)
        await reading.files_of_task(shop.database, order_id, order.tasks[0]["id"], limit=20, offset=100)
        await reading.ready(shop.database, order, None, limit=20, offset=100)
        file_id = (order_id << 24) + 7
        await reading.door(shop.database, file_id)
        await reading.current_generation(shop.database, order_id)
        await shop.actions.mark(file_id, FileState.DOWNLOAD_ERROR, "x")
        await shop.actions.retry(MINE, order_id)
        workers = shop.workers(NoStager())
        while await workers.step():
            pass
        await shop.actions.restart(MINE, SCIENTIST, order_id, NO_WISH)
        await shop.actions.delete(MINE, order_id)
        await upkeep.run(shop.database, shop.settings)
        await shop.actions.remove(ALL, order_id)
        assert await scans(shop) == before


async def test_a_claim_looks_at_what_waits_once_though_it_was_planned_when_nothing_did(database: str) -> None:
    async with open_shop(database, suborder_files=1) as shop:
        await fill(shop.connection, products=600, files=1)
        # As workers have it that asked in vain until there was an order.
        await shop.connection.execute("VACUUM ANALYZE suborders")
        await shop.connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE claim AS {queue._CLAIM_NEXT}")
        claim = "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE claim(gen_random_uuid(), interval '30 seconds')"
        await shop.connection.fetchval(claim)
        await shop.order(selection("many"))
        plan = json.loads(await shop.connection.fetchval(claim))
        windows = [node for node in nodes(plan[0]["Plan"]) if node["Node Type"] == "WindowAgg"]
        assert windows
        assert {node["Actual Loops"] for node in windows} == {1}


def nodes(plan: Plan) -> Iterator[Plan]:
    """All of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)
