"""Signed download links over real sockets: what they give, what they do not, and when they end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.catalog.model import ByChecksum
from gateway.identity.principal import Principal
from gateway.identity.signed_links import Grant, Signer
from gateway.quotas.limits import Rule
from gateway.storage import Stat
from tests.api.support import PROJECT_ADMIN, call
from tests.credentials import LINK_SECRET, basic, new_key, new_link, seconds_until, send, shown_key
from tests.harness import (
    FAR,
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    SECRET,
    TENANT,
    Entry,
    RunningGateway,
    bearer,
    config_for,
    principal,
    running_gateway,
)
from tests.proxy import counting_proxy
from tests.quotas.holders import until

CONTENT = b"0123456789" * 1000
FOREIGN_ADMIN = principal("foreign", role="PROJECT_ADMIN", tenant="nasa")
IDENTITY = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET}}


@contextlib.asynccontextmanager
async def linking(database: str, redis_url: str, root: Path, **sections: object) -> AsyncIterator[RunningGateway]:
    """A gateway that makes links; group ``science`` may download the collection ``restricted``."""
    config = config_for(database, redis_url, root, **{"identity": IDENTITY, **sections})
    async with running_gateway(config, root) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


@pytest.fixture
async def gateway(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with linking(database, redis_url, tmp_path) as running:
        yield running


@pytest.fixture
async def entry(gateway: RunningGateway) -> Entry:
    return await gateway.catalogue.file(CONTENT)


def by_checksum(entry: Entry) -> dict[str, object]:
    return {"product": entry.product, "checksum": entry.checksum}


def by_asset(entry: Entry) -> dict[str, object]:
    return {"collection": entry.collection, "item": entry.item, "asset": entry.asset}


def token_of(link: dict[str, Any]) -> str:
    return str(link["url"].partition("?link=")[2])


def in_hours(hours: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)).isoformat()


def signed(entry: Entry, **changes: object) -> str:
    """A path with a token that we sign ourselves."""
    values: dict[str, Any] = {
        "link_id": f"{'a' * 12}-{'b' * 12}",
        "tenant": TENANT,
        "subject": "scientist",
        "email": "scientist@example.org",
        "role": "REGISTERED_USER",
        "groups": (SCIENCE,),
        "expires": int(time.time()) + 600,
    }
    address = ByChecksum(entry.product, entry.checksum)
    return f"{entry.regards}?link={Signer(LINK_SECRET.encode()).sign(Grant(**values | changes), address)}"


async def a_key(gateway: RunningGateway, key_id: str = "a" * 12, email: str = "scientist@example.org") -> None:
    await gateway.catalogue.connection.execute(
        "INSERT INTO link_keys (key_id, tenant_id, email) VALUES ($1, $2, $3)",
        key_id,
        await gateway.catalogue.tenant(),
        email,
    )


async def test_a_link_downloads_its_file_without_any_field(gateway: RunningGateway, entry: Entry) -> None:
    for body, path in ((by_checksum(entry), entry.regards), (by_asset(entry), entry.stac)):
        link = await new_link(gateway, SCIENTIST, **body)
        assert set(link) == {"url", "expires", "id"}
        assert link["url"].startswith(f"{gateway.url}{path}?link={link['id']}.")
        left = datetime.datetime.fromisoformat(link["expires"]) - datetime.datetime.now(datetime.UTC)
        assert 86_300 < left.total_seconds() <= 86_400
        status, fields, received = await send(gateway, "GET", link["url"])
        assert (status, received) == (200, CONTENT)
        assert (fields["Referrer-Policy"], fields["Cache-Control"]) == ("no-referrer", "private, no-cache")
        status, fields, received = await send(gateway, "HEAD", link["url"])
        assert (status, fields["Content-Length"], received) == (200, str(len(CONTENT)), b"")
        status, _, received = await send(gateway, "GET", link["url"], {"Range": "bytes=10-14"})
        assert (status, received) == (206, b"01234")
        status, fields, _ = await send(gateway, "HEAD", f"{link['url']}&isContentInline=true")
        assert (status, fields["Content-Disposition"].split(";")[0]) == (200, "inline")
    assert (await gateway.usage(SCIENTIST))[0] == 2
    assert '"user": "scientist"' in gateway.access_log[-1]


async def test_names_that_need_encoding_are_the_same_in_a_link(gateway: RunningGateway) -> None:
    odd = {"collection": "restricted", "item": "a b?c&d#e%2Fé☃", "asset": "x;y=1+2"}
    entry = await gateway.catalogue.file(CONTENT, item="odd", asset="odd")
    connection = gateway.catalogue.connection
    await connection.execute("UPDATE products SET provider_id = $1", odd["item"])
    await connection.execute("UPDATE files SET asset_key = $1", odd["asset"])
    link = await new_link(gateway, SCIENTIST, **odd)
    assert (await send(gateway, "GET", link["url"]))[2] == entry.content
    token = token_of(link)
    # The same address, with more of it encoded than need be.
    much = "".join(f"%{ord(letter):02x}" for letter in "restricted")
    path = f"/collections/{much}/items/{quote(odd['item'], safe='')}/download/{quote(odd['asset'], safe='')}"
    assert (await send(gateway, "GET", f"{path}?link={token}"))[0] == 200


async def test_a_link_holds_for_nothing_else(gateway: RunningGateway, entry: Entry) -> None:
    other = await gateway.catalogue.file(b"other", item="other")
    upper = entry.regards.replace(entry.checksum, entry.checksum.upper())
    assert upper != entry.regards
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    token, answers = token_of(link), []
    for method, path in (
        ("GET", entry.stac),
        ("GET", other.regards),
        ("GET", other.stac),
        ("GET", upper),
        ("HEAD", upper),
        ("GET", "/me/usage"),
        ("GET", "/me/keys"),
        ("POST", "/me/keys"),
        ("POST", "/links"),
        ("DELETE", f"/links/{link['id']}"),
        ("GET", "/admin/keys"),
        ("GET", "/admin/groups"),
        ("GET", "/me"),
        ("GET", "/license"),
        ("PUT", "/license"),
        ("PUT", "/collections/restricted/license"),
        ("POST", "/entities/access"),
        ("GET", "/quota"),
        ("GET", "/quota/rules"),
        ("PUT", "/quota/rules"),
    ):
        status, fields, told = await send(gateway, method, f"{path}?link={token}&scope=esa", None, by_checksum(entry))
        assert status == 401, (method, path)
        assert 'error="invalid_token"' in fields["WWW-Authenticate"]
        answers.append(repr(told))
    assert (await send(gateway, "POST", link["url"]))[0] == 405
    assert not any(token in answer for answer in answers)
    assert (await send(gateway, "GET", link["url"]))[0] == 200


async def test_a_link_of_an_administrator_administers_nothing(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, PROJECT_ADMIN, **by_checksum(entry))
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    for path in ("/admin/keys", "/quota/rules", "/quota/defaults", "/me/usage"):
        assert (await send(gateway, "GET", f"{path}?link={token_of(link)}"))[0] == 401


async def test_more_than_one_credential_is_refused(gateway: RunningGateway, entry: Entry) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    key = (await new_key(gateway, SCIENTIST))["key"]
    for fields in (bearer(SCIENTIST), shown_key(key), basic("me", key), basic("me", "password")):
        status, answered, _ = await send(gateway, "GET", link["url"], fields)
        assert (status, 'error="invalid_request"' in answered["WWW-Authenticate"]) == (401, True)
    status, *_ = await send(gateway, "GET", f"{link['url']}&link={token_of(link)}")
    assert status == 401


async def test_forged_links_are_refused_and_cost_postgresql_nothing(
    database: str, redis_url: str, tmp_path: Path, no_background: None
) -> None:
    async with (
        counting_proxy(database) as (postgres, dsn),
        linking(dsn, redis_url, tmp_path) as gateway,
    ):
        entry = await gateway.catalogue.file(CONTENT)
        await a_key(gateway)
        good = signed(entry)
        assert (await send(gateway, "GET", good))[0] == 200
        path, _, token = good.partition("?link=")
        link_id, payload, signature = token.split(".")
        forged = [
            f"{link_id}.{payload}.{signature[:-1]}{'A' if signature[-1] != 'A' else 'B'}",
            f"{link_id}.{payload}.{signature}=",
            f"{link_id}.{payload}",
            f"{link_id}..{signature}",
            f"{'c' * 12}-{'b' * 12}.{payload}.{signature}",
            f"{link_id}.{payload}.{'A' * 43}",
            "",
            "x",
            "." * 50,
            "%00",
            "x" * 7000,
        ]
        await asyncio.sleep(0.05)
        before, answers = postgres.round_trips, []
        for one in forged:
            for method in ("GET", "HEAD"):
                status, _, told = await send(gateway, method, f"{path}?link={one}&scope=esa")
                assert status == 401, one
                if method == "GET":
                    answers.append(told)
        assert postgres.round_trips == before
        assert all(answer == answers[0] for answer in answers)


async def test_a_link_key_is_of_one_user_of_one_tenant(gateway: RunningGateway, entry: Entry) -> None:
    assert (await send(gateway, "GET", signed(entry)))[0] == 401
    await a_key(gateway, "c" * 12)
    assert (await send(gateway, "GET", signed(entry, link_id=f"{'c' * 12}-{'b' * 12}")))[0] == 200
    for changes in (
        {"tenant": "nasa"},
        {"email": "outsider@example.org"},
        {"link_id": f"{'d' * 12}-{'b' * 12}"},
    ):
        path = signed(entry, **{"link_id": f"{'c' * 12}-{'b' * 12}", **changes})
        assert (await send(gateway, "GET", path))[0] == 401, changes
    foreign = await gateway.catalogue.tenant("nasa")
    await gateway.catalogue.connection.execute("UPDATE link_keys SET tenant_id = $1", foreign)
    path = signed(entry, link_id=f"{'c' * 12}-{'b' * 12}")
    await seconds_until(401, lambda: send(gateway, "HEAD", path))


async def test_a_link_ends(gateway: RunningGateway, entry: Entry) -> None:
    await a_key(gateway)
    now = int(time.time())
    status, _, told = await send(gateway, "GET", signed(entry, expires=now))
    assert (status, told["messages"]) == (401, ["the link has ended"])
    assert (await send(gateway, "GET", signed(entry, expires=now + 60)))[0] == 200
    ending = signed(entry, expires=now + 2)
    assert (await send(gateway, "HEAD", ending))[0] == 200
    await seconds_until(401, lambda: send(gateway, "HEAD", ending))


async def test_a_link_may_be_bound_to_a_network(gateway: RunningGateway, entry: Entry) -> None:
    for network, expected in (("127.0.0.0/8", 200), ("127.0.0.1", 200), ("192.0.2.0/24", 401), ("::/0", 401)):
        link = await new_link(gateway, SCIENTIST, **by_asset(entry), network=network)
        status, *_ = await send(gateway, "GET", link["url"], {"X-Forwarded-For": "192.0.2.1"})
        assert status == expected


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


async def test_a_link_revoked_on_one_gateway_is_refused_by_another_within_100_ms(
    gateway: RunningGateway, entry: Entry
) -> None:
    async with running_gateway(gateway.config, gateway.catalogue.root) as other:
        await _hearing(other)
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
    found = await asyncio.gather(*(new_link(gateway, OUTSIDER_IN, **by_checksum(entry)) for _ in range(5)))
    assert len({link["id"].split("-")[0] for link in found}) == 1


async def test_whoever_lost_a_key_revokes_all_that_was_made_with_it(gateway: RunningGateway, entry: Entry) -> None:
    """Of links that somebody else made with it nobody knows the ids."""
    key = shown_key((await new_key(gateway, SCIENTIST))["key"])
    stolen = [await new_link(gateway, key, **by_checksum(entry)) for _ in range(2)]
    other = await new_link(gateway, OUTSIDER_IN, **by_checksum(entry))
    theirs = f"/links?email={OUTSIDER_IN.email}"
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


OUTSIDER_IN = principal("insider", SCIENCE)


async def test_a_right_that_its_owner_loses_his_links_lose(gateway: RunningGateway, entry: Entry) -> None:
    member = principal("member")
    connection = gateway.catalogue.connection
    await connection.execute("INSERT INTO group_members SELECT group_id, $1 FROM groups", member.email)
    link = await new_link(gateway, member, **by_checksum(entry))
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    await connection.execute("DELETE FROM group_members")
    assert (await send(gateway, "GET", link["url"]))[0] == 403


async def test_a_link_accepts_no_licence_and_its_token_is_in_no_answer_and_no_log(
    gateway: RunningGateway, entry: Entry
) -> None:
    link = await new_link(gateway, SCIENTIST, **by_checksum(entry))
    await gateway.catalogue.licence("restricted")
    secret = token_of(link).split(".")[2]
    for query in ("", "&acceptLicense=true"):
        status, fields, told = await send(gateway, "GET", f"{link['url']}{query}")
        assert (status, told["license"]) == (423, "https://example.org/licence")
        assert secret not in json.dumps(told)
        assert "link=" not in json.dumps(told)
        assert secret not in repr(fields)
    assert await gateway.catalogue.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0
    # His own credential does accept it, and so for his links.
    assert (await gateway.get(f"{entry.regards}?acceptLicense=true", SCIENTIST))[0].status == 200
    assert (await send(gateway, "GET", link["url"]))[0] == 200
    await send(gateway, "GET", f"/nowhere?link={token_of(link)}")
    await send(gateway, "GET", f"{link['url']}x")
    assert len(gateway.access_log) > 4
    assert not any(secret in line or "link=" in line for line in gateway.access_log)
    connection = gateway.catalogue.connection

    async def recorded() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM download_log WHERE credential = 'link'"))

    await until(recorded, "downloads by the link are recorded")
    rows = await connection.fetch("SELECT t::text AS text FROM download_log t")
    assert not any(secret in row["text"] for row in rows)


async def test_a_redirect_does_not_pass_the_token_on(database: str, redis_url: str, tmp_path: Path) -> None:
    async with linking(database, redis_url, tmp_path, storage=[FAR]) as gateway:
        entry = await gateway.catalogue.described(CONTENT)
        stat = Stat(len(CONTENT), datetime.datetime.now(datetime.UTC), '"tag"')
        await gateway.catalogue.copy(entry, "far", "esa/key", stat)
        link = await new_link(gateway, SCIENTIST, **by_checksum(entry), downloads=1)
        status, fields, received = await send(gateway, "GET", link["url"])
        assert status == 307
        assert fields["Location"].startswith("http://storage.example.org/esa/key?")
        assert fields["Referrer-Policy"] == "no-referrer"
        assert token_of(link).split(".")[2] not in repr((fields, received))
        assert "link=" not in fields["Location"]


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


async def test_a_link_is_bound_by_the_key_that_makes_it(gateway: RunningGateway, entry: Entry) -> None:
    body = by_checksum(entry)
    ending = shown_key((await new_key(gateway, SCIENTIST, expires=in_hours(1)))["key"])
    link = await new_link(gateway, ending, **body)
    left = datetime.datetime.fromisoformat(link["expires"]) - datetime.datetime.now(datetime.UTC)
    assert 3500 < left.total_seconds() <= 3600
    status, _, told = await send(gateway, "POST", "/links", ending, {**body, "expires": in_hours(2)})
    assert (status, "than the API key" in told["detail"]) == (403, True)
    assert (await send(gateway, "POST", "/links", ending, {**body, "expires": in_hours(0.5)}))[0] == 201
    networks = ["127.0.0.0/8", "2001:db8::/32"]
    bound = shown_key((await new_key(gateway, SCIENTIST, networks=networks))["key"])
    for network, expected in (
        (None, 403),
        ("0.0.0.0/0", 403),
        ("::/0", 403),
        ("192.0.2.1", 403),
        ("126.0.0.0/7", 403),
        ("127.0.0.1", 201),
        ("127.0.0.0/8", 201),
        ("2001:db8:1::/48", 201),
    ):
        status, _, told = await send(gateway, "POST", "/links", bound, {**body, "network": network})
        assert status == expected, (network, told)
        assert expected == 201 or "bound to networks" in told["detail"]


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


async def test_links_that_ended_long_ago_are_forgotten(gateway: RunningGateway, entry: Entry) -> None:
    old, new = [await new_link(gateway, SCIENTIST, **by_checksum(entry)) for _ in range(2)]
    connection = gateway.catalogue.connection
    assert (await call(gateway, "DELETE", f"/links/{old['id']}", SCIENTIST))[0] == 204
    await connection.execute("UPDATE revoked_links SET revoked_at = now() - interval '9 days'")
    assert (await call(gateway, "DELETE", f"/links/{new['id']}", SCIENTIST))[0] == 204
    assert [row["link_id"] for row in await connection.fetch("SELECT link_id FROM revoked_links")] == [new["id"]]


async def _hearing(gateway: RunningGateway) -> None:
    async def heard() -> bool:
        return bool((await send(gateway, "GET", "/health"))[2]["notifications"]["connected"])

    await until(heard, "changes are heard of")
