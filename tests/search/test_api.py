"""REGARDS' search of products over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gateway.identity.principal import Principal
from tests.harness import OUTSIDER, SCIENTIST, Catalogue, Entry, RunningGateway, config_for, principal, running_gateway
from tests.rights.support import describe, grant
from tests.search.test_limits import BOMBS, texts

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
PATH = "/engines/legacy/dataobjects"
ADMIN = principal("project", role="PROJECT_ADMIN")


async def search(
    gateway: RunningGateway, q: str | None = None, who: Principal | None = SCIENTIST, **parameters: object
) -> tuple[int, Any]:
    query = {} if q is None else {"q": q}
    asked = urlencode({**query, **parameters}, doseq=True, errors="surrogatepass")
    response, body = await gateway.get(f"{PATH}/search?{asked}", who)
    return response.status, json.loads(body)


async def urns(gateway: RunningGateway, q: str | None = None, who: Principal | None = SCIENTIST, **more: object) -> Any:
    status, page = await search(gateway, q, who, **more)
    assert status == 200, page
    assert page["metadata"]["totalElements"] >= len(page["content"])
    return [entity["content"]["id"] for entity in page["content"]]


async def filled(made: Catalogue) -> dict[str, Entry]:
    """Three products of ``restricted``, of which the last has nothing but a quicklook, and one that everyone sees."""
    entries = {
        name: await made.file(name.encode(), item=name, collection=collection, data_type=kind)
        for name, collection, kind in (
            ("one", "restricted", "RAWDATA"),
            ("two", "restricted", "RAWDATA"),
            ("look", "restricted", "QUICKLOOK_SD"),
            ("free", "open", "RAWDATA"),
        )
    }
    await describe(made, entries["one"], cloud=5, place="Kiruna")
    await describe(made, entries["two"], cloud=80, place="Kiruna")
    return entries


async def test_a_product_is_found_in_regards_standard_form(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.file(b"content", item="DATA 06", name="iso.xml", mime_type="application/xml", state="NEARLINE")
    await describe(made, entry, cloud=5)
    await made.connection.execute(
        "UPDATE products SET west = 1, south = 2, east = 3, north = 4, created_at = '2018-04-03T14:20:00.383Z', "
        """updated_at = '2018-04-03T14:20:00.383001Z', geometry = '{"type": "Point", "coordinates": [1, 2]}', """
        """body = '{"label": "a label", "model": "a model", "tags": ["t", 5, "URN:AIP:DATASET:esa:restricted:V1"]}'"""
    )
    status, page = await search(gateway, "properties.cloud:5", size=5)
    assert status == 200
    base = gateway.url
    assert page == {
        "metadata": {"size": 5, "totalElements": 1, "totalPages": 1, "number": 0},
        "links": [{"rel": "self", "href": f"{base}{PATH}/search?q=properties.cloud:5&size=5&page=0"}],
        "content": [
            {
                "content": {
                    "id": entry.product,
                    "providerId": "DATA 06",
                    "entityType": "DATA",
                    "type": "Feature",
                    "label": "a label",
                    "model": "a model",
                    "tags": ["URN:AIP:DATASET:esa:restricted:V1", "t"],
                    "creationDate": "2018-04-03T14:20:00.383Z",
                    "lastUpdate": "2018-04-03T14:20:00.383001Z",
                    "geometry": {"type": "Point", "coordinates": [1, 2]},
                    "bbox": [1.0, 2.0, 3.0, 4.0],
                    "properties": {"cloud": 5},
                    "files": {
                        "RAWDATA": [
                            {
                                "dataType": "RAWDATA",
                                "reference": False,
                                "uri": f"{base}/downloads/{entry.product.replace(' ', '%20')}/files/{entry.checksum}",
                                "mimeType": "application/xml",
                                "online": False,
                                "checksum": entry.checksum,
                                "digestAlgorithm": "SHA-256",
                                "filesize": 7,
                                "filename": "iso.xml",
                                "types": [],
                            }
                        ]
                    },
                },
                "links": [],
            }
        ],
    }
    response, body = await gateway.get(f"{PATH}/{entry.product.replace(' ', '%20')}", SCIENTIST)
    assert response.status == 200
    assert json.loads(body) == page["content"][0]


async def test_what_is_found_can_be_downloaded_from_its_uri(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    await made.file(b"with a checksum", item="a")
    await made.file(b"without one", item="a/b", asset="x y", checksum=False)
    _, page = await search(gateway, sort="providerId")
    contents = []
    for entity in page["content"]:
        (file,) = entity["content"]["files"]["RAWDATA"]
        assert file["online"] is True
        response, body = await gateway.get(file["uri"].removeprefix(gateway.url), SCIENTIST)
        assert response.status == 200
        contents.append(body)
    assert contents == [b"with a checksum", b"without one"]


async def test_a_reference_has_the_address_of_whoever_has_it(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entry = await made.described(b"", item="elsewhere", reference=True)
    await made.copy(entry, "far", "https://example.org/a?b=c", None)
    _, page = await search(gateway, "files.filename:elsewhere.tif")
    (file,) = page["content"][0]["content"]["files"]["RAWDATA"]
    assert (file["reference"], file["uri"]) == (True, "https://example.org/a?b=c")


async def test_everybody_finds_what_he_may_see_and_files_that_he_may_have(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entries = await filled(made)
    everything = [entries[name].product for name in ("one", "two", "look", "free")]
    assert await urns(gateway) == await urns(gateway, who=ADMIN) == everything
    assert await urns(gateway, who=OUTSIDER) == [entries["free"].product]
    assert await urns(gateway, "*:*", None, scope="esa") == [entries["free"].product]
    assert await urns(gateway, who=principal("stranger", "science", tenant="other")) == []
    assert (await search(gateway, who=OUTSIDER))[1]["metadata"]["totalElements"] == 1

    # Who sees products without the right to their files finds what is open of them.
    await made.grant("restricted", await made.group("watchers"), files="NO_ACCESS")
    _, page = await search(gateway, who=principal("watcher", "watchers"))
    assert [list(entity["content"]["files"]) for entity in page["content"]] == [[], [], ["QUICKLOOK_SD"], ["RAWDATA"]]


async def test_one_product_is_refused_as_its_downloads_are(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    for who, status in ((SCIENTIST, 200), (ADMIN, 200), (OUTSIDER, 403), (principal("x", tenant="other"), 404)):
        response, body = await gateway.get(f"{PATH}/{entry.product}", who)
        assert response.status == status
        assert list(json.loads(body)) == (["content", "links"] if status == 200 else ["messages"])
    for urn in ("none", "%00", "x" * 3000):
        assert (await gateway.get(f"{PATH}/{urn}", SCIENTIST))[0].status == 404


async def test_what_is_forbidden_can_be_as_what_is_not_there(database: str, redis_url: str, tmp_path: Path) -> None:
    config = config_for(database, redis_url, tmp_path, rights={"hide_forbidden": True})
    async with running_gateway(config, tmp_path) as gateway:
        entry = await gateway.catalogue.file(b"content")
        response, body = await gateway.get(f"{PATH}/{entry.product}", OUTSIDER)
        assert (response.status, json.loads(body)) == (404, {"messages": [f"There is no product {entry.product!r}."]})


async def test_a_policy_decides_on_each_product_of_a_page(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    entries = await filled(made)
    group = await made.group("clear")
    options = {"all": [{"property": "cloud", "atMost": 20}]}
    await grant(made, "restricted", group, "CUSTOM_ACCESS", policy="properties", options=options)
    who = principal("clear", "clear")
    # Neither a count nor a page that is cut short tells of what it hides.
    for text, hidden in (("tags:restricted", 0), ("properties.place:Kiruna", 0), ("properties.cloud:80", 1)):
        _, page = await search(gateway, text, who, size=1)
        assert page["metadata"]["totalElements"] == len(page["content"]) == 1 - hidden
        assert [link["rel"] for link in page["links"]] == ["self"]
    assert await urns(gateway, "tags:restricted OR tags:open", who, sort="id,desc") == [
        entries[name].product for name in ("one", "free")
    ]
    for name, status in (("one", 200), ("two", 403)):
        assert (await gateway.get(f"{PATH}/{entries[name].product}", who))[0].status == status
    # One that cannot decide: nobody knows what there is to see.
    await grant(made, "restricted", group, "CUSTOM_ACCESS", policy="properties", options={"any": []})
    assert (await search(gateway, "tags:restricted", who))[0] == 503
    assert (await gateway.get(f"{PATH}/{entries['one'].product}", who))[0].status == 503


async def test_pages_are_cut_sorted_and_linked(gateway: RunningGateway) -> None:
    made = gateway.catalogue
    for number in range(7):
        entry = await made.described(b"", item=f"i{number}")
        await made.connection.execute(
            "UPDATE products SET quality_score = $2, created_at = now() - make_interval(days => $3) WHERE urn = $1",
            entry.product,
            float(number // 3),
            number,
        )

    async def items(**parameters: Any) -> list[str]:
        _, page = await search(gateway, "tags:restricted", **parameters)
        return [entity["content"]["providerId"] for entity in page["content"]]

    newest = [f"i{number}" for number in range(7)]
    assert await items() == newest[::-1]
    assert await items(sort="creationDate,desc") == await items(sort="providerId") == newest
    assert await items(sort=["quality_score,DESC", "providerId"]) == ["i6", "i3", "i4", "i5", "i0", "i1", "i2"]
    assert await items(sort="quality_score,providerId,desc") == ["i6", "i5", "i4", "i3", "i2", "i1", "i0"]
    found: list[list[str]] = []
    path: str | None = f"{PATH}/search?q=tags:restricted&size=3&sort=providerId"
    while path:
        _, body = await gateway.get(path, SCIENTIST)
        page = json.loads(body)
        assert page["metadata"] == {"size": 3, "totalElements": 7, "totalPages": 3, "number": len(found)}
        found.append([entity["content"]["providerId"] for entity in page["content"]])
        links = {link["rel"]: link["href"].removeprefix(gateway.url) for link in page["links"]}
        assert ("prev" in links) == (len(found) > 1)
        path = links.get("next")
    assert found == [newest[:3], newest[3:6], newest[6:]]
    assert (await search(gateway, "tags:restricted", page=9))[1]["content"] == []


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"q": "nosuch:x"}, 422, "There is no field 'nosuch'"),
    ({"q": "id:x^2"}, 422, "Boosts"),
    ({"q": "(id:x"}, 422, "cannot be read"),
    ({"q": "x" * 4097}, 422, "longer than 4096 bytes"),
    ({"size": 0}, 400, "'size' must be 1 to 100"),
    ({"size": 101}, 400, "'size' must be 1 to 100"),
    ({"size": "-1"}, 400, "'size' must be a whole number"),
    ({"page": "x"}, 400, "'page' must be a whole number"),
    ({"page": 100, "size": 100}, 400, "Only the first 10000 products"),
    ({"page": "9" * 30}, 400, "'page' must be a whole number"),
    ({"sort": "body"}, 400, "Products cannot be sorted by 'body'"),
    ({"sort": ",desc"}, 400, "Products cannot be sorted by ''"),
]


async def test_what_cannot_be_answered_is_refused_by_name(gateway: RunningGateway) -> None:
    for parameters, status, told in REFUSED:
        found, body = await search(gateway, **parameters)
        assert (found, told in json.dumps(body)) == (status, True), (parameters, body)


async def test_a_query_that_takes_too_long_is_ended_and_says_so(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = gateway.catalogue.connection
    await gateway.catalogue.file(b"content")
    await connection.execute(
        "CREATE OR REPLACE FUNCTION search_instant(value text) RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        "'SELECT NULL::timestamptz FROM pg_sleep(10)'"
    )
    await connection.execute("""UPDATE products SET properties = '{"a": "x"}'""")
    status, body = await search(gateway, "properties.a:[2020-01-01 TO *]")
    assert status == 422
    assert "takes too long" in body["messages"][0]
    assert (await search(gateway, "tags:restricted"))[0] == 200


@pytest.mark.timeout(900 if FULL else 60)
def test_no_query_makes_the_search_fail(database: str, redis_url: str, tmp_path: Path) -> None:
    """Random texts, and bombs: each is answered or refused."""
    with asyncio.Runner() as runner:
        context = running_gateway(config_for(database, redis_url, tmp_path), tmp_path)
        gateway = runner.run(context.__aenter__())

        @settings(
            max_examples=10_000 if FULL else 250,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(texts)
        def random_ones(text: str) -> None:
            status, body = runner.run(search(gateway, text, ADMIN))
            assert status in (200, 400, 422), (text, body)

        async def fill() -> None:
            await filled(gateway.catalogue)

        try:
            runner.run(fill())
            random_ones()
            for bomb in BOMBS.values():
                if len(quote(bomb)) < 7000:  # what a line of HTTP may have
                    assert runner.run(search(gateway, bomb, ADMIN))[0] == 422
        finally:
            runner.run(context.__aexit__(None, None, None))
