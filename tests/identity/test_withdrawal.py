"""What is withdrawn from a user, his API keys, links and sessions lose, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.support import PROJECT_ADMIN
from tests.credentials import LINK_SECRET, new_key, new_link, seconds_until, send, shown_key
from tests.harness import SCIENCE, SECRET, RunningGateway, bearer, config_for, principal, running_gateway

IDENTITY = {
    "jwt": [{"algorithms": ["HS256"], "secret": SECRET}],
    "links": {"secret": LINK_SECRET},
    "api_keys": {"max_lifetime": 3600},
}
CURATOR = principal("curator", role="CURATOR")


@pytest.fixture
async def gateway(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(config_for(database, redis_url, tmp_path, identity=IDENTITY), tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


async def role_with_parent(gateway: RunningGateway, parent: str) -> None:
    await gateway.catalogue.connection.execute(
        "INSERT INTO roles (tenant_id, name, parent) SELECT tenant_id, 'CURATOR', $1 FROM tenants WHERE name = 'esa' "
        "ON CONFLICT (tenant_id, name) DO UPDATE SET parent = $1",
        parent,
    )


@pytest.mark.parametrize("gone", ["the membership", "the group", "the right"])
async def test_keys_and_links_of_a_member_are_his_as_long_as_he_is_one(gateway: RunningGateway, gone: str) -> None:
    entry = await gateway.catalogue.file(b"content")
    connection, member = gateway.catalogue.connection, principal("member")
    await connection.execute("INSERT INTO group_members SELECT group_id, $1 FROM groups", member.email)
    key = shown_key((await new_key(gateway, member))["key"])
    link = await new_link(gateway, member, product=entry.product, checksum=entry.checksum)
    ways = [(entry.stac, key), (link["url"], {}), (entry.stac, bearer(member))]
    assert [(await send(gateway, "GET", path, fields))[0] for path, fields in ways] == [200] * 3
    table = {"the membership": "group_members", "the group": "groups", "the right": "access_rights"}[gone]
    await connection.execute(f"DELETE FROM {table}")
    assert [(await send(gateway, "GET", path, fields))[0] for path, fields in ways] == [403] * 3


async def test_a_role_of_the_tenant_means_in_keys_and_links_what_it_means_now(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    await role_with_parent(gateway, "ADMIN")
    told = await new_key(gateway, CURATOR, scopes=["download", "admin"])
    key = shown_key(told["key"])
    link = await new_link(gateway, CURATOR, product=entry.product, checksum=entry.checksum)

    async def statuses() -> list[int]:
        return [
            (await send(gateway, "GET", entry.stac, key))[0],
            (await send(gateway, "GET", link["url"]))[0],
            (await send(gateway, "GET", entry.stac, bearer(CURATOR)))[0],
        ]

    assert await statuses() == [200] * 3
    await role_with_parent(gateway, "EXPLOIT")
    assert await statuses() == [403] * 3
    await role_with_parent(gateway, "ADMIN")
    assert await statuses() == [200] * 3
    await gateway.catalogue.connection.execute("DELETE FROM roles")
    assert await statuses() == [403] * 3
    assert (await send(gateway, "PUT", "/license/reset", key))[0] == 403


async def test_what_a_token_said_lives_in_a_key_for_no_longer_than_the_settings_allow(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    for path, who, body in (
        ("/me/keys", principal("scientist"), {"label": "x"}),
        ("/admin/keys", PROJECT_ADMIN, {"label": "x", "email": "a@example.org"}),
    ):
        status, _, told = await send(gateway, "POST", path, bearer(who), body)
        assert status == 201
        left = await gateway.catalogue.connection.fetchval(
            "SELECT extract(epoch FROM expires_at - now())::float8 FROM api_keys WHERE key_id = $1", told["id"]
        )
        assert 3500 < left <= 3600
        status, _, told = await send(gateway, "POST", path, bearer(who), {**body, "expires": "2099-01-01T00:00:00Z"})
        assert (status, "at most 3600 seconds" in told["detail"]) == (400, True)
        assert (await send(gateway, "POST", path, bearer(who), {**body, "expires": None}))[2]["expires"] is not None


async def test_a_key_that_is_older_than_the_settings_allow_has_ended(gateway: RunningGateway) -> None:
    await gateway.catalogue.tenant()
    told = await new_key(gateway, principal("scientist"), scopes=["quota"])
    key = shown_key(told["key"])
    assert (await send(gateway, "GET", "/me", key))[0] == 200
    # Made before there was the setting.
    await gateway.catalogue.connection.execute(
        "UPDATE api_keys SET expires_at = NULL, created_at = now() - interval '3601 seconds'"
    )
    await seconds_until(401, lambda: send(gateway, "GET", "/me", key))
