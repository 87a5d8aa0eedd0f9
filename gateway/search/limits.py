"""How much a query may ask for, seen before it is parsed: what a parser does with a bomb need not be known then."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from luqum.parser import PHRASE_RE, REGEX_RE, TERM_RE

from gateway.search.query import QueryError
from gateway.text import is_storable


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The most that a query may have."""

    octets: int
    """Bytes of its UTF-8."""
    depth: int
    """Groups inside each other, with the prefixes before them."""
    clauses: int
    """Comparisons."""
    wildcards: int
    """Words that end with ``*``, beyond those that are ``*`` alone."""
    tokens: int
    """Words, phrases, operators and brackets: what parsing takes time for."""


WRITTEN = Limits(octets=4096, depth=32, clauses=256, wildcards=2, tokens=2048)
"""Of what a user writes."""
COMPOSED = Limits(octets=262_144, depth=64, clauses=4096, wildcards=256, tokens=32_768)
"""Of what is composed of such queries, and of lists of ids; see `gateway.search.composition`."""

# The parser's own tokens in its own order, so that both see the same ones.
_TOKEN = re.compile(
    rf"""(?P<space>\s+)|{TERM_RE}|(?P<prefix>[+-])|(?P<colon>:)|(?P<open>\()|(?P<close>\))|(?P<low>[\[{{])|(?P<high>[\]}}])
    |(?P<compare>[<>]=?)|{PHRASE_RE}|{REGEX_RE}|(?P<fuzzy>~)|(?P<boost>\^)""",
    re.VERBOSE,
)
_REFUSED = {
    "regex": "Regular expressions (/…/) are not supported: {0}. Escape a slash, or put quotes around the text.",
    "fuzzy": "Fuzzy and proximity searches (~) are not supported: at character {1}.",
    "boost": "Boosts (^) are not supported: at character {1}.",
}
_ALTERNATIVES = {"&&": "AND", "||": "OR", "!": "NOT or -"}
_OPERATORS = frozenset(("AND", "OR"))


@dataclasses.dataclass(slots=True)
class _Count:
    """What was seen so far."""

    tokens: int = 0
    clauses: int = 0
    wildcards: int = 0
    depth: int = 0
    prefixes: int = 0
    """Before the clause or group that is about to begin."""
    groups: list[int] = dataclasses.field(default_factory=list)
    """Depth that each open group takes, its prefixes included."""
    in_range: bool = False


def check(text: str, limits: Limits) -> None:
    """See that ``text`` keeps to ``limits`` and asks for nothing that is not supported.

    Raises:
        QueryError: it does not.
    """
    # No character has less than a byte.
    if len(text) > limits.octets or len(text.encode("utf-8", "replace")) > limits.octets:
        raise QueryError(f"The query is longer than {limits.octets} bytes.")
    if not is_storable(text):
        raise QueryError("The query has the character NUL, or half of a surrogate pair.")
    count = _Count()
    for kind, written, start in _tokens(text):
        if kind in _REFUSED:
            raise QueryError(_REFUSED[kind].format(_short(written), start + 1))
        _count(count, kind, written)
        _compare(count, limits)


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind and text of each token, and where it starts."""
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            what = _short(text[position:])
            raise QueryError(f"The query cannot be read from character {position + 1} on: {what}. Is a quote missing?")
        position = found.end()
        kind = str(found.lastgroup)
        if kind != "space":
            yield kind, found.group(), found.start()


def _count(count: _Count, kind: str, written: str) -> None:
    count.tokens += 1
    if kind == "term" and (written in _ALTERNATIVES or written.startswith("!")):
        sign = written if written in _ALTERNATIVES else "!"
        raise QueryError(f"{sign!r} is not supported: write {_ALTERNATIVES[sign]}, or put quotes around the text.")
    if kind == "prefix" or written == "NOT":
        count.prefixes += 1
    elif kind == "colon":
        # The name before it was no clause, and the parser does not nest names.
        count.clauses -= 1
    elif kind == "open":
        count.groups.append(count.prefixes + 1)
        count.depth += count.prefixes + 1
        count.prefixes = 0
    elif kind == "close":
        count.depth -= count.groups.pop() if count.groups else 0
        count.prefixes = 0
    elif kind in ("low", "high"):
        count.in_range = kind == "low"
        count.clauses += kind == "low"
        count.prefixes = 0
    elif kind in ("term", "phrase") and written not in _OPERATORS and not count.in_range:
        count.clauses += 1
        count.wildcards += kind == "term" and written.endswith("*") and len(written) > 1
        count.prefixes = 0


def _compare(count: _Count, limits: Limits) -> None:
    if count.depth + count.prefixes > limits.depth:
        raise QueryError(f"The query is nested deeper than {limits.depth} levels.")
    if count.clauses > limits.clauses:
        raise QueryError(f"The query has more than {limits.clauses} clauses.")
    if count.wildcards > limits.wildcards:
        raise QueryError(f"The query has more than {limits.wildcards} wildcards (*).")
    if count.tokens > limits.tokens:
        raise QueryError(f"The query has more than {limits.tokens} words and signs.")


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
