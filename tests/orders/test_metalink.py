"""Whole orders by metalink: what REGARDS serves and RFC 5854, what a token opens, and what aria2 makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import pytest

from gateway.db import Database
from gateway.errors import unavailable
from gateway.identity.principal import Principal
from gateway.orders import contents
from gateway.orders.tokens import OrderTokens
from tests.archive.test_metalink import aria2
from tests.canaries import CANARIES
from tests.harness import ADMIN, OUTSIDER, SCIENTIST
from tests.orders.depot import Depot, Received, content_of, running_depot
from tests.orders.support import SECRET
from tests.s3.strict import StrictS3

PUBLIC = "/user/orders/metalink/download"
NAMESPACE = {".metalink": "{http://www.metalinker.org/}", ".meta4": "{urn:ietf:params:xml:ns:metalink}"}
V4 = "application/metalink4+xml"

each_version = pytest.mark.parametrize("version", NAMESPACE)


@pytest.fixture
async def depot(database: str, redis_url: str, tmp_path: Path, strict: StrictS3) -> AsyncIterator[Depot]:
    async with running_depot(database, redis_url, tmp_path / "disk", strict) as opened:
        yield opened


async def stocked(depot: Depot, sizes: tuple[int, ...] = (10, 3_000_000, 0)) -> dict[str, bytes]:
    """Files on the disk and in the object store; gives what the order of them all must be."""
    holds = {}
    for number, size in enumerate(sizes):
        holds[f"{number}.bin"] = content = content_of(size, number)
        await depot.put(content, name=f"{number}.bin", in_cloud=bool(number % 2))
    return holds


async def metalink(
    depot: Depot, order_id: int, who: Principal = SCIENTIST, extension: str = "", accept: str = "*/*"
) -> Received:
    return await depot.receive(f"/user/orders/{order_id}/metalink/download{extension}", who, Accept=accept)


async def public(depot: Depot, token: str, extension: str = "") -> Received:
    return await depot.receive(f"{PUBLIC}{extension}?orderToken={token}&scope=esa", None)


async def token_of(depot: Depot, order_id: int) -> str:
    status, told = await depot.ask("GET", f"/user/orders/{order_id}/token")
    assert status == 200
    token: str = told["orderToken"]
    CANARIES.hide(f"signature of {token.rpartition('.')[0]}", token.rpartition(".")[2])
    return token


def files(document: bytes, version: str) -> list[ET.Element]:
    return list(ET.fromstring(document).iter(f"{NAMESPACE[version]}file"))


def urls(document: bytes, version: str) -> list[str]:
    return [str(url.text) for file in files(document, version) for url in file.iter(f"{NAMESPACE[version]}url")]


async def test_version_3_is_what_is_served_as_documented(depot: Depot) -> None:
    holds = await stocked(depot)
    order_id = await depot.order()
    found = await metalink(depot, order_id, accept="application/json")
    assert found.status == 200
    assert found.fields["Content-Type"] == "application/metalink+xml"
    disposition = found.fields["Content-Disposition"]
    assert disposition.startswith('attachment; filename="order_20')
    assert disposition.endswith('.metalink"')
    assert found.fields["Expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert found.fields["Cache-Control"] == "no-store"
    listed = files(found.body, ".metalink")
    space = NAMESPACE[".metalink"]
    assert {
        str(file.get("name")): (
            int(str(file.findtext(f"{space}size"))),
            file.findtext(f"{space}verification/{space}hash"),
        )
        for file in listed
    } == {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in holds.items()}
    for url, content in zip(urls(found.body, ".metalink"), holds.values(), strict=True):
        assert url.startswith(f"{depot.gateway.url}/orders/public/files/")
        received = await depot.receive(url.removeprefix(depot.gateway.url), None)
        assert (received.status, received.body) == (200, content), "its link needs no credential"


@pytest.mark.parametrize(
    ("extension", "accept", "version"),
    [
        ("", "*/*", ".metalink"),
        ("", V4, ".meta4"),
        ("", f"application/metalink+xml, {V4};q=0.9", ".metalink"),
        (".meta4", "application/metalink+xml", ".meta4"),
        (".metalink", V4, ".metalink"),
    ],
)
async def test_the_version_goes_by_extension_and_then_by_accept(
    depot: Depot, extension: str, accept: str, version: str
) -> None:
    await stocked(depot, (10,))
    order_id = await depot.order()
    token = await token_of(depot, order_id)
    for found in (
        await metalink(depot, order_id, extension=extension, accept=accept),
        await depot.receive(f"{PUBLIC}{extension}?orderToken={token}", None, Accept=accept),
    ):
        assert found.status == 200
        assert [file.get("name") for file in files(found.body, version)] == ["0.bin"]
        assert found.fields["Content-Disposition"].endswith(f'{version}"')
        assert "Accept" in found.fields["Vary"]


async def test_version_4_has_hash_size_and_priority(depot: Depot) -> None:
    (content,) = (await stocked(depot, (10,))).values()
    found = await metalink(depot, await depot.order(), extension=".meta4")
    (file,) = files(found.body, ".meta4")
    space = NAMESPACE[".meta4"]
    shown = [(element.tag.removeprefix(space), element.attrib, element.text) for element in file]
    (url,) = urls(found.body, ".meta4")
    assert shown == [
        ("identity", {}, "0.bin"),
        ("size", {}, "10"),
        ("hash", {"type": "sha-256"}, hashlib.sha256(content).hexdigest()),
        ("url", {"priority": "1"}, url),
    ]


async def test_links_are_of_one_order_and_end_with_it(depot: Depot) -> None:
    await stocked(depot, (10,))
    order_id, other = await depot.order(), await depot.order()
    (url,) = urls((await metalink(depot, order_id)).body, ".metalink")
    path, token = urlsplit(url).path, parse_qs(urlsplit(url).query)["orderToken"][0]

    async def opens(path: str = path) -> int:
        return (await depot.receive(f"{path}?orderToken={token}", None)).status

    assert await opens() == 200
    assert await opens(f"/orders/public/files/{(other << 24) + 1}") == 404
    assert (await depot.receive(path.replace("public/", ""), None)).status == 401
    await depot.connection.execute("UPDATE orders SET expires_at = now() WHERE order_id = $1", order_id)
    assert await opens() == 401
    assert (await public(depot, token)).status == 401


async def test_a_token_opens_it_and_a_wrong_one_is_401(depot: Depot) -> None:
    await stocked(depot, (10, 20))
    order_id = await depot.order()
    token = await token_of(depot, order_id)
    found = await public(depot, token)
    assert (found.status, len(files(found.body, ".metalink"))) == (200, 2)
    assert all(url.endswith(f"?orderToken={token}") for url in urls(found.body, ".metalink"))
    made = OrderTokens(SECRET.encode()).make
    for wrong in ("", "x", token[:-1], made(order_id, 1), OrderTokens(b"another secret" * 4).make(order_id, 0)):
        refused = await public(depot, wrong)
        assert (refused.status, "WWW-Authenticate" in refused.fields) == (401, True), wrong
    for query in ("", "?scope=esa", f"?orderToken={token}&orderToken={token}"):
        assert (await depot.receive(f"{PUBLIC}{query}", SCIENTIST)).status == 401
    assert (await depot.ask("DELETE", f"/user/orders/{order_id}/token"))[0] == 204
    assert (await public(depot, token)).status == 401, "revoked"


async def test_an_order_that_has_none_is_404(depot: Depot) -> None:
    await stocked(depot, (10,))
    order_id = await depot.order()
    token = await token_of(depot, order_id)

    def missing(number: int) -> Any:
        return {"messages": [f"Entity fr.cnes.regards.modules.order.domain.Order with id : {number} doesn't exist"]}

    unknown = await metalink(depot, 999)
    assert (unknown.status, unknown.told()) == (404, missing(999))
    foreign = await metalink(depot, order_id, OUTSIDER)
    assert (foreign.status, foreign.told()) == (404, missing(order_id))
    assert (await depot.receive(f"/user/orders/{order_id}/metalink/download", None)).status == 401
    for status in ("PENDING", "FAILED", "EXPIRED", "DELETED"):
        await depot.connection.execute("UPDATE orders SET status = $1", status)
        for found in (await metalink(depot, order_id), await public(depot, token)):
            assert (found.status, found.told()) == (404, missing(order_id)), status
    removed = OrderTokens(SECRET.encode()).make(999, 0)
    assert (await public(depot, removed)).told() == missing(999)
    await depot.connection.execute("UPDATE orders SET status = 'DONE'")
    await depot.connection.execute("UPDATE order_files SET state = 'ERROR'")
    assert (await metalink(depot, order_id)).status == 404, "no file, no document"


async def test_an_administrator_gets_links_that_need_his_own_credential(depot: Depot) -> None:
    await stocked(depot, (10,))
    order_id = await depot.order()
    (url,) = urls((await metalink(depot, order_id, ADMIN)).body, ".metalink")
    assert url == f"{depot.gateway.url}/orders/files/{(order_id << 24) + 1}"


async def test_files_that_cannot_be_had_are_left_out_and_names_are_safe(
    database: str, redis_url: str, tmp_path: Path, strict: StrictS3
) -> None:
    async with running_depot(database, redis_url, tmp_path / "disk", strict, product_folders=True) as depot:
        for item, name in (("a", "same.bin"), ("b", "same.bin"), ("c", "../../up.bin"), ("d", "gone.bin")):
            await depot.put(name.encode(), item=item, name=name)
        order_id = await depot.order()
        await depot.connection.execute(
            "UPDATE order_files SET state = 'ERROR' WHERE order_file_id = $1", (order_id << 24) + 4
        )
        await depot.connection.execute(
            "UPDATE order_files SET state = 'PENDING' WHERE order_file_id = $1", (order_id << 24) + 2
        )
        for extension in NAMESPACE:
            found = await metalink(depot, order_id, extension=extension)
            names = [str(file.get("name")) for file in files(found.body, extension)]
            assert names[:2] == ["a/same.bin", "b/same.bin"]
            assert len(names) == 3
            assert ".." not in names[2].split("/")
        later = urls(found.body, ".meta4")[1]
        assert (await depot.receive(later.removeprefix(depot.gateway.url), None)).status == 202


async def test_one_that_cannot_be_told_to_its_end_is_no_whole_document(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stocked(depot, (10, 20))
    order_id = await depot.order()

    async def page_by_page(database: Database, order_id: int) -> AsyncIterator[Any]:
        async for page in real(database, order_id):
            yield page
            raise unavailable("The database does not answer.")

    real = contents.pages
    monkeypatch.setattr(contents, "pages", page_by_page)
    found = await metalink(depot, order_id)
    assert found.status == 200
    assert not found.ended
    with pytest.raises(ET.ParseError):
        ET.fromstring(found.body)


@each_version
async def test_aria2_downloads_an_order_and_verifies_it(depot: Depot, tmp_path: Path, version: str) -> None:
    holds = await stocked(depot, (10, 3_000_000, 70_000, 1))
    order_id = await depot.order()
    document = tmp_path / f"order{version}"
    document.write_bytes((await metalink(depot, order_id, extension=version)).body)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    assert await aria2(document, downloads) == 0
    assert {path.name: path.read_bytes() for path in downloads.iterdir()} == holds
    await depot.become(order_id, *["DOWNLOADED"] * 4)
    assert await depot.idle() == (4, sum(map(len, holds.values())))


@each_version
async def test_aria2_sees_a_wrong_hash(depot: Depot, tmp_path: Path, version: str) -> None:
    """By the gateway's own Digest before the first byte; by the bytes, where that is of another algorithm."""
    await stocked(depot, (300_000,))
    order_id = await depot.order()
    body = (await metalink(depot, order_id, extension=version)).body.decode()
    right = hashlib.sha256(content_of(300_000, 0)).hexdigest()
    assert body.count(right) == 1
    document = tmp_path / f"order{version}"
    document.write_text(body.replace(right, hashlib.sha256(b"other").hexdigest()))
    assert await aria2(document, tmp_path) == 1
    body = body.replace('"sha-256"', '"md5"').replace('"sha256"', '"md5"')
    document.write_text(body.replace(right, hashlib.md5(b"other").hexdigest()))
    assert await aria2(document, tmp_path) == 32, "a checksum error"
