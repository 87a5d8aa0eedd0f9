"""What an order is made of."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.orders.creation import EmptyOrderError
from gateway.orders.lifecycle import Status
from gateway.orders.model import Wish
from gateway.orders.patterns import refusal
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, TENANT, Catalogue, principal
from tests.orders.support import Shop, fill, open_shop, selection


async def names(shop: Shop, order_id: int) -> list[str]:
    rows = await shop.connection.fetch(
        "SELECT file_name FROM order_files JOIN files USING (file_id) WHERE order_file_id >> 24 = $1 ORDER BY 1",
        order_id,
    )
    return [row["file_name"] for row in rows]


async def test_an_order_has_the_files_of_its_selection_and_counts_them(shop: Shop) -> None:
    await fill(shop.connection, products=3, files=2)
    order = await shop.see(await shop.order(selection("many", "from:0000002")))
    assert (order.status, order.percent, order.counts.files, order.counts.pending) == (Status.RUNNING, 0, 4, 4)
    assert (order.owner, order.size, order.waiting) == (SCIENTIST.email, 4000, False)
    (task,) = order.tasks
    assert (task["datasetLabel"], task["objectsCount"], task["filesCount"], task["filesSize"]) == ("many", 2, 4, 4000)
    assert (order.expires - order.created).total_seconds() == 3 * 86400
    await shop.counts_agree()


@pytest.mark.parametrize(
    ("files", "size", "cuts"),
    [(3, 10**9, [3, 3, 2]), (100, 2500, [3, 2, 3]), (100, 2000, [2, 2, 2, 2]), (1, 10**9, [1] * 8), (100, 1, [1] * 8)],
)
async def test_sub_orders_end_by_count_and_by_size(database: str, files: int, size: int, cuts: list[int]) -> None:
    async with open_shop(database, suborder_files=files, suborder_size=size) as shop:
        await fill(shop.connection, products=4, files=2)
        order_id = await shop.order(selection("many"))
        rows = await shop.connection.fetch("SELECT * FROM suborders WHERE order_id = $1 ORDER BY number", order_id)
        assert [row["files_count"] for row in rows] == cuts
        assert [row["number"] for row in rows] == list(range(1, len(cuts) + 1))
        following = order_id << 24
        for row in rows:
            assert row["first_file"] == following + 1, "files of sub-orders follow one another"
            assert row["files_size"] == 1000 * row["files_count"]
            following += row["files_count"]
        await shop.counts_agree()


async def test_each_dataset_has_a_task_and_sub_orders_of_its_own(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=4, collection="one")
    await fill(shop.connection, products=2, files=1, collection="two")
    order_id = await shop.order(selection("one"), selection("two"), selection("ghost"))
    order = await shop.see(order_id)
    assert [(task["datasetLabel"], task["filesCount"]) for task in order.tasks] == [("one", 4), ("two", 2)]
    rows = await shop.connection.fetch("SELECT task_id, files_count FROM suborders ORDER BY number")
    assert [(row["task_id"], row["files_count"]) for row in rows] == [
        (order.tasks[0]["id"], 3),
        (order.tasks[0]["id"], 1),
        (order.tasks[1]["id"], 2),
    ]


async def test_only_what_the_owner_may_have_now_is_ordered(shop: Shop) -> None:
    """Files by the right to files, quicklooks by the right to the product; neither for a stranger."""
    catalogue = Catalogue(shop.connection, None)  # type: ignore[arg-type]
    await catalogue.grant("seen", await catalogue.group("science"), files="NO_ACCESS")
    await catalogue.described(b"raw", collection="seen", asset="raw", name="raw.tif")
    await catalogue.described(b"look", collection="seen", asset="look", name="look.png", data_type="QUICKLOOK_SD")
    await catalogue.described(b"text", collection="seen", asset="text", name="text.txt", data_type="DOCUMENT")
    assert await names(shop, await shop.order(selection("seen"))) == ["look.png"]
    assert await names(shop, await shop.order(selection("seen"), who=ADMIN)) == ["look.png", "raw.tif"]
    for who in (OUTSIDER, principal("far", "science", tenant="other")):
        await catalogue.tenant("other")
        with pytest.raises(EmptyOrderError):
            await shop.order(selection("seen"), who=who)
    assert await shop.connection.fetchval("SELECT count(*) FROM orders") == 2, "nothing remains of what was not made"


async def test_policies_have_their_say_on_each_product(database: str) -> None:
    async with open_shop(database, suborder_files=2) as shop:
        await fill(shop.connection, products=5, files=2)
        await shop.connection.execute(
            "UPDATE access_rights SET file_level = 'CUSTOM_ACCESS', policy = 'properties', policy_options = $1",
            json.dumps({"all": [{"property": "open", "equals": True}]}),
        )
        await shop.connection.execute(
            "UPDATE products SET properties = '{\"open\": true}' WHERE provider_id IN ('0000002', '0000004')"
        )
        order_id = await shop.order(selection("many"))
        assert await names(shop, order_id) == ["0000002-1.tif", "0000002-2.tif", "0000004-1.tif", "0000004-2.tif"]
        await shop.counts_agree()


async def test_a_policy_that_cannot_decide_makes_no_order(shop: Shop) -> None:
    """Else it would lack files, and nobody would know."""
    await fill(shop.connection, products=1, files=1)
    await shop.connection.execute(
        "UPDATE access_rights SET file_level = 'CUSTOM_ACCESS', policy = 'properties', policy_options = '{\"x\": 1}'"
    )
    with pytest.raises(GatewayError) as refused:
        await shop.order(selection("many"))
    assert refused.value.status == 503
    assert await shop.connection.fetchval("SELECT count(*) FROM orders") == 0


async def test_files_are_filtered_by_type_and_by_their_whole_name(shop: Shop) -> None:
    await fill(shop.connection, products=2, files=2)
    order_id = await shop.order(selection("many", name_pattern=r".*-1\.tif", data_types=("RAWDATA",)))
    assert await names(shop, order_id) == ["0000001-1.tif", "0000002-1.tif"]
    for nothing in ({"name_pattern": "0000001"}, {"data_types": ("QUICKLOOK_SD",)}, {"data_types": ("DOCUMENT",)}):
        with pytest.raises(EmptyOrderError):
            await shop.order(selection("many", **nothing))


@pytest.mark.parametrize("pattern", ["", "(", "a" * 201, r"(a)\1", "(?=a)", "a{60}", "a{2}{2}{2}{2}", "***=a", "a\0"])
async def test_a_pattern_that_is_no_good_is_said_to_be_so(shop: Shop, pattern: str) -> None:
    await fill(shop.connection, products=1, files=1)
    with pytest.raises(GatewayError) as refused:
        await shop.order(selection("many", name_pattern=pattern))
    assert refused.value.status == 422


@given(st.text(max_size=250))
def test_every_pattern_is_taken_or_refused(pattern: str) -> None:
    assert refusal(pattern) is None or isinstance(refusal(pattern), str)


async def test_labels_are_bounded_and_unique_for_their_owner(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=1)
    await shop.order(selection("many"), wish=Wish("mine"))
    await shop.order(selection("many"), wish=Wish("mine"), who=principal("other", "science"))
    for label, message in (("mine", "LABEL_NOT_UNIQUE_FOR_OWNER"), ("x" * 51, "TOO_MANY_CHARACTERS_IN_LABEL")):
        with pytest.raises(GatewayError, match=message) as refused:
            await shop.order(selection("many"), wish=Wish(label))
        assert refused.value.status == 422
    made = [await shop.see(await shop.order(selection("many"))) for _ in range(3)]
    assert len({order.label for order in made}) == 3
    assert all(order.label.startswith("Order of 20") for order in made)


async def test_an_order_that_is_too_large_is_not_made(database: str) -> None:
    async with open_shop(database, max_files=5) as shop:
        await fill(shop.connection, products=5, files=1)
        await fill(shop.connection, products=1, files=1, collection="one")
        await shop.order(selection("many"))
        with pytest.raises(GatewayError, match="at most 5 files"):
            await shop.order(selection("many"), selection("one"))
        assert await shop.connection.fetchval("SELECT count(*) FROM order_files") == 5


async def test_orders_that_are_made_at_once_do_not_mix(shop: Shop) -> None:
    await fill(shop.connection, products=3, files=2)
    made = await asyncio.gather(*(shop.order(selection("many")) for _ in range(4)))
    assert len(set(made)) == 4
    await shop.counts_agree()


async def test_a_tenant_that_is_gone_orders_nothing(shop: Shop) -> None:
    with pytest.raises(GatewayError) as refused:
        await shop.order(selection("many"), who=principal("ghost", tenant="ghost"))
    assert refused.value.status == 404
    assert TENANT not in refused.value.detail
