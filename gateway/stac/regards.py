"""Properties of REGARDS' features, whose models name and type them as they like, as properties of STAC Items."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from gateway.stac.links import Json, JsonObject

_LICENCE = re.compile(r"[\w\-.+]+")


def _is_text(value: Json) -> bool:
    return isinstance(value, str)


def _is_list_of_text(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_COMMON: Mapping[str, Callable[[Json], bool]] = {
    "title": _is_text,
    "description": lambda value: isinstance(value, str) and value != "",
    "keywords": _is_list_of_text,
    "roles": _is_list_of_text,
    "platform": _is_text,
    "constellation": _is_text,
    "mission": _is_text,
    "instruments": _is_list_of_text,
    "gsd": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0,
    "license": lambda value: isinstance(value, str) and _LICENCE.fullmatch(value) is not None,
    "unit": _is_text,
    **dict.fromkeys(
        (
            "providers", "bands", "data_type", "nodata", "statistics", "created", "updated", "datetime",
            "start_datetime", "end_datetime",
        ),
        lambda _: False,
    ),
}  # fmt: skip
"""What the common metadata of STAC 1.1.0 means, and whether a value can be that."""


def properties(came: JsonObject) -> JsonObject:
    """``came`` without dates; what only looks like common metadata of STAC is named ``regards:…``."""
    return {
        name if name not in _COMMON or _COMMON[name](value) else f"regards:{name}": value
        for name, value in came.items()
    }
