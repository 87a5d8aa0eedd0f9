"""What workers do with orders, what users do with them meanwhile, and what time does."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence

import pytest

from gateway.errors import GatewayError
from gateway.orders import queue, upkeep
from gateway.orders.lifecycle import FileState, RefusedError, Status
from gateway.orders.model import Nearline, NoStager, Staged
from gateway.orders.reading import Filters, Scope, page, ready
from tests.harness import OUTSIDER, SCIENTIST, TENANT, principal
from tests.orders.support import MINE, NO_WISH, Shop, fill, open_shop, selection

ALL = Scope(TENANT, None)


class Tape:
    """Stages what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Nearline] = []
        self.answer = Staged("PENDING")

    async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
        self.asked += files
        return {one.order_file_id: self.answer for one in files}


async def work_off(shop: Shop, stager: NoStager | Tape | None = None) -> int:
    workers, steps = shop.workers(stager or NoStager()), 0
    while await workers.step():
        steps += 1
    return steps


async def test_files_that_are_online_are_available_and_the_order_is_done(shop: Shop) -> None:
    await fill(shop.connection, products=4, files=2)
    order_id = await shop.order(selection("many"))
    await work_off(shop)
    order = await shop.see(order_id)
    assert (order.status, order.percent, order.counts.available, order.waiting) == (Status.DONE, 100, 8, True)
    await shop.counts_agree()


@pytest.mark.parametrize(("broken", "status"), [(3, Status.DONE_WITH_WARNING), (8, Status.FAILED)])
async def test_files_without_a_copy_are_in_error_and_can_be_tried_again(
    shop: Shop, broken: int, status: Status
) -> None:
    await fill(shop.connection, products=4, files=2)
    await shop.connection.execute(
        "UPDATE copies SET state = 'LOST' WHERE file_id IN (SELECT file_id FROM files ORDER BY file_id LIMIT $1)",
        broken,
    )
    order_id = await shop.order(selection("many"))
    await work_off(shop)
    order = await shop.see(order_id)
    assert (order.status, order.counts.errors, order.counts.available) == (status, broken, 8 - broken)
    await shop.connection.execute("UPDATE copies SET state = 'ONLINE'")
    await shop.actions.retry(MINE, order_id)
    assert (await shop.see(order_id)).status is Status.RUNNING
    await work_off(shop)
    assert (await shop.see(order_id)).status is Status.DONE
    await shop.counts_agree()


async def test_nearline_files_are_staged_and_hold_nothing_else_up(shop: Shop) -> None:
    await fill(shop.connection, products=4, files=2)
    await shop.connection.execute(
        "UPDATE copies SET state = 'NEARLINE' WHERE file_id = (SELECT min(file_id) FROM files)"
    )
    order_id, tape = await shop.order(selection("many")), Tape()
    await work_off(shop, tape)
    order = await shop.see(order_id)
    assert (order.status, order.counts.pending, order.counts.available) == (Status.RUNNING, 1, 7)
    assert 0 < order.percent < 100
    assert [one.copies for one in tape.asked] == [[("disk", str(tape.asked[0].file_id))]]
    await shop.connection.execute("UPDATE suborders SET due_at = now() WHERE state = 'STAGING'")
    tape.answer = Staged("AVAILABLE")
    await work_off(shop, tape)
    assert (await shop.see(order_id)).status is Status.DONE
    await shop.counts_agree()


async def test_what_cannot_be_staged_is_in_error_with_the_reason(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=1, state="NEARLINE")
    await shop.order(selection("many"))
    await work_off(shop)
    assert await shop.connection.fetchval("SELECT error FROM order_files") == "The file is not online."


async def test_a_worker_that_dies_is_followed_by_another_and_writes_nothing_late(shop: Shop) -> None:
    await fill(shop.connection, products=4, files=2)
    order_id = await shop.order(selection("many"))
    held = await queue.claim(shop.database, 30)
    assert held is not None
    await shop.connection.execute("UPDATE suborders SET due_at = now() WHERE state = 'RUNNING'")
    await work_off(shop)
    assert (await shop.see(order_id)).status is Status.DONE
    assert not await queue.prolong(shop.database, held, 30)
    late = dict.fromkeys(range((order_id << 24) + 1, (order_id << 24) + 9), Staged("ERROR", "late"))
    assert await queue.finish(shop.database, held, late, least=datetime.timedelta(0)) is None
    assert (await shop.see(order_id)).status is Status.DONE
    await shop.counts_agree()


async def test_signs_of_life_keep_a_lease_and_its_loss_ends_the_work(database: str) -> None:
    lost = asyncio.Event()

    class Slow:
        async def stage(self, files: Sequence[Nearline]) -> Mapping[int, Staged]:
            await shop.connection.execute("UPDATE suborders SET lease = gen_random_uuid() WHERE state = 'RUNNING'")
            try:
                await asyncio.Event().wait()
            finally:
                lost.set()
            return {}

    async with open_shop(database, lease=1) as shop:
        await fill(shop.connection, products=1, files=1, state="NEARLINE")
        await shop.order(selection("many"))
        with pytest.raises(Exception, match="another worker has it now"):
            await shop.workers(Slow()).step()
        assert lost.is_set()


async def test_owners_take_turns_however_much_each_has_ordered(shop: Shop) -> None:
    # Sub-orders of 3 files; claims of small ones are not joined beyond what waits in the order.
    await fill(shop.connection, products=40, files=1)
    big = await shop.order(selection("many"))
    small = await shop.order(selection("many", "from:0000038"), who=principal("other", "science"))
    turns = await shop.connection.fetch("SELECT order_id FROM suborders ORDER BY turn, suborder_id")
    assert [row["order_id"] for row in turns].index(small) <= 1
    again = await shop.order(selection("many", "from:0000038"))
    turns = await shop.connection.fetch("SELECT order_id FROM suborders ORDER BY turn, suborder_id")
    assert [row["order_id"] for row in turns][-1] == again, "one owner's orders come one after the other"
    assert big != again


async def test_claims_of_several_workers_never_meet(database: str) -> None:
    async with open_shop(database, suborder_files=2) as shop:
        await fill(shop.connection, products=50, files=1)
        await asyncio.gather(*(shop.order(selection("many")) for _ in range(4)))
        claims = await asyncio.gather(*(queue.claim(shop.database, 30) for _ in range(4)))
        parts = [part for claim in claims if claim is not None for part in claim.parts]
        assert len(parts) == len(set(parts)) > 0
        assert all(len({claim.order_id}) == 1 for claim in claims if claim is not None)


async def test_a_paused_order_rests_until_it_is_resumed(shop: Shop) -> None:
    await fill(shop.connection, products=4, files=2)
    order_id = await shop.order(selection("many"))
    await shop.actions.pause(MINE, order_id)
    assert await work_off(shop) == 0
    with pytest.raises(RefusedError, match="ORDER_MUST_BE_PENDING_OR_RUNNING"):
        await shop.actions.pause(MINE, order_id)
    await shop.actions.resume(MINE, order_id)
    await work_off(shop)
    assert (await shop.see(order_id)).status is Status.DONE
    with pytest.raises(RefusedError, match="ONLY_PAUSED_ORDER_CAN_BE_RESUMED"):
        await shop.actions.resume(MINE, order_id)


async def test_what_a_worker_has_in_hand_is_finished_though_the_order_is_paused(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=3)
    order_id = await shop.order(selection("many"))
    held = await queue.claim(shop.database, 30)
    assert held is not None
    await shop.actions.pause(MINE, order_id)
    assert await queue.finish(shop.database, held, {}, least=datetime.timedelta(0)) is Status.PAUSED
    assert (await shop.see(order_id)).counts.available == 3
    await shop.actions.resume(MINE, order_id)
    assert (await shop.see(order_id)).status is Status.DONE
    await shop.counts_agree()


async def test_deleted_is_hidden_from_its_user_and_its_files_are_forgotten(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=2)
    order_id = await shop.order(selection("many"))
    with pytest.raises(RefusedError, match="ORDER_MUST_BE_PAUSED_BEFORE_BEING_DELETED"):
        await shop.actions.delete(MINE, order_id)
    await shop.actions.pause(MINE, order_id)
    await shop.actions.delete(MINE, order_id)
    await upkeep.run(shop.database, shop.settings)
    assert await shop.connection.fetchval("SELECT count(*) FROM order_files") == 0
    with pytest.raises(GatewayError, match="doesn't exist"):
        await shop.see(order_id)
    assert (await shop.see(order_id, ALL)).status is Status.DELETED


async def test_removed_leaves_nothing(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=2)
    order_id, other = await shop.order(selection("many")), await shop.order(selection("many"))
    with pytest.raises(RefusedError, match="ORDER_MUST_NOT_BE_RUNNING"):
        await shop.actions.remove(MINE, order_id)
    await shop.actions.pause(MINE, order_id)
    await shop.actions.remove(MINE, order_id)
    left = await shop.connection.fetch(
        "SELECT order_file_id >> 24 AS id FROM order_files UNION SELECT order_id FROM suborders"
    )
    assert [row["id"] for row in left] == [other]


async def test_with_a_tenant_its_orders_go_whole(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=2)
    await shop.order(selection("many"))
    await shop.connection.execute("DELETE FROM tenants")
    for table in ("orders", "order_tasks", "suborders", "order_files"):
        assert await shop.connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table


async def test_what_waits_and_what_is_due_do_not_keep_each_other_waiting(shop: Shop) -> None:
    await fill(shop.connection, products=6, files=1, state="NEARLINE")
    order_id = await shop.order(selection("many"))
    workers = shop.workers(Tape())
    await workers.step()
    await shop.connection.execute("UPDATE suborders SET state = 'WAITING', due_at = NULL, lease = NULL")
    await shop.connection.execute("UPDATE suborders SET state = 'STAGING', due_at = now() WHERE number = 1")
    first = await queue.claim(shop.database, 30, due_first=False)
    second = await queue.claim(shop.database, 30, due_first=True)
    assert first is not None
    assert second is not None
    assert [one.ranges[0][0] - (order_id << 24) for one in (second, first)] == [1, 4]


async def test_an_order_of_somebody_else_is_as_none(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=1)
    order_id = await shop.order(selection("many"))
    for scope in (Scope(TENANT, OUTSIDER.email), Scope("other", None), Scope("other", SCIENTIST.email)):
        for act in (shop.actions.pause, shop.actions.resume, shop.actions.delete, shop.actions.remove):
            with pytest.raises(GatewayError, match="doesn't exist"):
                await act(scope, order_id)
        assert await page(shop.database, scope, Filters(), limit=10, offset=0) == ([], 0)


async def test_an_order_ends_with_its_time_and_is_removed_long_after(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=2)
    waiting, fetched = await shop.order(selection("many")), await shop.order(selection("many", "id:0000001"))
    await work_off(shop)
    for number in (1, 2):
        await shop.actions.mark((fetched << 24) + number, FileState.DOWNLOADED)
    await shop.counts_agree()
    await shop.connection.execute("UPDATE orders SET expires_at = now()")
    await upkeep.run(shop.database, shop.settings)
    assert (await shop.see(waiting)).status is Status.EXPIRED
    assert (await shop.see(fetched)).status is Status.DONE, "nobody waits for anything"
    await shop.connection.execute("UPDATE orders SET status_at = now() - interval '366 days'")
    await upkeep.run(shop.database, shop.settings)
    assert await shop.connection.fetchval("SELECT count(*) FROM orders") == 0
    assert await shop.connection.fetchval("SELECT count(*) FROM order_files") == 0


async def test_an_order_that_goes_on_late_has_time_left(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=1, state="LOST")
    order_id = await shop.order(selection("many"))
    await shop.connection.execute("UPDATE orders SET expires_at = now()")
    await work_off(shop)
    order = await shop.see(order_id)
    assert 47 < (order.expires - order.created).total_seconds() / 3600 <= 49


async def test_a_download_that_fails_spoils_an_order_until_it_is_tried_again(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=2)
    order_id = await shop.order(selection("many"))
    await work_off(shop)
    await shop.actions.mark((order_id << 24) + 1, FileState.DOWNLOAD_ERROR, "why")
    assert (await shop.see(order_id)).status is Status.DONE_WITH_WARNING
    await shop.actions.retry(MINE, order_id)
    await work_off(shop)
    assert (await shop.see(order_id)).status is Status.DONE
    await shop.counts_agree()


async def test_a_restarted_order_is_a_new_one_of_the_same_selections(shop: Shop) -> None:
    await fill(shop.connection, products=3, files=1)
    order_id = await shop.order(selection("many", "from:0000002", name_pattern=".*tif"))
    await work_off(shop)
    await fill(shop.connection, products=1, files=1, collection="other")
    again = await shop.actions.restart(MINE, SCIENTIST, order_id, wish=NO_WISH)
    assert again != order_id
    assert (await shop.see(again)).counts.files == 2
    await shop.counts_agree()


async def test_pages_of_available_files_are_all_of_them_in_order_whatever_their_size(shop: Shop) -> None:
    await fill(shop.connection, products=10, files=1)
    order_id = await shop.order(selection("many"))
    await work_off(shop)
    for number in (1, 4, 5, 6, 8):
        await shop.actions.mark((order_id << 24) + number, FileState.DOWNLOADED)
    order = await shop.see(order_id)
    for size in range(1, 7):
        found: list[int] = []
        for number in range(6):
            files, total = await ready(shop.database, order, None, limit=size, offset=number * size)
            assert (total, len(files) <= size) == (5, True)
            found += [file.order_file_id - (order_id << 24) for file in files]
        assert found == [2, 3, 7, 9, 10], size


async def test_a_file_that_the_catalogue_has_no_more_is_in_error(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=1)
    order_id = await shop.order(selection("many"))
    await shop.connection.execute("DELETE FROM files WHERE file_id = (SELECT min(file_id) FROM files)")
    await work_off(shop)
    order = await shop.see(order_id)
    assert (order.status, order.counts.errors) == (Status.DONE_WITH_WARNING, 1)
