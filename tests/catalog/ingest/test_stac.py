from __future__ import annotations

import pytest

from gateway.catalog.ingest import stac
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place, RefusedError
from gateway.catalog.ingest.model import Copy, File, Json, JsonObject, Product, is_product_urn
from tests.catalog.ingest.conftest import everyones

SHA256 = "ab" * 32


class Bucket:
    """Holds ``s3://mine/…`` and everything below ``/archive``."""

    name = "bucket"

    def locate(self, href: str) -> str | None:
        for prefix in ("s3://mine/", "/archive/"):
            if href.startswith(prefix):
                return href.removeprefix(prefix)
        if href.startswith("https://["):
            raise ValueError("Invalid IPv6 URL")
        return None


def read(item: JsonObject, *, default_collection: str | None = None) -> tuple[Product, list[str]]:
    remarks: list[str] = []
    context = Context("earth", [everyones(Bucket())], False, "/archive/items", default_collection, remarks.append)  # type: ignore[arg-type]
    return stac.product(item, Place("f"), context), remarks


def read_asset(asset: Json, item: JsonObject) -> tuple[File, list[str]]:
    product, remarks = read({**item, "assets": {"band": asset}})
    [file] = product.files
    return file, remarks


def test_the_smallest_item(item: JsonObject) -> None:
    product, remarks = read(item)
    assert remarks == []
    assert is_product_urn(product.urn)
    assert product.urn.split(":")[3] == "earth"
    assert product.extent.bbox == (1.5, 45.0, 1.5, 45.0)
    assert '"properties"' not in product.body
    assert '"assets"' not in product.body
    assert '"geometry"' not in product.body
    assert '"id":"scene"' in product.body


def test_the_urn_depends_on_tenant_collection_and_id_alone(item: JsonObject) -> None:
    urn = read(item)[0].urn
    assert read({**item, "stac_version": "0.9.0", "extra": 1})[0].urn == urn
    assert read({**item, "id": "other"})[0].urn != urn
    # The same characters, parted elsewhere.
    assert read({**item, "collection": "sceness", "id": "cene"})[0].urn != urn


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": None}, "has no id"),
        ({"id": ""}, "id is empty"),
        ({"id": 7}, "id is 7, no string"),
        ({"id": "x" * 1001}, "id has 1001 bytes"),
        ({"id": "a\0b"}, "id has the character NUL"),
        ({"id": "\ud800"}, "half of a surrogate pair"),
        ({"collection": None}, "has no collection, and no default"),
        ({"collection": ["scenes"]}, "collection is an array of 1, no string"),
        ({"properties": None}, "properties is None, no object"),
        ({"properties": {"datetime": "yesterday"}}, "properties.datetime is 'yesterday'"),
        ({"assets": []}, "assets is an array of 0, no object"),
        ({"assets": {"": {"href": "a"}}}, "an asset key is empty"),
        ({"assets": {"band": "a.tif"}}, "asset 'band' is 'a.tif', no object"),
        ({"assets": {"band": {}}}, "asset 'band' has no href"),
        ({"assets": {"band": {"href": 7}}}, "asset 'band' has no href"),
        ({"assets": {"band": {"href": "/elsewhere/a.tif"}}}, "no storage location holds the path '/elsewhere/a.tif'"),
        ({"assets": {"band": {"href": "../../a.tif"}}}, "no storage location holds the path '/a.tif'"),
        ({"assets": {"band": {"href": "file:///elsewhere/a.tif"}}}, "no storage location holds the path 'file:"),
        ({"assets": {"band": {"href": "ftp://host/a.tif"}}}, "the scheme 'ftp'; known are"),
        ({"assets": {"band": {"href": "javascript:alert(1)"}}}, "the scheme 'javascript'"),
        ({"assets": {"band": {"href": "//host/a.tif"}}}, "a host but no scheme"),
        ({"assets": {"band": {"href": "https://[/a.tif"}}}, "malformed: Invalid IPv6 URL"),
        ({"assets": {"band": {"href": "https://host/" + "a" * 3000}}}, "longer than 2400 bytes"),
        ({"assets": {"band": {"href": "a\0.tif"}}}, "has the character NUL"),
        ({"bbox": [1, 2]}, "bbox is an array of 2"),
        ({"geometry": {"type": "Point", "coordinates": [float("inf"), 1]}}, "no pair of numbers"),
        ({"geometry": None, "extra": float("inf")}, "too large or not finite"),
        ({"extra": {"a": ["\0"]}}, "the character NUL"),
        ({"extra": {"\ud800": 1}}, "half of a surrogate pair"),
    ],
)
def test_what_is_refused(item: JsonObject, changes: JsonObject, reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        read({**item, **changes})
    assert reason in str(refused.value)


def test_a_backslash_before_u0000_is_no_nul(item: JsonObject) -> None:
    assert read({**item, "extra": "\\u0000"})[0].provider_id == "scene"


def test_the_default_collection_is_for_items_that_name_none(item: JsonObject) -> None:
    assert read(item, default_collection="other")[0].collection == "scenes"
    del item["collection"]
    assert read(item, default_collection="other")[0].collection == "other"


def test_an_item_may_have_no_geometry(item: JsonObject) -> None:
    product, _ = read({**item, "geometry": None})
    assert product.geometry is None
    assert product.extent.bbox is None


def test_the_items_own_box_goes_before_that_of_its_geometry(item: JsonObject) -> None:
    assert read({**item, "bbox": [170, -5, -170, 5]})[0].extent.bbox == (170, -5, -170, 5)


@pytest.mark.parametrize(
    ("roles", "data_type"),
    [
        (None, "RAWDATA"),
        ([], "RAWDATA"),
        (["data"], "RAWDATA"),
        (["thumbnail"], "THUMBNAIL"),
        (["overview"], "QUICKLOOK_SD"),
        (["metadata"], "DOCUMENT"),
        (["reflectance", "visual"], "RAWDATA"),
        (["thumbnail", "data"], "RAWDATA"),
        (["thumbnail", "DATA "], "RAWDATA"),
        (["overview", "data"], "RAWDATA"),
        (["metadata", "data"], "RAWDATA"),
        (["thumbnail", "metadata"], "DOCUMENT"),
        (["my-thumbnail"], "RAWDATA"),
        ("thumbnail", "RAWDATA"),
        (["thumbnail", 7], "RAWDATA"),
        ({"thumbnail": True}, "RAWDATA"),
    ],
)
def test_no_asset_passes_for_a_thumbnail_by_doubt(item: JsonObject, roles: Json, data_type: str) -> None:
    asset: JsonObject = {"href": "thumbnail.png", "title": "thumbnail"}
    if roles is not None:
        asset["roles"] = roles
    assert read_asset(asset, item)[0].data_type == data_type


@pytest.mark.parametrize(
    ("href", "copies", "reference"),
    [
        ("a.tif", [("bucket", "items/a.tif")], False),
        ("./a%20b.tif", [("bucket", "items/a b.tif")], False),
        ("../a.tif", [("bucket", "a.tif")], False),
        ("/archive/x/../a.tif", [("bucket", "a.tif")], False),
        ("s3://mine/a.tif", [("bucket", "a.tif")], False),
        ("s3://others/a.tif", [("s3", "s3://others/a.tif")], False),
        ("https://host/a.tif?x=1", [("web", "https://host/a.tif?x=1")], True),
        ("HTTP://host/a.tif", [("web", "HTTP://host/a.tif")], True),
    ],
)
def test_where_an_href_leads(item: JsonObject, href: str, copies: list[tuple[str, str]], reference: bool) -> None:
    file, _ = read_asset({"href": href}, item)
    assert file.copies == tuple(Copy(*copy) for copy in copies)
    assert file.reference == reference


@pytest.mark.parametrize(
    ("href", "alternate", "copies", "reference"),
    [
        ("https://host/a", {"s3": {"href": "s3://mine/a"}}, [("web", "https://host/a"), ("bucket", "a")], False),
        ("s3://mine/a", {"https": {"href": "https://host/a"}}, [("bucket", "a")], False),
        ("https://host/a", {"s3": {"href": "s3://others/a"}}, [("web", "https://host/a")], True),
        ("s3://mine/a", {"same": {"href": "/archive/a"}}, [("bucket", "a")], False),
        ("s3://mine/a", {"b": {"href": "s3://mine/b"}}, [("bucket", "a"), ("bucket", "b")], False),
        ("s3://mine/a", ["x"], [("bucket", "a")], False),
        ("s3://mine/a", {"x": None, "y": {"href": 7}, "z": {}}, [("bucket", "a")], False),
    ],
)
def test_alternates_count_where_a_storage_holds_them(
    item: JsonObject, href: str, alternate: Json, copies: list[tuple[str, str]], reference: bool
) -> None:
    file, _ = read_asset({"href": href, "alternate": alternate}, item)
    assert file.copies == tuple(Copy(*copy) for copy in copies)
    assert file.reference == reference


@pytest.mark.parametrize(
    ("asset", "name"),
    [
        ({"href": "x/B1.tif"}, "B1.tif"),
        ({"href": "https://host/x/a%20b.tif?token=/y#z"}, "a b.tif"),
        ({"href": "s3://mine/a?b.tif"}, "a?b.tif"),
        ({"href": "s3://mine/x/"}, "band"),
        ({"href": "https://host"}, "host"),
        ({"href": "https://host/x/.."}, "band"),
        ({"href": "https://host/%00"}, "band"),
        ({"href": "x/B1.tif", "file:local_path": "sub/named.tif"}, "named.tif"),
        ({"href": "x/B1.tif", "file:local_path": "../.."}, "B1.tif"),
        ({"href": "x/B1.tif", "file:local_path": 7}, "B1.tif"),
    ],
)
def test_what_the_users_copy_is_called(item: JsonObject, asset: JsonObject, name: str) -> None:
    assert read_asset(asset, item)[0].file_name == name


def test_size_and_checksum_are_taken(item: JsonObject) -> None:
    asset: JsonObject = {"href": "a", "file:size": 7, "file:checksum": "1220" + SHA256, "type": "image/tiff"}
    file, remarks = read_asset(asset, item)
    assert (file.size, file.checksum and (file.checksum.algorithm, file.checksum.value)) == (7, ("SHA-256", SHA256))
    assert file.mime_type == "image/tiff"
    assert remarks == []


def test_the_checksum_of_older_items_is_taken(item: JsonObject) -> None:
    file, _ = read_asset({"href": "a", "checksum:multihash": "d50110" + "cd" * 16}, item)
    assert file.checksum is not None
    assert file.checksum.algorithm == "MD5"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("file:size", -1),
        ("file:size", 2**53 + 1),
        ("file:size", 1.5),
        ("file:size", True),
        ("file:size", "7"),
        ("file:checksum", SHA256),
        ("file:checksum", "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564="),
        ("file:checksum", 7),
        ("type", ["image/tiff"]),
        ("file:local_path", {}),
        ("roles", "data"),
    ],
)
def test_what_is_ignored_is_remarked(item: JsonObject, member: str, value: Json) -> None:
    file, remarks = read_asset({"href": "a", member: value}, item)
    assert (file.size, file.checksum, file.mime_type) == (None, None, None)
    [remark] = remarks
    assert member.removeprefix("file:") in remark
    assert "'band'" in remark
