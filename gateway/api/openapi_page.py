"""The description of the API for people: one page of HTML that runs and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "details{border:1px solid #ccc;border-radius:.3rem;margin:.4rem 0;padding:.3rem .8rem}summary{cursor:pointer}"
    "code,pre{font:.9rem ui-monospace,monospace}pre{overflow:auto;background:#f6f6f6;padding:.6rem}"
    "b{display:inline-block;min-width:4.5rem}table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem "
    ".15rem 0;vertical-align:top}"
)
FIELDS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Fields of the answer: nothing is run, fetched or framed."""
_REFERENCE = re.compile(r"&quot;#/components/(\w+)/([\w-]+)&quot;")


def page(document: Json) -> bytes:
    """HTML of an OpenAPI document: operations by tag with their parameters and answers, then what they refer to."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1><p>{escape(info['description'])}</p>"
    )
    parts = [head]
    for tag in document["tags"]:
        operations = [
            _operation(method, path, operation, item.get("parameters", []), document)
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters" and tag["name"] in operation["tags"]
        ]
        parts += [f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>", *operations]
    for group, heading in (("securitySchemes", "Credentials"), ("schemas", "Schemas")):
        parts.append(f"<h2>{heading}</h2>")
        for name, value in document["components"][group].items():
            parts.append(f'<details id="{escape(name)}"><summary>{escape(name)}</summary>{_json(value)}</details>')
    return ("".join(parts) + "</body></html>").encode("utf-8", "replace")


def _operation(method: str, path: str, operation: Json, shared: list[Json], document: Json) -> str:
    return (
        f"<details><summary><b>{escape(method.upper())}</b> <code>{escape(path)}</code> — "
        f"{escape(operation['summary'])}</summary>{''.join(_about(operation, shared, document))}</details>"
    )


def _about(operation: Json, shared: list[Json], document: Json) -> Iterator[str]:
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    yield f"<p>Operation <code>{escape(operation['operationId'])}</code>; {_credentials(operation['security'])}</p>"
    parameters = [_resolved(one, document) for one in (*shared, *operation.get("parameters", []))]
    if parameters:
        rows = ((one["name"], one["in"], one.get("description", "")) for one in parameters)
        yield f"<h4>Parameters</h4>{_table(rows)}"
    if "requestBody" in operation:
        yield f"<h4>Body</h4>{_content(operation['requestBody']['content'])}"
    yield "<h4>Answers</h4>"
    for status, answer in operation["responses"].items():
        fields = "".join(f" <code>{escape(name)}</code>" for name in answer.get("headers", {}))
        yield f"<p>{escape(status)} {escape(answer['description'])}{fields}</p>{_content(answer.get('content', {}))}"


def _credentials(security: list[Json]) -> str:
    names = dict.fromkeys(name for one in security for name in one)
    if not names:
        return "no credentials"
    links = " or ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)
    return f"credentials: {links}"


def _content(content: Json) -> str:
    return "".join(
        f"<p><code>{escape(media_type)}</code></p>{_json(value['schema']) if 'schema' in value else ''}"
        for media_type, value in content.items()
    )


def _json(value: object) -> str:
    text = escape(json.dumps(value, indent=1, ensure_ascii=False))
    return f"<pre>{_REFERENCE.sub(_link, text)}</pre>"


def _link(match: re.Match[str]) -> str:
    return f'<a href="#{match[2]}">{match[0]}</a>'


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(place)}</td><td>{escape(text)}</td></tr>"
        for name, place, text in rows
    )
    return f"<table>{cells}</table>"


def _resolved(parameter: Json, document: Json) -> Json:
    """What ``parameter`` refers to, if it does."""
    if "$ref" not in parameter:
        return parameter
    found: Json = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return found
