"""How good products are, as their properties say it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.catalog.ingest import regards, stac
from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import Place
from gateway.catalog.ingest.model import Json, JsonObject, Quality
from gateway.catalog.ingest.quality import LEVELS, quality
from tests.catalog.ingest.conftest import Ingesting
from tests.catalog.ingest.test_regards import FEATURE

WHEN = {"datetime": "2022-06-13T00:00:00Z"}


def read(properties: JsonObject) -> tuple[Quality, list[str]]:
    remarks: list[str] = []
    return quality(properties, Context("earth", [], False, "/", None, remarks.append)), remarks


@pytest.mark.parametrize("score", [0, 10, -1, 4.5, 1e300])
@pytest.mark.parametrize("level", LEVELS)
def test_a_score_is_a_number_and_a_level_one_of_three(score: float, level: str) -> None:
    assert read({"quality_score": score, "quality_level": level}) == (Quality(score, level), [])
    assert read({"quality_score": score}) == (Quality(score, None), [])
    assert read({"quality_level": level}) == (Quality(None, level), [])


@pytest.mark.parametrize("absent", [{}, {"quality_score": None, "quality_level": None}, {"quality": "ACCEPTED"}])
def test_what_is_not_rated_is_not_remarked(absent: JsonObject) -> None:
    assert read(absent) == (Quality(), [])


@pytest.mark.parametrize("score", ["5", True, [5], {"value": 5}, 10**400, float("inf"), float("nan")])
def test_what_is_no_number_is_no_score(score: Json) -> None:
    found, remarks = read({"quality_score": score, "quality_level": "REJECTED"})
    assert found == Quality(None, "REJECTED")
    assert len(remarks) == 1
    assert remarks[0].startswith("properties.quality_score is ")


@pytest.mark.parametrize("level", ["accepted", "ACCEPTED ", "GOOD", "", 1, True, ["ACCEPTED"], {}])
def test_what_is_none_of_the_three_is_no_level(level: Json) -> None:
    found, remarks = read({"quality_score": 5, "quality_level": level})
    assert found == Quality(5.0, None)
    assert len(remarks) == 1
    assert remarks[0].startswith("properties.quality_level is ")


def test_items_and_features_are_rated_alike() -> None:
    properties: JsonObject = {**WHEN, "quality_score": 7, "quality_level": "ACCEPTED"}
    item: JsonObject = {"type": "Feature", "id": "i", "collection": "c", "properties": properties, "assets": {}}
    context = Context("tenant", [], False, "/", None, lambda _: None)
    for product in (
        stac.product(item, Place("f"), context),
        regards.product({**FEATURE, "properties": properties}, Place("f"), context),
    ):
        assert product.quality == Quality(7.0, "ACCEPTED")
    assert stac.product({**item, "properties": dict(WHEN)}, Place("f"), context).quality == Quality()


async def test_a_rating_is_written_and_taken_back_with_the_entry(ingesting: Ingesting, item: dict[str, Any]) -> None:
    for rating, expected in (
        ({"quality_score": 7.5, "quality_level": "ACCEPTED"}, (7.5, "ACCEPTED")),
        ({"quality_level": "REJECTED"}, (None, "REJECTED")),
        ({}, (None, None)),
    ):
        await ingesting.of({**item, "properties": {**item["properties"], **rating}})
        [row] = await ingesting.rows("SELECT quality_score, quality_level FROM products")
        assert tuple(row.values()) == expected
