"""When signed links end: by time, by revocation, and with what they were made by."""

from __future__ import annotations

import asyncio
import datetime
import time

from gateway.identity.principal import Principal
from tests.api.links.support import a_key, by_checksum, hearing, in_hours, signed
from tests.api.support import PROJECT_ADMIN, call
from tests.credentials import new_key, new_link, seconds_until, send, shown_key
from tests.harness import (
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    Entry,
    RunningGateway,
    bearer,
    principal,
    running_gateway,
)

FOREIGN_ADMIN = principal("foreign", role="PROJECT_ADMIN", tenant="nasa")
INSIDER = principal("insider", SCIENCE)


async def test_a_link_ends(gateway: RunningGateway, entry: Entry) -> None:
    await a_key(gateway)
    now = int(time.time())
    status, _, told = await send(gateway, "GET", signed(entry, expires=now))
    assert (status, told["messages"]) == (401, ["the link has ended"])
    assert (await send(gateway, "GET", signed(entry, expires=now + 60)))[0] == 200
    ending = signed(entry, expires=now + 2)
    assert (await send(gateway, "HEAD", ending))[0] == 200
    await seconds_until(401, lambda: send(gateway, "HEAD", ending))


async def test_a_link_revoked_on_one_gateway_is_refused_by_another_within_100_ms(
    gateway: RunningGateway, entry: Entry
) -> None:
    async with running_gateway(gateway.config, gateway.catalogue.root) as other:
        await hearing(other)
        for by_key in (False, True):
            seconds = []
            for _ in range(4):
                link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
                path = link["url"].removeprefix(gateway.url)
                for _ in range(2):
                    assert (await send(other, "HEAD", path))[0] == 200
                if by_key:
                    await gateway.catalogue.connection.execute("UPDATE link_keys SET revoked_at = now()")
                else:
                    assert (await send(gateway, "DELETE", f"/links/{link['id']}", bearer(SCIENTIST)))[0] == 204
                seconds.append(await seconds_until(401, lambda path=path: send(other, "HEAD", path)))  # type: ignore[misc]
                assert (await send(other, "GET", path))[0] == 401
            # A busy machine may stall any of them.
            assert min(seconds) < 0.1, (by_key, seconds)


async def test_only_its_owner_and_his_administrators_revoke_a_link(gateway: RunningGateway, entry: Entry) -> None:
    await gateway.catalogue.tenant("nasa")
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    await new_link(gateway, PROJECT_ADMIN, **by_checksum(entry))
    missing = await send(gateway, "DELETE", f"/links/{'0' * 12}-{'0' * 12}", bearer(OUTSIDER))
    assert (missing[0], missing[2]["detail"]) == (404, "There is no such link.")
    twin = Principal("nasa", "scientist", SCIENTIST.email, "REGISTERED_USER")
    for who, link_id in (
        (OUTSIDER, link["id"]),
        (twin, link["id"]),
        (FOREIGN_ADMIN, link["id"]),
        (SCIENTIST, "x"),
        (SCIENTIST, "x%00y"),
        (SCIENTIST, f"{link['id']}-x"),
        (SCIENTIST, link["id"].replace("-", "_")),
    ):
        assert await send(gateway, "DELETE", f"/links/{link_id}", bearer(who)) == missing, who
    assert (await send(gateway, "DELETE", f"/links/{link['id']}", {}))[0] == 401
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    second = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    for _ in range(2):
        assert (await call(gateway, "DELETE", f"/links/{link['id']}", PROJECT_ADMIN))[0] == 204
    await seconds_until(401, lambda: send(gateway, "HEAD", link["url"]))
    assert (await send(gateway, "GET", second["url"]))[0] == 200
    rows = await gateway.catalogue.connection.fetch("SELECT actor, action, object FROM changes ORDER BY change_id")
    key_id = link["id"].split("-")[0]
    assert [tuple(row) for row in rows if row["object"] in (key_id, link["id"])] == [
        (SCIENTIST.email, "link-key.create", key_id),
        (PROJECT_ADMIN.email, "link.revoke", link["id"]),
    ]


async def test_all_links_of_a_user_are_revoked_with_his_key_and_new_ones_have_another(
    gateway: RunningGateway, entry: Entry
) -> None:
    links = [await new_link(gateway, SCIENTIST, **by_checksum(entry)) for _ in range(2)]
    of_admin = await new_link(gateway, PROJECT_ADMIN, **by_checksum(entry))
    assert len({link["id"].split("-")[0] for link in links}) == 1
    await gateway.catalogue.connection.execute(
        "UPDATE link_keys SET revoked_at = now() WHERE email = $1", SCIENTIST.email
    )
    for link in links:
        await seconds_until(401, lambda link=link: send(gateway, "HEAD", link["url"]))  # type: ignore[misc]
    assert (await send(gateway, "GET", of_admin["url"]))[0] == 200
    fresh = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    assert (await send(gateway, "GET", fresh["url"]))[0] == 200
    assert fresh["id"].split("-")[0] != links[0]["id"].split("-")[0]
    found = await asyncio.gather(*(new_link(gateway, INSIDER, **by_checksum(entry)) for _ in range(5)))
    assert len({link["id"].split("-")[0] for link in found}) == 1


async def test_a_right_that_its_owner_loses_his_links_lose(gateway: RunningGateway, entry: Entry) -> None:
    member = principal("member")
    connection = gateway.catalogue.connection
    await connection.execute("INSERT INTO group_members SELECT group_id, $1 FROM groups", member.email)
    link = await new_link(gateway, member, **by_checksum(entry))
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    await connection.execute("DELETE FROM group_members")
    assert (await send(gateway, "GET", link["url"]))[0] == 403


async def test_links_that_ended_long_ago_are_forgotten(gateway: RunningGateway, entry: Entry) -> None:
    old, new = [await new_link(gateway, SCIENTIST, **by_checksum(entry)) for _ in range(2)]
    connection = gateway.catalogue.connection
    assert (await call(gateway, "DELETE", f"/links/{old['id']}", SCIENTIST))[0] == 204
    await connection.execute("UPDATE revoked_links SET revoked_at = now() - interval '9 days'")
    assert (await call(gateway, "DELETE", f"/links/{new['id']}", SCIENTIST))[0] == 204
    assert [row["link_id"] for row in await connection.fetch("SELECT link_id FROM revoked_links")] == [new["id"]]


async def test_a_link_that_an_api_key_made_ends_with_the_key(gateway: RunningGateway, entry: Entry) -> None:
    """And no other does: neither those of the same user, nor those of his other keys."""
    key, another = await new_key(gateway, SCIENTIST), await new_key(gateway, SCIENTIST)
    makers = (shown_key(key["key"]), shown_key(another["key"]), SCIENTIST)
    links = [await new_link(gateway, maker, **by_checksum(entry)) for maker in makers]
    assert [(await send(gateway, "GET", link["url"]))[0] for link in links] == [200, 200, 200]
    async with running_gateway(gateway.config, gateway.catalogue.root) as other:
        await hearing(other)
        paths = [link["url"].removeprefix(gateway.url) for link in links]
        assert [(await send(other, "HEAD", path))[0] for path in paths] == [200, 200, 200]
        assert (await send(gateway, "DELETE", f"/me/keys/{key['id']}", bearer(SCIENTIST)))[0] == 204
        for one in (gateway, other):
            await seconds_until(401, lambda one=one: send(one, "HEAD", paths[0]))  # type: ignore[misc]
            assert [(await send(one, "GET", path))[0] for path in paths] == [401, 200, 200]


async def test_a_link_lives_no_longer_and_reaches_no_further_than_the_key_that_made_it(
    gateway: RunningGateway, entry: Entry
) -> None:
    ending = await new_key(gateway, SCIENTIST, expires=in_hours(1))
    beyond = {**by_checksum(entry), "expires": in_hours(2)}
    status, _, told = await send(gateway, "POST", "/links", shown_key(ending["key"]), beyond)
    assert (status, "no longer than the API key" in told["detail"]) == (403, True)
    link = await new_link(gateway, shown_key(ending["key"]), **by_checksum(entry))
    # The link is told in whole seconds.
    key_ends, link_ends = (datetime.datetime.fromisoformat(one["expires"]) for one in (ending, link))
    assert datetime.timedelta(0) <= key_ends - link_ends < datetime.timedelta(seconds=1)
    assert (await send(gateway, "HEAD", link["url"]))[0] == 200
    await gateway.catalogue.connection.execute("UPDATE api_keys SET expires_at = now() WHERE key_id = $1", ending["id"])
    await seconds_until(401, lambda: send(gateway, "HEAD", link["url"]))
    bound = await new_key(gateway, SCIENTIST, networks=["127.0.0.1"])
    link = await new_link(gateway, shown_key(bound["key"]), **by_checksum(entry))
    assert (await send(gateway, "HEAD", link["url"]))[0] == 200
    await gateway.catalogue.connection.execute(
        "UPDATE api_keys SET networks = '{192.0.2.0/24}' WHERE key_id = $1", bound["id"]
    )
    await seconds_until(401, lambda: send(gateway, "HEAD", link["url"]))


async def test_a_key_revokes_links_of_others_only_if_it_may_administer(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    for scopes, status in ((["download"], 404), (["download", "admin"], 204)):
        key = await new_key(gateway, PROJECT_ADMIN, scopes=scopes)
        assert (await send(gateway, "DELETE", f"/links/{link['id']}", shown_key(key["key"])))[0] == status
    await seconds_until(401, lambda: send(gateway, "HEAD", link["url"]))


async def test_whoever_lost_a_key_revokes_all_that_was_made_with_it(gateway: RunningGateway, entry: Entry) -> None:
    """Of links that somebody else made with it nobody knows the ids."""
    key = shown_key((await new_key(gateway, SCIENTIST))["key"])
    stolen = [await new_link(gateway, key, **by_checksum(entry)) for _ in range(2)]
    other = await new_link(gateway, INSIDER, **by_checksum(entry))
    theirs = f"/links?email={INSIDER.email}"
    assert (await send(gateway, "DELETE", "/links", bearer(SCIENTIST)))[0] == 204
    for link in stolen:
        await seconds_until(401, lambda link=link: send(gateway, "HEAD", link["url"]))  # type: ignore[misc]
    for who in (SCIENTIST, FOREIGN_ADMIN):
        await send(gateway, "DELETE", theirs, bearer(who))
    assert (await send(gateway, "DELETE", theirs, bearer(SCIENTIST)))[0] == 403
    assert (await send(gateway, "DELETE", "/links?email=", bearer(PROJECT_ADMIN)))[0] == 400
    assert (await send(gateway, "GET", other["url"]))[0] == 200
    assert (await send(gateway, "DELETE", theirs, bearer(PROJECT_ADMIN)))[0] == 204
    await seconds_until(401, lambda: send(gateway, "HEAD", other["url"]))
    assert (await send(gateway, "DELETE", "/links", bearer(SCIENTIST)))[0] == 204
    changes = await gateway.catalogue.connection.fetch("SELECT actor FROM changes WHERE action = 'link-key.revoke'")
    assert [row["actor"] for row in changes] == [SCIENTIST.email, PROJECT_ADMIN.email]
