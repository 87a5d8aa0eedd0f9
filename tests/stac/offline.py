"""Schemas of STAC without a network: the core's, which pystac has, and of extensions what the gateway writes."""

from __future__ import annotations

import copy
import functools
import re
import socket
from typing import Any

import pystac.validation
import pytest
import stac_validator.utilities
from pystac.serialization import identify_stac_object, migrate_to_latest
from pystac.validation.local_validator import get_local_schema_cache
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from gateway.stac.assets import ALTERNATE, AUTHENTICATION, FILE, ORDER, TIMESTAMPS

Schema = dict[str, Any]

_HREF: Schema = {"type": "string", "minLength": 1}
_REFS: Schema = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}


def _of_assets(asset: Schema, properties: Schema | None = None) -> Schema:
    """Of items, whose assets are ``asset``."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "assets": {"additionalProperties": {"properties": asset}},
            **({} if properties is None else {"properties": properties}),
        },
    }


OF_EXTENSIONS: dict[str, Schema] = {
    ALTERNATE: _of_assets(
        {
            "alternate": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {"required": ["href"], "properties": {"href": _HREF, "auth:refs": _REFS}},
            }
        }
    ),
    FILE: _of_assets(
        {
            "file:size": {"type": "integer", "minimum": 0},
            "file:checksum": {"type": "string", "pattern": "^[a-f0-9]+$"},
            "file:local_path": {"type": "string", "pattern": "^[^\\r\\n\\t\\\\:'\"/]+(/[^\\r\\n\\t\\\\:'\"/]+)*$"},
        }
    ),
    AUTHENTICATION: _of_assets(
        {"auth:refs": _REFS},
        {
            "required": ["auth:schemes"],
            "properties": {
                "auth:schemes": {
                    "type": "object",
                    "additionalProperties": {
                        "required": ["type"],
                        "properties": {
                            "type": {"enum": ["http", "s3", "signedUrl", "oauth2", "apiKey", "openIdConnect"]},
                            "in": {"enum": ["query", "header", "cookie"]},
                        },
                        "allOf": [
                            {
                                "if": {"properties": {"type": {"const": "http"}}},
                                "then": {"required": ["scheme"]},
                            },
                            {
                                "if": {"properties": {"type": {"const": "apiKey"}}},
                                "then": {"required": ["name", "in"]},
                            },
                        ],
                    },
                }
            },
        },
    ),
    ORDER: _of_assets(
        {"order:status": {"enum": ["orderable", "ordered", "pending", "shipping", "succeeded", "failed", "canceled"]}},
        {"required": ["order:status"]},
    ),
    TIMESTAMPS: _of_assets({"expires": {"type": "string", "format": "date-time"}}),
}
"""What each extension asks of the members that the gateway writes."""

_CORE = get_local_schema_cache()
_EXTENSION = re.compile(r"https://stac-extensions\.github\.io/.+/schema\.json#?")


def schema(uri: str) -> Schema:
    """The schema at ``uri``; of what the gateway does not write, one that takes everything."""
    found = _CORE.get(uri) or OF_EXTENSIONS.get(uri)
    # Before STAC 1.0.0 extensions had names, which pystac takes for paths.
    is_of_extension = _EXTENSION.fullmatch(uri) is not None or not uri.startswith("http")
    if found is None and not is_of_extension:
        raise AssertionError(f"{uri} is not at hand")
    return found or {}


class _Validator(JsonSchemaSTACValidator):
    """Pystac's, with the schemas above, which it reads once."""

    @functools.cached_property
    def registry(self) -> Any:
        return super().registry

    def _get_schema(self, schema_uri: str) -> Schema:
        return schema(schema_uri)


def validate(document: Schema) -> None:
    """Hold a document against the schemas of STAC's core and its extensions by pystac, brought to its version first.

    Raises:
        STACValidationError: it is not valid.
    """
    migrated = migrate_to_latest(copy.deepcopy(document), identify_stac_object(document))
    pystac.validation.validate_dict(migrated, validator=_validator())


@functools.cache
def _validator() -> _Validator:
    return _Validator()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stac-validator use the schemas above, and nobody reach anything but this machine."""
    monkeypatch.setattr(stac_validator.utilities, "_schema_cache", schema)
    look_up = socket.getaddrinfo

    def local(host: Any, *parts: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", b"127.0.0.1"):
            raise socket.gaierror(f"{host!r} is not this machine")
        return look_up(host, *parts, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local)
