"""The STAC API over HTTP: roots and tenants, pages, errors, and what callers are shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.api import stac_catalogue
from gateway.api.stac_catalogue import MOST_ITEM_LINKS, showing
from gateway.identity.principal import Principal
from gateway.locations import Location
from gateway.stac.documents import CONFORMANCE
from gateway.stac.model import Page
from gateway.stac.searching import Searching
from storage_plugins.http.plugin import HttpStorage
from tests.credentials import new_key, shown_key
from tests.harness import ADMIN, OUTSIDER, SCIENCE, SCIENTIST, bearer, config_for, principal, running_gateway
from tests.proxy import counting_proxy
from tests.s3.strict import StrictS3
from tests.stac.conftest import BUCKET, DATASET, Archive, ArchiveFactory, Json, cog, fill, item
from tests.stac.offline import validate

STRANGER = principal("stranger", tenant="other")
OURS = re.compile(r'"href":"([^"]*)"')


def rels(document: Json) -> dict[str, str]:
    """The href of each relation; of several the last."""
    return {link["rel"]: link["href"] for link in document["links"]}


def hrefs(document: Json) -> set[str]:
    """Every href in a document, wherever."""
    return set(OURS.findall(json.dumps(document, separators=(",", ":"))))


async def test_the_landing_page_says_what_there_is(archive: Archive) -> None:
    url = archive.gateway.url
    for who, children in ((None, {"scenes", DATASET}), (SCIENTIST, {"scenes", "restricted", DATASET})):
        landing = await archive.json("/", who)
        validate(landing)
        assert landing["conformsTo"] == list(CONFORMANCE)
        assert await archive.json("/conformance", who) == {"conformsTo": list(CONFORMANCE)}
        found = {link["href"] for link in landing["links"] if link["rel"] == "child"}
        assert {urlsplit(one).path.rpartition("/")[2].replace("%3A", ":") for one in found} == children
        assert rels(landing)["self"] == rels(landing)["root"] == f"{url}/"
        response, _ = await archive.gateway.get("/api")
        (described,) = [link for link in landing["links"] if link["rel"] == "service-desc"]
        assert described["href"] == f"{url}/api"
        assert described["type"] == response.headers["Content-Type"]


async def test_every_link_is_absolute_and_keeps_to_the_root_by_which_one_came(archive: Archive) -> None:
    url = archive.gateway.url
    await archive.gateway.catalogue.tenant("other")
    listing = ("/", "/search", "/collections")
    for path in (*listing, "/collections/scenes", "/collections/scenes/items", "/collections/scenes/items/near"):
        asked = [(path, url), (f"/tenants/esa{path}", f"{url}/tenants/esa"), (f"{path}?scope=esa", url)]
        if path in listing:
            asked.append((f"{path}?scope=other", f"{url}/tenants/other"))
        for target, root in asked:
            document = await archive.json(target)
            abroad = {href for href in hrefs(document) if not f"{href}/".startswith(f"{root}/")}
            assert abroad <= {f"{url}/api", f"{url}/api.html", "s3://archive/far.tif"}, target
            assert not [href for href in hrefs(document) if "/tenants/" in href and root == url]
            assert rels(document)["self"].partition("?")[0] == f"{root}{path}"
            assert "scope" not in json.dumps(document["links"])


async def test_links_follow_the_public_url_and_the_prefix(archive_for: ArchiveFactory, strict: StrictS3) -> None:
    api = {"public_url": "https://data.example.org/archive", "stac_prefix": "/stac"}
    async with archive_for(strict.account, **api) as archive:
        strict.store.put(BUCKET, "far.tif", cog())
        await fill(archive)
        for path, root in (("/stac", "/stac"), ("/stac/", "/stac"), ("/stac/tenants/esa", "/stac/tenants/esa")):
            landing = await archive.json(path)
            assert rels(landing)["self"] == f"https://data.example.org/archive{root}/"
        response, _ = await archive.gateway.get("/collections")
        assert (response.status, response.content_type) == (404, "application/problem+json")
        found = await archive.json("/stac/tenants/esa/collections/scenes/items/near")
        href = f"https://data.example.org/archive{root}/collections/scenes/items/near/download/visual"
        assert found["assets"]["visual"]["href"] == href
        response, body = await archive.gateway.get(urlsplit(href).path.removeprefix("/archive"))
        assert (response.status, body) == (200, cog())


async def test_below_the_root_of_a_tenant_nobody_is_of_another(archive: Archive) -> None:
    await archive.gateway.catalogue.tenant("other")
    paths: tuple[str, ...] = (
        "",
        "/",
        "/conformance",
        "/collections",
        "/collections/scenes",
        "/collections/scenes/items",
        "/search",
    )
    paths += ("/collections/scenes/items/near", "/collections/scenes/items/near/download/visual")
    paths += ("/collections/scenes/license",)
    for path in paths:
        for tenant in ("esa", "ghost", "gh%00st", "gh%2Fost"):
            for who in (STRANGER, principal("far", role="INSTANCE_ADMIN", tenant="other")):
                status, error = await archive.refused(f"/tenants/{tenant}{path}", who)
                assert (status, error["code"]) == (404, "NotFound"), (tenant, path)
                assert error["description"].startswith("There is no tenant"), (tenant, path)
        response, _ = await archive.gateway.get(f"/tenants/esa{path}", SCIENTIST)
        assert response.status == 200, path
        response, _ = await archive.gateway.get(f"/tenants/esa{path}?scope=other")
        assert response.status == 200, "the path goes before ?scope="


async def test_a_tenant_that_does_not_exist_is_not_found(archive: Archive) -> None:
    for path in ("/tenants/ghost", "/tenants/ghost/collections", "/tenants/gh%00st", "/?scope=ghost"):
        status, error = await archive.refused(path)
        assert (status, set(error)) == (404, {"code", "description"})
    assert (await archive.refused("/tenants/ghost/collections/scenes"))[0] == 404
    assert (await archive.json("/tenants/ghost/search"))["features"] == []


async def test_without_a_default_tenant_one_names_it_or_shows_who_one_is(
    archive_for: ArchiveFactory, strict: StrictS3
) -> None:
    async with archive_for(strict.account, default_tenant=None) as archive:
        for path in ("/", "/conformance", "/collections", "/search", "/collections/scenes/items/near/download/visual"):
            response, body = await archive.gateway.get(path)
            assert (response.status, set(json.loads(body))) == (401, {"code", "description"})
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert (await archive.json("/", SCIENTIST))["id"] == "esa"
        assert rels(await archive.json("/?scope=esa"))["root"] == f"{archive.gateway.url}/tenants/esa/"
        assert rels(await archive.json("/", scope="esa"))["data"] == f"{archive.gateway.url}/tenants/esa/collections"


async def test_the_default_tenant_is_that_of_the_stac_api_alone(archive: Archive) -> None:
    for path in ("/me", "/quota", "/downloads/urn/files/00"):
        response, _ = await archive.gateway.get(path)
        assert response.status == 401, path


async def test_what_one_may_not_see_is_not_listed_and_refused_by_name(archive: Archive) -> None:
    for who, expected in ((None, 403), (OUTSIDER, 403), (SCIENTIST, 200), (ADMIN, 200), (STRANGER, 404)):
        for path in (
            "/collections/restricted",
            "/collections/restricted/items",
            "/collections/restricted/items/secret",
        ):
            response, body = await archive.gateway.get(path, who)
            assert response.status == expected, (who, path)
            if expected != 200:
                assert set(json.loads(body)) == {"code", "description"}
        found = await archive.json("/search?collections=restricted,scenes", who)
        seen = {"near", "far", "secret", "secret too"} if expected == 200 else {"near", "far"}
        assert {one["id"] for one in found["features"]} == (set() if who is STRANGER else seen)


async def test_an_api_key_is_good_for_the_catalogue_if_it_is_for_downloads(archive: Archive) -> None:
    url = f"{archive.gateway.url}/collections/restricted"
    for scopes, status in ((["download"], 200), (["quota"], 403)):
        key = await new_key(archive.gateway, SCIENTIST, scopes=scopes)
        fields = dict(shown_key(key["key"]))
        async with archive.gateway.session.get(url, headers=fields) as response:
            assert response.status == status


async def test_who_must_log_in_is_told_so(archive: Archive) -> None:
    secret = await archive.json("/collections/restricted/items/secret", SCIENTIST)
    validate(secret)
    assert secret["assets"]["visual"]["auth:refs"] == list(secret["properties"]["auth:schemes"])
    near = await archive.json("/collections/scenes/items/near", SCIENTIST)
    assert "auth:" not in json.dumps(near)
    scheme = secret["properties"]["auth:schemes"]["gateway_token"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    href = urlsplit(secret["assets"]["visual"]["href"]).path
    response, body = await archive.gateway.get(href, SCIENTIST)
    assert (response.status, body) == (200, b"secret")


async def test_no_document_names_a_path_of_this_machine(archive: Archive) -> None:
    item_of_disk = await archive.json("/collections/scenes/items/near")
    assert "alternate" not in json.dumps(item_of_disk)
    assert item_of_disk["assets"]["visual"]["file:size"] == len(cog())
    assert item_of_disk["assets"]["visual"]["file:checksum"].startswith("1220")
    for path in ("/", "/collections", "/search", f"/collections/{DATASET}/items/DATA-06", "/collections/scenes"):
        text = json.dumps(await archive.json(path, ADMIN))
        for leak in (str(archive.root), "./", "file:/", "near.tif", "secret-group"):
            assert leak not in text, (path, leak)


async def test_a_feature_of_regards_is_an_item_that_downloads(archive: Archive) -> None:
    found = await archive.json(f"/collections/{DATASET}/items/DATA-06")
    validate(found)
    assert found["properties"]["regards:instruments"] == "MSI"
    assert found["properties"]["cloud"] == {"cover": 3}
    response, body = await archive.gateway.get(urlsplit(found["assets"]["raw.dat"]["href"]).path)
    assert (response.status, body) == (200, b"123456")


async def test_what_lies_on_tape_can_be_ordered(archive: Archive) -> None:
    await archive.gateway.catalogue.connection.execute("UPDATE copies SET state = 'NEARLINE' WHERE storage = 'store'")
    found = await archive.json("/collections/scenes/items/far")
    validate(found)
    assert found["assets"]["visual"]["order:status"] == found["properties"]["order:status"] == "orderable"
    assert "order:" not in json.dumps(await archive.json("/collections/scenes/items/near"))


async def test_what_is_restored_says_until_when_it_can_be_had(archive: Archive) -> None:
    run = archive.gateway.catalogue.connection.execute
    await run("UPDATE copies SET state = 'NEARLINE' WHERE storage = 'store'")
    await run(
        """INSERT INTO restores (tenant_id, file_id, copy_id, storage, location, hours, state, restored_at, expires_at,
                                 ended_at)
           SELECT p.tenant_id, f.file_id, c.copy_id, c.storage, c.location, 24, asked.state, now(), asked.until,
                  CASE asked.state WHEN 'EXPIRED' THEN now() END
           FROM products p JOIN files f USING (product_id) JOIN copies c USING (file_id)
           CROSS JOIN (VALUES ('EXPIRED', timestamptz '2026-01-01Z'), ('RESTORED', '2099-01-01Z'))
                AS asked(state, until)
           WHERE p.provider_id = 'far'
           ORDER BY asked.state"""
    )
    for found in (
        await archive.json("/collections/scenes/items/far"),
        (await archive.json("/search?ids=far&collections=scenes"))["features"][0],
    ):
        validate(found)
        asset = found["assets"]["visual"]
        assert (asset["order:status"], asset["expires"]) == ("succeeded", "2099-01-01T00:00:00Z")
        assert found["properties"]["order:status"] == "succeeded"
    await run("UPDATE restores SET expires_at = '2026-11-01Z' WHERE state = 'RESTORED'")
    late = (await archive.json("/collections/scenes/items/far"))["assets"]["visual"]
    assert late["order:status"] == "orderable"
    assert "expires" not in late


async def test_by_setting_hrefs_lead_to_the_origin(archive_for: ArchiveFactory, strict: StrictS3) -> None:
    strict.store.put(BUCKET, "far.tif", cog())
    async with archive_for(strict.account, asset_href="origin") as archive:
        await fill(archive)
        ours = f"{archive.gateway.url}/collections/scenes/items/{{}}/download/visual"
        far = (await archive.json("/collections/scenes/items/far"))["assets"]["visual"]
        assert (far["href"], far["alternate"]) == ("s3://archive/far.tif", {"https": {"href": ours.format("far")}})
        near = (await archive.json("/collections/scenes/items/near"))["assets"]["visual"]
        assert (near["href"], "alternate" in near) == (ours.format("near"), False)


async def test_urls_of_servers_that_clients_are_never_led_to_are_not_told() -> None:
    private, public = (
        HttpStorage.from_options(name, {"hosts": [f"{name}.org"], "public": public})
        for name, public in (("inner", False), ("outer", True))
    )
    locations = {one.name: Location(one, tenants=frozenset({"*"})) for one in (private, public)}
    tells = showing(locations, "gateway").tells
    assert [tells(f"https://{host}.org/a") for host in ("inner", "outer", "unknown")] == [False, True, True]
    assert [tells(f"{scheme}://inner.org/a") for scheme in ("s3", "HTTPS")] == [True, False]
    assert not tells("https://inner.org/a/../b"), "malformed"
    assert not tells("/data/a")
    await private.close()
    await public.close()


async def test_pages_lead_on_and_back_by_links_alone(archive: Archive) -> None:
    many = [item(f"n{number}", "scenes", {}, day=10 + number) for number in range(5)]
    assert await archive.ingest(*many) == []
    for way in ("/search?", "/collections/scenes/items?", "/tenants/esa/search?collections=scenes&"):
        await walk(archive, f"{way}limit=2&bbox=10,40,12,41")


async def walk(archive: Archive, path: str) -> None:
    """See that pages from ``path`` on hold all scenes, and that one gets back."""
    seen: list[str] = []
    back: list[str] = []
    page = await archive.json(path)
    assert "prev" not in rels(page)
    while True:
        assert page["numberReturned"] == len(page["features"])
        seen += [one["id"] for one in page["features"]]
        if "next" not in rels(page):
            break
        page = await archive.json(rels(page)["next"])
        assert "token=" in rels(page)["self"]
    assert seen == ["n4", "n3", "n2", "n1", "n0", "far", "near"]
    while "prev" in rels(page):
        page = await archive.json(rels(page)["prev"])
        back = [one["id"] for one in page["features"]] + back
    assert back == seen[: len(back)] == seen[:6]


async def test_of_a_collection_that_is_named_twice_the_items_must_be_of_both(archive: Archive) -> None:
    for named, expected in (("scenes", 2), ("restricted,scenes", 2), ("restricted", 0)):
        found = await archive.json(f"/collections/scenes/items?collections={named}", SCIENTIST)
        assert found["numberReturned"] == expected


async def test_pages_of_a_post_lead_on_by_bodies(archive: Archive) -> None:
    body: Json = {"collections": ["scenes"], "limit": 1, "sortby": [{"field": "datetime", "direction": "asc"}]}
    seen: list[str] = []
    while True:
        page = await post(archive, "/tenants/esa/search", body)
        seen += [one["id"] for one in page["features"]]
        if "next" not in rels(page):
            break
        (link,) = [one for one in page["links"] if one["rel"] == "next"]
        assert (link["method"], link["href"]) == ("POST", f"{archive.gateway.url}/tenants/esa/search")
        body = link["body"]
    assert seen == ["near", "far"]


async def post(archive: Archive, path: str, body: object, who: Principal | None = None, *, status: int = 200) -> Json:
    fields = {} if who is None else bearer(who)
    async with archive.gateway.session.post(f"{archive.gateway.url}{path}", json=body, headers=fields) as response:
        found: Json = await response.json()
        assert response.status == status, found
        assert response.content_type == ("application/geo+json" if status == 200 else "application/json")
        return found


async def test_a_body_may_hold_whatever_json_can_say(archive: Archive) -> None:
    """It comes back in the link to the next page, whatever is in it."""
    half = "\ud800"
    for body in (
        {"limit": 1, "collections": ["scenes", half]},
        {"limit": 1, "note": {half: [half]}},
        {"limit": 1, "intersects": {"type": "Point", "coordinates": [11, 40.5], "note": half}},
    ):
        page = await post(archive, "/search", body)
        assert page["numberReturned"] == 1
        (link,) = [one for one in page["links"] if one["rel"] == "next"]
        assert {name: link["body"][name] for name in body} == body
        assert (await post(archive, "/search", link["body"]))["numberReturned"] == 1
    for text in ('{"note": 1e999}', '{"limit": 1, "note": NaN}', f'{{"note": {"[" * 150}{"]" * 150}}}'):
        async with archive.gateway.session.post(f"{archive.gateway.url}/search", data=text.encode()) as response:
            assert (response.status, set(await response.json())) == (400, {"code", "description"}), text[:30]


async def test_collections_are_listed_page_by_page(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = await archive.gateway.catalogue.group("pages", public=True)
    for name in ("ü/1", "a&b", "zz"):
        await archive.gateway.catalogue.grant(name, everyone)
    whole = await archive.json("/collections")
    every = [one["id"] for one in whole["collections"]]
    assert {"ü/1", "a&b", "zz"} < set(every)
    assert "next" not in [link["rel"] for link in whole["links"]]
    for query, most in (("?limit=2", 2), ("?limit=1&note=x", 1), ("", 3)):
        if not query:
            monkeypatch.setattr("gateway.stac.search.MOST_COLLECTIONS", 3)
        found, path = [], f"/collections{query}"
        while path:
            page = await archive.json(path)
            links = {link["rel"]: link["href"] for link in page["links"]}
            assert links["self"] == f"{archive.gateway.url}{path}"
            assert 0 < len(page["collections"]) <= most
            found += [one["id"] for one in page["collections"]]
            path = links.get("next", "").removeprefix(archive.gateway.url)
        assert found == every
    assert len((await archive.json("/collections?limit=99999999999"))["collections"]) == 3
    for wrong in ("limit=0", "limit=x", "limit=1&limit=2", "token=%00"):
        async with archive.gateway.session.get(f"{archive.gateway.url}/collections?{wrong}") as response:
            assert (response.status, wrong.partition("=")[0] in (await response.json())["description"]) == (400, True)


async def test_a_collection_is_not_kept_waiting_for_links_to_items(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float | None] = []
    searched = Searching.search

    async def search(self: Searching, *args: Any, seconds: float | None = None) -> Page:
        asked.append(seconds)
        return await searched(self, *args, seconds=seconds)

    monkeypatch.setattr(Searching, "search", search)
    await archive.json("/collections/scenes")
    assert asked == [0]


async def test_what_is_asked_wrongly_is_refused_by_name(archive: Archive) -> None:
    for path, name in (
        ("/search?bbox=1,2,3", "bbox"),
        ("/search?limit=0", "limit"),
        ("/collections/scenes/items?datetime=yesterday", "datetime"),
        ("/search?token=x", "token"),
        ("/collections/scenes/items?eo:cloud_cover=5", "eo:cloud_cover"),
        ("/collections/scenes/items?filter=x", "filter"),
    ):
        status, error = await archive.refused(path)
        assert (status, set(error)) == (400, {"code", "description"})
        assert name in error["description"]
    wrong: list[object] = [[], {"limit": "many"}, {"ids": "one"}, "text"]
    for body in wrong:
        assert set(await post(archive, "/search", body, status=400)) == {"code", "description"}


async def test_media_types_and_caching(archive: Archive) -> None:
    for path, media_type in (
        ("/", "application/json"),
        ("/conformance", "application/json"),
        ("/collections", "application/json"),
        ("/collections/scenes", "application/json"),
        ("/collections/scenes/items", "application/geo+json"),
        ("/collections/scenes/items/near", "application/geo+json"),
        ("/search", "application/geo+json"),
    ):
        response, body = await archive.gateway.get(path)
        head, nothing = await archive.gateway.request("HEAD", path)
        assert response.headers["Content-Type"] == head.headers["Content-Type"] == media_type
        assert (head.status, nothing) == (200, b"")
        if "features" not in json.loads(body):
            assert head.headers["Content-Length"] == str(len(body))
        assert response.headers["Cache-Control"] == "private, no-cache"


async def test_a_small_collection_links_to_its_items(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def items(document: Json) -> list[str]:
        return [link["href"] for link in document["links"] if link["rel"] == "item"]

    url = f"{archive.gateway.url}/collections/scenes/items"
    assert items(await archive.json("/collections/scenes")) == [f"{url}/far", f"{url}/near"]
    assert MOST_ITEM_LINKS > 2
    monkeypatch.setattr(stac_catalogue, "MOST_ITEM_LINKS", 1)
    assert items(await archive.json("/collections/scenes")) == []


async def test_a_policy_that_cannot_decide_hides_no_collection(archive: Archive) -> None:
    """Its items are not listed then: nobody can say that there are none."""
    await archive.gateway.catalogue.connection.execute(
        """UPDATE access_rights SET metadata_level = 'CUSTOM_ACCESS', policy = 'properties', policy_options = '{"x": 1}'
           FROM datasets d WHERE d.dataset_id = access_rights.dataset_id AND d.collection_id = 'restricted'"""
    )
    found = await archive.json("/collections/restricted", SCIENTIST)
    assert "item" not in rels(found)
    assert (await archive.refused("/collections/restricted/items", SCIENTIST))[0] == 503


async def test_large_pages_are_made_beside_the_loop_and_are_the_same(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_time(page: Json) -> Json:
        return {name: value for name, value in page.items() if name != "timeStamp"}

    for path in ("/search", "/collections", "/collections/scenes/items/near"):
        monkeypatch.setattr(stac_catalogue, "SMALL", 10**9)
        expected = without_time(await archive.json(path))
        monkeypatch.setattr(stac_catalogue, "SMALL", 0)
        assert without_time(await archive.json(path)) == expected


async def test_a_licence_is_linked_and_accepted_at_the_root_by_which_one_came(archive: Archive) -> None:
    await archive.gateway.catalogue.licence("restricted", "https://esa.org/terms")
    found = await archive.json("/tenants/esa/collections/restricted", SCIENTIST)
    assert rels(found)["license"] == "https://esa.org/terms"
    path = "/tenants/esa/collections/restricted/items/secret/download/visual"
    status, error = await archive.refused(path, SCIENTIST)
    links: dict[str, Any] = {link["rel"]: link["href"] for link in error["links"]}
    assert status == 423
    assert links["accept"] == f"{archive.gateway.url}{path}?acceptLicense=true"
    response, body = await archive.gateway.get(f"{path}?acceptLicense=true", SCIENTIST)
    assert (response.status, body) == (200, b"secret")


@pytest.mark.usefixtures("no_background")
async def test_without_postgresql_the_catalogue_is_unavailable_and_not_empty(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    async with (
        counting_proxy(database) as (postgres, dsn),
        running_gateway(config_for(dsn, redis_url, tmp_path), tmp_path) as gateway,
    ):
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group(SCIENCE))
        await gateway.catalogue.file(b"content")
        paths = ["/", "/collections", "/collections/restricted", "/collections/restricted/items", "/search"]
        paths += ["/collections/restricted/items/item"]
        for path in paths:
            assert (await gateway.get(path, SCIENTIST))[0].status == 200
        postgres.shut = True
        postgres.cut()
        for path in paths:
            response, body = await gateway.get(path, SCIENTIST)
            assert (response.status, set(json.loads(body))) == (503, {"code", "description"}), path
            assert response.headers["Retry-After"].isdigit()
        assert (await gateway.get("/conformance", SCIENTIST))[0].status == 200
        postgres.shut = False
        for path in paths:
            assert (await gateway.get(path, SCIENTIST))[0].status == 200
