"""The fields that queries may name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.search.query import Column, Field, Property, QueryError

MOST_LEVELS = 8
"""Members inside each other that the path of a property may have."""

_COLUMNS = (
    Column("id", "text", "products", ("urn",)),
    Column("ipId", "text", "products", ("urn",)),
    Column("urn", "text", "products", ("urn",)),
    Column("providerId", "text", "products", ("provider_id",)),
    Column("creationDate", "instant", "products", ("created_at",)),
    Column("lastUpdate", "instant", "products", ("updated_at",)),
    Column("start_datetime", "instant", "products", ("start_datetime",)),
    Column("end_datetime", "instant", "products", ("end_datetime",)),
    Column("datetime", "period", "products", ("start_datetime", "end_datetime")),
    Column("bbox", "box", "products", ("west", "south", "east", "north")),
    Column("quality_score", "number", "products", ("quality_score",)),
    Column("quality_level", "text", "products", ("quality_level",)),
    Column("tags", "text", "datasets", ("collection_id", "urn")),
    Column("dataset.id", "text", "datasets", ("collection_id",)),
    Column("dataset.urn", "text", "datasets", ("urn",)),
    Column("dataset.title", "text", "datasets", ("title",)),
    Column("files.dataType", "text", "files", ("data_type",)),
    Column("files.filename", "text", "files", ("file_name",)),
    Column("files.mimeType", "text", "files", ("mime_type",)),
    Column("files.filesize", "number", "files", ("size",)),
)
COLUMNS: Mapping[str, Column] = {column.name: column for column in _COLUMNS}
"""By name. All other fields are ``properties.*``."""

_PREFIX = "properties."
_STEP = re.compile(r"((?:\\.|[^.\\])+)(?:\.|\Z)", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def field(name: str) -> Field:
    r"""The field that a query calls ``name``, with its escapes: ``a.b`` is ``b`` in ``a``, ``a\.b`` one name.

    Raises:
        QueryError: there is none.
    """
    plain = unescaped(name)
    if plain in COLUMNS:
        return COLUMNS[plain]
    if not name.startswith(_PREFIX):
        shown = plain if len(plain) <= 60 else f"{plain[:60]}…"
        raise QueryError(
            f"There is no field {shown!r}. Fields are {', '.join(COLUMNS)} and properties.…: "
            f"a property is written like properties.{shown}"
        )
    path = _path(name[len(_PREFIX) :])
    if not path:
        raise QueryError(f"{plain[:60]!r} names no property.")
    if len(path) > MOST_LEVELS:
        raise QueryError(f"A property has at most {MOST_LEVELS} levels.")
    return Property(path)


def unescaped(text: str) -> str:
    """``text`` with each escaped character as itself."""
    return _ESCAPED.sub(r"\1", text)


def _path(text: str) -> tuple[str, ...]:
    """The steps of a path; none where one of them is empty."""
    steps = []
    position = 0
    while found := _STEP.match(text, position):
        steps.append(unescaped(found.group(1)))
        position = found.end()
        if found.end(1) == len(text):
            return tuple(steps)
    return ()
