"""Rights over HTTP: what they open, what they leave closed, and what the settings change."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.identity.principal import Principal
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, Entry, RunningGateway, config_for, running_gateway
from tests.rights.support import grant, rate


@contextlib.asynccontextmanager
async def gateway_with(database: str, redis_url: str, root: Path, **sections: object) -> AsyncIterator[RunningGateway]:
    async with running_gateway(config_for(database, redis_url, root, **sections), root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group("science"))
        yield running


async def status(gateway: RunningGateway, entry: Entry, who: Principal | None = SCIENTIST) -> int:
    """The same by every way to ask: both addresses, GET, HEAD and dry runs."""
    found = set()
    for path in (entry.stac, entry.regards):
        target = path if who is not None else f"{path}?scope=esa"
        found.add((await gateway.get(target, who))[0].status)
        found.add((await gateway.request("HEAD", target, who))[0].status)
        found.add((await gateway.get(f"{target}{'&' if '?' in target else '?'}dryRun=true", who))[0].status)
    (only,) = found
    return only


LEVELS = [
    ("NO_ACCESS", "INHERITED_ACCESS", 403, 403),
    ("RESTRICTED_ACCESS", "INHERITED_ACCESS", 403, 403),
    ("FULL_ACCESS", "NO_ACCESS", 200, 403),
    ("FULL_ACCESS", "INHERITED_ACCESS", 200, 200),
    ("FULL_ACCESS", "CUSTOM_ACCESS", 200, 403),
    ("CUSTOM_ACCESS", "INHERITED_ACCESS", 403, 403),
    ("CUSTOM_ACCESS", "CUSTOM_ACCESS", 403, 403),
]


async def test_what_each_level_opens_without_a_policy(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    data = await made.file(b"data")
    document = await made.file(b"text", asset="text", data_type="DOCUMENT")
    look = await made.file(b"look", asset="look", data_type="QUICKLOOK_SD")
    group = await made.group("science")
    for metadata, files, of_look, of_data in LEVELS:
        await made.grant("restricted", group, metadata, files)
        for entry, expected in ((look, of_look), (data, of_data), (document, of_data)):
            assert await status(gateway, entry) == expected, (metadata, files, entry.asset)
            assert await status(gateway, entry, ADMIN) == 200
            assert await status(gateway, entry, OUTSIDER) == 403


async def test_no_access_in_one_group_takes_nothing_from_another(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    await made.grant("restricted", await made.group("everyone", public=True), "NO_ACCESS", "NO_ACCESS")
    assert await status(gateway, entry) == 200
    assert await status(gateway, entry, OUTSIDER) == 403


QUALITIES = [
    ((None, None, None), (None, None), True),
    ((5.0, None, None), (5.0, None), True),
    ((5.0, None, None), (4.9, None), False),
    ((5.0, None, None), (None, "ACCEPTED"), False),
    ((None, 5.0, None), (5.0, None), True),
    ((None, 5.0, None), (5.1, None), False),
    ((None, 5.0, None), (None, None), False),
    ((0.0, 10.0, None), (7.0, None), True),
    ((None, None, ["ACCEPTED"]), (None, "ACCEPTED"), True),
    ((None, None, ["ACCEPTED"]), (None, "REJECTED"), False),
    ((None, None, ["ACCEPTED"]), (9.0, None), False),
    ((None, None, ["ACCEPTED", "ACCEPTED_WITH_WARNINGS"]), (1.0, "ACCEPTED_WITH_WARNINGS"), True),
    ((2.0, None, ["ACCEPTED"]), (1.0, "ACCEPTED"), False),
    ((2.0, None, ["ACCEPTED"]), (2.0, "ACCEPTED"), True),
]


async def test_quality_filters(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    group = await made.group("science")
    for quality, rated, passes in QUALITIES:
        await grant(made, "restricted", group, quality=quality)
        await rate(made, entry, *rated)
        expected = 200 if passes else 403
        assert (await gateway.get(entry.stac, SCIENTIST))[0].status == expected, (quality, rated)
        assert (await gateway.get(entry.stac, ADMIN))[0].status == 200


async def test_a_quicklook_that_only_some_see_for_its_quality_is_for_no_shared_cache(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    look = await made.file(b"look", collection="open", asset="look", data_type="THUMBNAIL")
    everyone = await made.group("everyone", public=True)
    await grant(made, "open", everyone, quality=(5.0, None, None))
    await made.grant("open", await made.group("science"))
    await rate(made, look, 5.0)
    response, _ = await gateway.get(look.stac, SCIENTIST)
    assert response.headers["Cache-Control"].startswith("public")
    await rate(made, look, 4.0)
    response, _ = await gateway.get(look.stac, SCIENTIST)
    assert response.headers["Cache-Control"].startswith("private")
    assert await status(gateway, look, OUTSIDER) == 403


@pytest.mark.parametrize("column", ["quality_min", "quality_max"])
async def test_what_would_let_everything_through_cannot_be_a_filter(gateway: RunningGateway, column: str) -> None:
    connection = gateway.catalogue.connection
    for change in (f"{column} = 'NaN'", "quality_levels = '{}'", "quality_levels = '{GOOD}'", "policy_options = '[]'"):
        with pytest.raises(Exception, match="check constraint"):
            await connection.execute(f"UPDATE access_rights SET {change}")


async def test_open_data_types_are_a_setting(database: str, redis_url: str, tmp_path: Path) -> None:
    async with gateway_with(database, redis_url, tmp_path, rights={"open_data_types": ["DOCUMENT"]}) as gateway:
        made = gateway.catalogue
        await made.grant("restricted", await made.group("science"), "FULL_ACCESS", "NO_ACCESS")
        await made.grant("open", await made.group("everyone", public=True), "FULL_ACCESS", "NO_ACCESS")
        for collection in ("restricted", "open"):
            await made.licence(collection)
            look = await made.file(b"look", collection=collection, asset="look", data_type="QUICKLOOK_SD")
            document = await made.file(b"text", collection=collection, asset="text", data_type="DOCUMENT")
            assert await status(gateway, look) == 423
            assert await status(gateway, document) == 200
        response, _ = await gateway.get(f"{document.stac}?scope=esa")
        assert response.headers["Cache-Control"].startswith("public")


async def test_what_is_forbidden_can_be_hidden(database: str, redis_url: str, tmp_path: Path) -> None:
    async with gateway_with(database, redis_url, tmp_path, rights={"hide_forbidden": True}) as gateway:
        made = gateway.catalogue
        there = await made.file(b"data")
        look = await made.file(b"look", collection="seen", asset="data", data_type="RAWDATA")
        await made.grant("seen", await made.group("science"), "FULL_ACCESS", "NO_ACCESS")
        for path in (there.stac, there.regards):
            missing = path.replace("/item/", "/none/").replace("restricted-item", "restricted-none")
            for who in (OUTSIDER, None):
                scope = "" if who else "?scope=esa"
                answers = [await gateway.get(f"{target}{scope}", who) for target in (path, missing)]
                assert [response.status for response, _ in answers] == [404, 404]
                hidden, absent = (body.replace(b"none", b"item") for _, body in answers)
                assert hidden == absent
                fields = [set(response.headers) for response, _ in answers]
                assert fields[0] == fields[1]
            assert (await gateway.get(path, SCIENTIST))[0].status == 200
        # Whoever sees the product knows that it is there.
        assert await status(gateway, look) == 403


async def test_a_right_that_is_withdrawn_by_one_instance_refuses_on_another(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    async with running_gateway(gateway.config, tmp_path) as other:
        for metadata, expected in (("FULL_ACCESS", 200), ("NO_ACCESS", 403)):
            await made.grant("restricted", await made.group("science"), metadata)
            assert [(await one.get(entry.stac, SCIENTIST))[0].status for one in (gateway, other)] == [expected] * 2


async def test_a_right_that_is_withdrawn_refuses_the_next_request(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    group = await made.group("science")
    for metadata, expected in (("FULL_ACCESS", 200), ("NO_ACCESS", 403), ("FULL_ACCESS", 200)):
        await made.grant("restricted", group, metadata)
        assert await status(gateway, entry) == expected
    await made.connection.execute("DELETE FROM access_rights")
    assert await status(gateway, entry) == 403
