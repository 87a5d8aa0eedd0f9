"""A gateway on which callers of every kind ask."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.identity.principal import SCOPES
from gateway.identity.sessions import COOKIE
from tests.api.matrix import BODIES, CALLERS, LINK_KEY, PRESENT, QUERIES, RESTORE, Row, filled
from tests.api.support import PROJECT_ADMIN
from tests.canaries import CANARIES
from tests.credentials import LINK_SECRET, new_key, new_link, send, shown_key
from tests.harness import SCIENCE, SCIENTIST, SECRET, Entry, RunningGateway, bearer, config_for, running_gateway, token
from tests.identity.browser import ORIGIN, Browser, settings
from tests.identity.login_provider import login_provider

ORDER_SECRET = "the secret that order tokens of the matrix are made with"


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    body: str
    fields: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A gateway, and what is in it."""

    gateway: RunningGateway
    entry: Entry
    shown: Mapping[str, tuple[Mapping[str, str], str]]
    """Header fields and query of callers whose credential the gateway made."""

    @property
    def parts(self) -> dict[str, str]:
        """What stands for the parameters of paths: all of it is there, in the tenant ``esa``."""
        entry = self.entry
        return {
            "aip_id": entry.product,
            "urn": entry.product,
            "productId": entry.product,
            "product_id": entry.product,
            "checksum": entry.checksum,
            "collectionId": entry.collection,
            "itemId": entry.item,
            "assetId": entry.asset,
            **PRESENT,
        }

    @property
    def missing(self) -> dict[str, str]:
        """The same, of what is nowhere."""
        missing = {name: f"zz{number}" for number, name in enumerate(self.parts)}
        return {**missing, **{name: f"URN:{missing[name]}" for name in ("productId", "product_id")}}

    async def restore(self) -> None:
        await self.gateway.catalogue.connection.execute(RESTORE)

    async def ask(
        self, row: Row, caller: str, parts: Mapping[str, str], *, query: str | None = None, **fields: str
    ) -> Answer:
        """What ``caller`` is answered; afterwards all is as it was."""
        key = ("GET" if row.method == "HEAD" else row.method, row.path)
        url = row.path.format_map({name: quote(value, safe="") for name, value in parts.items()})
        shown, shown_query = self._shown(caller)
        queries = filter(None, [QUERIES.get(key, "") if query is None else query, shown_query])
        body = filled(BODIES[key], parts) if key in BODIES and row.method != "HEAD" else None
        async with self.gateway.session.request(
            row.method,
            f"{self.gateway.url}{url}?{'&'.join(queries)}",
            headers={**shown, **fields},
            data=None if body is None else json.dumps(body),
            allow_redirects=False,
        ) as response:
            received = await response.read()
            CANARIES.search_answer(f"{row.method} {row.path} by {caller}", response.headers, received)
            answer = Answer(response.status, received.decode("latin-1"), dict(response.headers))
        # A refusal changes nothing: else the next caller would be answered otherwise than the table says.
        if row.method not in ("GET", "HEAD") and answer.status < 400:
            await self.restore()
        return answer

    def _shown(self, caller: str) -> tuple[Mapping[str, str], str]:
        who = CALLERS[caller]
        if caller in self.shown:
            return self.shown[caller]
        if who is None:
            return {}, "scope=esa" if caller == "anon" else ""
        return (bearer(who) if caller != "old" else {"Authorization": f"Bearer {token(who, lifetime=-3600)}"}), ""


@contextlib.asynccontextmanager
async def running_stage(database: str, redis_url: str, root: Path) -> AsyncIterator[Stage]:
    """A gateway with API keys, links and sessions; group ``science`` may download the collection ``restricted``."""
    async with login_provider() as provider:
        identity: dict[str, Any] = settings(provider)
        identity |= {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET}}
        config = config_for(
            database, redis_url, root, api={"public_url": ORIGIN}, identity=identity, orders={"secret": ORDER_SECRET}
        )
        async with running_gateway(config, root) as gateway:
            made = gateway.catalogue
            await made.grant("restricted", await made.group(SCIENCE))
            await made.tenant("other")
            entry = await made.file(b"content", item="it-7f3", asset="as-7f3")
            await made.connection.execute(RESTORE)
            browser = Browser(gateway)
            await browser.log_in(provider)
            yield Stage(gateway, entry, await _credentials(gateway, entry, browser))


async def _credentials(
    gateway: RunningGateway, entry: Entry, browser: Browser
) -> dict[str, tuple[Mapping[str, str], str]]:
    key = await new_key(gateway, SCIENTIST)
    of_admin = await new_key(gateway, PROJECT_ADMIN, scopes=["admin"])
    dead = await new_key(gateway, SCIENTIST, scopes=sorted(SCOPES))
    assert (await send(gateway, "DELETE", f"/me/keys/{dead['id']}", bearer(SCIENTIST)))[0] == 204
    link = await new_link(gateway, SCIENTIST, collection=entry.collection, item=entry.item, asset=entry.asset)
    assert link["id"].startswith(f"{LINK_KEY}-")
    CANARIES.hide("session of A", browser.cookies[COOKIE])
    return {
        "key": (shown_key(key["key"]), ""),
        "akey": (shown_key(of_admin["key"]), ""),
        "dead": (shown_key(dead["key"]), ""),
        "link": ({}, link["url"].partition("?")[2]),
        "ses": ({"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}, ""),
    }
