"""Which rows of ``products`` a batch touches: pure rules over what the catalogue holds already."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from gateway.catalog.ingest.events import Count, RefusedError, Rejection
from gateway.catalog.ingest.model import Product


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A product that the catalogue holds."""

    product_id: int
    urn: str
    dataset_id: int
    provider_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A product, and where it goes."""

    product: Product
    urn: str
    """Not always that of ``product``: a STAC Item keeps the URN that REGARDS gave the product."""
    dataset_id: int


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """What a batch does to ``products``."""

    rows: tuple[Placed, ...]
    """Rows to insert or to update; no two have the same URN, or the same dataset and provider id."""
    moves: tuple[tuple[int, int], ...]
    """Product ids and the dataset ids they move to, to be done in this order before the rows are written."""
    rejections: tuple[Rejection, ...]
    count: Count


def place(products: Iterable[Product], datasets: Mapping[str, int], known: Iterable[Row]) -> Placement:
    """Decide for each product, in order, whether it is new, updates a row, moves one, or contradicts one.

    A URN names one product for ever, and so do a dataset and a provider id: a product that would give either to
    another is rejected. The last of several entries for the same product wins.
    """
    state = _State(known)
    rejections: list[Rejection] = []
    for product in products:
        try:
            state.put(product, datasets[product.collection])
        except RefusedError as error:
            rejections.append(Rejection(product.place, str(error)))
    return Placement(tuple(state.rows.values()), tuple(state.moves), tuple(rejections), state.count)


class _State:
    """The catalogue as it will be once what was put so far is written."""

    def __init__(self, known: Iterable[Row]) -> None:
        self.rows: dict[str, Placed] = {}
        self.moves: list[tuple[int, int]] = []
        self.count = Count()
        self._ids: dict[str, int] = {}
        self._keys: dict[str, tuple[int, str]] = {}
        self._urns: dict[tuple[int, str], str] = {}
        for row in known:
            self._ids[row.urn] = row.product_id
            self._keys[row.urn] = (row.dataset_id, row.provider_id)
            self._urns[row.dataset_id, row.provider_id] = row.urn

    def put(self, product: Product, dataset_id: int) -> None:
        key = (dataset_id, product.provider_id)
        taken_by = self._urns.get(key)
        urn = product.urn if product.urn_given or taken_by is None else taken_by
        if taken_by not in (None, urn):
            raise RefusedError(
                f"provider id {product.provider_id!r} is that of {taken_by} in the same dataset, not {urn}"
            )
        before = self._keys.get(urn)
        if before is not None and before[1] != product.provider_id:
            raise RefusedError(f"{urn} is the product with the provider id {before[1]!r}, not {product.provider_id!r}")
        if before is not None and before != key:
            del self._urns[before]
            if urn in self._ids:
                self.moves.append((self._ids[urn], dataset_id))
        self.count += Count(accepted=1) if before is None else Count(updated=1)
        self._keys[urn], self._urns[key] = key, urn
        self.rows[urn] = Placed(product, urn, dataset_id)
