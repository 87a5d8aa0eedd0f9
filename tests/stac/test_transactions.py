"""The STAC API Transaction extension: what is pushed is in the catalogue whole and recorded, or not at all."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from gateway.catalog.ingest import ingest
from gateway.identity.principal import Principal
from gateway.locations import Location
from storage_plugins.local import LocalStorage
from tests.api.support import INSTANCE_ADMIN, PROJECT_ADMIN
from tests.harness import OUTSIDER, TENANT, RunningGateway, bearer, config_for, principal, running_gateway

FAR = principal("far", role="PROJECT_ADMIN", tenant="other")
Json = dict[str, Any]


@dataclasses.dataclass
class Push:
    """Pushes into a gateway with a storage of the tenant, and two that tenants share."""

    gateway: RunningGateway
    root: Path

    async def __call__(
        self, method: str, path: str, body: object = None, who: Principal = PROJECT_ADMIN, **fields: str
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = bearer(who) | {name.replace("_", "-"): value for name, value in fields.items()}
        async with self.gateway.session.request(method, f"{self.gateway.url}{path}", data=data, headers=headers) as got:
            text = await got.read()
        return got.status, json.loads(text) if text else None, got

    def file(self, name: str, content: bytes = b"content", below: str = "own") -> str:
        """The href of a new file."""
        path = self.root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return str(path)

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.gateway.catalogue.connection.fetch(query)]

    async def items(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT provider_id FROM products ORDER BY 1")]

    async def changes(self) -> list[tuple[Any, ...]]:
        return await self.rows("SELECT action, object FROM changes ORDER BY change_id")


@pytest.fixture
async def push(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Push]:
    storages: list[Json] = [
        {"name": "own", "tenants": [TENANT], "root": str(tmp_path / "own")},
        {"name": "divided", "tenants": ["*"], "prefixes": ["{tenant}/"], "root": str(tmp_path / "divided")},
        {"name": "shared", "tenants": ["*"], "root": str(tmp_path / "shared")},
        {"name": "theirs", "tenants": ["other"], "root": str(tmp_path / "theirs")},
    ]
    for storage in storages:
        Path(storage["root"]).mkdir()
    config = config_for(database, redis_url, tmp_path, storage=[{"plugin": "local", **one} for one in storages])
    async with running_gateway(config, tmp_path) as gateway:
        await gateway.catalogue.tenant()
        await gateway.catalogue.tenant("other")
        made = Push(gateway, tmp_path)
        assert (await made("POST", "/collections", collection("scenes")))[0] == 201
        yield made


def collection(identifier: str, **more: object) -> Json:
    described = {"stac_version": "1.1.0", "description": "d", "license": "other", "extent": {}, "links": []}
    return {"type": "Collection", "id": identifier, **described, **more}


def item(identifier: str = "a", href: str | None = None, **more: object) -> Json:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": identifier,
        "geometry": {"type": "Point", "coordinates": [1, 2]},
        "properties": {"datetime": "2024-01-02T03:04:05Z", "title": "T"},
        "links": [],
        "assets": {} if href is None else {"data": {"href": href, "title": "D"}},
        **more,
    }


ITEMS = "/collections/scenes/items"


async def test_an_item_that_is_pushed_can_be_downloaded(push: Push) -> None:
    href = push.file("a b.tif", b"pushed")
    status, told, answer = await push("POST", ITEMS, item("ä/1", href))
    assert (status, told["collection"], told["assets"]["data"]["href"]) == (201, "scenes", href)
    assert answer.headers["Location"] == f"{push.gateway.url}{ITEMS}/{quote('ä/1', safe='')}"
    assert (answer.headers["Content-Type"], answer.headers["ETag"][0]) == ("application/geo+json", '"')
    catalogue = push.gateway.catalogue
    await catalogue.grant("scenes", await catalogue.group("everyone", public=True))
    path = f"{ITEMS}/{quote('ä/1', safe='')}/download/data"
    response, body = await push.gateway.get(path, OUTSIDER)
    assert (response.status, body) == (200, b"pushed")
    assert await push.rows("SELECT size, storage, location FROM copies") == [(6, "own", "a b.tif")]


async def test_a_collection_is_made_once_replaced_and_deleted(push: Push) -> None:
    assert (await push("POST", "/collections", collection("scenes")))[0] == 409
    status, told, answer = await push("POST", "/collections", collection("new", title="New"))
    assert (status, told["title"]) == (201, "New")
    assert answer.headers["Location"] == f"{push.gateway.url}/collections/new"
    status, told, _ = await push("PUT", "/collections/new", collection("new", title="Newer"))
    assert (status, told["title"]) == (200, "Newer")
    assert await push.rows("SELECT title FROM datasets WHERE collection_id = 'new'") == [("Newer",)]
    assert (await push("DELETE", "/collections/new"))[0] == 204
    assert (await push("DELETE", "/collections/new"))[0] == 404
    assert (await push("PUT", "/collections/new", collection("new")))[0] == 404
    assert await push.changes() == [
        ("collection.create", "scenes"),
        ("collection.create", "new"),
        ("collection.change", "new"),
        ("collection.delete", "new"),
    ]


async def test_a_collection_with_items_stays_and_rights_go_with_one_without(push: Push) -> None:
    catalogue = push.gateway.catalogue
    await catalogue.grant("scenes", await catalogue.group("science"))
    licence = await catalogue.licence("scenes")
    await catalogue.connection.execute(
        "INSERT INTO licence_acceptances (licence_id, email, version) VALUES ($1, 'a@x', 1)", licence
    )
    await push("POST", ITEMS, item())
    status, told, _ = await push("DELETE", "/collections/scenes")
    assert (status, told["code"], told["description"]) == (
        409, "Conflict", "The collection 'scenes' has items; delete them first.",
    )  # fmt: skip
    assert (await push("DELETE", f"{ITEMS}/a"))[0] == 204
    assert (await push("DELETE", "/collections/scenes"))[0] == 204
    assert await push.rows("SELECT count(*) FROM access_rights") == [(0,)]
    assert await push.rows("SELECT count(*) FROM licence_acceptances") == [(1,)]
    [(detail,)] = await push.rows("SELECT detail FROM changes WHERE action = 'collection.delete'")
    assert json.loads(detail) == {"rightsOf": ["science"]}


async def test_what_is_not_there_is_404(push: Push) -> None:
    for method, body in (("PUT", item("none")), ("PATCH", {}), ("DELETE", None)):
        for path in (f"{ITEMS}/none", "/collections/none/items/none"):
            of_none = body and {**body, "collection": path.split("/")[2]}
            status, told, _ = await push(method, path, of_none)
            assert status == 404, (method, path, told)
    for method in ("PATCH", "DELETE"):
        assert (await push(method, f"{ITEMS}/no%00ne", {} if method == "PATCH" else None))[0] == 404
    assert (await push("POST", "/collections/none/items", item()))[0] == 404
    assert await push.items() == []


async def test_an_item_is_made_once_replaced_and_deleted(push: Push) -> None:
    one, two = push.file("1.tif"), push.file("2.tif")
    assert (await push("POST", ITEMS, item("a", one)))[0] == 201
    status, told, _ = await push("POST", ITEMS, item("a", two))
    assert (status, told["description"]) == (409, "There is an item 'a' already.")
    status, told, _ = await push("PUT", f"{ITEMS}/a", item("a", two, properties={"datetime": "2025-01-01T00:00:00Z"}))
    assert (status, told["properties"]) == (200, {"datetime": "2025-01-01T00:00:00Z"})
    assert await push.rows("SELECT location FROM copies") == [("2.tif",)]
    assert (await push("DELETE", f"{ITEMS}/a"))[0] == 204
    assert (await push("DELETE", f"{ITEMS}/a"))[0] == 404
    assert (await push.items(), await push.rows("SELECT FROM copies")) == ([], [])
    assert await push.changes() == [
        ("collection.create", "scenes"),
        ("item.create", "scenes/a"),
        ("item.change", "scenes/a"),
        ("item.delete", "scenes/a"),
    ]
    [(actor, address)] = await push.rows("SELECT DISTINCT actor, address FROM changes")
    assert (actor, address) == (PROJECT_ADMIN.email, "127.0.0.1")


async def test_an_item_collection_is_taken_whole_or_not_at_all(push: Push) -> None:
    def several(*items: Json) -> Json:
        return {"type": "FeatureCollection", "features": list(items)}

    many = [item(f"i{number:03}", push.file(f"{number}.tif")) for number in range(150)]
    status, told, answer = await push("POST", ITEMS, several(*many))
    assert (status, told, "Location" in answer.headers) == (201, None, False)
    assert len(await push.items()) == 150
    assert len(await push.changes()) == 151
    for wrong, expected in (
        (several(item("x"), item("i007")), 409),
        (several(item("x"), item("x")), 400),
        (several(item("x"), item("y", "/etc/passwd")), 400),
        (several(item("x"), item("y", collection="others")), 400),
        (several(item("x"), {"type": "Feature"}), 400),
        (several(), 400),
        ({"type": "FeatureCollection"}, 400),
    ):
        assert (await push("POST", ITEMS, wrong))[0] == expected
    assert (len(await push.items()), len(await push.changes())) == (150, 151)


async def test_hrefs_lead_to_where_the_tenants_own_files_are(push: Push) -> None:
    for below, who, status in (
        ("own", PROJECT_ADMIN, 201),
        ("divided/esa", PROJECT_ADMIN, 201),
        ("divided/other", PROJECT_ADMIN, 400),
        ("shared", PROJECT_ADMIN, 400),
        ("theirs", PROJECT_ADMIN, 400),
        ("elsewhere", PROJECT_ADMIN, 400),
        ("shared", INSTANCE_ADMIN, 201),
        ("theirs", INSTANCE_ADMIN, 400),
    ):
        hrefs = [push.file("a.tif", below=below), f"file://{push.file('b.tif', below=below)}"]
        for number, href in enumerate(hrefs):
            identifier = f"{below} {who.role} {number}"
            found, told, _ = await push("POST", ITEMS, item(identifier, href), who)
            assert found == status, (identifier, told)
            assert (identifier in await push.items()) == (status == 201)


async def test_other_hrefs_are_refused_with_the_asset_named(push: Push) -> None:
    push.file("a.tif")
    web = ["https://elsewhere.example/a.tif", "s3://bucket/key", "ftp://x/a", "//h/a"]
    for href in ["a.tif", "../own/a.tif", "", 7, *web]:
        status, told, _ = await push("POST", ITEMS, item(assets={"data": {"href": href}}))
        assert status == 400, href
        assert told["description"].startswith("The Item 'a' is not taken: asset 'data'")
    assert await push.items() == []


async def test_what_is_pushed_must_be_what_the_path_says(push: Push) -> None:
    rows = "SELECT properties, p.body, d.body FROM products p JOIN datasets d USING (dataset_id)"
    await push("POST", ITEMS, item())
    before = await push.rows(rows)
    of_item: list[object] = [
        item("b"),
        item("a", collection="others"),
        collection("a"),
        {**item("a"), "entityType": "DATA"},
        [item("a")],
        item("a", properties={}),
        item("a", properties={"datetime": "2024-01-02T03:04:05Z", "x": "\0"}),
        b'{"type": "Feature", "type": "Feature"}',
        b"{",
        b'{"type": "Feature", "x": ' + b"[" * 500 + b"]" * 500 + b"}",
        json.dumps(item("a", x=77)).replace("77", "NaN").encode(),
    ]
    of_collection = [collection("other"), item("scenes"), {"type": "Collection", "id": "scenes"}]
    sent = [(f"{ITEMS}/a", body) for body in of_item] + [("/collections/scenes", body) for body in of_collection]
    for path, body in sent:
        status, told, _ = await push("PUT", path, body)
        assert (status, set(told)) == (400, {"code", "description"}), (body, told)
    assert (await push.rows(rows), len(await push.changes())) == (before, 2)


async def test_the_id_and_collection_of_the_path_are_those_of_a_partial_item(push: Push) -> None:
    await push("POST", ITEMS, item())
    partial = item()
    del partial["id"], partial["assets"]
    status, told, _ = await push("PUT", f"{ITEMS}/a", partial)
    assert (status, told["id"], told["collection"], told["assets"]) == (200, "a", "scenes", {})


async def test_a_patch_changes_what_it_names_alone(push: Push) -> None:
    one, two = push.file("1.tif"), push.file("2.tif")
    await push("POST", ITEMS, item("a", one, note={"x": 1, "y": 2}))
    patch = {"properties": {"title": None, "gsd": 10}, "note": {"y": None}, "assets": {"more": {"href": two}}}
    status, told, _ = await push("PATCH", f"{ITEMS}/a", patch)
    assert (status, told["properties"]) == (200, {"datetime": "2024-01-02T03:04:05Z", "gsd": 10})
    assert (told["note"], set(told["assets"])) == ({"x": 1}, {"data", "more"})
    assert told["geometry"] == {"type": "Point", "coordinates": [1, 2]}
    files = await push.rows("SELECT asset_key, location FROM copies JOIN files USING (file_id) ORDER BY 1")
    assert files == [("data", "1.tif"), ("more", "2.tif")]
    status, told, _ = await push("PATCH", f"{ITEMS}/a", {"assets": {"data": None}})
    assert (status, set(told["assets"])) == (200, {"more"})
    for wrong in ({"id": "b"}, {"collection": "others"}, {"type": "Other"}, {"properties": None}, [1], None):
        status, told, _ = await push("PATCH", f"{ITEMS}/a", json.dumps(wrong).encode())
        assert status == 400, (wrong, told)


async def test_a_patch_keeps_what_is_known_of_files_that_it_does_not_name(push: Push) -> None:
    """What was ingested with a relative href, and was verified, cannot be pushed like that."""
    path = Path(push.file("1.tif"))
    (path.parent / "item.json").write_text(json.dumps(item("a", "./1.tif", collection="scenes")))
    storage = LocalStorage("own", path.parent)
    location = Location(storage, tenants=frozenset({TENANT}))
    connection = push.gateway.catalogue.connection
    summary = await ingest(
        connection,
        tenant=TENANT,
        paths=[path.parent / "item.json"],
        locations=[location],
        compute_checksums=True,
        on_event=lambda _: None,
    )
    await storage.close()
    assert (summary.items.accepted, summary.rejected) == (1, 0)
    query = "SELECT f.checksum, f.crc32, c.verified_version, c.location FROM copies c JOIN files f USING (file_id)"
    before = await push.rows(query)
    path.unlink()
    status, told, _ = await push("PATCH", f"{ITEMS}/a", {"properties": {"title": "Other"}})
    assert (status, told["assets"]["data"]["href"]) == (200, "./1.tif")
    assert await push.rows(query) == before
    assert before[0][2] is not None


async def test_restored_copies_stay_while_their_file_is_the_same(push: Push) -> None:
    """Those in the cache are no copies of the catalogue: a push neither names them nor takes them for its own."""
    one, two = push.file("1.tif"), push.file("2.tif", b"other")
    await push("POST", ITEMS, item("a", one))
    await push.rows(
        """INSERT INTO copies (file_id, storage, location, state, size, version, restored_until, entry_id)
           SELECT file_id, 'cache', 'esa/1', 'NEARLINE', 7, 'v', now() + interval '1 day', 7 FROM files RETURNING 1"""
    )
    query = "SELECT storage, location, entry_id, restored_until > now() FROM copies ORDER BY copy_id"
    before = await push.rows(query)
    assert len(before) == 2
    assert (await push("PATCH", f"{ITEMS}/a", {"properties": {"title": "Other"}}))[0] == 200
    assert await push.rows(query) == before
    assert (await push("PUT", f"{ITEMS}/a", item("a", one)))[0] == 200
    assert await push.rows(query) == before
    assert (await push("PUT", f"{ITEMS}/a", item("a", two)))[0] == 200
    assert [row[1] for row in await push.rows(query)] == ["2.tif"]


async def test_if_match_lets_only_those_change_who_saw_what_is_there(push: Push) -> None:
    _, _, made = await push("POST", ITEMS, item())
    first = made.headers["ETag"]
    status, _, changed = await push("PATCH", f"{ITEMS}/a", {"properties": {"n": 1}}, If_Match=first)
    second = changed.headers["ETag"]
    assert (status, first != second) == (200, True)
    for method, body in (("PATCH", {}), ("PUT", item()), ("DELETE", None)):
        for old in (first, f"W/{second}", "nonsense", '"x", "y"'):
            assert (await push(method, f"{ITEMS}/a", body, If_Match=old))[0] == 412
    assert (await push("PUT", f"{ITEMS}/a", item(), If_Match=f'"x", {second}'))[0] == 200
    assert (await push("DELETE", f"{ITEMS}/a", If_Match="*"))[0] == 204
    _, _, made = await push("PUT", "/collections/scenes", collection("scenes"))
    assert (await push("DELETE", "/collections/scenes", If_Match=first))[0] == 412
    assert (await push("DELETE", "/collections/scenes", If_Match=made.headers["ETag"]))[0] == 204


async def test_whoever_reads_learns_what_if_match_takes(push: Push) -> None:
    """Else only those who wrote last could see to it that they overwrite nothing."""
    await push("POST", ITEMS, item())
    for path, body in (("/collections/scenes", collection("scenes")), (f"{ITEMS}/a", item())):
        seen = [(await push("GET", path))[2].headers["ETag"] for _ in range(2)]
        assert seen[0] == seen[1]
        status, _, changed = await push("PUT", path, body, If_Match=seen[0])
        assert (status, changed.headers["ETag"]) == (200, (await push("GET", path))[2].headers["ETag"])
        assert (await push("PUT", path, body, If_Match=seen[0]))[0] == 412


async def test_a_body_that_cannot_be_read_is_400(push: Push) -> None:
    await push("POST", ITEMS, item())
    deep = {"properties": json.loads('{"x":' * 700 + "1" + "}" * 700)}
    assert (await push("PATCH", f"{ITEMS}/a", deep))[0] == 400
    assert (await push("PATCH", f"{ITEMS}/a", b'{"properties": {"x": 1e999}}'))[0] == 400
    for coding in ("gzip", "deflate"):
        assert (await push("POST", ITEMS, b"this is not packed", Content_Encoding=coding))[0] == 400


async def test_the_first_and_the_last_moment_that_there_are_are_dates(push: Push) -> None:
    """Catalogues have them where they do not know a time; neither is infinite, nor no date."""
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    dates = {"first": first, "last": last, "now": "2024-01-01T00:00:00Z"}
    for name, date in dates.items():
        status, _, _ = await push("POST", ITEMS, item(name, properties={"datetime": date}))
        assert (status, name) == (201, name)
        shown = (await push("GET", f"{ITEMS}/{name}"))[1]
        assert shown["properties"]["datetime"] == date
    ever = {"datetime": None, "start_datetime": first, "end_datetime": last}
    assert (await push("POST", ITEMS, item("ever", properties=ever)))[0] == 201
    for asked, expected in (
        (f"datetime={first}", ["ever", "first"]),
        (f"datetime={last}", ["last", "ever"]),
        (f"datetime={first}/..&sortby=datetime", ["first", "ever", "now", "last"]),
        (f"datetime=../{last}", ["last", "now", "ever", "first"]),
        ("sortby=datetime", ["first", "ever", "now", "last"]),
    ):
        found: list[str] = []
        url = f"/search?{asked}&limit=1"
        while url and len(found) < 10:
            _, page, _ = await push("GET", url)
            found += [one["id"] for one in page["features"]]
            url = next((one["href"].partition("/search")[2] for one in page["links"] if one["rel"] == "next"), "")
            url = url and f"/search{url}"
        assert (asked, found) == (asked, expected)


async def test_what_no_url_can_lead_to_is_refused(push: Push) -> None:
    """Clients take dot segments out of paths: such an item could be neither read nor deleted."""
    for name in (".", ".."):
        for path, body in (
            ("/collections", collection(name)),
            (ITEMS, item(name)),
            (ITEMS, item(assets={name: {"href": push.file("a.tif")}})),
        ):
            status, told, _ = await push("POST", path, body)
            assert (status, "to which no URL can lead" in told["description"]) == (400, True), (name, told)


async def test_many_who_push_at_once_all_have_their_way_or_a_409(push: Push) -> None:
    answers = await asyncio.gather(*(push("POST", ITEMS, item(f"i{number % 10}")) for number in range(30)))
    assert sorted(status for status, _, _ in answers) == [201] * 10 + [409] * 20
    patches = await asyncio.gather(*(push("PATCH", f"{ITEMS}/i1", {"properties": {f"p{n}": n}}) for n in range(4)))
    done = {f"p{n}" for n, (status, _, _) in enumerate(patches) if status == 200}
    [(properties,)] = await push.rows("SELECT properties FROM products WHERE provider_id = 'i1'")
    assert done
    assert {name for name in json.loads(properties) if name.startswith("p")} == done


async def test_while_an_ingest_is_under_way_a_push_is_asked_to_come_again(
    push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.catalog.transactions.transactions.TURN_SECONDS", 0.1)
    connection = push.gateway.catalogue.connection
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(x'494E47'::int, hashtext('esa'))")
        status, told, answer = await push("POST", ITEMS, item())
    assert (status, told["code"], answer.headers["Retry-After"]) == (503, "IngestUnderWay", "30")
    assert (await push("POST", ITEMS, item()))[0] == 201


async def test_a_storage_that_does_not_answer_is_503_and_nothing_is_written(
    push: Push, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("gateway.catalog.ingest.asking.TIMEOUT", 0.1)
    monkeypatch.setattr(LocalStorage, "stat", hang)
    status, told, _ = await push("POST", ITEMS, item("a", push.file("1.tif")))
    assert (status, told["description"]) == (
        503, "A storage of these files does not answer at the moment; try again.",
    )  # fmt: skip
    assert (await push.items(), len(await push.changes())) == ([], 1)


async def test_a_size_that_the_storage_contradicts_is_400(push: Push) -> None:
    asset = {"href": push.file("1.tif", b"12345"), "file:size": 4}
    status, told, _ = await push("POST", ITEMS, item(assets={"data": asset}))
    assert status == 400
    assert "the catalogue says 4 bytes" in told["description"]
    assert str(push.root) not in told["description"]


async def test_administrators_push_into_their_own_tenant_alone(push: Push) -> None:
    await push("POST", ITEMS, item())
    for method, path, body in (
        ("PUT", f"{ITEMS}/a", item()),
        ("PATCH", f"{ITEMS}/a", {}),
        ("DELETE", f"{ITEMS}/a", None),
        ("POST", ITEMS, item("b")),
        ("PUT", "/collections/scenes", collection("scenes")),
        ("DELETE", "/collections/scenes", None),
    ):
        assert (await push(method, path, body, FAR))[0] == 404
        assert (await push(method, f"{path}?tenant=esa", body, FAR))[0] == 404
        assert (await push(method, path, body, OUTSIDER))[0] == 403
    # The same names in another tenant are other things.
    assert (await push("POST", "/collections", collection("scenes"), FAR))[0] == 201
    assert (await push("POST", ITEMS, item(), FAR))[0] == 201
    assert (await push("DELETE", f"{ITEMS}/a?tenant=other", None, INSTANCE_ADMIN))[0] == 204
    assert await push.items() == ["a"]


async def test_below_the_root_of_a_tenant_the_path_names_it(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_gateway(config_for(database, redis_url, tmp_path), tmp_path) as gateway:
        push = Push(gateway, tmp_path)
        for tenant in (TENANT, "other"):
            await gateway.catalogue.tenant(tenant)
        status, _, answer = await push("POST", "/tenants/esa/collections", collection("scenes"))
        assert (status, answer.headers["Location"]) == (201, f"{gateway.url}/tenants/esa/collections/scenes")
        assert (await push("POST", f"/tenants/esa{ITEMS}", item()))[0] == 201
        for tenant in ("other", "ghost"):
            status, told, _ = await push("POST", f"/tenants/{tenant}/collections", collection("x"))
            assert (status, told["description"]) == (404, f"There is no tenant {tenant!r}.")
        assert (await push("POST", "/tenants/other/collections", collection("x"), INSTANCE_ADMIN))[0] == 404
        assert (await push("POST", "/collections?tenant=other", collection("x"), INSTANCE_ADMIN))[0] == 201
        rows = "SELECT name, collection_id FROM datasets JOIN tenants USING (tenant_id) ORDER BY 1"
        assert await push.rows(rows) == [("esa", "scenes"), ("other", "x")]


async def test_bodies_have_a_bound(push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.stac_transactions.MOST_BYTES", 200_000)
    assert (await push("POST", ITEMS, item(note="x" * 150_000)))[0] == 201
    assert (await push("POST", ITEMS, item("b", note="x" * 250_000)))[0] == 413
    monkeypatch.setattr("gateway.catalog.transactions.entities.MOST_ITEMS", 2)
    several = {"type": "FeatureCollection", "features": [item(str(number)) for number in range(3)]}
    assert (await push("POST", ITEMS, several))[0] == 400


async def test_a_push_reads_the_catalogue_by_index_alone(push: Push) -> None:
    """Whatever it holds: a plan that reads it from end to end would make each push slower than the one before."""
    many = [item(f"i{number}", push.file(f"{number}.tif")) for number in range(300)]
    assert (await push("POST", ITEMS, {"type": "FeatureCollection", "features": many}))[0] == 201
    before = await _scans(push)
    async with asyncio.timeout(10):
        # What the gateway has of the sessions that were ended may still be one when it is used.
        while (await push("POST", ITEMS, item("first")))[0] == 503:
            await asyncio.sleep(0.01)
    for number in range(5):
        assert (await push("POST", ITEMS, item(f"j{number}", push.file(f"j{number}.tif"))))[0] == 201
        assert (await push("PATCH", f"{ITEMS}/j{number}", {"properties": {"n": 1}}))[0] == 200
        assert (await push("DELETE", f"{ITEMS}/i{number}"))[0] == 204
    assert await _scans(push) == before


async def _scans(push: Push) -> list[tuple[Any, ...]]:
    """How often tables were read from end to end. What a session has read is known for sure once it has ended."""
    sessions = (
        "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'download-gateway-writing'"
    )
    await push.rows(f"SELECT pg_terminate_backend(pid) {sessions}")
    async with asyncio.timeout(10):
        while await push.rows(f"SELECT 1 {sessions}"):
            await asyncio.sleep(0.01)
    return await push.rows(
        "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('products', 'files', 'copies') ORDER BY 1"
    )
