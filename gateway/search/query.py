"""What a query asks for: a tree of conditions on products, each on a known field, with values of a known type."""

from __future__ import annotations

import dataclasses
import datetime
from decimal import Decimal
from typing import Literal, TypeAlias


class QueryError(Exception):
    """A query that cannot be answered. The message says what is wrong in the words of whoever wrote it."""


Kind = Literal["text", "instant", "period", "number", "box"]
"""What a column holds; ``period`` is from start to end of the product."""
Table = Literal["products", "datasets", "files"]


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A field that is a column of the catalogue."""

    name: str
    """As queries write it."""
    kind: Kind
    table: Table
    columns: tuple[str, ...]
    """Of the table; of several one that fits is enough. Those of a ``period`` are its start and end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Property:
    """A field that is a member of ``properties``, or a member of a member."""

    path: tuple[str, ...]

    @property
    def name(self) -> str:
        """As messages write it."""
        return ".".join(("properties", *self.path))


Field: TypeAlias = Column | Property


@dataclasses.dataclass(frozen=True, slots=True)
class Exists:
    """Any value at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Is:
    """This very text."""

    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class Starts:
    """Text that starts so."""

    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class Texts:
    """Text between two, by code points; None is no bound."""

    low: str | None
    high: str | None
    include_low: bool
    include_high: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers between two; None is no bound."""

    low: Decimal | None
    high: Decimal | None
    include_low: bool
    include_high: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Times:
    """Times from ``since`` on and before ``until``; None is no bound."""

    since: datetime.datetime | None
    until: datetime.datetime | None


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Whatever meets a box of degrees; where ``west`` is greater than ``east`` it crosses 180°."""

    west: float
    south: float
    east: float
    north: float


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A property that equals ``text``: as text, or, where they can be read from it, as number, truth or time."""

    text: str
    number: Decimal | None
    truth: bool | None
    times: Times | None


Test: TypeAlias = Exists | Is | Starts | Texts | Numbers | Times | Box | Value


@dataclasses.dataclass(frozen=True, slots=True)
class Everything:
    """All products."""


@dataclasses.dataclass(frozen=True, slots=True)
class Match:
    """Products whose ``field`` passes ``test``; of a field with several values one is enough."""

    field: Field
    test: Test


@dataclasses.dataclass(frozen=True, slots=True)
class And:
    """Products that each of ``parts`` lets through."""

    parts: tuple[Query, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Or:
    """Products that one of ``parts`` lets through."""

    parts: tuple[Query, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """Products that ``part`` does not let through, those without the field included."""

    part: Query


Query: TypeAlias = Everything | Match | And | Or | Not
