"""Signed download links over real sockets: what they give, and what they do not."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from urllib.parse import quote

from gateway.storage import Stat
from tests.api.links.support import (
    CONTENT,
    a_key,
    by_asset,
    by_checksum,
    linking,
    signed,
    token_of,
)
from tests.api.support import PROJECT_ADMIN
from tests.credentials import basic, new_key, new_link, seconds_until, send, shown_key
from tests.harness import (
    FAR,
    SCIENTIST,
    Entry,
    RunningGateway,
    bearer,
)
from tests.proxy import counting_proxy
from tests.quotas.holders import until


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


async def test_a_link_may_be_bound_to_a_network(gateway: RunningGateway, entry: Entry) -> None:
    for network, expected in (("127.0.0.0/8", 200), ("127.0.0.1", 200), ("192.0.2.0/24", 401), ("::/0", 401)):
        link = await new_link(gateway, SCIENTIST, **by_asset(entry), network=network)
        status, *_ = await send(gateway, "GET", link["url"], {"X-Forwarded-For": "192.0.2.1"})
        assert status == expected


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
