"""REGARDS' questions whether one may, and HEAD as the question about a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from gateway.identity.principal import Principal
from tests.api.support import ask, call
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, RunningGateway, config_for, principal, running_gateway
from tests.rights.support import grant, rate

DATASET = "URN:AIP:DATASET:esa:{}:V1"


async def may(gateway: RunningGateway, urn: str, who: Principal | None = SCIENTIST) -> tuple[int, Any]:
    scope = "" if who else "?scope=esa"
    return await call(gateway, "GET", f"/entities/{quote(urn, safe='')}/access{scope}", who)


async def among(gateway: RunningGateway, urns: list[str], who: Principal | None = SCIENTIST) -> tuple[int, Any]:
    return await call(gateway, "POST", f"/entities/access{'' if who else '?scope=esa'}", who, urns)


async def test_products_that_one_may_download_and_datasets_that_one_may_see(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    closed = (await made.file(b"data")).product
    opened = (await made.file(b"data", collection="open")).product
    seen = (await made.file(b"data", collection="seen")).product
    await made.grant("seen", await made.group("science"), "FULL_ACCESS", "NO_ACCESS")
    known = (await made.file(b"data", collection="known")).product
    await made.grant("known", await made.group("science"), "RESTRICTED_ACCESS", "INHERITED_ACCESS")
    datasets = [DATASET.format(name) for name in ("restricted", "open", "seen", "known")]
    urns = [closed, opened, seen, known, *datasets]
    yes = {
        SCIENTIST: {closed, opened, *datasets},
        OUTSIDER: {opened, datasets[1]},
        ADMIN: set(urns),
        None: {opened, datasets[1]},
    }
    for who, expected in yes.items():
        for urn in urns:
            assert await may(gateway, urn, who) == (200, urn in expected), (who, urn)
        assert await among(gateway, urns, who) == (200, [urn for urn in urns if urn in expected])
        assert await among(gateway, urns[::-1] * 2, who) == (200, [urn for urn in urns[::-1] if urn in expected])
    # Neither licence nor quota is looked at.
    await made.licence("open")
    await made.limit("user", SCIENTIST.email or "", downloads=0)
    assert await may(gateway, opened) == (200, True)


async def test_of_other_tenants_nothing_is_known(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    theirs = (await made.file(b"data", collection="theirs", tenant="cnes")).product
    of_theirs = DATASET.format("theirs").replace(":esa:", ":cnes:")
    mine = (await made.file(b"data")).product
    for urn in (
        theirs,
        of_theirs,
        "URN:FEATURE:DATA:esa:none:V1",
        "",
        "x" * 1000,
        "\0",
        "\ud800",
        "'; --",
        mine.lower(),
    ):
        assert await among(gateway, [urn, mine]) == (200, [mine])
        if urn and urn.isprintable():
            status, body = await may(gateway, urn)
            assert (status, body) == (404, {"messages": [f"There is no product or dataset {urn!r}."]})
    assert await may(gateway, mine, principal("scientist", "science", tenant="cnes")) == (
        404,
        {"messages": [f"There is no product or dataset {mine!r}."]},
    )


async def test_quality_and_custom_roles_count_here_too(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    await grant(made, "restricted", await made.group("science"), quality=(5.0, None, None))
    await made.connection.execute("INSERT INTO roles VALUES ($1, 'curator', 'ADMIN')", await made.tenant())
    for score in (4.0, 6.0, None):
        await rate(made, entry, score)
        assert await may(gateway, entry.product) == (200, score == 6.0)
        assert await may(gateway, entry.product, principal("x", role="curator")) == (200, True)


async def test_a_policy_that_cannot_decide_is_503(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry, opened = await made.file(b"data", collection="ruled"), await made.file(b"data", collection="open")
    everyone = await made.group("everyone", public=True)
    rule = {"all": [{"property": "p", "equals": 1}]}
    for options, status in ((rule, 200), ({}, 503)):
        await grant(made, "ruled", everyone, "CUSTOM_ACCESS", policy="properties", options=options)
        assert (await may(gateway, entry.product))[0] == status
        assert (await among(gateway, [entry.product, opened.product]))[0] == status
    assert await among(gateway, [opened.product]) == (200, [opened.product])


async def test_a_list_of_a_thousand_and_not_of_more(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    unknown = [f"URN:FEATURE:DATA:esa:50fe35a3-e085-3eb1-bb61-{number:012}:V1" for number in range(999)]
    assert await among(gateway, [*unknown, entry.product]) == (200, [entry.product])
    status, body = await among(gateway, [*unknown, entry.product, entry.product])
    assert (status, body) == (400, {"messages": ["1001 URNs are too many: at most 1000."]})
    assert await among(gateway, []) == (200, [])


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'"urn"', b"[1]", b"[null]", b'[["urn"]]', b'["urn"', b"\xff"])
async def test_a_body_that_is_no_list_of_urns_is_400(gateway: RunningGateway, body: bytes) -> None:
    await gateway.catalogue.tenant()
    response, received = await ask(gateway, "POST", "/entities/access", SCIENTIST, body)
    assert response.status == 400
    assert set(json.loads(received)) == {"messages"}


async def test_a_body_that_is_far_too_long_is_413(gateway: RunningGateway) -> None:
    response, _ = await ask(gateway, "POST", "/entities/access", SCIENTIST, b'["' + b"x" * 300_000 + b'"]')
    assert response.status == 413


async def test_callers_must_say_who_they_are(gateway: RunningGateway) -> None:
    assert (await call(gateway, "GET", "/entities/urn/access"))[0] == 401
    assert (await call(gateway, "POST", "/entities/access", None, []))[0] == 401


async def test_what_is_forbidden_can_be_hidden(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, rights={"hide_forbidden": True})
    async with running_gateway(config, tmp_path) as gateway:
        made = gateway.catalogue
        closed, seen = await made.file(b"data"), await made.file(b"data", collection="seen")
        await made.grant("seen", await made.group("science"), "FULL_ACCESS", "NO_ACCESS")
        assert await may(gateway, seen.product) == (200, False)
        for urn in (closed.product, DATASET.format("restricted"), "urn:none"):
            assert await may(gateway, urn) == (404, {"messages": [f"There is no product or dataset {urn!r}."]})
            assert await among(gateway, [urn]) == (200, [])


async def everything(gateway: RunningGateway) -> list[object]:
    """All that a download or an acceptance changes."""
    connection: asyncpg.Connection[Any] = gateway.catalogue.connection
    tables = ("licence_acceptances", "quota_ledger", "quota_usage", "changes")
    rows = [await connection.fetch(f"SELECT * FROM {table}") for table in tables]
    return [rows, await gateway.usage(SCIENTIST), await gateway.usage(None)]


async def test_head_says_whether_one_may_and_changes_nothing(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    closed = await made.file(b"data")
    forbidden = await made.file(b"data", collection="nobody")
    await made.licence("open")
    await made.limit("user", SCIENTIST.email or "", downloads=0)
    before = await everything(gateway)
    for address in ("stac", "regards"):
        for found, expected in ((entry, 423), (closed, 200), (forbidden, 403)):
            path = getattr(found, address)
            for target in (path, f"{path}?acceptLicense=true", f"{path}?acceptLicense=true&dryRun=true"):
                response, body = await gateway.request("HEAD", target, SCIENTIST, Prefer="quota")
                assert (response.status, body) == (expected, b""), target
    assert await everything(gateway) == before
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 423
