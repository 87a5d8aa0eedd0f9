"""Whatever is sent to a route, by whoever may do most: it is refused or done, and nothing fails."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from gateway.api.openapi import described_routes
from gateway.api.openapi_schemas import SCHEMAS
from gateway.api.openapi_stac import STAC_SCHEMAS
from tests.api.matrix import BODIES, QUERIES, Row, filled, rows
from tests.api.stage import Stage, running_stage
from tests.api.support import INSTANCE_ADMIN, nested
from tests.harness import bearer

FULL = "GATEWAY_TEST_FULL" in os.environ
VALUES: list[Any] = [
    None, True, -1, 0.5, 2**31, 2**63, 10**40, 1e308, "", " ", "\0", "\ud800", "\x1b[2J", "x" * 3000,
    "9999-12-31T23:59:59-14:00",
    [], [None], [[]], ["\0"], ["\ud800"], [{}], {}, {"\ud800": "\0"}, nested(480),
]  # fmt: skip
BYTES = [
    b"",
    b"{",
    b"\xff",
    b"[" * 20_000,
    b'{"a":' * 5000,
    b"9" * 5000,
    b"NaN",
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"\xef\xbb\xbf{}",
]
TEXTS = [
    "",
    "%00",
    "%FF",
    "%ED%A0%80",
    "%2e%2e",
    "%20",
    "%0d%0aX:y",
    "-1",
    "9" * 30,
    "x" * 2000,
    "%F0%9F%92%A9",
    "'",
    "W10",
]
"""Percent-encoded."""


@pytest.fixture
async def stage(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with running_stage(database, redis_url, tmp_path) as made:
        yield made


def asked_rows() -> list[Row]:
    """Every route; of those that stand at each root of the STAC API one is enough, unless there is time."""
    return [row for row in rows() if FULL or "/tenants/{tenant}/" not in row.path]


def bodies(row: Row, parts: dict[str, str], schema: str | None) -> Iterator[bytes]:
    """Good ones with each member that there may be in turn replaced, and such as are nothing at all."""
    if schema is None:
        return
    yield from BYTES
    if (row.method, row.path) not in BODIES:
        return  # it takes a form
    good = filled(BODIES[row.method, row.path], parts)
    for value in VALUES if FULL else VALUES[len(row.path) % 3 :: 3]:
        yield json.dumps(value).encode()
        if isinstance(good, list):
            yield json.dumps([value]).encode()
        else:
            assert isinstance(good, dict)
            described = {**SCHEMAS, **STAC_SCHEMAS}[schema]
            shapes = [described, *described.get("oneOf", [])]
            for name in {name for shape in shapes for name in shape.get("properties", {})}:
                yield json.dumps({**good, name: value}).encode()


async def failures(stage: Stage, asked: Iterator[tuple[str, str, bytes | None]]) -> list[tuple[object, ...]]:
    """What was answered with 5xx."""
    found: list[tuple[object, ...]] = []
    for method, path, body in asked:
        url = URL(f"{stage.gateway.url}{path}", encoded=True)
        async with stage.gateway.session.request(
            method, url, headers=bearer(INSTANCE_ADMIN), data=body, allow_redirects=False
        ) as response:
            if response.status >= 500:
                found.append((method, path[:200], body and body[:200], response.status, await response.text()))
    return found


async def test_no_body_makes_a_route_fail(stage: Stage) -> None:
    words = described_routes(stage.gateway.config.api)

    def asked() -> Iterator[tuple[str, str, bytes | None]]:
        for row in asked_rows():
            parts = stage.parts | row.own()
            path = row.path.format_map({name: quote(value, safe="") for name, value in parts.items()})
            for body in bodies(row, parts, words[row.method, row.path].body):
                yield row.method, path, body

    assert await failures(stage, asked()) == []


async def test_no_name_and_no_parameter_makes_a_route_fail(stage: Stage) -> None:
    words = described_routes(stage.gateway.config.api)

    def asked() -> Iterator[tuple[str, str, bytes | None]]:
        for row in asked_rows():
            key = (row.method, row.path)
            own = stage.parts | row.own()
            body = json.dumps(filled(BODIES[key], own)).encode() if key in BODIES else None
            parts = {name: quote(value, safe="") for name, value in own.items()}
            for text in TEXTS if FULL else TEXTS[len(row.path) % 3 :: 3]:
                for name in parts:
                    if f"{{{name}}}" in row.path:
                        yield row.method, row.path.format_map({**parts, name: text}), body
                for name in words[key].query:
                    query = "&".join(filter(None, (QUERIES.get(key, ""), f"{name}={text}")))
                    yield row.method, f"{row.path.format_map(parts)}?{query}", body

    assert await failures(stage, asked()) == []
