"""From a query to a condition in SQL. Values are bound: the text depends on the form of the query alone.

The condition speaks of ``products p``, in a statement that has a row ``caller`` with a ``tenant_id``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal

from gateway.search.query import (
    And,
    Box,
    Column,
    Everything,
    Exists,
    Is,
    Match,
    Not,
    Numbers,
    Or,
    Property,
    Query,
    Starts,
    Test,
    Texts,
    Times,
    Value,
)


class Parameters:
    """What a statement is sent with."""

    def __init__(self, *values: object) -> None:
        """Begin with ``values``, which stand in the statement already."""
        self.values = list(values)

    def bind(self, value: object, kind: str) -> str:
        """Add ``value``; gives how SQL names it, as one of the type ``kind``."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"


def condition(query: Query, parameters: Parameters) -> str:
    """The condition that products meet which ``query`` asks for; its values are added to ``parameters``."""
    match query:
        case Everything():
            return "true"
        case And(parts):
            return "(" + " AND ".join(condition(part, parameters) for part in parts) + ")"
        case Or(parts):
            return "(" + " OR ".join(_alternatives(parts, parameters)) + ")"
        case Not(part):
            # A comparison with nothing is neither true nor false.
            return f"({condition(part, parameters)} IS NOT TRUE)"
        case Match(of, test):
            if isinstance(of, Property):
                return _property(of, test, parameters)
            return _TABLES[of.table].format(_column(of, test, parameters))


def _alternatives(parts: Sequence[Query], parameters: Parameters) -> list[str]:
    """Conditions of ``parts``; several texts that one field may equal, like many ids, are one list.

    PostgreSQL would plan a thousand comparisons for a second, and a list in no time.
    """
    texts: dict[Column, list[str]] = {}
    others: list[Query] = []
    for part in parts:
        match part:
            case Match(Column() as of, Is(value)):
                texts.setdefault(of, []).append(value)
            case _:
                others.append(part)
    found = [condition(part, parameters) for part in others]
    for of, values in texts.items():
        if len(values) == 1:
            found.append(condition(Match(of, Is(values[0])), parameters))
            continue
        row = "p" if of.table == "products" else "t"
        equal = (f"{row}.{column} = ANY ({parameters.bind(values, 'text[]')})" for column in of.columns)
        found.append(_TABLES[of.table].format(" OR ".join(equal)))
    return found


_TABLES: Mapping[str, str] = {
    "products": "({})",
    # An array, made once, leads to products by the index that begins with their dataset.
    "datasets": "(p.dataset_id = ANY (ARRAY(SELECT t.dataset_id FROM datasets t"
    " WHERE t.tenant_id = (SELECT tenant_id FROM caller) AND ({}))))",
    "files": "EXISTS (SELECT FROM files t WHERE t.product_id = p.product_id AND ({}))",
}


def _column(of: Column, test: Test, parameters: Parameters) -> str:
    row = "p" if of.table == "products" else "t"
    names = [f"{row}.{column}" for column in of.columns]
    match test:
        case Box():
            return _meets(test, parameters)
        case Times() if of.kind == "period":
            start, end = names
            return _all(_bound(end, ">=", test.since, parameters), _bound(start, "<", test.until, parameters))
    return " OR ".join(_compared(name, test, parameters) for name in names)


def _compared(name: str, test: Test, parameters: Parameters) -> str:
    match test:
        case Exists():
            return f"{name} IS NOT NULL"
        case Is(value):
            return f"{name} = {parameters.bind(value, 'text')}"
        case Starts(value):
            return f"{name} ^@ {parameters.bind(value, 'text')}"
        case Texts():
            return _range(f'{name} COLLATE "C"', test, "text", parameters)
        case Numbers():
            return _range(f"{name}::numeric", test, "numeric", parameters)
        case Times(since, until):
            return _all(_bound(name, ">=", since, parameters), _bound(name, "<", until, parameters))
    raise AssertionError((name, test))


def _range(name: str, test: Texts | Numbers, kind: str, parameters: Parameters) -> str:
    low, high = test.low, test.high
    return _all(
        None if low is None else f"{name} {'>=' if test.include_low else '>'} {parameters.bind(low, kind)}",
        None if high is None else f"{name} {'<=' if test.include_high else '<'} {parameters.bind(high, kind)}",
    )


def _bound(name: str, sign: str, value: object, parameters: Parameters) -> str | None:
    return None if value is None else f"{name} {sign} {parameters.bind(value, 'timestamptz')}"


def _all(*conditions: str | None) -> str:
    return "(" + " AND ".join(one for one in conditions if one is not None) + ")"


def _meets(box: Box, parameters: Parameters) -> str:
    """A box that crosses 180° is two; one that does not is the same twice, so that the text is the same."""
    crosses = box.west > box.east
    halves = ((box.west, 180.0), (-180.0, box.east)) if crosses else ((box.west, box.east),) * 2
    south, north = (parameters.bind(value, "float8") for value in (box.south, box.north))
    sides = [tuple(parameters.bind(value, "float8") for value in half) for half in halves]
    meets = " OR ".join(
        f"CASE WHEN p.west <= p.east THEN p.west <= {east} AND p.east >= {west}"
        f" ELSE p.west <= {east} OR p.east >= {west} END"
        for west, east in sides
    )
    return f"p.south <= {north} AND p.north >= {south} AND ({meets})"


def _property(of: Property, test: Test, parameters: Parameters) -> str:
    """All comparisons with JSON but those of times are a path of SQL/JSON each, which is bound, too."""
    if isinstance(test, Times):
        return _moment(of, test, parameters)
    found = f"p.properties @? {parameters.bind(json_path(of.path, _filter(test)), 'jsonpath')}"
    if isinstance(test, Value) and test.times is not None:
        return f"({found} OR {_moment(of, test.times, parameters)})"
    return f"({found})"


def _moment(of: Property, test: Times, parameters: Parameters) -> str:
    text = parameters.bind(json_path(of.path, '@.type() == "string"'), "jsonpath")
    found = "search_instant(found.value #>> '{}')"
    compared = _all(_bound(found, ">=", test.since, parameters), _bound(found, "<", test.until, parameters))
    return f"EXISTS (SELECT FROM jsonb_path_query(p.properties, {text}, '{{}}', true) found(value) WHERE {compared})"


def json_path(path: Sequence[str], wanted: str) -> str:
    """A path of SQL/JSON to the values at ``path`` for which the filter ``wanted`` holds; in lists, too."""
    return "$" + "".join(f".{_quoted(step)}" for step in path) + f" ? ({wanted})"


@functools.singledispatch
def _filter(test: Test) -> str:
    raise AssertionError(test)


@_filter.register
def _(_: Exists) -> str:
    return "@ != null"


@_filter.register
def _(test: Starts) -> str:
    return f"@ starts with {_quoted(test.value)}"


@_filter.register
def _(test: Value) -> str:
    alternatives = [_quoted(test.text)]
    if test.number is not None:
        alternatives.append(_plain(test.number))
    if test.truth is not None:
        alternatives.append(json.dumps(test.truth))
    return " || ".join(f"@ == {value}" for value in alternatives)


@_filter.register
def _(test: Texts) -> str:
    low, high = (None if end is None else _quoted(end) for end in (test.low, test.high))
    return _ends(low, high, test)


@_filter.register
def _(test: Numbers) -> str:
    low, high = (None if end is None else _plain(end) for end in (test.low, test.high))
    return _ends(low, high, test)


def _ends(low: str | None, high: str | None, test: Texts | Numbers) -> str:
    ends = (
        None if low is None else f"@ {'>=' if test.include_low else '>'} {low}",
        None if high is None else f"@ {'<=' if test.include_high else '<'} {high}",
    )
    return " && ".join(end for end in ends if end is not None)


def _plain(number: Decimal) -> str:
    """As SQL/JSON writes numbers: without a sign that says nothing."""
    return f"{number:f}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
