"""Documents made of rows: valid, with all that came in, and with links of ours."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pystac
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stac import documents
from gateway.stac.assets import ALTERNATE, AUTHENTICATION, FILE, ORDER, SCHEMES, Showing
from gateway.stac.documents import Service
from gateway.stac.model import CollectionName, FileRow, ItemRow, LastRestore
from gateway.staging.model import RestoreState
from tests.stac.offline import validate
from tests.stac.rows import LONG_AGO, ROOT, URLS, Json, collection_row, file_row, item_row

SHOWING = Showing()
FILE_OF_S3 = {"href": "s3://bucket/key"}


def made(row: ItemRow) -> Json:
    found: Json = json.loads(documents.item(row, URLS, SHOWING))
    validate(found)
    return found


def test_what_is_not_valid_is_seen() -> None:
    """Else none of these tests could fail."""
    good = made(item_row(file_row(FILE_OF_S3, size=3, needs_login=True, states=("NEARLINE",))))
    bad: list[tuple[str, Any]] = [
        ("bbox", None),
        ("geometry", {"type": "Point"}),
        ("properties", {**good["properties"], "datetime": None}),
        ("properties", {"datetime": "2024-05-01T00:00:00Z", "order:status": "orderable"}),
        ("properties", {"datetime": "2024-05-01T00:00:00Z", "auth:schemes": SCHEMES}),
        ("assets", {"data": {**good["assets"]["data"], "file:size": -1}}),
        ("assets", {"data": {**good["assets"]["data"], "file:checksum": "AB"}}),
        ("assets", {"data": {**good["assets"]["data"], "alternate": {}}}),
        ("links", [{"rel": "self"}]),
    ]
    for name, value in bad:
        with pytest.raises(pystac.STACValidationError):
            validate({**good, name: value})


def test_an_item_leads_through_this_catalogue_and_nowhere_else() -> None:
    links = [
        {"rel": "self", "href": "/data/item.json"},
        {"rel": "parent", "href": "https://other.org/collection.json"},
        {"rel": "license", "href": "https://other.org/licence"},
        {"rel": "about", "href": "./about.html"},
        {"rel": "via", "href": "file:///data/via.json"},
        {"rel": "derived_from", "href": "https://user:password@other.org/x"},
        {"rel": "cite-as", "href": "https://doi.org/10.1/1", "title": "Cite"},
        {"href": "https://other.org"},
        "odd",
    ]
    found = made(item_row(body={"type": "Feature", "stac_version": "1.1.0", "links": links}))
    item = f"{ROOT}/collections/scenes/items/one"
    assert found["links"] == [
        {"rel": "self", "href": item, "type": "application/geo+json"},
        {"rel": "root", "href": f"{ROOT}/", "type": "application/json"},
        {"rel": "parent", "href": f"{ROOT}/collections/scenes", "type": "application/json"},
        {"rel": "collection", "href": f"{ROOT}/collections/scenes", "type": "application/json"},
        {"rel": "license", "href": "https://other.org/licence"},
        {"rel": "cite-as", "href": "https://doi.org/10.1/1", "title": "Cite"},
    ]


def test_ids_may_hold_any_character() -> None:
    row = item_row(file_row(FILE_OF_S3, asset_key="B01/é ?.tif"), collection_id="a/b #1", item_id="ü%2F..")
    found = made(row)
    assert (found["id"], found["collection"]) == ("ü%2F..", "a/b #1")
    path = "/collections/a%2Fb%20%231/items/%C3%BC%252F../download/B01%2F%C3%A9%20%3F.tif"
    assert found["assets"]["B01/é ?.tif"]["href"] == f"{ROOT}{path}"


def test_what_nobody_knows_is_kept() -> None:
    body = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://stac-extensions.github.io/eo/v1.0.0/schema.json"],
        "id": "one",
        "collection": "scenes",
        "mine": {"b": [1, None]},
        "bbox": [2, 43, -5, 2, 43, 900],
    }
    properties = {"datetime": None, "start_datetime": "2024-05-01T00:00:00Z", "end_datetime": "2024-05-02T00:00:00Z"}
    found = made(item_row(body=body, properties=properties))
    assert found["properties"] == properties
    same = set(body) - {"links"}
    assert {name: found[name] for name in same} == body


def test_properties_are_to_the_letter_as_they_came() -> None:
    text = '{"a": 0.12345678901234567890123, "b": 1e3, "datetime": "2024-05-01T00:00:00Z"}'
    row = item_row()
    assert f'"properties":{text}' in documents.item(ItemRow(**{**_fields(row), "properties": text}), URLS, SHOWING)


def _fields(row: ItemRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_extensions_are_named_where_their_members_are_used_and_only_there() -> None:
    plain = made(item_row(file_row({"href": "./local.tif"})))
    assert plain["stac_extensions"] == []
    assert plain["properties"] == {"datetime": "2024-05-01T00:00:00Z"}
    file = file_row(FILE_OF_S3, size=3, needs_login=True, states=("NEARLINE",))
    found = made(item_row(file, properties={"datetime": "2024-05-01T00:00:00Z", "auth:schemes": {"x": {"type": "s3"}}}))
    assert found["stac_extensions"] == sorted([ALTERNATE, AUTHENTICATION, FILE, ORDER])
    assert found["properties"]["auth:schemes"] == {"x": {"type": "s3"}, **SCHEMES}
    assert found["properties"]["order:status"] == "orderable"


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (("RESTORED", "RESTORED"), "succeeded"),
        (("RESTORED", "STAGING"), "ordered"),
        (("QUEUED", "STAGING"), "pending"),
        (("QUEUED", "FAILED"), "failed"),
        (("RESTORED", "EXPIRED"), "orderable"),
        (("CANCELED", "FAILED"), "orderable"),
    ],
)
def test_an_item_is_as_far_as_the_last_of_its_files(states: tuple[RestoreState, ...], status: str) -> None:
    files = [
        file_row({"href": f"./{one}"}, asset_key=str(one), states=("NEARLINE",), restore=LastRestore(state, LONG_AGO))
        for one, state in enumerate(states)
    ]
    assert made(item_row(*files))["properties"]["order:status"] == status


def test_an_extension_that_is_there_in_another_version_is_not_named_twice() -> None:
    older = "https://stac-extensions.github.io/file/v1.0.0/schema.json"
    body = {"type": "Feature", "stac_version": "1.0.0", "stac_extensions": [older, "eo"]}
    assert made(item_row(file_row({"href": "./x"}, size=3), body=body))["stac_extensions"] == [older, "eo"]


def test_an_item_of_nowhere_has_neither_geometry_nor_bbox() -> None:
    body = {"type": "Feature", "stac_version": "1.1.0", "bbox": [1, 2, 3, 4]}
    found = made(item_row(body=body, geometry=None))
    assert found["geometry"] is None
    assert "bbox" not in found


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, {"datetime": "2020-01-02T03:04:05Z"}),
        (LONG_AGO, LONG_AGO, {"datetime": "2020-01-02T03:04:05Z"}),
        (
            LONG_AGO,
            LONG_AGO + datetime.timedelta(days=1),
            {
                "datetime": None,
                "start_datetime": "2020-01-02T03:04:05Z",
                "end_datetime": "2020-01-03T03:04:05Z",
            },
        ),
    ],
)
def test_an_item_without_a_date_gets_one(
    start: datetime.datetime | None, end: datetime.datetime | None, expected: Json
) -> None:
    assert made(item_row(body={}, properties={}, start=start, end=end))["properties"] == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(
    (
        "title", "description", "keywords", "roles", "platform", "instruments", "constellation", "mission", "gsd",
        "license", "providers", "bands", "data_type", "nodata", "statistics", "unit", "created", "updated", "datetime",
        "start_datetime", "end_datetime", "cloud",
    )
)  # fmt: skip
FEATURES = st.fixed_dictionaries(
    {
        "id": st.just("URN:FEATURE:DATA:esa:50fe35a3-e085-3eb1-bb61-86ab3fdeb7dd:V1"),
        "entityType": st.just("DATA"),
    },
    optional=dict.fromkeys(
        ("type", "links", "bbox", "tags", "model", "stac_version", "stac_extensions", "assets", "collection"), JSON
    ),
)


@settings(max_examples=60, deadline=None)
@given(FEATURES, st.dictionaries(NAMES, JSON, max_size=6), st.booleans(), st.none() | st.just(LONG_AGO))
def test_whatever_a_feature_of_regards_holds_it_comes_out_as_a_valid_item(
    body: Json, properties: Json, placed: bool, start: datetime.datetime | None
) -> None:
    file = file_row({"dataType": "RAWDATA", "uri": "file:///data/x"}, size=3)
    place: Json = {} if placed else {"geometry": None, "bbox": None}
    found = made(item_row(file, body=body, properties=properties, start=start, end=start, **place))
    assert found["id"] == "one"
    assert found["properties"]["regards:urn"] == body["id"]
    for name, value in properties.items():
        assert value in (found["properties"].get(name), found["properties"].get(f"regards:{name}"))


def test_the_groups_that_see_a_feature_are_not_told() -> None:
    body = {
        "entityType": "DATA",
        "groups": ["secret"],
        "tags": ["a"],
        "links": [{"rel": "update", "href": "https://x"}],
    }
    found = made(item_row(body=body))
    assert ("groups" in found, found["tags"]) == (False, ["a"])
    assert "https://x" not in json.dumps(found)


def collection(**row: Any) -> Json:
    body = row.pop("body", {})
    items = row.pop("items", ())
    found = documents.collection(collection_row(body, **row), URLS, SHOWING, items)
    validate(found)
    return found


def test_a_collection_that_nothing_is_known_of_is_valid() -> None:
    found = collection()
    assert (found["id"], found["title"], found["description"], found["license"]) == (*["scenes"] * 3, "other")
    assert [link["rel"] for link in found["links"]] == ["self", "root", "parent", "items"]


def test_a_collection_keeps_what_it_said_and_links_to_its_licence() -> None:
    body = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "scenes",
        "description": "All.",
        "license": "CC-BY-4.0",
        "extent": {"spatial": {"bbox": [[0, 0, 1, 1]]}, "temporal": {"interval": [[None, None]]}},
        "summaries": {"gsd": [10]},
        "links": [{"rel": "license", "href": "https://creativecommons.org"}, {"rel": "self", "href": "./c.json"}],
        "assets": {"map": {"href": "https://h.org/map"}, "local": {"href": "/data/map"}, "odd": {}},
    }
    found = collection(body=body, title="Scenes")
    assert {name: found[name] for name in set(body) - {"links", "assets"}} == {
        name: value for name, value in body.items() if name not in ("links", "assets")
    }
    assert found["title"] == "Scenes"
    assert found["assets"] == {"map": {"href": "https://h.org/map"}}
    assert [link["href"] for link in found["links"] if link["rel"] == "license"] == ["https://creativecommons.org"]
    asked = collection(body=body, licence_url="https://esa.org/terms")
    assert [link["href"] for link in asked["links"] if link["rel"] == "license"] == ["https://esa.org/terms"]


def test_of_a_collection_too_nobody_learns_a_path_of_this_machine_or_a_credential() -> None:
    public = {"href": "s3://bucket/map"}
    hidden = {"href": "https://h.org/map?sig=secret"}
    body = {
        "assets": {
            "map": {
                "href": "https://h.org/map",
                "file:local_path": "/data/secret/map",
                "alternate": {"local": {"href": "/data/secret/map"}, "signed": hidden, "s3": public},
            },
            "other": {"href": "https://h.org/other", "alternate": {"signed": hidden}},
        }
    }
    found = collection(body=body)
    assert "secret" not in json.dumps(found)
    assert found["assets"]["map"]["alternate"] == {"s3": public}
    assert found["assets"]["other"] == {"href": "https://h.org/other"}


def test_no_link_leads_to_where_no_client_is_led_to() -> None:
    """The same as for assets: a server that only the gateway reaches is nobody's business."""
    showing = Showing(tells=lambda href: "inner" not in href)
    links = [{"rel": rel, "href": f"https://{rel}.org"} for rel in ("derived_from", "inner", "license")]
    row = item_row(body={"type": "Feature", "stac_version": "1.1.0", "links": links})
    for text in (
        documents.item(row, URLS, showing),
        documents.to_text(documents.collection(collection_row({"links": links}), URLS, showing)),
    ):
        found = json.loads(text)
        assert [link["rel"] for link in found["links"][4:]] == ["derived_from", "license"]


def test_a_collection_links_to_the_items_that_it_is_given() -> None:
    links = collection(items=["a", "b/c"])["links"]
    expected = [f"{ROOT}/collections/scenes/items/a", f"{ROOT}/collections/scenes/items/b%2Fc"]
    assert [link["href"] for link in links if link["rel"] == "item"] == expected


def test_the_landing_page_links_to_collections_unless_they_are_many() -> None:
    service = Service("esa", "https://data.example.org/api", "application/x")
    row = collection_row({})
    for number, expected in ((2, 2), (documents.MOST_CHILDREN, documents.MOST_CHILDREN), (1001, 0)):
        found = documents.landing(service, [CollectionName(row.collection_id, row.title)] * number, URLS)
        validate(found)
        links: Any = found["links"]
        assert len([link for link in links if link["rel"] == "child"]) == expected


def test_a_page_is_an_item_collection() -> None:
    rows = [item_row(file_row(FILE_OF_S3), item_id=name) for name in ("a", "b")]
    text = documents.item_collection(rows, URLS, SHOWING, links=[{"rel": "next", "href": "x"}], now=LONG_AGO)
    found = json.loads(text)
    assert [one["id"] for one in found.pop("features")] == ["a", "b"]
    assert found == {
        "type": "FeatureCollection",
        "links": [{"rel": "next", "href": "x"}],
        "numberReturned": 2,
        "timeStamp": "2020-01-02T03:04:05Z",
    }


def test_a_file_without_a_body_is_an_asset_all_the_same() -> None:
    file: FileRow = file_row({}, mime_type="image/tiff", size=1)
    assert made(item_row(file, body={}, properties={}))["assets"]["data"]["href"].endswith("/items/one/download/data")
