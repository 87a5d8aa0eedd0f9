"""Rows of searches, made by hand."""

from __future__ import annotations

import datetime
import json
from typing import Any

from gateway.stac.links import Urls
from gateway.stac.model import CollectionRow, FileRow, ItemRow

ROOT = "https://data.example.org/stac"
URLS = Urls(ROOT)
LONG_AGO = datetime.datetime(2020, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
Json = dict[str, Any]


def file_row(body: Json, **more: Any) -> FileRow:
    """An online file that nothing more is known of; ``body`` is its asset."""
    values: Json = {
        "asset_key": "data",
        "data_type": "RAWDATA",
        "checksum": None,
        "checksum_algorithm": None,
        "size": None,
        "mime_type": None,
        "file_name": "scene.tif",
        "reference": False,
        "states": ("ONLINE",),
        "restore": None,
        "needs_login": False,
    }
    return FileRow(body=json.dumps(body), **{**values, **more})


def item_row(*files: FileRow, body: Json | None = None, properties: Json | None = None, **more: Any) -> ItemRow:
    """An item somewhere on a day in 2024."""
    day = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    values: Json = {
        "product_id": 7,
        "collection_id": "scenes",
        "item_id": "one",
        "urn": "URN:FEATURE:DATA:esa:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1",
        "geometry": '{"type": "Point", "coordinates": [2.0, 43.0]}',
        "bbox": (2.0, 43.0, 2.0, 43.0),
        "start": day,
        "end": day,
        "created": LONG_AGO,
        "updated": LONG_AGO,
    }
    return ItemRow(
        body=json.dumps({"type": "Feature", "stac_version": "1.1.0"} if body is None else body),
        properties=json.dumps({"datetime": "2024-05-01T00:00:00Z"} if properties is None else properties),
        files=files,
        **{**values, **more},
    )


def collection_row(body: Json, **more: Any) -> CollectionRow:
    values: Json = {"collection_id": "scenes", "urn": "u", "title": None, "licence_url": None, "updated": LONG_AGO}
    return CollectionRow(body=json.dumps(body), **{**values, **more})
