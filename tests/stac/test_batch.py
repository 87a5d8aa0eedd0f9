"""``POST /download``: many files at once, as links or as a Metalink, and what it costs."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gateway.quotas.limits import Rule
from tests.canaries import CANARIES
from tests.credentials import LINK_SECRET, Answer, send
from tests.harness import FAR, SCIENTIST, SECRET, Entry, RunningGateway, bearer
from tests.proxy import counting_proxy
from tests.stac.doors import Doors, far_file, fresh

LINKS = {"jwt": [{"algorithms": ["HS256"], "secret": SECRET}], "links": {"secret": LINK_SECRET, "lifetime": 600}}
METALINK = "application/metalink4+xml"
NAMESPACE = {"m": "urn:ietf:params:xml:ns:metalink"}


@pytest.fixture
async def linking(doors: Doors) -> AsyncIterator[RunningGateway]:
    disk = {"name": "disk", "plugin": "local", "tenants": ["*"], "root": str(doors.root)}
    async with fresh(doors, identity=LINKS, storage=[disk, FAR]) as running:
        yield running


def by_asset(entry: Entry) -> dict[str, str]:
    return {"collection": entry.collection, "item": entry.item, "asset": entry.asset}


def by_checksum(entry: Entry) -> dict[str, str]:
    return {"product": entry.product, "checksum": entry.checksum}


async def ask(gateway: RunningGateway, body: object, headers: dict[str, str] | None = None, query: str = "") -> Answer:
    fields = bearer(SCIENTIST) if headers is None else headers
    status, answered, told = await send(gateway, "POST", f"/download{query}", fields, body)
    for one in told.get("files", []) if isinstance(told, dict) else []:
        if "?link=" in one.get("href", ""):
            CANARIES.hide("token of a link", one["href"].rpartition(".")[2])
    return status, answered, told


async def test_each_file_has_a_link_of_its_own_that_downloads_it(linking: RunningGateway) -> None:
    gateway = linking
    entries = [await gateway.catalogue.file(b"%d" % number * 9, item=f"item-{number}") for number in range(3)]
    asked = [by_asset(entries[0]), by_checksum(entries[1]), by_asset(entries[2])]
    status, fields, told = await ask(gateway, asked)
    assert (status, fields["Cache-Control"]) == (200, "no-store")
    for request, entry, one in zip(asked, entries, told["files"], strict=True):
        assert {name: one.pop(name) for name in request} == request
        href, expires = one.pop("href"), one.pop("expires")
        assert one == {
            "name": f"{entry.item}.tif",
            "type": "image/tiff",
            "size": 9,
            "digests": {"sha-256": entry.checksum},
        }
        assert expires.endswith("Z")
        status, _, received = await send(gateway, "GET", href)
        assert (status, received) == (200, entry.content)
        token = href.partition("?")[2]
        others = [path for other in entries if other is not entry for path in (other.stac, other.regards)]
        assert {(await send(gateway, "GET", f"{path}?{token}"))[0] for path in others} == {401}


async def test_asking_charges_nothing_and_downloading_does(linking: RunningGateway) -> None:
    entry = await linking.catalogue.file(b"content")
    await linking.catalogue.rule(Rule("user", SCIENTIST.email or "", False, "downloads", "total", 1))
    for _ in range(3):
        _, _, told = await ask(linking, [by_asset(entry)])
    assert await linking.usage(SCIENTIST) == (0, 0)
    assert (await send(linking, "GET", told["files"][0]["href"]))[0] == 200
    assert await linking.usage(SCIENTIST) == (1, 7)


async def test_what_is_refused_is_told_file_by_file(linking: RunningGateway) -> None:
    gateway = linking
    good = await gateway.catalogue.file(b"good")
    licensed = await gateway.catalogue.file(b"licensed", collection="licensed")
    await gateway.catalogue.grant("licensed", await gateway.catalogue.group("science"))
    await gateway.catalogue.licence("licensed")
    nearline = await gateway.catalogue.file(b"nearline", item="nearline", state="NEARLINE")
    secret = await gateway.catalogue.file(b"secret", collection="secret")
    await gateway.catalogue.dataset("secret")
    missing = {**by_asset(good), "asset": "no\x00ne"}
    body = [by_asset(one) for one in (good, licensed, nearline, secret)] + [missing, by_asset(good)]
    status, _, told = await ask(gateway, body)
    errors = [one.get("error", {}) for one in told["files"]]
    assert (status, [one.get("status") for one in errors]) == (200, [None, 423, 410, 403, 404, None])
    assert [{name: one[name] for name in ("collection", "item", "asset")} for one in told["files"]] == body
    assert told["files"][0] == told["files"][5]
    accept = {link["rel"]: link["href"] for link in errors[1]["links"]}["accept"]
    assert accept == f"{gateway.url}{licensed.stac}?acceptLicense=true"
    assert (await send(gateway, "GET", accept, bearer(SCIENTIST)))[2] == b"licensed"
    assert "error" not in (await ask(gateway, [by_asset(licensed)]))[2]["files"][0]


@pytest.mark.usefixtures("no_background")
async def test_all_is_looked_up_in_one_round_trip(doors: Doors) -> None:
    async with counting_proxy(doors.database) as (proxy, dsn), fresh(doors, dsn, identity=LINKS) as gateway:
        entries = [await gateway.catalogue.file(b"%d" % number, item=f"item-{number}") for number in range(100)]
        body = [by_asset(one) for one in entries]
        # The first makes the user's key, and prepares the statements.
        assert (await ask(gateway, body[:1]))[0] == 200
        found = []
        for size in (1, 100):
            before = proxy.round_trips
            _, _, told = await ask(gateway, body[:size])
            assert all("href" in one for one in told["files"])
            found.append(proxy.round_trips - before)
        assert found == [2, 2], "the key of links, and the files"


async def test_an_anonymous_caller_gets_addresses_that_work_for_him(linking: RunningGateway) -> None:
    gateway = linking
    await gateway.catalogue.grant("open", await gateway.catalogue.group("everyone", public=True))
    await gateway.catalogue.limit("anonymous")
    entry = await gateway.catalogue.file(b"open", collection="open")
    restricted = await gateway.catalogue.file(b"closed")
    asked = [by_asset(entry), by_checksum(entry), by_asset(restricted)]
    for root, query in (("", "?scope=esa"), ("/tenants/esa", "")):
        status, _, told = await send(gateway, "POST", f"{root}/download{query}", {}, asked)
        assert status == 200
        by_stac, by_regards, other = told["files"]
        assert (by_stac["href"], by_stac["expires"]) == (f"{gateway.url}/tenants/esa{entry.stac}", None)
        assert by_regards["href"] == f"{gateway.url}{entry.regards}?scope=esa"
        for one in (by_stac, by_regards):
            assert (await send(gateway, "GET", one["href"]))[2] == b"open"
        assert other["error"]["status"] == 403
    assert (await ask(gateway, [by_asset(entry)], {}))[0] == 401


async def test_links_keep_to_the_root_by_which_one_came(linking: RunningGateway) -> None:
    entry = await linking.catalogue.file(b"content")
    await linking.catalogue.licence("restricted")
    fields = bearer(SCIENTIST)
    _, _, told = await send(linking, "POST", "/tenants/esa/download", fields, [by_asset(entry)])
    accept = {link["rel"]: link["href"] for link in told["files"][0]["error"]["links"]}["accept"]
    assert accept == f"{linking.url}/tenants/esa{entry.stac}?acceptLicense=true"
    assert (await send(linking, "GET", accept, fields))[0] == 200
    _, _, told = await send(linking, "POST", "/tenants/esa/download", fields, [by_asset(entry)])
    href = told["files"][0]["href"]
    CANARIES.hide("token of a link", href.rpartition(".")[2])
    assert href.startswith(f"{linking.url}/tenants/esa{entry.stac}?link=")
    assert (await send(linking, "GET", href))[2] == b"content"
    status, _, told = await send(linking, "POST", "/tenants/other/download", fields, [by_asset(entry)])
    assert (status, told["code"]) == (404, "NotFound")


async def test_without_links_users_get_addresses(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    _, _, told = await ask(gateway, [by_asset(entry)])
    assert (told["files"][0]["href"], told["files"][0]["expires"]) == (f"{gateway.url}{entry.stac}", None)


async def test_links_end_and_are_bound_as_is_asked(linking: RunningGateway) -> None:
    entry = await linking.catalogue.file(b"content")
    end = "2999-01-01T00:00:00Z"
    status, _, told = await ask(linking, {"files": [by_asset(entry)], "expires": end})
    assert (status, "'expires' is too far away" in told["description"]) == (400, True)
    _, _, told = await ask(linking, {"files": [by_asset(entry)], "network": "192.0.2.0/24"})
    assert (await send(linking, "GET", told["files"][0]["href"]))[0] == 401


BAD_BODIES: list[object] = [
    None,
    [],
    {},
    {"files": []},
    {"files": {}},
    [1],
    [{}],
    [{"collection": "c", "item": "i"}],
    [{"collection": "c", "item": "i", "asset": 1}],
    [{"collection": "c", "item": "i", "asset": "a", "more": 1}],
    [{"product": "p"}],
    {"files": [{"product": "p", "checksum": "c"}], "downloads": 1},
    [{"product": "p", "checksum": str(number)} for number in range(501)],
]


async def test_a_bad_body_is_an_exception(linking: RunningGateway) -> None:
    for body in BAD_BODIES:
        status, fields, told = await ask(linking, body)
        assert (status, told["code"], fields["Content-Type"]) == (400, "BadRequest", "application/json"), body


async def test_a_body_that_is_too_long(linking: RunningGateway) -> None:
    status, _, told = await ask(linking, [{"product": "p" * 500, "checksum": str(number)} for number in range(400)])
    assert (status, told["code"]) == (413, "ContentTooLarge")


async def test_who_has_too_many_groups_for_a_link_is_told_so_for_each_file(linking: RunningGateway) -> None:
    entry = await linking.catalogue.file(b"content")
    many = dataclasses.replace(SCIENTIST, groups=("science", *(f"group-{number:04}" for number in range(400))))
    _, _, told = await ask(linking, [by_asset(entry)], bearer(many))
    assert "too many groups" in told["files"][0]["error"]["description"]


async def test_without_postgresql_all_is_503(doors: Doors) -> None:
    async with counting_proxy(doors.database) as (proxy, dsn), fresh(doors, dsn) as gateway:
        proxy.shut = True
        proxy.cut()
        status, fields, told = await ask(gateway, [{"product": "p", "checksum": "c"}])
        proxy.shut = False
        assert (status, told["code"], "Retry-After" in fields) == (503, "CatalogUnavailable", True)


def entries_of(document: bytes) -> dict[str, dict[str, Any]]:
    root = ET.fromstring(document)
    assert root.tag == "{urn:ietf:params:xml:ns:metalink}metalink"
    return {
        str(file.get("name")): {
            "size": file.findtext("m:size", namespaces=NAMESPACE),
            "hash": {one.get("type"): one.text for one in file.findall("m:hash", NAMESPACE)},
            "url": file.findtext("m:url", namespaces=NAMESPACE),
        }
        for file in root.findall("m:file", NAMESPACE)
    }


async def metalink(gateway: RunningGateway, body: object) -> tuple[int, dict[str, str], Any]:
    return await ask(gateway, body, {**bearer(SCIENTIST), "Accept": f"{METALINK}, application/json;q=0.5"})


async def test_aria2_downloads_and_verifies_by_the_metalink(linking: RunningGateway, tmp_path: Path) -> None:
    gateway = linking
    entries = [
        await gateway.catalogue.file(b"%d" % number * 70_000, item=f"item-{number}", name="B01.tif")
        for number in range(3)
    ]
    status, fields, document = await metalink(gateway, [by_asset(one) for one in entries])
    assert (status, fields["Content-Type"], fields["Cache-Control"]) == (200, METALINK, "no-store")
    (tmp_path / "files.meta4").write_bytes(document)
    process = await asyncio.create_subprocess_exec(
        "aria2c", "--no-conf", "--quiet", "--dir", str(tmp_path / "out"), str(tmp_path / "files.meta4"),
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await asyncio.wait_for(process.wait(), 30) == 0
    for entry in entries:
        assert (tmp_path / "out" / entry.item / "B01.tif").read_bytes() == entry.content


async def test_a_metalink_is_of_all_files_or_refused(linking: RunningGateway) -> None:
    good = await linking.catalogue.file(b"good")
    missing = {**by_asset(good), "asset": "none"}
    status, fields, told = await metalink(linking, [by_asset(good), missing])
    assert (status, fields["Content-Type"], told["code"]) == (404, "application/json", "NotFound")
    assert told["description"].startswith("1 of 2 files cannot be had. ")
    assert [one["asset"] for one in told["files"]] == ["none"]
    document = (await metalink(linking, [by_asset(good), by_checksum(good), by_asset(good)]))[2]
    assert len(entries_of(document)) == 2


async def test_a_metalink_tells_what_is_known(linking: RunningGateway) -> None:
    entry = await far_file(linking, b"far away", item='<item> & "more"')
    found = entries_of((await metalink(linking, [by_asset(entry)]))[2])
    ((name, told),) = found.items()
    assert name == "_item_ & _more_/_item_ & _more_.tif"
    assert (told["size"], told["hash"]) == ("8", {"sha-256": hashlib.sha256(b"far away").hexdigest()})
    assert (await send(linking, "GET", told["url"]))[0] == 307


async def test_json_is_what_programs_get(linking: RunningGateway) -> None:
    entry = await linking.catalogue.file(b"good")
    for accept in ("*/*", "application/json", f"application/json, {METALINK}", f"{METALINK};q=0"):
        _, fields, told = await ask(linking, [by_asset(entry)], {**bearer(SCIENTIST), "Accept": accept})
        assert fields["Content-Type"] == "application/json"
        assert told["files"][0]["name"] == "item.tif"
