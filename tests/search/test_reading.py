"""What texts are read as."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.query import QueryError
from gateway.search.reading import parse
from gateway.search.sql import Parameters, condition


def told(text: str) -> tuple[str, list[object]]:
    parameters = Parameters()
    return condition(parse(text), parameters), parameters.values


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("id:a AND id:b OR id:c", "(id:a AND id:b) OR id:c"),
        ("id:a OR id:b AND id:c", "id:a OR (id:b AND id:c)"),
        ("id:a id:b", "id:a OR id:b"),
        ("id:a OR id:b id:c", "(id:a OR id:b) OR id:c"),
        ("+id:a id:b", "id:a"),
        ("+id:a -id:b id:c", "id:a AND NOT id:b"),
        ("id:a -id:b id:c", "(id:a OR id:c) AND NOT id:b"),
        ("-id:a", "NOT id:a"),
        ("NOT id:a AND id:b", "(NOT id:a) AND id:b"),
        ("id:(a b)", "id:a OR id:b"),
        ("id:(a AND NOT b)", "id:a AND NOT id:b"),
        ("id:(+a -b)", "id:a AND NOT id:b"),
        ("properties.a:-5", 'properties.a:"-5"'),
        ("properties.a:(-5)", "NOT properties.a:5"),
        ("properties.eo:cloud_cover:5", "properties.eo\\:cloud_cover:5"),
        ("_exists_:properties.eo:x", "properties.eo:x:*"),
        ('_exists_:"properties.a"', "properties.a:[* TO *]"),
        ("quality_score:>=5", "quality_score:[5 TO *]"),
        ("quality_score:>5", "quality_score:{5 TO *]"),
        ("quality_score:<5", "quality_score:[* TO 5}"),
        ("quality_score:5", "quality_score:[5 TO 5]"),
        ("creationDate:2020-02-29", "creationDate:[2020-02-29T00:00:00Z TO 2020-02-29T23:59:59.999999Z]"),
        ("creationDate:<2020-02-29", "creationDate:[* TO 2020-02-28]"),
        ('creationDate:"2020-02-29T10:00+02:00"', "creationDate:2020-02-29T08:00"),
        ("properties.a\\.:x", "properties.a\\.:(x)"),
        ("", "*:*"),
        ("  ", "*"),
        ("id:TO", 'id:"TO"'),
    ],
)
def test_two_ways_to_write_the_same(one: str, same: str) -> None:
    def plain(text: str) -> tuple[str, list[object]]:
        made, values = told(text)
        return made.replace("(", "").replace(")", ""), values

    assert plain(one) == plain(same)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "names a field for each value"),
        ('"x y"', "names a field for each value"),
        ("id:x OR y", "'y' has none"),
        ("nosuch:x", "There is no field 'nosuch'"),
        ("altitude:x", "a property is written like properties.altitude"),
        ("Id:x", "There is no field 'Id'"),
        ("body:x", "There is no field 'body'"),
        ("properties:x", "There is no field 'properties'"),
        ("properties.:x", "names no property"),
        ("properties.a..b:x", "names no property"),
        ("properties.a.:x", "names no property"),
        ("properties.a.b.c.d.e.f.g.h.i:x", "at most 8 levels"),
        ("_exists_:nosuch", "There is no field 'nosuch'"),
        ("_exists_:(id)", "takes the name of a field"),
        ("id:(x tags:y)", "A group of values of id names another field: 'tags'"),
        ("providerId:*x", "a wildcard (*) may only end a word"),
        ("providerId:x*y", "a wildcard (*) may only end a word"),
        ("providerId:x?", "a wildcard (*) may only end a word"),
        ("quality_score:5*", "quality_score is no text"),
        ("creationDate:2020*", "creationDate is no text"),
        ("quality_score:high", "quality_score is compared with a number, not with 'high'"),
        ("quality_score:1e999", "a number"),
        ("creationDate:yesterday", "a time like 2023-04-13"),
        ("creationDate:2020-02-30", "a time like 2023-04-13"),
        ("creationDate:[9999-12-31 TO *]", "a time like 2023-04-13"),
        ("datetime:5", "a time like 2023-04-13"),
        ("properties.a:[5 TO x]", "from one kind of value to another: number and text"),
        ("properties.a:[5 TO 2020-01-01]", "instant and number"),
        ("bbox:5", 'bbox:"west,south,east,north"'),
        ('bbox:"1,2,3"', 'bbox:"west,south,east,north"'),
        ('bbox:"1,2,3,x"', 'bbox:"west,south,east,north"'),
        ('bbox:"1,9,3,2"', "its south below its north"),
        ('bbox:"1,2,300,3"', "between -180 and 180"),
        ("bbox:[1 TO 2]", "bbox takes no range"),
        ("id:x AND", "cannot be read"),
        ("(id:x", "cannot be read"),
        ("id:x)", "cannot be read"),
        ("id:[a TO", "cannot be read"),
        ("id:", "cannot be read"),
        ("AND", "cannot be read"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(QueryError) as refused:
        parse(text)
    assert reason in str(refused.value)


words = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
SHAPES = (
    "id:{0}",
    "tags:{0} OR NOT providerId:{1}",
    "dataset.title:[{0} TO {1}]",
    "files.filename:({0} {1})",
    "_exists_:properties.a OR quality_level:{0}",
)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.sampled_from(SHAPES), words, words)
def test_the_text_of_sql_is_the_same_whatever_the_values(shape: str, one: str, other: str) -> None:
    made, values = told(shape.format(quoted(one), quoted(other)))
    assert made == told(shape.format("p0", "p1"))[0]
    assert all(value in (one, other) or value == [one, other] for value in values if not str(value).startswith("$."))


PROPERTY_SHAPES = ("properties.{0}:{1}", "NOT properties.{0}:{1}", "_exists_:properties.{0}")


@given(st.sampled_from(PROPERTY_SHAPES), words, words)
def test_the_text_of_sql_has_neither_names_nor_values_of_properties(shape: str, name: str, value: str) -> None:
    escaped = "".join(sign if sign.isalnum() else f"\\{sign}" for sign in name)
    try:
        made, _ = told(shape.format(escaped, quoted(value)))
    except QueryError:
        assert "\n" in name
        return
    assert made in (told(shape.format("a", "x"))[0], told(shape.format("a", "2020-01-01"))[0])


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_and_boxes_are_bound_whatever_they_are(one: float, other: float) -> None:
    for shape in ('quality_score:["{0}" TO "{1}"]', 'properties.a:{{"{0}" TO "{1}"}}'):
        assert told(shape.format(one, other))[0] == told(shape.format(1, 2))[0]
    west, east = one % 180, other % 180
    assert told(f'bbox:"{west},-1,{east},1"')[0] == told('bbox:"-1,-2,3,4"')[0]


@given(st.integers(-(2**55), 2**57), st.sampled_from(["", "Z", "+14:00"]))
def test_times_are_bound_whatever_they_are(micros: int, zone: str) -> None:
    moment = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=micros)
    text, values = told(f'creationDate:["{moment.replace(tzinfo=None).isoformat()}{zone}" TO *]')
    assert text == told("creationDate:[2020-01-01 TO *]")[0]
    hours = 14 if zone == "+14:00" else 0
    assert values == [moment - datetime.timedelta(hours=hours)]
