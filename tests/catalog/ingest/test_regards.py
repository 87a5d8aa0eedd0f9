from __future__ import annotations

import pytest

from gateway.catalog.ingest import regards
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place, RefusedError
from gateway.catalog.ingest.model import Checksum, Copy, Json, JsonObject, Product

UUID = "50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd"
URN = f"URN:FEATURE:DATA:tenant:{UUID}:V3"
DATASET = f"URN:AIP:DATASET:tenant:{UUID}:V1"
URI = f"https://regards.host.com/api/v1/rs-catalog/downloads/{URN}/files/BF39BC048B52618838529D9D98043190"
FILE: JsonObject = {
    "dataType": "RAWDATA",
    "reference": False,
    "uri": URI,
    "mimeType": "application/xml",
    "online": False,
    "checksum": "BF39BC048B52618838529D9D98043190",
    "digestAlgorithm": "MD5",
    "filesize": 190,
    "filename": "iso.xml",
    "types": [],
}
FEATURE: JsonObject = {
    "id": URN,
    "providerId": "DATA-06-20220613-2390",
    "entityType": "DATA",
    "tags": [DATASET, "some tag"],
    "properties": {"datetime": "2022-06-13T00:00:00Z"},
    "files": {"RAWDATA": [FILE]},
}


def read(feature: JsonObject, *, default_collection: str | None = None) -> tuple[Product, list[str]]:
    remarks: list[str] = []
    context = Context("tenant", [], False, "/archive", default_collection, remarks.append)
    return regards.product(feature, Place("f"), context), remarks


def test_the_documented_feature() -> None:
    product, remarks = read(FEATURE)
    assert (product.urn, product.urn_given, product.provider_id) == (URN, True, "DATA-06-20220613-2390")
    assert product.collection == DATASET
    [file] = product.files
    assert file.checksum == Checksum("MD5", "BF39BC048B52618838529D9D98043190")
    assert (file.asset_key, file.file_name, file.size, file.mime_type) == ("iso.xml", "iso.xml", 190, "application/xml")
    assert file.copies == (Copy("web", URI, "NEARLINE"),)
    assert file.data_type == "RAWDATA"
    assert remarks == []
    assert '"files"' not in product.body
    assert '"tags"' in product.body


def test_the_default_collection_is_for_features_that_name_no_dataset() -> None:
    assert read(FEATURE, default_collection="scenes")[0].collection == DATASET
    assert read({**FEATURE, "tags": []}, default_collection="scenes")[0].collection == "scenes"
    assert read({**FEATURE, "collection": "named"})[0].collection == "named"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"entityType": "DATASET"}, "entityType is 'DATASET'; only DATA has files"),
        ({"entityType": None}, "entityType is None"),
        ({"id": None}, "has no id"),
        ({"id": "DATA-06"}, "no URN like"),
        ({"id": URN + "x"}, "no URN like"),
        ({"id": URN.replace(":tenant:", ":another:")}, "belongs to the tenant 'another', not to 'tenant'"),
        ({"id": URN.replace(":DATA:", ":DATASET:")}, "no URN like"),
        ({"providerId": ""}, "providerId is empty"),
        ({"tags": []}, "names no collection and no dataset"),
        ({"tags": [DATASET, DATASET.replace(":V1", ":V2")]}, "names several datasets"),
        ({"tags": "URN"}, "names no collection"),
        ({"tags": [DATASET.replace(":tenant:", ":another:")]}, "names no collection"),
        ({"properties": []}, "properties is an array"),
        ({"files": []}, "files is an array of 0, no object"),
        ({"files": {"PICTURES": []}}, "'PICTURES', no data type"),
        ({"files": {"RAWDATA": FILE}}, "files.RAWDATA is an object of 10, no array"),
        ({"files": {"RAWDATA": [None]}}, "files.RAWDATA[0] is None, no object"),
        ({"files": {"RAWDATA": [{}]}}, "files.RAWDATA[0] has no uri"),
        ({"files": {"RAWDATA": [{"uri": "file:///a"}]}}, "files.RAWDATA[0]: no storage location holds the path"),
        ({"geometry": {"type": "Nowhere"}}, "no GeoJSON geometry"),
    ],
)
def test_what_is_refused(changes: JsonObject, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read({**FEATURE, **changes})
    assert reason in str(refused.value)


def test_a_feature_without_a_place_or_a_date() -> None:
    product, _ = read({**FEATURE, "geometry": {"type": "UNLOCATED"}, "properties": {"START_DATE": "2022"}})
    assert product.geometry is None
    assert (product.extent.bbox, product.extent.start) == (None, None)


def test_files_of_the_same_name_stay_apart() -> None:
    product, _ = read({**FEATURE, "files": {"RAWDATA": [FILE, FILE], "DOCUMENT": [FILE]}})
    assert [file.asset_key for file in product.files] == ["iso.xml", "RAWDATA-1-iso.xml", "DOCUMENT-0-iso.xml"]
    assert {file.file_name for file in product.files} == {"iso.xml"}


@pytest.mark.parametrize(("value", "crc32"), [(0, 0), (2**32 - 1, 2**32 - 1), ("cbf43926", 0xCBF43926), (None, None)])
def test_a_crc32(value: Json, crc32: int | None) -> None:
    product, remarks = read({**FEATURE, "files": {"RAWDATA": [{**FILE, "crc32": value}]}})
    assert product.files[0].crc32 == crc32
    assert remarks == []


@pytest.mark.parametrize(
    "changes",
    [
        {"crc32": -1},
        {"crc32": 2**32},
        {"crc32": True},
        {"crc32": "cbf4392"},
        {"checksum": "BF39"},
        {"checksum": 7},
        {"digestAlgorithm": "SHA-256"},
        {"digestAlgorithm": None},
        {"filesize": -1},
        {"filename": 7},
        {"mimeType": []},
    ],
)
def test_what_is_ignored_is_remarked(changes: JsonObject) -> None:
    _, remarks = read({**FEATURE, "files": {"RAWDATA": [{**FILE, **changes}]}})
    [remark] = remarks
    assert "files.RAWDATA[0]" in remark
    assert "ignored" in remark
