"""The pipeline over a real socket: who may have what, what it costs, and what arrives."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from gateway.catalog.locate import Catalog
from gateway.catalog.model import Address, File
from gateway.identity.principal import Principal
from tests.harness import (
    ADMIN,
    OUTSIDER,
    SCIENTIST,
    RunningGateway,
    config_for,
    principal,
    running_gateway,
    token,
)

TEXT = b"nothing much, but exactly this\n" * 100
LARGE = random.Random(1).randbytes(3 * 1024 * 1024 + 17)


@pytest.mark.parametrize("content", [b"", b"x", TEXT, LARGE], ids=["empty", "one byte", "small", "large"])
async def test_both_doors_give_the_very_bytes(gateway: RunningGateway, content: bytes) -> None:
    entry = await gateway.catalogue.file(content, name="Île 北京.tif")
    for path in (entry.regards, entry.stac, entry.regards.replace(entry.checksum, entry.checksum.upper())):
        response, body = await gateway.get(path, SCIENTIST)
        assert (response.status, body) == (200, content)
        assert response.headers["Content-Length"] == str(len(content))
        assert response.headers["ETag"] == f'"{entry.checksum}"'
        assert response.headers["Content-Type"] == "image/tiff"
        assert response.headers["Content-Disposition"].startswith("attachment; ")
        assert "%E5%8C%97%E4%BA%AC" in response.headers["Content-Disposition"]
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.headers["Cache-Control"] == "private, no-cache"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Repr-Digest"].startswith("sha-256=:")
        assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("content", [TEXT, LARGE], ids=["small", "large"])
async def test_ranges(gateway: RunningGateway, content: bytes) -> None:
    entry = await gateway.catalogue.file(content)
    response, body = await gateway.get(entry.regards, SCIENTIST, Range="bytes=7-1006")
    assert (response.status, body) == (206, content[7:1007])
    assert response.headers["Content-Range"] == f"bytes 7-1006/{len(content)}"
    response, body = await gateway.get(entry.regards, SCIENTIST, Range="bytes=-5")
    assert (response.status, body) == (206, content[-5:])
    response, body = await gateway.get(entry.regards, SCIENTIST, Range=f"bytes={len(content)}-")
    assert response.status == 416
    assert response.headers["Content-Range"] == f"bytes */{len(content)}"
    response, body = await gateway.get(entry.regards, SCIENTIST, Range="bytes=5-", If_Range='"another"')
    assert (response.status, body) == (200, content)
    response, body = await gateway.get(entry.regards, SCIENTIST, If_None_Match=f'"{entry.checksum}"')
    assert (response.status, body) == (304, b"")
    response, body = await gateway.get(entry.regards, SCIENTIST, If_Match='"another"')
    assert response.status == 412
    response, body = await gateway.get(entry.regards, SCIENTIST, Range="bytes=0-9,100-109,-1")
    assert response.status == 206
    assert response.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert int(response.headers["Content-Length"]) == len(body)
    assert content[:10] in body
    assert content[100:110] in body


async def test_head_answers_as_get_without_the_bytes(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    get, _ = await gateway.get(entry.stac, SCIENTIST)
    head, body = await gateway.request("HEAD", entry.stac, SCIENTIST)
    assert (head.status, body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Last-Modified", "Accept-Ranges", "Repr-Digest"):
        assert head.headers[name] == get.headers[name]
    assert (await gateway.request("HEAD", entry.stac, OUTSIDER))[0].status == 403
    entry.path.unlink()
    assert (await gateway.request("HEAD", entry.stac, SCIENTIST))[0].status == 404
    assert await gateway.usage(SCIENTIST) == (1, len(TEXT))


async def test_a_denied_request_opens_no_file_and_spends_nothing(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await gateway.catalogue.file(TEXT)
    opened: list[str] = []
    monkeypatch.setattr("storage_plugins.local.LocalStorage._descend", lambda _, location: opened.append(location))
    for path in (entry.regards, entry.stac):
        response, body = await gateway.get(path, OUTSIDER)
        assert response.status == 403
        assert TEXT[:10] not in body
        assert (await gateway.get(path, None))[0].status == 401
        assert (await gateway.get(f"{path}?scope=esa", None))[0].status == 403
    assert not opened
    assert await gateway.usage(OUTSIDER) == (0, 0)


async def test_error_bodies_have_the_shape_of_their_family(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    response, _ = await gateway.get(entry.regards, OUTSIDER)
    assert await response.json() == {"messages": ["You have no right to this product."]}
    response, _ = await gateway.get(entry.stac, OUTSIDER)
    assert await response.json() == {"code": "Forbidden", "description": "You have no right to this product."}
    response, _ = await gateway.get("/nowhere")
    problem = await response.json()
    assert response.status == 404
    assert response.headers["Content-Type"].startswith("application/problem+json")
    assert problem["status"] == 404
    assert problem["instance"] == f"urn:request:{response.headers['X-Request-ID']}"
    response, _ = await gateway.request("POST", entry.regards, SCIENTIST)
    assert response.status == 405
    assert "messages" in await response.json()


async def test_what_is_not_there_is_404(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    other = await gateway.catalogue.file(LARGE, item="other")
    missing = [
        entry.regards.replace("item", "absent"),
        entry.regards.replace(entry.checksum, "0" * 64),
        entry.regards.replace(entry.checksum, other.checksum),
        entry.regards.replace(entry.checksum, "%00"),
        "/downloads/%00/files/0",
        "/downloads/not-a-urn/files/x%20y",
        "/collections/absent/items/item/download/data",
        "/collections/restricted/items/absent/download/data",
        "/collections/restricted/items/item/download/absent",
        "/collections/restricted/items/item/download/%00%ff",
    ]
    for path in missing:
        for method in ("GET", "HEAD"):
            response, _ = await gateway.request(method, path, SCIENTIST)
            assert response.status == 404, path


async def test_a_checksum_asked_under_another_product_is_not_found(gateway: RunningGateway) -> None:
    """REGARDS looks at the right to the product and fetches by checksum alone: any file for any readable product."""
    mine = await gateway.catalogue.file(TEXT, collection="open")
    secret = await gateway.catalogue.file(LARGE, collection="restricted")
    response, body = await gateway.get(mine.regards.replace(mine.checksum, secret.checksum), OUTSIDER)
    assert response.status == 404
    assert len(body) < 1000


async def test_another_tenant_sees_nothing(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, collection="open")
    await gateway.catalogue.tenant("cnes")
    for role in ("REGISTERED_USER", "PROJECT_ADMIN"):
        stranger = principal("scientist", "science", "everyone", role=role, tenant="cnes")
        for path in (entry.regards, entry.stac):
            assert (await gateway.get(path, stranger))[0].status == 404
    assert (await gateway.get(f"{entry.stac}?scope=cnes"))[0].status == 404
    assert (await gateway.get(f"{entry.stac}?scope=nobody"))[0].status == 404


async def test_rights_by_level(gateway: RunningGateway) -> None:
    group = await gateway.catalogue.group("levels")
    entry = await gateway.catalogue.file(TEXT, collection="levels")
    thumbnail = await gateway.catalogue.file(b"png", collection="levels", asset="thumbnail", data_type="THUMBNAIL")
    reader = principal("reader", "levels")
    expected = {
        ("NO_ACCESS", "INHERITED_ACCESS"): (403, 403),
        ("RESTRICTED_ACCESS", "INHERITED_ACCESS"): (403, 403),
        ("CUSTOM_ACCESS", "CUSTOM_ACCESS"): (403, 403),
        ("FULL_ACCESS", "NO_ACCESS"): (403, 200),
        ("FULL_ACCESS", "CUSTOM_ACCESS"): (403, 200),
        ("FULL_ACCESS", "INHERITED_ACCESS"): (200, 200),
    }
    for (metadata, files), statuses in expected.items():
        await gateway.catalogue.grant("levels", group, metadata, files)
        got = [(await gateway.get(path, reader))[0].status for path in (entry.stac, thumbnail.stac)]
        assert tuple(got) == statuses, (metadata, files)
    await gateway.catalogue.grant("levels", group, "NO_ACCESS", "NO_ACCESS")
    assert (await gateway.get(entry.stac, ADMIN))[0].status == 200


async def test_membership_may_come_from_the_database(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    group = await gateway.catalogue.group("science")
    await gateway.catalogue.connection.execute(
        "INSERT INTO group_members (group_id, email) VALUES ($1, $2)", group, OUTSIDER.email
    )
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200


async def test_the_licence_dialogue(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, collection="open")
    thumbnail = await gateway.catalogue.file(b"png", collection="open", asset="thumbnail", data_type="THUMBNAIL")
    licence = await gateway.catalogue.licence("open")
    response, _ = await gateway.get(f"{entry.regards}?isContentInline=true", OUTSIDER)
    body = await response.json()
    assert response.status == 423
    assert body["license"] == "https://example.org/licence"
    assert body["accept"].startswith(f"{gateway.url}/downloads/")
    response, _ = await gateway.get(entry.stac, OUTSIDER)
    assert response.status == 423
    assert {"code", "description", "license", "accept"} <= set(await response.json())
    assert (await gateway.get(thumbnail.stac, OUTSIDER))[0].status == 200
    assert (await gateway.get(f"{entry.stac}?scope=esa&acceptLicense=true"))[0].status == 423
    assert (await gateway.request("HEAD", f"{entry.stac}?acceptLicense=true", OUTSIDER))[0].status == 423

    response, received = await gateway.get(body["accept"].removeprefix(gateway.url), OUTSIDER)
    assert (response.status, received) == (200, TEXT)
    assert response.headers["Content-Disposition"].startswith("inline")
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 200
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 423
    await gateway.catalogue.connection.execute("UPDATE licences SET version = 2 WHERE licence_id = $1", licence)
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 423


async def test_whoever_may_not_see_a_product_cannot_accept_its_licence(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT)
    await gateway.catalogue.licence("restricted")
    assert (await gateway.get(f"{entry.stac}?acceptLicense=true", OUTSIDER))[0].status == 403
    assert await gateway.catalogue.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0


async def test_the_fourth_download_of_three_is_429_and_ranges_of_one_file_are_one_download(
    gateway: RunningGateway,
) -> None:
    await gateway.catalogue.limit("user", "scientist@example.org", downloads=3)
    entries = [await gateway.catalogue.file(b"%d" % number * 100, item=f"item-{number}") for number in range(4)]
    for entry in entries[:3]:
        assert (await gateway.get(entry.regards, SCIENTIST))[0].status == 200
        assert (await gateway.get(entry.stac, SCIENTIST, Range="bytes=3-5"))[0].status == 206
    for path in (entries[3].regards, entries[3].stac):
        response, _ = await gateway.get(path, SCIENTIST)
        body = await response.json()
        assert response.status == 429
        text = body["messages"][0] if "messages" in body else body["description"]
        assert text.startswith("Download quota of 3 exceeded (by 0) for user scientist@example.org.")
        assert "lifetime" in text
    assert (await gateway.request("HEAD", entries[3].stac, SCIENTIST))[0].status == 200
    assert (await gateway.get(entries[0].stac, SCIENTIST, Range="bytes=0-0"))[0].status == 206
    assert await gateway.usage(SCIENTIST) == (3, 3 * 103 + 1)


async def test_fifty_racing_requests_admit_exactly_three_downloads(gateway: RunningGateway) -> None:
    await gateway.catalogue.limit("user", "scientist@example.org", downloads=3)
    entries = [await gateway.catalogue.file(b"%d" % number * 1000, item=f"item-{number}") for number in range(10)]
    asked = [entries[number % 10] for number in range(50)]
    random.Random(2).shuffle(asked)
    answers = await asyncio.gather(*(gateway.get(entry.stac, SCIENTIST) for entry in asked))
    admitted = set()
    for entry, (response, body) in zip(asked, answers, strict=True):
        assert response.status in (200, 429)
        if response.status == 200:
            assert body == entry.content
            admitted.add(entry.item)
    assert len(admitted) == 3
    downloads, octets = await gateway.usage(SCIENTIST)
    assert downloads == 3
    assert octets == 1000 * sum(response.status == 200 for response, _ in answers)


async def test_limits_of_bytes_defaults_and_anonymous_callers(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, collection="open")
    free = await gateway.catalogue.file(b"text", collection="open", asset="text", data_type="DOCUMENT")
    # REGARDS: the public user starts with a quota of 0.
    assert (await gateway.get(f"{entry.stac}?scope=esa"))[0].status == 429
    assert (await gateway.get(f"{free.stac}?scope=esa"))[0].status == 200
    await gateway.catalogue.limit("anonymous", downloads=2)
    statuses = [(await gateway.get(f"{entry.stac}?scope=esa"))[0].status for _ in range(3)]
    assert statuses == [200, 200, 429]

    await gateway.catalogue.limit("tenant", octets=len(TEXT))
    assert (await gateway.get(entry.stac, OUTSIDER, Range="bytes=1-"))[0].status == 206
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 429
    assert (await gateway.get(entry.stac, OUTSIDER, Range="bytes=0-0"))[0].status == 206
    await gateway.catalogue.limit("user", "outsider@example.org", downloads=0)
    assert (await gateway.get(entry.stac, OUTSIDER, Range="bytes=0-0"))[0].status == 429


async def test_the_settings_say_which_data_types_count_and_how_networks_are_made(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas = {"metered_data_types": ["DOCUMENT"], "anonymous_ipv4_prefix": 24, "anonymous_ipv6_prefix": 48}
    server = {"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.0/8"]}
    seen = []
    locate = Catalog.locate

    async def seen_locate(catalog: Catalog, address: Address, who: Principal) -> File:
        seen.append(who)
        return await locate(catalog, address, who)

    monkeypatch.setattr(Catalog, "locate", seen_locate)
    config = config_for(database, redis_url, tmp_path, quotas=quotas, server=server)
    async with running_gateway(config, tmp_path) as gateway:
        await gateway.catalogue.grant("open", await gateway.catalogue.group("everyone", public=True))
        data = await gateway.catalogue.file(TEXT, collection="open")
        text = await gateway.catalogue.file(b"text", collection="open", asset="text", data_type="DOCUMENT")
        assert (await gateway.get(f"{data.stac}?scope=esa"))[0].status == 200
        assert (await gateway.get(f"{text.stac}?scope=esa", X_Forwarded_For="203.0.113.9"))[0].status == 429
        assert (await gateway.get(f"{text.stac}?scope=esa", X_Forwarded_For="2001:db8:1:2::3"))[0].status == 429
        assert (await gateway.get(text.stac, OUTSIDER))[0].status == 200
        assert await gateway.usage(OUTSIDER) == (1, len(b"text"))
    assert [who.network for who in seen] == ["127.0.0.0/24", "203.0.113.0/24", "2001:db8:1::/48", None]


async def test_a_file_gone_changed_or_grown_is_refused_and_costs_nothing(gateway: RunningGateway) -> None:
    for recorded in (True, False):
        entry = await gateway.catalogue.file(TEXT, item=f"changed-{recorded}", recorded=recorded)
        entry.path.write_bytes(TEXT + b"more")
        response, body = await gateway.get(entry.regards, SCIENTIST)
        assert response.status == 502
        assert b"more" not in body
        entry.path.unlink()
        assert (await gateway.get(entry.regards, SCIENTIST))[0].status == 404
    assert await gateway.usage(SCIENTIST) == (0, 0)


async def test_copies_that_are_not_online_here(gateway: RunningGateway) -> None:
    tape = await gateway.catalogue.file(TEXT, item="tape", state="NEARLINE")
    elsewhere = await gateway.catalogue.file(TEXT, item="elsewhere", storage="unknown")
    assert (await gateway.get(tape.regards, SCIENTIST))[0].status == 410
    response, _ = await gateway.get(elsewhere.regards, SCIENTIST)
    assert response.status == 503
    assert int(response.headers["Retry-After"]) > 0


async def test_bad_credentials_are_401_with_a_challenge(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(TEXT, collection="open")
    good = token(SCIENTIST)
    bad = [
        "Bearer",
        "Bearer x",
        "Basic dXNlcjpwYXNz",
        f"Bearer {good[:-3]}",
        f"Bearer {token(SCIENTIST, lifetime=-60)}",
        f"Bearer {token(SCIENTIST, secret='x' * 64)}",
        f"Bearer {'a' * 7000}",
    ]
    for value in bad:
        for path in (entry.regards, f"{entry.stac}?scope=esa"):
            response, _ = await gateway.get(path, Authorization=value)
            assert response.status == 401, value
            assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    response, _ = await gateway.get(entry.regards, Authorization=f"bearer   {good}")
    assert response.status == 200


async def test_health(gateway: RunningGateway) -> None:
    for path in ("/health", "/health/ready", "/health/live"):
        response, _ = await gateway.get(path)
        assert response.status == 200


async def test_an_aborted_download_charges_what_was_taken(gateway: RunningGateway) -> None:
    content = bytes(64 * 1024 * 1024)
    entry = await gateway.catalogue.file(content)
    async with aiohttp.ClientSession() as session:
        response = await session.get(
            f"{gateway.url}{entry.stac}", headers={"Authorization": f"Bearer {token(SCIENTIST)}"}
        )
        taken = len(await response.content.readexactly(1_000_000))
        response.close()
    for _ in range(50):
        downloads, octets = await gateway.usage(SCIENTIST)
        if octets < len(content):
            break
        await asyncio.sleep(0.1)
    assert downloads == 1
    assert taken <= octets < len(content)
