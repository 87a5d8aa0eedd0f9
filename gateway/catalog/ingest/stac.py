"""STAC Items and Collections, of whatever ``stac_version``, as rows of the catalogue.

Read leniently where only searching suffers, strictly where a download would: no asset passes for a thumbnail, and no
checksum for one, unless the item says so beyond doubt.
"""

from __future__ import annotations

from gateway.catalog.ingest import assets, checksums, hrefs, model
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place, RefusedError
from gateway.catalog.ingest.extent import bounds, bounds_of_geometry, period, short
from gateway.catalog.ingest.model import Checksum, Dataset, Extent, File, Json, JsonObject, Product, to_json
from gateway.catalog.ingest.quality import quality

_WHOLE_WORLD: Json = [[-180, -90, 180, 90]]


def dataset(collection: JsonObject, place: Place, context: Context) -> Dataset:
    """Read a STAC Collection.

    Raises:
        RefusedError: it has no usable id.
    """
    identifier = required_text(collection, "id")
    missing = [name for name in ("description", "license", "extent") if name not in collection]
    if missing:
        context.remark(f"the collection has no {', '.join(missing)}")
    title = assets.optional_text(collection, "title", "title", context)
    return Dataset(place, identifier, title, to_json(collection))


def undescribed(collection_id: str) -> Dataset:
    """A Collection that nothing is known of but its id, for items that came before it."""
    body: JsonObject = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": collection_id,
        "description": "",
        "license": "other",
        "extent": {"spatial": {"bbox": _WHOLE_WORLD}, "temporal": {"interval": [[None, None]]}},
        "links": [],
    }
    return Dataset(Place(""), collection_id, None, to_json(body))


def product(item: JsonObject, place: Place, context: Context) -> Product:
    """Read a STAC Item.

    Raises:
        RefusedError: it lacks what the catalogue needs, or one of its assets cannot be fetched from anywhere.
    """
    identifier = required_text(item, "id")
    collection = _collection(item, context)
    properties, all_assets = item.get("properties"), item.get("assets")
    if not isinstance(properties, dict):
        raise RefusedError(f"properties is {short(properties)}, no object")
    if not isinstance(all_assets, dict):
        raise RefusedError(f"assets is {short(all_assets)}, no object")
    start, end = period(properties)
    geometry = item.get("geometry")
    box = None if geometry is None else bounds_of_geometry(geometry)
    if item.get("bbox") is not None:
        box = bounds(item["bbox"])
    return Product(
        place=place,
        collection=collection,
        urn=model.product_urn(context.tenant, collection, identifier),
        urn_given=False,
        provider_id=identifier,
        properties=to_json(properties),
        geometry=None if geometry is None else to_json(geometry),
        extent=Extent(box, start, end),
        body=to_json({name: part for name, part in item.items() if name not in ("properties", "geometry", "assets")}),
        files=tuple(_file(name, asset, context) for name, asset in all_assets.items()),
        quality=quality(properties, context),
    )


def required_text(entry: JsonObject, name: str) -> str:
    """A member that must be a string and fit for an indexed column.

    Raises:
        RefusedError: it is not.
    """
    value = entry.get(name)
    if value is None:
        raise RefusedError(f"has no {name}")
    if not isinstance(value, str):
        raise RefusedError(f"{name} is {short(value)}, no string")
    return model.key(value, name)


def _collection(item: JsonObject, context: Context) -> str:
    if item.get("collection") is not None:
        return required_text(item, "collection")
    if context.default_collection is None:
        raise RefusedError("has no collection, and no default collection was given")
    return context.default_collection


def _file(key: str, asset: Json, context: Context) -> File:
    model.key(key, "an asset key")
    what = f"asset {key!r}"
    if not isinstance(asset, dict):
        raise RefusedError(f"{what} is {short(asset)}, no object")
    href = asset.get("href")
    if not isinstance(href, str) or not href:
        raise RefusedError(f"{what} has no href")
    copies, reference = hrefs.locate(href, _alternates(asset), what, context)
    local_path = assets.optional_text(asset, "file:local_path", f"{what}: file:local_path", context)
    name = assets.last_segment(local_path or "") or assets.file_name(href, key)
    return File(
        asset_key=key,
        data_type=_data_type(asset, what, context),
        checksum=_checksum(asset, what, context),
        size=assets.size(asset.get("file:size"), f"{what}: file:size", context),
        crc32=None,
        mime_type=assets.optional_text(asset, "type", f"{what}: type", context),
        file_name=name,
        reference=reference,
        body=to_json(asset),
        copies=copies,
    )


def _alternates(asset: JsonObject) -> list[str]:
    """The hrefs of the alternate-assets extension."""
    alternate = asset.get("alternate")
    others = alternate.values() if isinstance(alternate, dict) else ()
    hrefs = (other.get("href") for other in others if isinstance(other, dict))
    return [href for href in hrefs if isinstance(href, str) and href]


def _data_type(asset: JsonObject, what: str, context: Context) -> str:
    """REGARDS' data type of an asset.

    THUMBNAIL and QUICKLOOK_SD free an asset of licence and file right, so whatever else a role says goes before them.
    """
    listed = asset.get("roles")
    if listed is not None and not (isinstance(listed, list) and all(isinstance(role, str) for role in listed)):
        context.remark(f"{what}: roles is {short(listed)}, no array of strings: taken as data")
        return "RAWDATA"
    roles = {role.strip().lower() for role in listed or () if isinstance(role, str)}
    if "data" in roles:
        return "RAWDATA"
    if "metadata" in roles:
        return "DOCUMENT"
    if "thumbnail" in roles:
        return "THUMBNAIL"
    return "QUICKLOOK_SD" if "overview" in roles else "RAWDATA"


def _checksum(asset: JsonObject, what: str, context: Context) -> Checksum | None:
    """``file:checksum``, or ``checksum:multihash`` of items older than the file extension."""
    for member in ("file:checksum", "checksum:multihash"):
        value = asset.get(member)
        if value is None:
            continue
        checksum = checksums.from_multihash(value) if isinstance(value, str) else None
        if checksum is not None:
            return checksum
        context.remark(f"{what}: {member} {short(value)} is no multihash of a known algorithm: ignored")
    return None
