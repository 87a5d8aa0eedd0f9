from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.extent import bounds, bounds_of_geometry, moment, period
from gateway.catalog.ingest.model import Json

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-12-11T22:38:32.125Z", datetime.datetime(2020, 12, 11, 22, 38, 32, 125000, UTC)),
        ("2020-12-11t22:38:32z", datetime.datetime(2020, 12, 11, 22, 38, 32, 0, UTC)),
        ("2020-12-11 23:38:32+01:00", datetime.datetime(2020, 12, 11, 22, 38, 32, 0, UTC)),
        ("2020-12-11T22:38:32.123456789Z", datetime.datetime(2020, 12, 11, 22, 38, 32, 123456, UTC)),
        ("2016-12-31T23:59:60Z", datetime.datetime(2017, 1, 1, 0, 0, 0, 0, UTC)),
    ],
)
def test_a_moment(text: str, expected: datetime.datetime) -> None:
    assert moment(text, "it") == expected


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_comes_back(value: datetime.datetime) -> None:
    assert moment(value.isoformat(), "it") == value


@pytest.mark.parametrize(
    "value",
    [
        "2020-12-11",
        "2020-12-11T22:38:32",
        "2020-02-30T00:00:00Z",
        "2020-12-11T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60Z",
        "2020-12-11T22:38:32Z\n",
        "２０２０-12-11T22:38:32Z",
        1607726312,
        ["2020-12-11T22:38:32Z"],
        True,
        "",
    ],
)
def test_what_is_no_moment(value: Json) -> None:
    with pytest.raises(RefusedError, match="it is"):
        moment(value, "it")


def test_a_range_goes_before_the_single_moment() -> None:
    start, end = period(
        {
            "datetime": "2020-01-02T00:00:00Z",
            "start_datetime": "2020-01-01T00:00:00Z",
            "end_datetime": "2020-01-03T00:00:00Z",
        }
    )
    assert (start.day, end.day) == (1, 3)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({}, "no properties.datetime"),
        ({"datetime": None}, "both start_datetime and end_datetime"),
        ({"datetime": None, "start_datetime": "2020-01-01T00:00:00Z"}, "both start_datetime and end_datetime"),
        ({"start_datetime": "2020-01-02T00:00:00Z", "end_datetime": "2020-01-01T00:00:00Z"}, "before start_datetime"),
    ],
)
def test_what_is_no_period(properties: dict[str, Json], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        period(properties)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 3, 4], (1, 2, 3, 4)),
        ([1, 2, -100, 3, 4, 100], (1, 2, 3, 4)),
        ([177, -20, -178, -16], (177, -20, -178, -16)),  # crosses 180°
        ([0, 0, 0, 0], (0, 0, 0, 0)),
    ],
)
def test_a_box(value: Json, expected: tuple[float, ...]) -> None:
    assert bounds(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, "3", 4],
        [1, 2, True, 4],
        [1, 2, None, 4],
        [10**400, 0, 0, 0],
        {},
        "1,2,3,4",
    ],
)
def test_what_is_no_box(value: Json) -> None:
    with pytest.raises(RefusedError, match="not 4 or 6 numbers"):
        bounds(value)


def test_a_box_is_not_upside_down() -> None:
    with pytest.raises(RefusedError, match="south"):
        bounds([0, 10, 1, 9])


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"type": "Point", "coordinates": [1, 2, 300]}, (1, 2, 1, 2)),
        ({"type": "LineString", "coordinates": [[1, 2], [-3, 4]]}, (-3, 2, 1, 4)),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [[[[0, 0], [2, 0], [2, 1], [0, 0]]], [[[5, 5], [6, 5], [6, 7], [5, 5]]]],
            },
            (0, 0, 6, 7),
        ),
        (
            {
                "type": "GeometryCollection",
                "geometries": [{"type": "Point", "coordinates": [1, 2]}, {"type": "Point", "coordinates": [3, 0]}],
            },
            (1, 0, 3, 2),
        ),
        ({"type": "Polygon", "coordinates": []}, None),
    ],
)
def test_the_box_of_a_geometry(geometry: Json, expected: tuple[float, ...] | None) -> None:
    assert bounds_of_geometry(geometry) == expected


@pytest.mark.parametrize(
    "geometry",
    [
        "POINT (1 2)",
        [],
        {"type": "Circle", "coordinates": [1, 2]},
        {"type": "Point"},
        {"type": "Point", "coordinates": "1 2"},
        {"type": "Point", "coordinates": [1]},
        {"type": "Point", "coordinates": ["1", "2"]},
        {"type": "LineString", "coordinates": [[1, 2], 3]},
        {"type": "GeometryCollection", "geometries": [None]},
        {"type": ["Point"], "coordinates": [1, 2]},
    ],
)
def test_what_is_no_geometry(geometry: Json) -> None:
    with pytest.raises(RefusedError, match="geometry"):
        bounds_of_geometry(geometry)
