"""JSON merge patch (RFC 7396)."""

from __future__ import annotations

from gateway.catalog.ingest.model import Json


def merged(target: Json, patch: Json) -> Json:
    """``target`` with ``patch`` applied (RFC 7396 §2): objects are merged, null removes, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result
