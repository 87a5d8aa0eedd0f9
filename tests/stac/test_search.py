"""What requests ask for: read from queries and bodies, or refused by name."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from gateway.errors import GatewayError
from gateway.stac.model import Box, Interval, Search
from gateway.stac.search import MOST, from_body, from_query

NOON = datetime.datetime(2023, 4, 13, 12, tzinfo=datetime.UTC)
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}


def refused(name: str, value: object) -> str:
    """What is said against it in a body; in a query it is refused as well."""
    with pytest.raises(GatewayError) as in_body:
        from_body({name: value})
    text = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if isinstance(value, dict):
        text = json.dumps(value)
    with pytest.raises(GatewayError) as in_query:
        from_query(MultiDict({name: text}))
    for error in (in_body.value, in_query.value):
        assert error.status is HTTPStatus.BAD_REQUEST
        assert error.detail.startswith(f"Parameter {name!r}: ")
    return in_body.value.detail


def test_nothing_in_particular_is_the_newest_ten() -> None:
    assert from_query(MultiDict()) == from_body({}) == Search(limit=10, newest_first=True)


def test_a_member_that_is_null_asks_for_nothing() -> None:
    names = ("bbox", "intersects", "datetime", "ids", "collections", "limit", "sortby", "token")
    assert from_body(dict.fromkeys(names)) == Search()


def test_query_and_body_say_the_same() -> None:
    query = MultiDict(
        collections="a,b", ids="1,2,1", bbox="170, -10,-170,10", datetime="2023-04-13T12:00:00Z/..", limit="7",
        sortby="+datetime", token="abc",
    )  # fmt: skip
    body = {
        "collections": ["a", "b"], "ids": ["1", "2", "1"], "bbox": [170, -10, -170, 10],
        "datetime": "2023-04-13T12:00:00Z/..", "limit": 7, "sortby": [{"field": "datetime", "direction": "asc"}],
        "token": "abc",
    }  # fmt: skip
    expected = Search(
        collections=("a", "b"), ids=("1", "2"), bbox=(170, -10, -170, 10), datetime=Interval(NOON, None), limit=7,
        newest_first=False, token="abc",
    )  # fmt: skip
    assert from_query(query) == from_body(body) == expected


def test_an_empty_array_asks_for_nothing_at_all() -> None:
    assert from_body({"ids": [], "collections": []}) == Search(ids=(), collections=())


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2023-04-13T12:00:00Z", NOON, NOON),
        ("2023-04-13t14:00:00.000+02:00", NOON, NOON),
        ("2023-04-13T12:00:00.1234567891z", *[NOON.replace(microsecond=123456)] * 2),
        ("2023-04-13T11:59:60Z", NOON, NOON),
        ("../2023-04-13T12:00:00Z", None, NOON),
        ("/2023-04-13T12:00:00Z", None, NOON),
        ("2023-04-13T12:00:00Z/..", NOON, None),
        ("2023-04-13T12:00:00Z/", NOON, None),
        ("2023-04-13T12:00:00Z/2023-04-13T12:00:00Z", NOON, NOON),
        ("0001-01-01T00:00:00Z/9999-12-31T23:59:59.999999Z",
         datetime.datetime(1, 1, 1, microsecond=1, tzinfo=datetime.UTC),
         datetime.datetime.max.replace(microsecond=999998, tzinfo=datetime.UTC)),
    ],
)  # fmt: skip
def test_times_and_intervals_of_time(text: str, start: datetime.datetime | None, end: datetime.datetime | None) -> None:
    assert from_query(MultiDict(datetime=text)).datetime == Interval(start, end)


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "../..", "/..", "../", "2023-04-13", "2023-04-13T12:00:00", "2023-04-13 12:00:00Z", "yesterday",
        "2023-13-13T12:00:00Z", "2023-02-29T12:00:00Z", "2023-04-13T25:00:00Z", "2023-04-13T12:60:00Z",
        "2023-04-13T12:00:61Z", "2023-04-13T12:00:00+0200", "2023-04-13T12:00:00.Z", "2023-04-13T12:00:00,5Z",
        "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+01:00", "٢٠٢٣-04-13T12:00:00Z",
        "2023-04-14T00:00:00Z/2023-04-13T00:00:00Z", "a/b/c", "2023-04-13T12:00:00Z/2023-04-13T12:00:00Z/",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    refused("datetime", text)


def test_boxes_may_have_heights_touch_the_poles_and_cross_180() -> None:
    cases: list[tuple[list[float], Box]] = [
        ([0, 1, 2, 3], (0, 1, 2, 3)),
        ([0, 1, -5, 2, 3, 5], (0, 1, 2, 3)),
        ([-180, -90, 180, 90], (-180, -90, 180, 90)),
        ([170, 90, -170, 90], (170, 90, -170, 90)),
    ]
    for numbers, box in cases:
        assert from_body({"bbox": numbers}).bbox == box
        assert from_query(MultiDict(bbox=",".join(map(str, numbers)))).bbox == box
    assert from_query(MultiDict(bbox="1e1,-.5,+10.,5E-1")).bbox == (10, -0.5, 10, 0.5)


@pytest.mark.parametrize(
    "numbers",
    [
        [], [0], [0, 0, 1], [0, 0, 1, 1, 1], [0] * 7, [0, 2, 1, 1], [0, 0, 181, 1], [-180.1, 0, 0, 1], [0, -91, 1, 0],
        [0, 0, 1, 90.5], [0, 0, 5, 1, 1, 4], ["a", 0, 1, 1], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1],
        [10**400, 0, 1, 1],
    ],
)  # fmt: skip
def test_what_is_no_box_is_refused(numbers: list[Any]) -> None:
    refused("bbox", numbers)


def test_a_box_is_an_array_of_numbers_in_a_body_and_commas_in_a_query() -> None:
    for value in ("0,0,1,1", [True, 0, 1, 1], ["0", "0", "1", "1"], {"west": 0}):
        with pytest.raises(GatewayError, match="bbox"):
            from_body({"bbox": value})
    for text in ("[0,0,1,1]", "0 0 1 1", "0,0,1,0x1", "0,0,1,1_0", "nan,0,1,1", "0,0,1,٣"):
        with pytest.raises(GatewayError, match="bbox"):
            from_query(MultiDict(bbox=text))


def test_more_items_than_a_page_has_are_a_whole_page() -> None:
    for asked in (MOST, MOST + 1, 10**12, 10**5000):
        assert from_body({"limit": asked}).limit == MOST
    for text in (str(MOST), "10001", "9" * 5000):
        assert from_query(MultiDict(limit=text)).limit == MOST
    assert from_query(MultiDict(limit="0" * 50 + "7")).limit == 7


@pytest.mark.parametrize("value", [0, -1, "", "ten", "1.5", "1e3", "²"])
def test_what_is_no_number_of_items_is_refused(value: object) -> None:
    refused("limit", value)


def test_a_number_of_items_in_a_body_is_a_whole_number() -> None:
    for value in (True, 1.0, "5", [5]):
        with pytest.raises(GatewayError, match="limit"):
            from_body({"limit": value})


@pytest.mark.parametrize(
    ("text", "newest_first"),
    [
        ("datetime", False),
        ("+datetime", False),
        (" datetime", False),
        ("-datetime", True),
        ("-properties.datetime", True),
    ],
)
def test_items_are_sorted_by_datetime(text: str, newest_first: bool) -> None:
    assert from_query(MultiDict(sortby=text)).newest_first is newest_first
    field, direction = text.lstrip("+- "), "desc" if newest_first else "asc"
    assert from_body({"sortby": [{"field": field, "direction": direction}]}).newest_first is newest_first


@pytest.mark.parametrize("value", ["id", "-datetime,id", "", "*"])
def test_items_are_sorted_by_nothing_else(value: str) -> None:
    refused("sortby", value)


def test_the_order_of_a_body_is_an_array_of_one_field() -> None:
    values: list[object] = [
        {"field": "datetime"},
        [],
        [{"field": "datetime", "direction": "up"}],
        [{}],
        [{"field": "datetime"}] * 2,
    ]
    for value in values:
        with pytest.raises(GatewayError, match="sortby"):
            from_body({"sortby": value})


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [180, 90, 1000]},
        {"type": "MultiPoint", "coordinates": [[0, 0]]},
        {"type": "LineString", "coordinates": [[0, 0], [1, 1]]},
        {"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]]]},
        SQUARE,
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [SQUARE, {"type": "Point", "coordinates": [5, 5]}]},
    ],
)
def test_geometries_are_taken_as_they_are(geometry: dict[str, Any]) -> None:
    found = from_body({"intersects": geometry})
    assert json.loads(found.intersects or "") == geometry
    assert from_query(MultiDict(intersects=json.dumps(geometry))) == found


@pytest.mark.parametrize(
    "geometry",
    [
        "POINT (0 0)", [], {}, {"type": "Feature", "geometry": SQUARE}, {"type": "Point"},
        {"type": "Point", "coordinates": [0]}, {"type": "Point", "coordinates": []},
        {"type": "Point", "coordinates": ["0", 0]}, {"type": "Point", "coordinates": [181, 0]},
        {"type": "Point", "coordinates": [0, 91]}, {"type": "Point", "coordinates": [True, 0]},
        {"type": "Point", "coordinates": [0, 0, 0, 0, 0]}, {"type": "Point", "coordinates": {"0": 0}},
        {"type": "LineString", "coordinates": [[0, 0]]}, {"type": "LineString", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},
        {"type": "Polygon", "coordinates": [[0, 0], [1, 0]]}, {"type": "Polygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": [[]]}, {"type": "GeometryCollection", "geometries": []},
        {"type": "GeometryCollection"}, {"type": ["Point"], "coordinates": [0, 0]},
        {"type": "MultiPoint", "coordinates": [[0, 0]] * 10_001},
    ],
)  # fmt: skip
def test_what_is_no_geometry_on_earth_is_refused(geometry: object) -> None:
    refused("intersects", geometry)


def test_of_a_geometry_only_what_means_something_is_taken() -> None:
    """What tests it takes neither half of a surrogate pair nor a number beyond all, wherever they stand."""
    for text in ('"\\ud800"', "1e999", "NaN", "[" * 500 + "]" * 500, '{"type": "Polygon"}'):
        for geometry in (
            f'{{"type": "Point", "coordinates": [1, 2], "crs": {text}}}',
            f'{{"type": "GeometryCollection", "geometries": [{{"type":"Point","x":{text},"coordinates":[1,2]}}]}}',
        ):
            found = from_query(MultiDict(intersects=geometry)).intersects or ""
            assert '"coordinates":[1,2]' in found
            assert len(found) < 100
    assert "4" not in (from_body({"intersects": {"type": "Point", "coordinates": [1, 2, 3, 4]}}).intersects or "")


def test_geometries_within_geometries_end_somewhere() -> None:
    geometry: dict[str, Any] = SQUARE
    for _ in range(12):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    refused("intersects", geometry)
    with pytest.raises(GatewayError, match="intersects"):
        from_query(MultiDict(intersects="[" * 200_000))


def test_a_place_is_said_in_one_way() -> None:
    with pytest.raises(GatewayError, match="'intersects'"):
        from_body({"bbox": [0, 0, 1, 1], "intersects": SQUARE})


def test_what_would_narrow_a_search_is_not_passed_over() -> None:
    for name in ("filter", "query", "q"):
        refused(name, "x")


def test_other_parameters_are_left_alone() -> None:
    assert from_query(MultiDict(scope="esa", fields="id", conf="x")) == from_body({"fields": {}, "conf": 1}) == Search()


def test_a_parameter_that_is_there_twice_is_refused() -> None:
    with pytest.raises(GatewayError, match="limit"):
        from_query(MultiDict([("limit", "1"), ("limit", "2")]))


def test_a_body_is_an_object() -> None:
    bodies: list[object] = [None, [], "x", 1]
    for body in bodies:
        with pytest.raises(GatewayError, match="JSON object"):
            from_body(body)


@pytest.mark.parametrize("name", ["ids", "collections"])
@pytest.mark.parametrize("value", ["a", [1], [["a"]], {"a": 1}])
def test_lists_in_a_body_are_arrays_of_strings(name: str, value: object) -> None:
    with pytest.raises(GatewayError, match=name):
        from_body({name: value})


_NAMES = ("bbox", "intersects", "datetime", "ids", "collections", "limit", "sortby", "token", "filter", "other")
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["Point", "Polygon", "type", "coordinates", "2023-04-13T12:00:00Z", ".."]),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(st.sampled_from(["type", "coordinates", "geometries", "field", "x"]), inner, max_size=3),
)  # fmt: skip


def is_read_or_refused(read: Callable[[], Search]) -> bool:
    try:
        return 1 <= read().limit <= MOST
    except GatewayError as error:
        return error.status is HTTPStatus.BAD_REQUEST


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON))
def test_whatever_a_body_says_is_read_or_refused(body: dict[str, Any]) -> None:
    assert is_read_or_refused(lambda: from_body(body))


@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.text() | _JSON.map(str))))
def test_whatever_a_query_says_is_read_or_refused(query: list[tuple[str, str]]) -> None:
    assert is_read_or_refused(lambda: from_query(MultiDict(query)))
