"""The licence dialogue: who may accept a licence how, and where the links of a refusal lead."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest
from yarl import URL

from gateway.identity.chain import IdentityChain
from gateway.identity.principal import Credential, Principal
from gateway.identity.shown import Shown
from gateway.licence_links import licence_field
from tests.api.licensing import LICENCE, acceptances, send, tenant_licence
from tests.api.support import call
from tests.credentials import basic, new_key
from tests.credentials import send as shown
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway, bearer, config_for, principal, running_gateway


@pytest.fixture
def by_any_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bearer token says counts as said by the credential that the field Test-Credential names."""
    identify = IdentityChain.identify

    async def as_shown(chain: IdentityChain, shown: Shown) -> Principal:
        who = await identify(chain, shown)
        credential = cast("Credential", shown.headers.get("Test-Credential", who.credential))
        return dataclasses.replace(who, credential=credential)

    monkeypatch.setattr(IdentityChain, "identify", as_shown)


async def statuses(gateway: RunningGateway, paths: Sequence[str], who: Principal | None, **fields: str) -> set[int]:
    return {(await gateway.get(path, who, **fields))[0].status for path in paths}


@pytest.mark.usefixtures("by_any_credential")
async def test_only_a_credential_of_the_user_himself_accepts_by_a_download(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    await made.licence("open")
    paths = [f"{path}?acceptLicense=true" for path in (entry.stac, entry.regards)]
    for credential in ("session", "link", "none"):
        assert await statuses(gateway, paths, OUTSIDER, Test_Credential=credential) == {423}, credential
    assert await statuses(gateway, [f"{path}&scope=esa" for path in paths], None) == {423}
    for path in paths:
        assert (await gateway.request("HEAD", path, OUTSIDER))[0].status == 423
        assert (await gateway.get(f"{path}&dryRun=true", OUTSIDER))[0].status == 423
    assert not await acceptances(gateway)
    assert await statuses(gateway, paths[:1], OUTSIDER, Test_Credential="token") == {200}
    assert await statuses(gateway, paths[1:], SCIENTIST, Test_Credential="api key") == {200}
    assert [(row["email"], row["credential"]) for row in await acceptances(gateway)] == [
        (OUTSIDER.email, "token"),
        (SCIENTIST.email, "api key"),
    ]
    # Whoever has accepted may come by whatever he likes.
    assert await statuses(gateway, [entry.stac], OUTSIDER, Test_Credential="session") == {200}
    assert await gateway.usage(None) == (0, 0)


async def test_an_api_key_accepts_unless_another_site_has_a_browser_send_it(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    licence = await made.licence("open")
    key = (await new_key(gateway, SCIENTIST))["key"]
    path = f"{entry.stac}?acceptLicense=true"
    for site in ("cross-site", "same-site", "something new"):
        fields = {**basic("", key), "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
        assert (await shown(gateway, "GET", path, fields))[0] == 423
    assert not await acceptances(gateway)
    forms = (
        basic("", key),
        {**basic(key, ""), "Sec-Fetch-Site": "same-origin"},
        {**basic("", key), "Sec-Fetch-Site": "none"},
        {"X-API-Key": key, "Sec-Fetch-Site": "cross-site"},
        {"Authorization": f"Bearer {key}", "Sec-Fetch-Site": "cross-site"},
    )
    for version, fields in enumerate(forms, 1):
        assert (await shown(gateway, "GET", path, fields))[0] == 200, fields
        await made.connection.execute("UPDATE licences SET version = version + 1 WHERE licence_id = $1", licence)
        assert [(row["version"], row["credential"]) for row in await acceptances(gateway)][-1] == (version, "api key")


@pytest.mark.usefixtures("by_any_credential")
async def test_who_may_accept_by_put(gateway: RunningGateway) -> None:
    await gateway.catalogue.file(b"data", collection="open")
    await tenant_licence(gateway)
    paths = ("/license", "/collections/open/license")
    for path in paths:
        response, _ = await send(gateway, "PUT", f"{path}?scope=esa", None)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await send(gateway, "PUT", path, OUTSIDER, Test_Credential="link"))[0].status == 403
    assert not await acceptances(gateway)
    response, _ = await send(gateway, "PUT", paths[1], OUTSIDER, Test_Credential="session")
    assert response.status == 200
    assert [(row["email"], row["credential"]) for row in await acceptances(gateway)] == [(OUTSIDER.email, "session")]


@pytest.mark.usefixtures("by_any_credential")
async def test_behind_a_proxy_links_are_those_that_clients_see(database: str, redis_url: str, tmp_path: Path) -> None:
    server = {"port": 0, "shutdown_timeout": 1, "trusted_proxies": ["127.0.0.1"]}
    for public_url in ("https://data.example.org/archive", None):
        api = {"stac_prefix": "/stac", "regards_prefix": "/api"} | ({"public_url": public_url} if public_url else {})
        config = config_for(database, redis_url, tmp_path, server=server, api=api)
        base = public_url or "https://data.example.org"
        async with running_gateway(config, tmp_path) as gateway:
            made = gateway.catalogue
            item = f"item {len(base)}"
            entry = await made.file(b"data", collection="open/sea", item=item)
            await made.grant("open/sea", await made.group("everyone", public=True))
            if not public_url:
                await made.connection.execute("DELETE FROM licence_acceptances")
            else:
                await made.licence("open/sea", LICENCE)
            proxied = {
                "X_Forwarded_Proto": "https",
                "X_Forwarded_Host": "data.example.org",
                "X_Forwarded_For": "1.2.3.4",
            }
            response, body = await send(gateway, "GET", f"/stac{entry.stac}?x=%2F&dryRun=true", OUTSIDER, **proxied)
            assert response.status == 423
            stac = f"{base}/stac/collections/open%2Fsea/items/{quote(item)}/download/data"
            assert body["accept"] == f"{stac}?x=/&acceptLicense=true"
            assert body["links"] == [
                {"rel": "license", "href": LICENCE},
                {"rel": "accept", "href": body["accept"], "method": "GET"},
            ]
            fields = {**proxied, "Test_Credential": "session"}
            response, body = await send(gateway, "GET", f"/stac{entry.stac}", OUTSIDER, **fields)
            assert body["accept"] == f"{base}/stac/collections/open%2Fsea/license"
            assert body["links"][1] == {"rel": "accept", "href": body["accept"], "method": "PUT"}
            put = body["accept"].removeprefix(base)
            response, _ = await send(gateway, "PUT", put, OUTSIDER, **fields)
            assert response.status == 200
            (row,) = await acceptances(gateway)
            assert row["address"] == "1.2.3.4"


async def test_the_links_of_a_refusal_in_the_shape_of_each_family(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    await made.licence("open", LICENCE)
    response, body = await send(gateway, "GET", f"{entry.regards}?isContentInline=true", OUTSIDER)
    assert (response.status, response.content_type) == (423, "application/json")
    # Decoded as REGARDS does it, since a colon needs no encoding.
    accept = f"{gateway.url}/downloads/{entry.product}/files/{entry.checksum}?isContentInline=true&acceptLicense=true"
    assert body == {"license": LICENCE, "accept": accept}
    response, body = await send(gateway, "GET", entry.stac, OUTSIDER)
    assert set(body) == {"code", "description", "license", "accept", "links"}
    assert body["code"] == "LicenseNotAccepted"
    assert [link["rel"] for link in body["links"]] == ["license", "accept"]
    response, received = await gateway.get(accept.removeprefix(gateway.url), OUTSIDER)
    assert (response.status, received) == (200, b"data")
    assert response.headers["Content-Disposition"].startswith("inline")


@pytest.mark.parametrize("item", ["a/b", "a?b#c", "a b", "100%", "a%2Fb", "a\r\nX: y", "Île", "a&b=c"])
async def test_an_accept_link_leads_to_the_same_file_whatever_it_is_called(gateway: RunningGateway, item: str) -> None:
    made = gateway.catalogue
    entry = await made.described(b"data", collection="open", item=item)
    stat = (await made.file(b"data", collection="open", item="other")).path
    await made.copy(entry, "disk", str(stat.relative_to(made.root)), None)
    await made.licence("open", LICENCE)
    response, body = await send(gateway, "GET", entry.stac, OUTSIDER)
    assert response.status == 423
    accept = body["accept"]
    assert accept.startswith(f"{gateway.url}/collections/open/items/")
    assert not set(accept) & set(" \r\n")
    async with gateway.session.get(URL(accept, encoded=True), headers=bearer(OUTSIDER)) as accepted:
        assert (accepted.status, await accepted.read()) == (200, b"data")


async def test_an_acceptance_of_what_one_may_not_see_or_of_what_is_not_there_is_none(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data")
    await made.licence("restricted")
    missing = entry.regards.replace(entry.checksum, "0" * 64)
    for path, who, status in (
        (entry.stac, OUTSIDER, 403),
        (entry.regards, OUTSIDER, 403),
        (missing, SCIENTIST, 404),
        (entry.stac.replace("/item/", "/none/"), SCIENTIST, 404),
        (entry.stac, principal("scientist", "science", tenant="cnes"), 404),
    ):
        assert (await gateway.get(f"{path}?acceptLicense=true", who))[0].status == status
    assert not await acceptances(gateway)


async def test_the_first_acceptance_of_a_version_stays(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"data", collection="open")
    licence = await made.licence("open")
    await asyncio.gather(*(gateway.get(f"{entry.stac}?acceptLicense=true", OUTSIDER) for _ in range(8)))
    (first,) = await acceptances(gateway)
    await call(gateway, "PUT", "/collections/open/license", OUTSIDER)
    assert await acceptances(gateway) == [first]
    await made.connection.execute("UPDATE licences SET version = 2 WHERE licence_id = $1", licence)
    assert (await gateway.get(entry.stac, OUTSIDER))[0].status == 423


def test_a_link_field_cannot_be_broken_out_of() -> None:
    assert licence_field(LICENCE) == {"Link": f'<{LICENCE}>; rel="license"'}
    for url in ("https://h/>; rel=evil, <", "https://h/\r\nX: y", "https://h/ x", "https://h/Î", 'https://h/"', ""):
        assert licence_field(url) == {}, url
