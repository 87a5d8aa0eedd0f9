"""REGARDS product features, as its search answers them, as rows of the catalogue."""

from __future__ import annotations

import dataclasses
import re

from gateway.catalog.ingest import assets, checksums, hrefs, model
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place, RefusedError
from gateway.catalog.ingest.extent import bounds, bounds_of_geometry, period, short
from gateway.catalog.ingest.model import Checksum, Extent, File, Json, JsonObject, Product, to_json
from gateway.catalog.ingest.quality import quality
from gateway.catalog.ingest.stac import required_text

DATA_TYPES = frozenset(
    ("RAWDATA", "QUICKLOOK_SD", "QUICKLOOK_MD", "QUICKLOOK_HD", "DOCUMENT", "THUMBNAIL", "OTHER", "AIP", "DESCRIPTION")
)


def product(feature: JsonObject, place: Place, context: Context) -> Product:
    """Read a feature with ``entityType`` DATA.

    Its dataset is the collection that it names, else the only dataset among its ``tags``, else the default collection.

    Raises:
        RefusedError: it lacks what the catalogue needs, is another tenant's, or one of its files cannot be fetched.
    """
    if feature.get("entityType") != "DATA":
        raise RefusedError(f"entityType is {short(feature.get('entityType'))}; only DATA has files")
    urn = _urn(feature, context)
    properties, files = feature.get("properties", {}), feature.get("files", {})
    if not isinstance(properties, dict):
        raise RefusedError(f"properties is {short(properties)}, no object")
    if not isinstance(files, dict):
        raise RefusedError(f"files is {short(files)}, no object of lists by data type")
    geometry = feature.get("geometry")
    if isinstance(geometry, dict) and str(geometry.get("type")).upper() == "UNLOCATED":
        geometry = None
    return Product(
        place=place,
        collection=_collection(feature, context),
        urn=urn,
        urn_given=True,
        provider_id=required_text(feature, "providerId"),
        properties=to_json(properties),
        geometry=None if geometry is None else to_json(geometry),
        extent=_extent(feature, geometry, properties),
        body=to_json({name: part for name, part in feature.items() if name not in ("properties", "geometry", "files")}),
        files=_files(files, context),
        quality=quality(properties, context),
    )


def _urn(feature: JsonObject, context: Context) -> str:
    urn = required_text(feature, "id")
    if not model.is_product_urn(urn):
        raise RefusedError(f"id {short(urn)} is no URN like URN:FEATURE:DATA:{context.tenant}:<uuid>:V1")
    tenant = urn.split(":")[3]
    if tenant != context.tenant:
        raise RefusedError(f"id {urn} belongs to the tenant {tenant!r}, not to {context.tenant!r}")
    return urn


def _collection(feature: JsonObject, context: Context) -> str:
    if feature.get("collection") is not None:
        return required_text(feature, "collection")
    tags = feature.get("tags")
    listed = tags if isinstance(tags, list) else []
    datasets = {tag for tag in listed if isinstance(tag, str) and model.is_dataset_urn(tag, context.tenant)}
    if len(datasets) == 1:
        return datasets.pop()
    if context.default_collection is None:
        why = "several datasets" if datasets else "no collection and no dataset"
        raise RefusedError(f"names {why} (tags), and no default collection was given")
    return context.default_collection


def _extent(feature: JsonObject, geometry: Json, properties: JsonObject) -> Extent:
    box = None if geometry is None else bounds_of_geometry(geometry)
    if feature.get("bbox") is not None:
        box = bounds(feature["bbox"])
    # The model of a REGARDS dataset names its dates as it likes: only those named as in STAC are understood.
    try:
        start, end = period(properties)
    except RefusedError:
        return Extent(box)
    return Extent(box, start, end)


def _files(files: JsonObject, context: Context) -> tuple[File, ...]:
    found: dict[str, File] = {}
    for data_type, listed in files.items():
        if data_type not in DATA_TYPES:
            raise RefusedError(f"files has {short(data_type)}, no data type of REGARDS")
        if not isinstance(listed, list):
            raise RefusedError(f"files.{data_type} is {short(listed)}, no array")
        for index, file in enumerate(listed):
            what = f"files.{data_type}[{index}]"
            if not isinstance(file, dict):
                raise RefusedError(f"{what} is {short(file)}, no object")
            made = _file(data_type, file, what, context)
            if made.asset_key in found:
                made = dataclasses.replace(made, asset_key=f"{data_type}-{index}-{made.file_name}")
            found[model.key(made.asset_key, f"{what}: the file name")] = made
    return tuple(found.values())


def _file(data_type: str, file: JsonObject, what: str, context: Context) -> File:
    uri = file.get("uri")
    if not isinstance(uri, str) or not uri:
        raise RefusedError(f"{what} has no uri")
    state = "NEARLINE" if file.get("online") is False else "ONLINE"
    copies, reference = hrefs.locate(uri, (), what, context, state=state)
    given = assets.optional_text(file, "filename", f"{what}: filename", context)
    name = assets.last_segment(given or "") or assets.file_name(uri, data_type)
    return File(
        asset_key=name,  # REGARDS has no key of its own; a product's file names rarely repeat
        data_type=data_type,
        checksum=_checksum(file, what, context),
        size=assets.size(file.get("filesize"), f"{what}: filesize", context),
        crc32=_crc32(file.get("crc32"), what, context),
        mime_type=assets.optional_text(file, "mimeType", f"{what}: mimeType", context),
        file_name=name,
        reference=reference,
        body=to_json(file),
        copies=copies,
    )


def _checksum(file: JsonObject, what: str, context: Context) -> Checksum | None:
    algorithm, digits = file.get("digestAlgorithm"), file.get("checksum")
    if digits is None:
        return None
    if isinstance(algorithm, str) and isinstance(digits, str):
        checksum = checksums.from_digits(algorithm, digits)
        if checksum is not None:
            return checksum
    context.remark(f"{what}: checksum {short(digits)} is no {short(algorithm)} in hexadecimal: ignored")
    return None


def _crc32(value: Json, what: str, context: Context) -> int | None:
    """A number, or eight hexadecimal digits."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{8}", value):
        return int(value, 16)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    context.remark(f"{what}: crc32 is {short(value)}, neither a number below 2^32 nor 8 hexadecimal digits: ignored")
    return None
