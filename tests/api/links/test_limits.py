"""How many downloads and bytes a signed link is good for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.quotas.limits import Rule
from tests.api.links.support import (
    CONTENT,
    by_asset,
    by_checksum,
    linking,
    token_of,
)
from tests.api.support import call
from tests.credentials import new_link, send
from tests.harness import (
    SCIENTIST,
    TENANT,
    Entry,
    RunningGateway,
)


async def test_a_link_is_good_for_so_many_downloads(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_asset(entry), downloads=2)
    account = f"link:{link['id']}"

    async def used() -> tuple[int, int]:
        usage = (await gateway.quotas.usage(TENANT, [account]))[account]
        return usage.downloads, usage.octets

    # What its owner downloads besides does not count, and does not count for it.
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    assert await used() == (0, 0)
    for start in range(0, len(CONTENT), 1000):
        status, fields, _ = await send(gateway, "GET", link["url"], {"Range": f"bytes={start}-{start + 999}"})
        assert status == 206
        assert "link-downloads-total" in fields["RateLimit-Policy"]
    assert await used() == (1, len(CONTENT))
    assert (await gateway.usage(SCIENTIST))[0] == 2
    # The same again is a retry of the same download, as for everybody, up to twice its bytes.
    statuses = [(await send(gateway, "GET", link["url"]))[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert await used() == (2, 4 * len(CONTENT))
    assert await gateway.usage(SCIENTIST) == (3, 5 * len(CONTENT))
    status, fields, told = await send(gateway, "GET", link["url"])
    assert (status, "Retry-After" in fields) == (429, False)
    assert token_of(link) not in repr((fields, told))
    assert (await send(gateway, "HEAD", link["url"]))[0] == 200
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    # Another link to the same file is counted by itself.
    another = await new_link(gateway, SCIENTIST, **by_asset(entry), downloads=1)
    assert (await send(gateway, "GET", another["url"]))[0] == 200


async def test_a_link_is_good_for_so_many_bytes(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry), bytes=len(CONTENT) + 500)
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    assert (await send(gateway, "GET", link["url"]))[0] == 429
    assert (await send(gateway, "GET", link["url"], {"Range": "bytes=0-499"}))[0] == 206
    assert (await send(gateway, "GET", link["url"], {"Range": "bytes=0-0"}))[0] == 429
    status, _, told = await send(gateway, "GET", f"{link['url']}&dryRun=true")
    assert status == 200
    assert [one["account"] for one in told["limits"]] == [f"link:{link['id']}"]


async def test_many_at_once_get_no_more_than_a_link_is_good_for(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry), bytes=3 * len(CONTENT))
    answers = await asyncio.gather(*(send(gateway, "GET", link["url"]) for _ in range(20)))
    assert sorted(status for status, *_ in answers) == [200] * 3 + [429] * 17


async def test_limits_of_the_owner_bind_his_links(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    await gateway.catalogue.rule(Rule("user", str(SCIENTIST.email), False, "bytes", "total", len(CONTENT)))
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    assert (await send(gateway, "GET", link["url"]))[0] == 429
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 429


async def test_what_is_not_counted_has_no_links_that_end_by_use(
    gateway: RunningGateway, database: str, redis_url: str, tmp_path: Path
) -> None:
    quicklook = await gateway.catalogue.file(CONTENT, item="q", data_type="QUICKLOOK_SD")
    counted = await gateway.catalogue.file(CONTENT, item="c")
    for bound in ({"downloads": 1}, {"bytes": 1}):
        status, told = await call(gateway, "POST", "/links", SCIENTIST, {**by_asset(quicklook), **bound})
        assert (status, "not counted" in told["detail"]) == (400, True)
    link = await new_link(gateway, SCIENTIST, **by_asset(quicklook))
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    bound_link = await new_link(gateway, SCIENTIST, **by_asset(counted), downloads=5)
    path = bound_link["url"].removeprefix(gateway.url)
    async with linking(database, redis_url, tmp_path, quotas={"metered_data_types": []}) as other:
        assert (await send(other, "GET", path))[0] == 403
