from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalog.ingest import jsonstream
from gateway.catalog.ingest.jsonstream import Found, Unreadable, lines, too_deep, values
from gateway.catalog.ingest.model import Json


class Dribble(io.BytesIO):
    """A file that gives a few bytes at a time, so that every token is cut somewhere."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self.step = step

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self.step)


def read(text: str | bytes, step: int = 1 << 20) -> list[Found | Unreadable]:
    return list(values(Dribble(text.encode() if isinstance(text, str) else text, step)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(json_values.filter(lambda value: not isinstance(value, list | dict)), min_size=1, max_size=4),
    st.sampled_from([1, 2, 3, 7, 1000]),
)
def test_texts_that_follow_one_another(texts: list[Json], step: int) -> None:
    found = read("\n".join(json.dumps(text, ensure_ascii=False) for text in texts), step)
    assert found == [Found(line, None, text) for line, text in enumerate(texts, 1)]


@given(st.lists(json_values, max_size=5), st.sampled_from([1, 2, 3, 7, 1000]), st.sampled_from([None, 2]))
def test_an_array_comes_element_by_element(elements: list[object], step: int, indent: int | None) -> None:
    found = read(json.dumps(elements, ensure_ascii=False, indent=indent), step)
    assert [(part.index, part.value) for part in found if isinstance(part, Found)] == list(enumerate(elements))
    assert len(found) == len(elements)


@given(
    st.lists(json_values, max_size=4),
    st.permutations(["type", "links", "features", "numberMatched"]),
    st.sampled_from([1, 2, 3, 7, 1000]),
)
def test_features_are_found_wherever_they_stand(features: list[object], order: list[str], step: int) -> None:
    members: dict[str, object] = {"type": "FeatureCollection", "links": [{}], "features": features, "numberMatched": 3}
    found = read(json.dumps({name: members[name] for name in order}), step)
    assert [part.value for part in found if isinstance(part, Found)] == features


@given(st.binary(max_size=40), st.integers(1, 5))
def test_any_bytes_are_read_or_reported(data: bytes, step: int) -> None:
    found = list(values(Dribble(data, step)))
    assert all(isinstance(part, Found) for part in found[:-1])
    try:
        json.loads(data.decode("utf-8-sig"), parse_constant=jsonstream._no_constant)
    except ValueError:
        return
    assert not any(isinstance(part, Unreadable) for part in found)


def test_each_entry_says_its_line() -> None:
    text = (
        '\n{"type": "FeatureCollection",\n "features": [\n {"id": 1,\n  "x": 2},\n {"id": 2}\n]}\n{"type": "Feature"}\n'
    )
    assert [(part.line, getattr(part, "index", None)) for part in read(text, 3)] == [(4, 0), (6, 1), (8, None)]


def test_an_object_of_another_type_stays_whole() -> None:
    value: Json = {"type": "Feature", "id": "x", "features": [1, 2]}
    assert read(json.dumps(value)) == [Found(1, None, value)]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read(b'\xef\xbb\xbf{"a": 1}') == [Found(1, None, {"a": 1})]
    assert list(lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\n'))) == [Found(1, None, {"a": 1})]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('{"a": NaN}', 1, "NaN is no JSON"),
        ("[1,\n-Infinity]", 2, "-Infinity is no JSON"),
        ('{"a": 1', 1, "the end of the file where one of , } is expected"),
        ("[1,\n2,\n]", 3, "Expecting value"),
        ("[1 2]", 1, "'2' where one of , ] is expected"),
        ("{1: 2}", 1, "'1' where one of \" is expected"),
        ("[" * 100_000, 1, "nests deeper than 100"),
        ("[[" + "9" * 5000 + "]]", 1, "Exceeds the limit"),
        (b'{"a": "\xff"}', 1, "is not UTF-8"),
        (b"\xff\xfe{\x00}\x00", 1, "is not UTF-8"),
    ],
)
@pytest.mark.parametrize("step", [1 << 20, 7])
def test_what_is_no_json_is_reported_with_its_line(text: str | bytes, line: int, reason: str, step: int) -> None:
    last = read(text, step)[-1]
    assert isinstance(last, Unreadable)
    assert last.line == line
    assert reason in last.reason
    assert "the rest of the file was not read" in last.reason


def test_one_bad_line_harms_no_other() -> None:
    text = b'{"a": 1}\n\n{"a": \n{"b": Infinity}\n"\xff"\n' + b"[" * 100_000 + b'\n{"c": 3}'
    found = list(lines(io.BytesIO(text)))
    assert [part.line for part in found] == [1, 3, 4, 5, 6, 7]
    assert [isinstance(part, Found) for part in found] == [True, False, False, False, False, True]


def test_an_entry_that_is_too_long_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "MAX_ENTRY", 100)
    monkeypatch.setattr(jsonstream, "_WINDOW", 16)
    long = json.dumps({"a": "x" * 200})
    assert [type(part) for part in read(f"[1, {long}, 2]", 16)] == [Found, Unreadable]
    many = json.dumps({f"member{n}": n for n in range(50)})
    assert [type(part) for part in read(many, 16)] == [Unreadable]
    found = list(lines(io.BytesIO(f'{{"a": 1}}\n{long}\n{{"b": 2}}\n'.encode())))
    assert [(part.line, type(part)) for part in found] == [(1, Found), (2, Unreadable), (3, Found)]


def test_depth_is_counted_in_arrays_and_objects() -> None:
    value: Json = 1
    for _ in range(jsonstream.MAX_DEPTH // 2):
        value = [{"a": value}]
    assert not too_deep(value)
    assert too_deep([value])
