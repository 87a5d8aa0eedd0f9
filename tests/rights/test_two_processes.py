"""What is taken away by one gateway is refused by another at once: two processes, one PostgreSQL, one Redis."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.identity.principal import Principal
from tests.api.support import PROJECT_ADMIN
from tests.canaries import CANARIES
from tests.credentials import LINK_SECRET, shown_key
from tests.faults.process import Tables, serving_process
from tests.harness import SCIENCE, SCIENTIST, SECRET, Catalogue, Entry, bearer, principal

SECONDS = 0.1
"""From the answer to an administrator until the other process refuses."""
ATTEMPTS = 3
"""Of which the best counts: the machine does other things, too."""
MEMBER = principal("member")
CURATOR = principal("curator", role="curator")
RIGHT = {"metadataAccessLevel": "FULL_ACCESS", "fileAccessLevel": "INHERITED_ACCESS"}
LIMIT = {"subject": "user", "name": SCIENTIST.email, "metric": "downloads", "period": "total"}

Fields = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two gateways."""

    session: aiohttp.ClientSession
    changed: str
    """URL of the one that administrators ask."""
    asked: str
    """URL of the one that downloads are asked of."""
    entry: Entry
    """Below the right of the group ``science``, and under no licence."""
    licensed: Entry
    """Below the same right, and under a licence."""

    async def change(self, method: str, path: str, body: object = None, who: Principal = PROJECT_ADMIN) -> Any:
        """Have the first one change something; its answer."""
        data = None if body is None else json.dumps(body)
        async with self.session.request(method, self.changed + path, headers=bearer(who), data=data) as response:
            text = await response.text()
            assert response.status < 300, (method, path, response.status, text)
            return json.loads(text) if text else None

    async def status(self, path: str, fields: Fields) -> int:
        """What the second one answers."""
        async with self.session.get(self.asked + path, headers=fields) as response:
            await response.read()
            return response.status

    async def seconds_until(self, status: int, path: str, fields: Fields) -> float:
        """How long it took until it answered so."""
        began = time.monotonic()
        while (found := await self.status(path, fields)) != status:
            assert time.monotonic() - began < 10, (path, status, found)
        return time.monotonic() - began


@dataclasses.dataclass(frozen=True)
class Taken:
    """Something that can be taken away."""

    path: str
    """What is asked for."""
    fields: Fields
    """By whom."""
    take: Callable[[], Awaitable[Any]]
    refused: int
    """Status without it."""


async def right(pair: Pair) -> Taken:
    one = f"/admin/collections/restricted/rights/{SCIENCE}"
    await pair.change("PUT", one, RIGHT)
    return Taken(pair.entry.stac, bearer(SCIENTIST), functools.partial(pair.change, "DELETE", one), 403)


async def membership(pair: Pair) -> Taken:
    await right(pair)
    one = f"/admin/groups/{SCIENCE}/members/{MEMBER.email}"
    await pair.change("PUT", one)
    return Taken(pair.entry.regards, bearer(MEMBER), functools.partial(pair.change, "DELETE", one), 403)


async def licence(pair: Pair) -> Taken:
    await pair.change("PUT", "/admin/licences/terms", {"url": "https://example.org/terms"})
    await pair.change("PUT", "/admin/collections/licensed/licence", {"licence": "terms"})
    await pair.change("PUT", "/collections/licensed/license", who=SCIENTIST)
    change = functools.partial(pair.change, "POST", "/admin/licences/terms/versions", {})
    return Taken(pair.licensed.stac, bearer(SCIENTIST), change, 423)


async def limit(pair: Pair) -> Taken:
    await right(pair)
    await pair.change("PUT", "/quota/rules", {**LIMIT, "value": -1})
    change = functools.partial(pair.change, "PUT", "/quota/rules", {**LIMIT, "value": 0})
    return Taken(pair.entry.stac, bearer(SCIENTIST), change, 429)


async def api_key(pair: Pair) -> Taken:
    await pair.change("PUT", "/quota/rules", {**LIMIT, "value": -1})
    await right(pair)
    key = await pair.change("POST", "/me/keys", {"label": "test"}, SCIENTIST)
    CANARIES.hide(f"token of key {key['id']}", key["key"].split("_", 2)[2])
    change = functools.partial(pair.change, "DELETE", f"/me/keys/{key['id']}", who=SCIENTIST)
    return Taken(pair.entry.stac, shown_key(key["key"]), change, 401)


async def link(pair: Pair) -> Taken:
    await pair.change("PUT", "/quota/rules", {**LIMIT, "value": -1})
    await right(pair)
    body = {"product": pair.entry.product, "checksum": pair.entry.checksum}
    made = await pair.change("POST", "/links", body, SCIENTIST)
    token = made["url"].partition("?")[2]
    CANARIES.hide(f"token of link {made['id']}", token.rpartition(".")[2])
    change = functools.partial(pair.change, "DELETE", f"/links/{made['id']}", who=SCIENTIST)
    return Taken(f"{pair.entry.regards}?{token}", {}, change, 401)


async def role(pair: Pair) -> Taken:
    await pair.change("PUT", "/admin/roles/curator", {"parent": "ADMIN"})
    change = functools.partial(pair.change, "PUT", "/admin/roles/curator", {"parent": "PUBLIC"})
    return Taken(pair.entry.stac, bearer(CURATOR), change, 403)


@pytest.fixture
async def pair(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    root = tmp_path / "archive"
    tables: Tables = {
        "server": {"port": 0, "shutdown_timeout": 1},
        "database": {"dsn": database},
        "redis": {"url": redis_url},
        "identity.jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
        "identity.links": {"secret": LINK_SECRET},
        "storage": [{"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(root)}],
    }
    for directory in (root, tmp_path / "first", tmp_path / "second"):
        directory.mkdir()
    with contextlib.ExitStack() as processes:
        served = [processes.enter_context(serving_process(tmp_path / name, tables)) for name in ("first", "second")]
        connection = await asyncpg.connect(database)
        try:
            made = Catalogue(connection, root)
            group = await made.group(SCIENCE)
            for collection in ("restricted", "licensed"):
                await made.grant(collection, group)
            entries = [await made.file(b"content", collection=name) for name in ("restricted", "licensed")]
        finally:
            await connection.close()
        async with aiohttp.ClientSession() as session:
            yield Pair(session, served[0].url, served[1].url, *entries)
        for one in served:
            CANARIES.search(one.log.name, one.log.read_text(encoding="utf-8"))


async def test_what_one_process_takes_away_another_refuses_within_100_ms(pair: Pair) -> None:
    slow: dict[str, list[float]] = {}
    for given in (right, membership, licence, limit, api_key, link, role):
        found: list[float] = []
        while not found or (min(found) > SECONDS and len(found) < ATTEMPTS):
            taken = await given(pair)
            # The second process knows by now that it may be had, and remembers what it remembers.
            await pair.seconds_until(200, taken.path, taken.fields)
            await taken.take()
            found.append(await pair.seconds_until(taken.refused, taken.path, taken.fields))
        assert await pair.status(taken.path, taken.fields) == taken.refused
        if min(found) > SECONDS:
            slow[given.__name__] = found
    assert slow == {}
