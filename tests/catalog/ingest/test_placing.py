from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.events import Count, Place
from gateway.catalog.ingest.model import Extent, Product
from gateway.catalog.ingest.placing import Placement, Row, place

DATASETS = {"a": 1, "b": 2, "c": 3}


def product(urn: str, collection: str, provider: str, *, given: bool = True) -> Product:
    return Product(Place("f", id=provider), collection, urn, given, provider, "{}", None, Extent(), "{}", ())


def test_new_and_known() -> None:
    done = place([product("u1", "a", "x"), product("u2", "a", "y")], DATASETS, [Row(7, "u1", 1, "x")])
    assert done.count == Count(accepted=1, updated=1)
    assert done.moves == ()
    assert done.rejections == ()


def test_the_last_of_two_wins() -> None:
    first, last = product("u1", "a", "x"), product("u1", "b", "x")
    done = place([first, last], DATASETS, [])
    assert [(row.product, row.dataset_id) for row in done.rows] == [(last, 2)]
    assert done.count == Count(accepted=1, updated=1)


def test_an_item_keeps_the_urn_that_regards_gave() -> None:
    done = place([product("made", "a", "x", given=False)], DATASETS, [Row(7, "given", 1, "x")])
    assert [row.urn for row in done.rows] == ["given"]
    assert done.count == Count(updated=1)


def test_a_product_moves_to_another_dataset() -> None:
    done = place([product("u1", "b", "x")], DATASETS, [Row(7, "u1", 1, "x")])
    assert done.moves == ((7, 2),)
    assert done.count == Count(updated=1)


def test_a_urn_is_not_given_to_another_provider_id() -> None:
    done = place([product("u1", "a", "y")], DATASETS, [Row(7, "u1", 1, "x")])
    [rejection] = done.rejections
    assert rejection.reason == "u1 is the product with the provider id 'x', not 'y'"
    assert done.rows == ()


def test_a_provider_id_is_not_given_to_another_urn() -> None:
    done = place([product("u2", "a", "x")], DATASETS, [Row(7, "u1", 1, "x")])
    [rejection] = done.rejections
    assert rejection.reason == "provider id 'x' is that of u1 in the same dataset, not u2"


products = st.builds(
    product, st.sampled_from("pqrs"), st.sampled_from("abc"), st.sampled_from("xy"), given=st.booleans()
)


@given(st.lists(products, max_size=12), st.lists(products, max_size=8))
def test_no_batch_breaks_the_catalogues_uniqueness(before: list[Product], batch: list[Product]) -> None:
    held = {row.urn: row for row in place(before, DATASETS, []).rows}
    known = [Row(n, row.urn, row.dataset_id, row.product.provider_id) for n, row in enumerate(held.values())]
    done = place(batch, DATASETS, known)

    table = {row.product_id: row for row in known}
    for product_id, dataset_id in done.moves:  # as the database does: each alone
        table[product_id] = dataclasses.replace(table[product_id], dataset_id=dataset_id)
        _assert_unique(list(table.values()))
    for number, written in enumerate(done.rows, 100):
        ids = [row.product_id for row in table.values() if row.urn == written.urn]
        row = Row(ids[0] if ids else number, written.urn, written.dataset_id, written.product.provider_id)
        table[row.product_id] = row
        _assert_unique(list(table.values()))
    assert len(done.rejections) + done.count.accepted + done.count.updated == len(batch)
    assert done.count.accepted == len(table) - len(known)


def _assert_unique(rows: list[Row]) -> None:
    assert len({row.urn for row in rows}) == len(rows)
    assert len({(row.dataset_id, row.provider_id) for row in rows}) == len(rows)


def test_nothing_is_nothing() -> None:
    assert place([], DATASETS, []) == Placement((), (), (), Count())
