"""From Lucene text to a query: luqum's tree, made sense of.

AND binds closer than OR, as in most languages, and both closer than a space. What only spaces part is alternatives, as
in REGARDS (OR is its default operator), but for what ``+`` and ``-`` say: all that ``+`` marks is needed, and then the
rest changes nothing; nothing of what ``-`` or NOT marks is let through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from luqum import tree
from luqum.exceptions import ParseError
from luqum.parser import lexer, parser

from gateway.search import values
from gateway.search.fields import field, unescaped
from gateway.search.limits import WRITTEN, Limits, check
from gateway.search.query import (
    And,
    Column,
    Everything,
    Exists,
    Field,
    Is,
    Match,
    Not,
    Numbers,
    Or,
    Property,
    Query,
    QueryError,
    Starts,
    Test,
    Texts,
    Times,
    Value,
)

_EXISTS = "_exists_"
_ALL = "*"
# The parser keeps its state between tokens: one text at a time.
_PARSING = threading.Lock()


def parse(text: str, limits: Limits = WRITTEN) -> Query:
    """The query that ``text`` writes; an empty one asks for everything.

    It takes tens of milliseconds for the largest that is ``WRITTEN``: not for an event loop.

    Raises:
        QueryError: it is no query, asks for what is not supported, or for more than ``limits`` allow.
    """
    check(text, limits)
    if not text.strip():
        return Everything()
    with _PARSING:
        try:
            parsed = parser.parse(text, lexer=lexer)
        except ParseError as error:
            raise QueryError(f"The query cannot be read: {error}") from error
    return _query(parsed, None)


def _query(node: Any, within: Field | None) -> Query:
    """What ``node`` asks for; ``within`` is the field of the group that it stands in."""
    match node:
        case tree.Group() | tree.FieldGroup() | tree.Plus():
            return _query(node.children[0], within)
        case tree.Not() | tree.Prohibit():
            return Not(_query(node.children[0], within))
        case tree.AndOperation():
            return And(tuple(_query(part, within) for part in node.children))
        case tree.OrOperation():
            return Or(tuple(_query(part, within) for part in node.children))
        case tree.UnknownOperation():
            return _side_by_side(node.children, within)
        case tree.SearchField():
            return _search(node, within)
        case _ if within is not None:
            return Match(within, _test(node, within))
        case tree.Word(value=value) if value == _ALL:
            return Everything()
    raise QueryError(f"A query names a field for each value, like properties.name:value; {_told(node)} has none.")


def _side_by_side(parts: Sequence[Any], within: Field | None) -> Query:
    needed = [_query(part, within) for part in parts if isinstance(part, tree.Plus)]
    refused = [_query(part, within) for part in parts if isinstance(part, tree.Not | tree.Prohibit)]
    others = [_query(part, within) for part in parts if not isinstance(part, tree.Plus | tree.Not | tree.Prohibit)]
    if others and not needed:
        needed = [Or(tuple(others))]
    return And((*needed, *refused))


def _search(node: Any, within: Field | None) -> Query:
    if within is not None:
        raise QueryError(f"A group of values of {within.name} names another field: {node.name[:60]!r}.")
    names = [node.name]
    inner = node.children[0]
    # Names of STAC have colons: properties.eo:cloud_cover.
    while isinstance(inner, tree.SearchField):
        names.append(inner.name)
        inner = inner.children[0]
    if names[0] == _EXISTS:
        if not isinstance(inner, tree.Word | tree.Phrase):
            raise QueryError(f"{_EXISTS} takes the name of a field, like {_EXISTS}:properties.name")
        last = inner.value.strip('"') if isinstance(inner, tree.Phrase) else inner.value
        return Match(field(":".join((*names[1:], last))), Exists())
    if names == [_ALL] and isinstance(inner, tree.Word) and inner.value == _ALL:
        return Everything()
    found = field(":".join(names))
    if isinstance(inner, tree.Prohibit) and isinstance(inner.children[0], tree.Word):
        # properties.altitude:-5 is a number below zero.
        return Match(found, _of_word(f"-{inner.children[0].value}", found))
    return _query(inner, found)


def _test(node: Any, of: Field) -> Test:
    match node:
        case tree.Word(value=value):
            return _of_word(value, of)
        case tree.Phrase(value=value):
            return _equal(unescaped(value[1:-1]), of)
        case tree.Range():
            low, high = (_end(part) for part in node.children)
            return _between(low, high, of, include_low=node.include_low, include_high=node.include_high)
        case tree.From():
            return _between(_end(node.children[0]), None, of, include_low=node.include, include_high=True)
        case tree.To():
            return _between(None, _end(node.children[0]), of, include_low=True, include_high=node.include)
    raise QueryError(f"{_told(node)} is not supported.")


def _of_word(word: str, of: Field) -> Test:
    if word == _ALL:
        return Exists()
    escaped = False
    wild = ""
    for position, sign in enumerate(word):
        if escaped or sign == "\\":
            escaped = not escaped
        elif sign == "?" or (sign == _ALL and position < len(word) - 1):
            raise QueryError(
                f"{word[:60]!r}: a wildcard (*) may only end a word, and ? is none. Escape it, or put quotes around."
            )
        elif sign == _ALL:
            wild = sign
    if not wild:
        return _equal(unescaped(word), of)
    if isinstance(of, Column) and of.kind != "text":
        raise QueryError(f"{of.name} is no text, so that it takes no wildcard.")
    return Starts(unescaped(word[:-1]))


def _end(node: Any) -> str | None:
    """The end of a range; None for ``*``."""
    match node:
        case tree.Prohibit():
            return f"-{_end(node.children[0])}"
        case tree.Word(value=value):
            return None if value == _ALL else unescaped(value)
        case tree.Phrase(value=value):
            return unescaped(value[1:-1])
    raise QueryError(f"{_told(node)} is no end of a range.")


def _equal(text: str, of: Field) -> Test:
    if isinstance(of, Property):
        return Value(text, values.number(text), values.truth(text), values.times(text))
    if of.kind == "text":
        return Is(text)
    if of.kind == "box":
        return values.box(text)
    return _between(text, text, of, include_low=True, include_high=True)


def _between(low: str | None, high: str | None, of: Field, *, include_low: bool, include_high: bool) -> Test:
    if low is None and high is None:
        return Exists()
    kind = of.kind if isinstance(of, Column) else _kind(low, high, of)
    if kind == "box":
        raise QueryError(f"{of.name} takes no range.")
    if kind == "text":
        return Texts(low, high, include_low, include_high)
    if kind == "number":
        return Numbers(_typed(values.number, low, of), _typed(values.number, high, of), include_low, include_high)
    first, last = _typed(values.times, low, of), _typed(values.times, high, of)
    return Times(
        first and (first.since if include_low else first.until), last and (last.until if include_high else last.since)
    )


def _kind(low: str | None, high: str | None, of: Field) -> str:
    """What both ends of a range of a property are."""
    ends = [end for end in (low, high) if end is not None]
    kinds = {
        "number" if values.number(end) is not None else "instant" if values.times(end) is not None else "text"
        for end in ends
    }
    if len(kinds) > 1:
        raise QueryError(f"The range of {of.name} is from one kind of value to another: {' and '.join(sorted(kinds))}.")
    return kinds.pop()


def _typed(read: Callable[[str], Any], text: str | None, of: Field) -> Any:
    if text is None:
        return None
    value = read(text)
    if value is None:
        what = "a number" if read is values.number else "a time like 2023-04-13 or 2023-04-13T13:56:55Z"
        raise QueryError(f"{of.name} is compared with {what}, not with {text[:60]!r}.")
    return value


def _told(node: Any) -> str:
    return repr(str(node).strip()[:60])
