"""Who may make signed links, of what, and what the settings say of them."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests.api.links.support import (
    CONTENT,
    IDENTITY,
    a_key,
    by_asset,
    by_checksum,
    in_hours,
    linking,
    signed,
)
from tests.api.support import PROJECT_ADMIN, call
from tests.credentials import LINK_SECRET, new_key, new_link, send, shown_key
from tests.harness import (
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    Entry,
    RunningGateway,
    config_for,
    principal,
    running_gateway,
)


async def test_who_may_make_links(gateway: RunningGateway, entry: Entry) -> None:
    body = by_checksum(entry)
    assert (await call(gateway, "POST", "/links", None, body))[0] == 401
    assert (await call(gateway, "POST", "/links?scope=esa", None, body))[0] == 401
    assert (await call(gateway, "POST", "/links", OUTSIDER, body))[0] == 403
    key = await new_key(gateway, SCIENTIST)
    made = await new_link(gateway, shown_key(key["key"]), **body)
    assert (await send(gateway, "GET", made["url"]))[0] == 200
    other = await new_key(gateway, SCIENTIST, scopes=["quota", "order", "admin"])
    assert (await send(gateway, "POST", "/links", shown_key(other["key"]), body))[0] == 403
    assert (await send(gateway, "DELETE", f"/links/{made['id']}", shown_key(other["key"])))[0] == 403
    await gateway.catalogue.licence("restricted")
    assert (await call(gateway, "POST", "/links", SCIENTIST, body))[0] == 423


async def test_a_body_that_makes_no_sense_is_told_what_is_wrong(gateway: RunningGateway, entry: Entry) -> None:
    good = by_checksum(entry)
    for body, status, words in (
        ({}, 400, "lacks 'collection'"),
        ([], 400, "JSON object"),
        ({"product": "urn"}, 400, "lacks 'checksum'"),
        ({"collection": "c", "item": "i"}, 400, "lacks 'asset'"),
        ({**good, **by_asset(entry)}, 400, "which nobody knows here"),
        ({**good, "checksum": 1}, 400, "'checksum' must be text"),
        ({**good, "checksum": "0"}, 404, "There is no file"),
        ({**good, "product": "x\0"}, 404, "There is no file"),
        ({**good, "downloads": 0}, 400, "'downloads' must be from 1"),
        ({**good, "downloads": 1.5}, 400, "'downloads' must be a whole number"),
        ({**good, "bytes": -1}, 400, "'bytes' must be from 1"),
        ({**good, "bytes": 2**53 + 1}, 400, "'bytes' must be from 1"),
        ({**good, "network": "everywhere"}, 400, "'network' must be an IP address"),
        ({**good, "expires": in_hours(-1)}, 400, "is over"),
        ({**good, "expires": in_hours(24 * 7 + 1)}, 400, "at most 604800 seconds"),
        ({**good, "expires": 3600}, 400, "'expires' must be text"),
        ({**good, "role": "ADMIN"}, 400, "'role', which nobody knows"),
    ):
        found, told = await call(gateway, "POST", "/links", SCIENTIST, body)
        assert (found, words in told["detail"]) == (status, True), (body, told)
    made = await new_link(gateway, SCIENTIST, **good, expires=in_hours(24 * 7 - 1))
    assert (await send(gateway, "GET", made["url"]))[0] == 200
    many = principal("many", *(f"{SCIENCE}-{number}" for number in range(400)), role="ADMIN")
    status, told = await call(gateway, "POST", "/links", many, good)
    assert (status, "too many groups" in told["detail"]) == (400, True)


async def test_settings_bound_links_and_name_the_host(database: str, redis_url: str, tmp_path: Path) -> None:
    sections = {
        "identity": {**IDENTITY, "links": {"secret": LINK_SECRET, "lifetime": 60, "max_lifetime": 120}},
        "api": {"public_url": "https://data.example.org/archive", "regards_prefix": "/api", "stac_prefix": "/stac"},
    }
    async with linking(database, redis_url, tmp_path, **sections) as gateway:
        entry = await gateway.catalogue.file(CONTENT)
        for body, path in ((by_checksum(entry), f"/api{entry.regards}"), (by_asset(entry), f"/stac{entry.stac}")):
            link = await new_link(gateway, SCIENTIST, **body)
            base, _, rest = link["url"].partition("/archive")
            assert (base, rest.partition("?")[0]) == ("https://data.example.org", path)
            assert (await send(gateway, "GET", rest))[0] == 200
            left = datetime.datetime.fromisoformat(link["expires"]) - datetime.datetime.now(datetime.UTC)
            assert 50 < left.total_seconds() <= 60
        status, told = await call(gateway, "POST", "/links", SCIENTIST, {**body, "expires": in_hours(0.05)})
        assert (status, "at most 120 seconds" in told["detail"]) == (400, True)


async def test_without_a_secret_there_are_no_links(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_gateway(config_for(database, redis_url, tmp_path), tmp_path) as gateway:
        entry = await gateway.catalogue.file(CONTENT)
        assert (await call(gateway, "POST", "/links", PROJECT_ADMIN, by_checksum(entry)))[0] == 404
        assert (await call(gateway, "DELETE", "/links/x", PROJECT_ADMIN))[0] == 404
        await a_key(gateway)
        assert (await send(gateway, "GET", signed(entry)))[0] == 401


async def test_a_link_ends_no_later_than_the_key_that_makes_it(gateway: RunningGateway, entry: Entry) -> None:
    body = by_checksum(entry)
    ending = shown_key((await new_key(gateway, SCIENTIST, expires=in_hours(1)))["key"])
    link = await new_link(gateway, ending, **body)
    left = datetime.datetime.fromisoformat(link["expires"]) - datetime.datetime.now(datetime.UTC)
    assert 3500 < left.total_seconds() <= 3600
    status, _, told = await send(gateway, "POST", "/links", ending, {**body, "expires": in_hours(2)})
    assert (status, "than the API key" in told["detail"]) == (403, True)
    assert (await send(gateway, "POST", "/links", ending, {**body, "expires": in_hours(0.5)}))[0] == 201
