"""Orders of what queries in REGARDS' language select."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.errors import GatewayError
from gateway.orders.creation import EmptyOrderError
from gateway.orders.service import translate
from tests.orders.support import URN, Shop, fill, selection


@pytest.mark.parametrize(
    ("query", "files"),
    [
        ("providerId:0000002", 2),
        ("providerId:(0000001 OR 0000003)", 4),
        ("NOT(providerId:0000001)", 4),
        ("providerId:00*", 6),
        ("(((providerId:0000001) AND creationDate:[* TO 2999-01-01T00:00:00.000Z]))", 2),
        ("creationDate:[* TO 2001-01-01T00:00:00.000Z]", 0),
        (f'(providerId:0000001 AND tags:"{URN.format("many")}")', 2),
        ('(providerId:0000001 AND tags:"URN:AIP:DATASET:esa:else:V1")', 0),
        ("files.dataType:RAWDATA", 6),
    ],
)
async def test_queries_select_products(shop: Shop, query: str, files: int) -> None:
    await fill(shop.connection, products=3, files=2)
    shop = dataclasses.replace(shop, creator=dataclasses.replace(shop.creator, translate=translate))
    if files == 0:
        with pytest.raises(EmptyOrderError):
            await shop.order(selection("many", query))
        return
    assert (await shop.see(await shop.order(selection("many", query)))).counts.files == files


async def test_a_query_that_cannot_be_understood_is_422(shop: Shop) -> None:
    await fill(shop.connection, products=1, files=1)
    shop = dataclasses.replace(shop, creator=dataclasses.replace(shop.creator, translate=translate))
    for query in ("(", "nothing:7", "a~2", "providerId:*x*"):
        with pytest.raises(GatewayError) as refused:
            await shop.order(selection("many", query))
        assert refused.value.status == 422
