"""From raw entries to rows: which kind an entry is, and which module reads that kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from gateway.catalog.ingest import regards, stac
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import RefusedError, Rejection, Remark
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import Dataset, JsonObject, Product
from gateway.catalog.ingest.reading import RawEntry
from gateway.locations import Location


def convert(
    entries: Iterable[RawEntry | Rejection | Remark],
    *,
    tenant: str,
    locations: Sequence[Location],
    default_collection: str | None,
    remote: bool,
) -> Iterator[Dataset | Product | Rejection | Remark]:
    """Turn each raw entry into a row, or a Rejection; remarks about an entry come before it. Does no I/O of its own."""
    for entry in entries:
        if not isinstance(entry, RawEntry):
            yield entry
            continue
        remarks: list[str] = []
        context = Context(tenant, locations, remote, entry.directory, default_collection, remarks.append)
        try:
            row = _row(entry, context)
        except RefusedError as error:
            yield Rejection(entry.place, str(error))
            continue
        yield from (Remark(entry.place, text) for text in remarks)
        yield row


def _row(entry: RawEntry, context: Context) -> Dataset | Product:
    value = entry.value
    if "entityType" in value:
        return regards.product(value, entry.place, context)
    kind = value.get("type")
    if kind == "Feature":
        return stac.product(value, entry.place, context)
    if kind == "Collection":
        return stac.dataset(value, entry.place, context)
    raise RefusedError(_why_not(value))


def _why_not(value: JsonObject) -> str:
    kind = value.get("type")
    if kind == "Catalog":
        return "is a STAC Catalog, which holds no items itself: give the files of its collections and items"
    if kind == "FeatureCollection":
        return "is a FeatureCollection without an array of features"
    if kind is None:
        return "has no type: it is neither a STAC Item, Collection or FeatureCollection nor a REGARDS feature"
    return f"type is {short(kind)}: it is neither a STAC Item, Collection or FeatureCollection nor a REGARDS feature"
