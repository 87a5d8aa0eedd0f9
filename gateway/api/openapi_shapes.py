"""What shapes of bodies (JSON Schema 2020-12) are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
TEXT_OR_NULL: Json = {"type": ["string", "null"]}
WHOLE: Json = {"type": "integer"}
WHOLE_OR_NULL: Json = {"type": ["integer", "null"]}
NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
TRUTH: Json = {"type": "boolean"}
TIME: Json = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}


def object_of(required: Mapping[str, Json], optional: Mapping[str, Json] | None = None, *, open_: bool = False) -> Json:
    """An object with these members; with ``open_`` also with others that are not named."""
    found: Json = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        found["required"] = list(required)
    if not open_:
        found["additionalProperties"] = False
    return found


def list_of(items: Json) -> Json:
    """An array."""
    return {"type": "array", "items": items}


def ref(name: str) -> Json:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def page_of(name: str, items: Json) -> Json:
    """A page of a list, in a member with its name."""
    return object_of(
        {name: list_of(items), "next": {**TEXT_OR_NULL, "description": "What `cursor` takes; null: no more."}}
    )


def one_of(*values: str) -> Json:
    """One of some texts."""
    return {"type": "string", "enum": list(values)}
