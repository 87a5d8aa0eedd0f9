"""stac-geoparquet: what its own library writes comes back as it was."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
import stac_geoparquet.arrow

from gateway.catalog.ingest import Count, IngestError, geoparquet
from gateway.catalog.ingest.events import RefusedError
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.remote.api import collection, item

DATA = Path(__file__).parents[2] / "data" / "stac"


def written(items: list[dict[str, Any]], path: Path, *, group: int | None = None, **metadata: object) -> Path:
    table = pa.Table.from_batches(stac_geoparquet.arrow.parse_stac_items_to_arrow(items))
    table = table.replace_schema_metadata({name: json.dumps(value) for name, value in metadata.items()})
    pyarrow.parquet.write_table(table, path, row_group_size=group)
    return path


async def test_items_come_row_group_by_row_group(ingesting: Ingesting) -> None:
    items = [item(number) for number in range(25)]
    described = {"stac-geoparquet": {"version": "1.1.0", "collection": collection("scenes")}}
    path = written(items, ingesting.directory / "items.parquet", group=10, **described)
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 3
    result = await ingesting(path)
    assert (result.summary.collections, result.summary.items, result.told) == (Count(1), Count(25), [])
    rows = await ingesting.rows(
        "SELECT p.properties, p.geometry, p.body, f.body AS asset, p.west, p.start_datetime "
        "FROM products p JOIN files f USING (product_id) WHERE provider_id = 'scene-00003'"
    )
    row: dict[str, Any] = {
        name: json.loads(value) if isinstance(value, str) else value for name, value in rows[0].items()
    }
    original = items[3]
    assert row["properties"]["datetime"] == original["properties"]["datetime"]
    assert (row["geometry"], row["asset"]) == (original["geometry"], original["assets"]["data"])
    assert {"id", "collection", "bbox", "type", "stac_version", "links"} <= set(row["body"])
    assert row["body"]["bbox"] == original["bbox"]
    assert (row["west"], row["start_datetime"].year) == (3, 2024)


@pytest.mark.parametrize("name", ["joplin-items.geojson", "sentinel-2-item-collection.json"])
async def test_real_items_come_back_as_they_were(ingesting: Ingesting, name: str) -> None:
    items = json.loads((DATA / name).read_text())["features"]
    path = written(items, ingesting.directory / "items.geoparquet")
    found = {value["id"]: value for _, value in _entries(path)}
    assert set(found) == {one["id"] for one in items}
    for one in items:
        other: Any = found[one["id"]]
        assert other["assets"] == one["assets"]
        assert other["collection"] == one["collection"]
        assert shapely.equals(_shape(other), _shape(one))
        assert other["bbox"] == pytest.approx(one["bbox"])
        assert _moments(other["properties"]) == _moments(one["properties"])


def _entries(path: Path) -> list[tuple[object, dict[str, Any]]]:
    from gateway.catalog.ingest import Place, Rejection

    found = list(geoparquet.entries(path, Place(str(path))))
    assert not [one for one in found if isinstance(one, Rejection)]
    return found  # type: ignore[return-value]


def _shape(value: dict[str, Any]) -> shapely.Geometry:
    return shapely.from_geojson(json.dumps(value["geometry"]))


def _moments(properties: dict[str, Any]) -> dict[str, Any]:
    """Properties with their times as such: how a time is written is not kept. Nor is what is null."""
    times = ("datetime", "created", "updated", "start_datetime", "end_datetime")
    return {
        name: datetime.datetime.fromisoformat(value) if name in times else value
        for name, value in properties.items()
        if value is not None
    }


async def test_a_file_that_is_no_parquet_or_is_cut_is_told(ingesting: Ingesting) -> None:
    path = written([item(number) for number in range(3)], ingesting.directory / "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    other = ingesting.directory / "b.parquet"
    other.write_bytes(b"{}")
    result = await ingesting(path, other, ingesting.directory / "none.parquet")
    assert (result.summary.items, result.summary.rejected) == (Count(), 3)
    assert [reason.split(":")[0] for reason in result.reasons] == [
        "cannot be read as Parquet from row 0 on",
        "cannot be read as Parquet from row 0 on",
        "cannot be read",
    ]


async def test_without_the_extra_it_is_said_what_to_install(
    ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written([item(1)], ingesting.directory / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(IngestError, match=r"install the extra 'geoparquet' \(pip install 'download-gateway\[geop"):
        await ingesting(path)
    assert await ingesting.rows("SELECT FROM tenants") == []


def test_rows_become_items_without_what_is_null() -> None:
    row: dict[str, Any] = {
        "id": "a",
        "geometry": None,
        "bbox": {"xmin": 1.0, "ymin": 2.0, "zmin": None, "xmax": 3.0, "ymax": 4.0, "zmax": None},
        "datetime": None,
        "start_datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "assets": {"data": {"href": "x", "title": None}, "other": None},
        "proj:geometry": shapely.to_wkb(shapely.Point(1, 2)),
        "proj:bbox": [1.0, None],
        "day": datetime.date(2024, 1, 2),
        "eo:cloud_cover": None,
    }
    assert geoparquet.item(row) == {
        "type": "Feature",
        "id": "a",
        "geometry": None,
        "bbox": [1.0, 2.0, 3.0, 4.0],
        "links": [],
        "assets": {"data": {"href": "x"}},
        "properties": {
            "datetime": None,
            "start_datetime": "2024-01-01T00:00:00Z",
            "proj:geometry": {"type": "Point", "coordinates": [1.0, 2.0]},
            "proj:bbox": [1.0, None],
            "day": "2024-01-02",
        },
    }
    for wrong in ({"geometry": b"nonsense"}, {"checksum": b"\0"}, {"x": object()}):
        with pytest.raises(RefusedError, match="the column"):
            geoparquet.item(wrong)
