"""Each route of the basket: its documented request, its answer, and every documented error."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest
from jsonschema import Draft202012Validator

from gateway.catalog.ingest.writing import take_turn
from gateway.identity.principal import Principal
from gateway.quotas.limits import Rule
from tests.api.support import ask
from tests.harness import ADMIN, OUTSIDER, SCIENTIST, RunningGateway, bearer, config_for, principal, running_gateway
from tests.proxy import counting_proxy

BASKET = "/order/basket"
ADD = f"{BASKET}/selection"
UPLOAD = f"{ADD}/upload"
NOTHING = "This selection contains no file that can be ordered"
DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"""
AMOUNTS = {"objectsCount", "filesCount", "filesSize", "quota"}


async def call(
    gateway: RunningGateway, method: str, path: str, body: object = None, who: Principal | None = SCIENTIST
) -> tuple[aiohttp.ClientResponse, Any]:
    response, received = await ask(gateway, method, path, who, body)
    return response, json.loads(received) if received else None


async def add(gateway: RunningGateway, query: str | None = None, *ids: str, who: Principal = SCIENTIST) -> Any:
    """What is in the basket afterwards, dataset by dataset."""
    body: dict[str, Any] = {} if query is None else {"selectAllOpenSearchRequest": query}
    response, basket = await call(gateway, "POST", ADD, body | ({"ipIds": list(ids)} if ids else {}), who)
    assert response.status == 200, basket
    return basket["content"]["datasetSelections"]


async def shown(gateway: RunningGateway, who: Principal = SCIENTIST) -> Any:
    response, basket = await call(gateway, "GET", BASKET, who=who)
    return basket["content"]["datasetSelections"] if response.status == 200 else None


def counts(one: Any) -> tuple[int, int, int]:
    return one["objectsCount"], one["filesCount"], one["filesSize"]


async def fill(gateway: RunningGateway, *, products: int = 3, collection: str = "restricted") -> list[str]:
    """Products of a file of ten bytes and a quicklook of five; their ids."""
    made = []
    for number in range(products):
        item = f"item-{number}"
        raw = await gateway.catalogue.described(
            b"%010d" % number, collection=collection, item=item, asset="raw", name=f"{item}.tif"
        )
        await gateway.catalogue.described(
            b"%05d" % number,
            collection=collection,
            item=item,
            asset="look",
            data_type="QUICKLOOK_SD",
            name=f"{item}.png",
        )
        made.append(raw.product)
    return made


async def order(gateway: RunningGateway, who: Principal = SCIENTIST, **body: str) -> tuple[Any, list[str]]:
    """An order of the basket, and the names of its files."""
    response, made = await call(gateway, "POST", "/user/orders", body or None, who)
    assert response.status == 200, made
    return made["content"], await names(gateway, made["content"]["id"])


async def names(gateway: RunningGateway, order_id: int) -> list[str]:
    rows = await gateway.catalogue.connection.fetch(
        "SELECT file_name FROM order_files JOIN files USING (file_id) WHERE order_file_id >> 24 = $1 ORDER BY 1",
        order_id,
    )
    return [row["file_name"] for row in rows]


async def test_a_selection_by_a_query_is_answered_as_documented(gateway: RunningGateway) -> None:
    await fill(gateway)
    response, basket = await call(gateway, "POST", ADD, {"selectAllOpenSearchRequest": "providerId:item-*"})
    assert response.status == 200
    assert set(basket) == {"content", "links"}
    content = basket["content"]
    assert (content["owner"], isinstance(content["id"], int)) == (SCIENTIST.email, True)
    (dataset,) = content["datasetSelections"]
    assert set(dataset) == {
        *("id", "datasetIpid", "datasetLabel", "openSearchRequest", "itemsSelections"),
        *AMOUNTS,
    }
    assert (dataset["datasetIpid"], dataset["datasetLabel"]) == ("URN:AIP:DATASET:esa:restricted:V1", "restricted")
    (item,) = dataset["itemsSelections"]
    assert set(item) == {"date", "openSearchRequest", *AMOUNTS}
    assert re.fullmatch(DATE, item["date"])
    assert item["openSearchRequest"] == f"(providerId:item-*) AND creationDate:[* TO {item['date']}]"
    assert dataset["openSearchRequest"] == f"({item['openSearchRequest']})"
    assert counts(dataset) == counts(item) == (3, 6, 45)
    assert (content["quota"], dataset["quota"], item["quota"]) == (3, 3, 3), "files that count in quotas"
    assert {link["rel"] for link in basket["links"]} == {"self", "add", "delete", "order"}
    again, same = await call(gateway, "GET", BASKET)
    assert (again.status, same) == (200, basket)


async def test_a_second_selection_is_added_and_what_both_find_counts_once(gateway: RunningGateway) -> None:
    await fill(gateway)
    await add(gateway, "providerId:(item-0 OR item-1)")
    (dataset,) = await add(gateway, "providerId:(item-1 OR item-2)")
    new, old = dataset["itemsSelections"]
    assert (counts(new), counts(old), counts(dataset)) == ((2, 4, 30), (2, 4, 30), (3, 6, 45))
    assert old["date"] < new["date"]
    assert dataset["openSearchRequest"] == f"(({new['openSearchRequest']}) OR (({old['openSearchRequest']})))"


async def test_products_are_added_and_left_out_by_their_ids(gateway: RunningGateway) -> None:
    one, two, three = await fill(gateway)
    (dataset,) = await add(gateway, None, one, two, "URN:of:nothing")
    (item,) = dataset["itemsSelections"]
    assert counts(dataset) == (2, 4, 30)
    assert item["openSearchRequest"].startswith(f'(ipId:"{one}" OR ipId:"{two}" OR ipId:"URN:of:nothing") AND creation')
    assert (await call(gateway, "DELETE", BASKET))[0].status == 200
    (dataset,) = await add(gateway, "providerId:(item-0 OR item-1)", one)
    assert counts(dataset) == (1, 2, 15)
    item = dataset["itemsSelections"][0]["openSearchRequest"]
    assert item.startswith(f'((providerId:(item-0 OR item-1)) AND NOT(ipId:"{one}")) AND creationDate:[* TO ')
    assert (await call(gateway, "DELETE", BASKET))[0].status == 200
    (dataset,) = await add(gateway, "", three)
    assert counts(dataset) == (2, 4, 30)


async def test_a_dataset_that_is_deleted_while_it_is_selected_is_no_fault_of_ours(
    gateway: RunningGateway, database: str
) -> None:
    await fill(gateway)
    connection = await asyncpg.connect(database)
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM datasets")
            adding = asyncio.create_task(call(gateway, "POST", ADD, {"selectAllOpenSearchRequest": ""}))
            async with asyncio.timeout(10):
                while not await connection.fetchval(WAITS):
                    await asyncio.sleep(0.01)
    finally:
        await connection.close()
    response, _ = await adding
    assert (response.status, "Retry-After" in response.headers) == (503, True)
    assert await shown(gateway) is None


async def test_a_selection_without_a_file_is_204_and_makes_no_basket(gateway: RunningGateway) -> None:
    await fill(gateway)
    await gateway.catalogue.described(b"text", item="text", data_type="DOCUMENT")
    for query in ("providerId:none", "providerId:text"):
        response, body = await call(gateway, "POST", ADD, {"selectAllOpenSearchRequest": query})
        assert (response.status, body, response.headers["X-Message"]) == (204, None, NOTHING)
    assert await shown(gateway) is None
    await add(gateway, "providerId:item-0")
    before = await shown(gateway)
    assert (await call(gateway, "POST", ADD, {"ipIds": ["URN:none"]}))[0].status == 204
    assert await shown(gateway) == before


@pytest.mark.parametrize("body", [{}, {"ipIds": []}, {"selectAllOpenSearchRequest": None, "ipIds": None}])
async def test_an_empty_request_is_417_with_the_documented_message(
    gateway: RunningGateway, body: dict[str, object]
) -> None:
    response, told = await call(gateway, "POST", ADD, body)
    assert response.status == 417
    assert told == {"messages": ["If opensearch request is null, at least on IP_ID must be provided"]}


async def test_without_a_basket_all_is_204(gateway: RunningGateway) -> None:
    for method, path in [
        ("GET", BASKET),
        ("DELETE", f"{BASKET}//dataset/1"),
        ("DELETE", f"{BASKET}/dataset/1"),
        ("DELETE", f"{BASKET}//dataset/1/2018-04-03T14:20:00.383Z"),
        ("DELETE", f"{BASKET}/dataset/1/2018-04-03T14:20:00.383Z"),
        ("PUT", f"{BASKET}/dataset/1/updateFileFilters"),
        ("POST", "/user/orders"),
    ]:
        response, body = await call(gateway, method, path)
        assert (response.status, body) == (204, None), (method, path)
    response, body = await call(gateway, "DELETE", BASKET)
    assert (response.status, body) == (200, None)


@pytest.mark.parametrize("slashes", ["/", "//"])
async def test_a_selection_is_removed_by_its_date_and_a_dataset_by_its_id(
    gateway: RunningGateway, slashes: str
) -> None:
    await fill(gateway)
    base = f"{BASKET}{slashes}dataset"
    for number in range(3):
        (dataset,) = await add(gateway, f"providerId:item-{number}")
    new, middle, old = dataset["itemsSelections"]
    for nothing in ("2018-04-03T14:20:00.383Z", quote("2018-04-03T14:20:00.383+02:00", safe="")):
        response, basket = await call(gateway, "DELETE", f"{base}/{dataset['id']}/{nothing}")
        assert (response.status, basket["content"]["datasetSelections"]) == (200, [dataset])
    response, basket = await call(gateway, "DELETE", f"{base}/{dataset['id']}/{quote(middle['date'], safe='')}")
    (left,) = basket["content"]["datasetSelections"]
    assert (response.status, left["itemsSelections"], counts(left)) == (200, [new, old], (2, 4, 30))
    assert left["openSearchRequest"] == f"(({new['openSearchRequest']}) OR (({old['openSearchRequest']})))"
    _, basket = await call(gateway, "DELETE", f"{base}/{dataset['id']}/{new['date']}")
    (left,) = basket["content"]["datasetSelections"]
    assert (left["itemsSelections"], left["openSearchRequest"]) == ([old], f"({old['openSearchRequest']})")
    response, basket = await call(gateway, "DELETE", f"{base}/{dataset['id']}/{old['date']}")
    assert (response.status, basket["content"]["datasetSelections"], basket["content"]["quota"]) == (200, [], 0)
    assert "order" not in {link["rel"] for link in basket["links"]}
    await gateway.catalogue.grant("other", await gateway.catalogue.group("science"))
    await fill(gateway, collection="other")
    one, two = await add(gateway, "")
    response, basket = await call(gateway, "DELETE", f"{base}/{one['id']}")
    assert (response.status, basket["content"]["datasetSelections"]) == (200, [two])
    assert (await call(gateway, "DELETE", f"{base}/{one['id']}"))[1] == basket, "what is not there changes nothing"


async def test_the_basket_is_emptied(gateway: RunningGateway) -> None:
    await fill(gateway)
    await add(gateway, "")
    response, body = await call(gateway, "DELETE", BASKET)
    assert (response.status, body) == (200, None)
    assert (await call(gateway, "GET", BASKET))[0].status == 204
    for table in ("baskets", "basket_datasets", "basket_items"):
        assert await gateway.catalogue.connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_everybody_has_a_basket_of_his_own(gateway: RunningGateway) -> None:
    await fill(gateway)
    (mine,) = await add(gateway, "")
    other, far = principal("other", "science"), principal("far", tenant="other", email=SCIENTIST.email)
    await gateway.catalogue.tenant("other")
    for who in (other, ADMIN, OUTSIDER, far):
        assert await shown(gateway, who) is None
        for path in (f"{BASKET}/dataset/{mine['id']}", BASKET):
            assert (await call(gateway, "DELETE", path, who=who))[0].status in (200, 204)
    assert counts((await add(gateway, "providerId:item-0", who=other))[0]) == (1, 2, 15)
    assert (await call(gateway, "DELETE", f"{BASKET}/dataset/{mine['id']}", who=other))[0].status == 200
    response, told = await call(
        gateway, "PUT", f"{BASKET}/dataset/{mine['id']}/updateFileFilters", {"fileTypes": []}, other
    )
    assert (response.status, told) == (404, {"messages": [f"Dataset selection with id : {mine['id']} doesn't exist"]})
    assert await shown(gateway) == [mine]


LONG = "x" * 256
HOSTILE: list[tuple[object, int]] = [
    ([], 400),
    ("text", 400),
    (b"{", 400),
    (b'{"ipIds": ["a"], "ipIds": ["b"]}', 400),
    (b"\xff", 400),
    ({"selectAllOpenSearchRequest": 1}, 400),
    ({"selectAllOpenSearchRequest": "a\0b"}, 400),
    ({"selectAllOpenSearchRequest": "\ud800"}, 400),
    ({"ipIds": "URN"}, 400),
    ({"ipIds": [1]}, 400),
    ({"ipIds": [""]}, 400),
    ({"ipIds": [LONG]}, 400),
    ({"ipIds": ["\0"]}, 400),
    ({"ipIds": {"a": 1}}, 400),
    ({"ipIds": ["a"], "else": 1}, 400),
    ({"ipIds": ["a"] * 1001}, 422),
    ({"ipIds": ["URN%3A%00"]}, 422),
    ({"selectAllOpenSearchRequest": "id%3Aa%00"}, 422),
    ({"selectAllOpenSearchRequest": "id%3A%ff%00%"}, 422),
    ({"selectAllOpenSearchRequest": "what?"}, 422),
    ({"selectAllOpenSearchRequest": "nothing:7"}, 422),
    ({"selectAllOpenSearchRequest": "providerId:item-0) OR (providerId:item-1"}, 422),
    ({"selectAllOpenSearchRequest": "providerId:item-0\\"}, 422),
    ({"selectAllOpenSearchRequest": 'providerId:"item-0'}, 422),
    ({"selectAllOpenSearchRequest": "providerId:item-0 OR"}, 422),
    ({"selectAllOpenSearchRequest": "(" * 40 + "id:x" + ")" * 40}, 422),
    ({"selectAllOpenSearchRequest": "id:x " * 4000}, 422),
    ({"selectAllOpenSearchRequest": "x" * 600_000}, 413),
    ({"engineType": "other"}, 422),
    ({"engineType": 1}, 422),
    ({"engineType": "legacy", "searchParameters": []}, 400),
    ({"engineType": "legacy", "searchParameters": {"q": "x"}}, 400),
    ({"engineType": "legacy", "searchParameters": {"q": ["id:a", "id:b"]}}, 400),
    ({"engineType": "legacy", "searchParameters": {"q": [1]}}, 400),
    ({"engineType": "legacy", "searchParameters": {"geometry": ["POINT(0 0)"]}}, 422),
    ({"engineType": "legacy", "datasetUrn": ""}, 400),
    ({"engineType": "legacy", "entityIdsToInclude": ["a"] * 1001}, 422),
    ({"engineType": "legacy", "ipIds": ["a"]}, 400),
]


async def test_hostile_bodies_are_refused_by_name(gateway: RunningGateway) -> None:
    await fill(gateway)
    for body, status in HOSTILE:
        response, told = await call(gateway, "POST", ADD, body)
        assert (response.status, isinstance(told.get("messages", [None])[0], str)) == (status, True), (
            str(body)[:80],
            told,
        )
    assert await shown(gateway) is None


async def test_hostile_paths_are_refused_by_name(gateway: RunningGateway) -> None:
    await fill(gateway)
    (dataset,) = await add(gateway, "")
    for wrong in ("x", "-1", "9" * 30, "%C2%B2", "1.5"):
        for path in (f"{wrong}", f"{wrong}/2018-04-03T14:20:00.383Z"):
            assert (await call(gateway, "DELETE", f"{BASKET}/dataset/{path}"))[0].status == 400, path
        assert (await call(gateway, "PUT", f"{BASKET}/dataset/{wrong}/updateFileFilters"))[0].status == 400
    for wrong in ("yesterday", "2018-04-03", "2018-04-03T14:20:00.383", "0001-01-01T00:00:00Z", "%00"):
        assert (await call(gateway, "DELETE", f"{BASKET}/dataset/{dataset['id']}/{wrong}"))[0].status == 400, wrong
    assert await shown(gateway) == [dataset]


async def test_todays_form_of_a_selection_is_understood(gateway: RunningGateway) -> None:
    one, two, _ = await fill(gateway)
    await gateway.catalogue.grant("other", await gateway.catalogue.group("science"))
    await fill(gateway, collection="other")
    urn = "URN:AIP:DATASET:esa:restricted:V1"
    for body, expected in [
        ({"engineType": "legacy"}, [(3, 6, 45), (3, 6, 45)]),
        ({"engineType": "legacy", "datasetUrn": urn, "selectionDate": "2026-01-01T00:00:00Z"}, [(3, 6, 45)]),
        ({"engineType": "legacy", "datasetUrn": urn, "searchParameters": {"q": ["providerId:item-0"]}}, [(1, 2, 15)]),
        ({"engineType": "legacy", "entityIdsToInclude": [one, two], "entityIdsToExclude": [two]}, [(1, 2, 15)]),
        ({"engineType": "legacy", "datasetUrn": urn, "entityIdsToExclude": [two]}, [(2, 4, 30)]),
        ({"engineType": "legacy", "searchParameters": {"q": [""], "sort": ["id,desc"]}}, [(3, 6, 45), (3, 6, 45)]),
    ]:
        response, basket = await call(gateway, "POST", ADD, body)
        assert response.status == 200, basket
        assert [counts(found) for found in basket["content"]["datasetSelections"]] == expected, body
        assert (await call(gateway, "DELETE", BASKET))[0].status == 200


async def test_what_is_encoded_as_in_a_url_is_understood(gateway: RunningGateway) -> None:
    one, *_ = await fill(gateway)
    (dataset,) = await add(gateway, "providerId%3A%28item-0+OR%20item-1%29", quote(one, safe=""))
    assert counts(dataset) == (1, 2, 15)
    assert dataset["openSearchRequest"].startswith(f'(((providerId:(item-0 OR item-1)) AND NOT(ipId:"{one}")) AND')


async def upload(
    gateway: RunningGateway, content: bytes, *, name: str = "file", **fields: str
) -> tuple[aiohttp.ClientResponse, Any]:
    form = aiohttp.FormData()
    form.add_field("comment", "file")
    form.add_field(name, content, filename="ids.txt", content_type="text/plain")
    async with gateway.session.post(
        f"{gateway.url}{UPLOAD}", data=form, headers={**bearer(SCIENTIST), **fields}
    ) as response:
        received = await response.read()
        return response, json.loads(received) if received else None


async def test_products_are_added_by_a_file_of_ids(gateway: RunningGateway) -> None:
    await fill(gateway)
    response, basket = await upload(gateway, b"\xef\xbb\xbfitem-0\r\n\r\n item-1 \nitem-0\nnone-\xc3\xa9")
    assert response.status == 200, basket
    (dataset,) = basket["content"]["datasetSelections"]
    assert counts(dataset) == (2, 4, 30)
    item = dataset["itemsSelections"][0]["openSearchRequest"]
    assert item.startswith(
        '(providerId:"item-0" OR providerId:"item-1" OR providerId:"none-é") AND creationDate:[* TO '
    )
    most = b"\n".join(
        b"S2A_MSIL2A_20240101T000000_N0510_R022_T31TCJ_20240101T0000%04d" % number for number in range(999)
    )
    (dataset,) = (await upload(gateway, most + b"\nitem-2"))[1]["content"]["datasetSelections"]
    assert (counts(dataset), len(dataset["itemsSelections"])) == ((3, 6, 45), 2)
    response, _ = await upload(gateway, b"none")
    assert (response.status, response.headers["X-Message"]) == (204, NOTHING)


async def test_a_file_that_is_no_good_is_said_to_be_so(gateway: RunningGateway) -> None:
    for content, status, told in [
        (b"x\n" * 1001, 413, "Input file exceed max lines limit (1000)"),
        (b"x" * 600_000, 413, None),
        (b" \n\n", 422, "The file has no id of a product."),
        (b"\xff\xfe", 400, "The file is not UTF-8."),
        (LONG.encode(), 400, None),
        (b"a\0", 400, None),
    ]:
        response, body = await upload(gateway, content)
        assert response.status == status, body
        assert told is None or body == {"messages": [told]}
    assert (await upload(gateway, b"x", name="other"))[0].status == 400
    for content_type, status in [
        ("text/plain", 415),
        ("application/json", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=nowhere", 400),
    ]:
        fields: dict[str, str] = {**bearer(SCIENTIST), "Content-Type": content_type}
        async with gateway.session.post(f"{gateway.url}{UPLOAD}", data=b"item-0", headers=fields) as response:
            assert response.status == status, content_type


async def test_files_are_filtered_by_type_and_name_and_counted_anew(gateway: RunningGateway) -> None:
    await fill(gateway)
    await add(gateway, "providerId:(item-0 OR item-1)")
    (dataset,) = await add(gateway, "providerId:(item-1 OR item-2)")
    path = f"{BASKET}/dataset/{dataset['id']}/updateFileFilters"
    cases: list[tuple[dict[str, object], tuple[int, int, int], tuple[int, int, int]]] = [
        ({"fileTypes": ["RAWDATA"]}, (3, 3, 30), (2, 2, 20)),
        ({"fileTypes": ["QUICKLOOK"], "fileNamePattern": None}, (3, 3, 15), (2, 2, 10)),
        ({"fileNamePattern": r"item-[02]\.(tif|png)"}, (2, 4, 30), (1, 2, 15)),
        ({"fileNamePattern": "item"}, (0, 0, 0), (0, 0, 0)),
        ({"fileTypes": [], "fileNamePattern": None}, (3, 6, 45), (2, 4, 30)),
        ({"fileTypes": ["RAWDATA", "QUICKLOOK_SD"], "fileNamePattern": r".*1\.tif"}, (1, 1, 10), (1, 1, 10)),
    ]
    for body, expected, of_items in cases:
        response, basket = await call(gateway, "PUT", path, body)
        (found,) = basket["content"]["datasetSelections"]
        assert (response.status, counts(found), [counts(one) for one in found["itemsSelections"]]) == (
            200, expected, [of_items] * 2
        ), body  # fmt: skip
        told: dict[str, object] = {"fileTypes": [], "fileNamePattern": None, **body}
        assert found.get("fileSelectionDescription", {"fileTypes": [], "fileNamePattern": None}) == told
    # It holds for what is added later, too; and for the order.
    (found,) = await add(gateway, "providerId:item-0")
    assert (counts(found), counts(found["itemsSelections"][0])) == ((1, 1, 10), (0, 0, 0))
    assert (await order(gateway))[1] == ["item-1.tif"]
    (dataset,) = await add(gateway, "")
    path = f"{BASKET}/dataset/{dataset['id']}/updateFileFilters"
    wrong: object
    for wrong in (
        {"fileTypes": ["DOCUMENT"]},
        {"fileTypes": "RAWDATA"},
        {"fileTypes": [[]]},
        {"fileNamePattern": "("},
        {"fileNamePattern": "a{60}"},
        {"fileNamePattern": r"(a)\1"},
        {"fileNamePattern": ""},
        {"fileNamePattern": 1},
        {"fileNamePattern": "a\0"},
        {"else": 1},
        [],
    ):
        assert (await call(gateway, "PUT", path, wrong))[0].status == 400, wrong
    assert await shown(gateway) == [dataset]
    await call(gateway, "PUT", path, {"fileTypes": ["RAWDATA"]})
    for cleared in (b"null", None):
        response, basket = await call(gateway, "PUT", path, cleared)
        assert (response.status, basket["content"]["datasetSelections"]) == (200, [dataset])


async def test_an_order_of_the_basket_has_the_files_that_were_counted_and_empties_it(gateway: RunningGateway) -> None:
    await gateway.catalogue.grant("other", await gateway.catalogue.group("science"))
    await fill(gateway)
    await fill(gateway, collection="other")
    await add(gateway, "providerId:(item-0 OR item-1)")
    await add(gateway, "providerId:item-1")
    selected = await add(gateway, "tags:other AND providerId:item-2")
    made, files = await order(gateway)
    assert [(task["datasetLabel"], *counts(task)) for task in made["datasetTasks"]] == [
        (one["datasetLabel"], *counts(one)) for one in selected
    ]
    both = ["item-0.png", "item-0.tif", "item-1.png", "item-1.tif"]
    assert files == sorted([*both, *both, "item-2.png", "item-2.tif"])
    assert await shown(gateway) is None
    response, body = await call(gateway, "POST", "/user/orders")
    assert (response.status, body, response.headers["X-Message"]) == (204, None, "Basket is empty")


async def test_what_comes_into_the_catalogue_after_a_selection_is_not_in_the_order(gateway: RunningGateway) -> None:
    await fill(gateway, products=2)
    (before,) = await add(gateway, "")
    await fill_later(gateway, "item-7")
    assert await shown(gateway) == [before]
    made, files = await order(gateway)
    assert (counts(made["datasetTasks"][0]), len(files)) == (counts(before), 4)
    # Nor in an order in one call that is made again.
    response, granted = await call(gateway, "POST", "/user/orders/apply", {"queries": ["providerId:item-*"]})
    assert (response.status, len(await names(gateway, granted["orderId"]))) == (200, 5)
    query = await gateway.catalogue.connection.fetchval(
        "SELECT query FROM order_tasks WHERE order_id = $1", granted["orderId"]
    )
    assert re.fullmatch(rf"\(providerId:item-\*\) AND creationDate:\[\* TO {DATE}\]", query)
    await fill_later(gateway, "item-8")
    await gateway.catalogue.connection.execute("UPDATE orders SET status = 'DONE'")
    response, again = await call(gateway, "POST", f"/user/orders/{granted['orderId']}/restart")
    assert (response.status, len(await names(gateway, again["content"]["id"]))) == (200, 5)


async def fill_later(gateway: RunningGateway, item: str) -> None:
    await gateway.catalogue.described(b"later", item=item, name=f"{item}.tif")


async def test_what_an_ingest_writes_meanwhile_is_not_in_the_order_though_it_began_before(
    gateway: RunningGateway, database: str
) -> None:
    await fill(gateway, products=2)
    connection = await asyncpg.connect(database)
    try:
        for number, (query, known) in enumerate([("", 2), ("providerId:item-*", 3), ("", 4)]):
            async with connection.transaction():
                await take_turn(connection, "esa", wait=1)
                dataset = await connection.fetchval("SELECT min(dataset_id) FROM datasets")
                await connection.execute(
                    "INSERT INTO products (tenant_id, dataset_id, urn, provider_id, properties, body) "
                    "SELECT tenant_id, dataset_id, $2, $2, '{}', '{}' FROM datasets WHERE dataset_id = $1",
                    dataset,
                    f"item-9{number}",
                )
                await connection.execute(
                    "INSERT INTO files (product_id, asset_key, data_type, size, file_name, body) "
                    "SELECT product_id, 'raw', 'RAWDATA', 10, urn, '{}' FROM products WHERE urn = $1",
                    f"item-9{number}",
                )
                (before,) = await add(gateway, query)
                again = await add(gateway, query)
                assert len({one["date"] for one in again[0]["itemsSelections"]}) == 2
                assert counts(again[0]) == counts(before)
                assert before["objectsCount"] == known
            assert await shown(gateway) == again
            made, _ = await order(gateway)
            assert counts(made["datasetTasks"][0]) == counts(before)
    finally:
        await connection.close()


async def test_what_the_user_may_no_longer_have_is_not_in_the_order(gateway: RunningGateway) -> None:
    await gateway.catalogue.grant("other", await gateway.catalogue.group("science"))
    await fill(gateway)
    await fill(gateway, collection="other", products=1)
    await add(gateway, "")
    await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"), files="NO_ACCESS")
    await gateway.catalogue.grant("other", await gateway.catalogue.group("science"), metadata="NO_ACCESS")
    made, files = await order(gateway)
    assert (files, [task["datasetLabel"] for task in made["datasetTasks"]]) == (
        ["item-0.png", "item-1.png", "item-2.png"],
        ["restricted"],
    )
    (dataset,) = await add(gateway, "")
    assert counts(dataset) == (3, 3, 15), "quicklooks are open to whoever sees their product"
    await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"), metadata="NO_ACCESS")
    response, _ = await call(gateway, "POST", "/user/orders")
    assert (response.status, response.headers["X-Message"]) == (204, NOTHING)
    assert await shown(gateway) == [dataset], "nothing was ordered: it is still there"
    await gateway.catalogue.connection.execute("DELETE FROM datasets")
    assert await shown(gateway) == []
    response, _ = await call(gateway, "POST", "/user/orders")
    assert (response.status, response.headers["X-Message"]) == (204, "Basket is empty")


async def test_an_order_that_is_refused_leaves_the_basket_as_it_was(gateway: RunningGateway) -> None:
    await fill(gateway)
    await add(gateway, "")
    before = await shown(gateway)
    response, body = await call(gateway, "POST", "/user/orders", {"label": "x" * 51})
    assert (response.status, body) == (422, {"messages": ["TOO_MANY_CHARACTERS_IN_LABEL"]})
    assert await shown(gateway) == before


async def test_policies_have_their_say_on_what_is_counted(gateway: RunningGateway) -> None:
    await fill(gateway)
    connection = gateway.catalogue.connection
    await connection.execute(
        "UPDATE access_rights SET file_level = 'CUSTOM_ACCESS', policy = 'properties', policy_options = $1",
        json.dumps({"all": [{"property": "open", "equals": True}]}),
    )
    await connection.execute("UPDATE products SET properties = '{\"open\": true}' WHERE provider_id = 'item-1'")
    (dataset,) = await add(gateway, "")
    assert (counts(dataset), dataset["quota"]) == ((3, 4, 25), 1)
    (dataset,) = await add(gateway, "providerId:(item-0 OR item-1)")
    assert (counts(dataset), counts(dataset["itemsSelections"][0])) == ((3, 4, 25), (2, 3, 20))
    assert (await order(gateway))[1] == ["item-0.png", "item-1.png", "item-1.tif", "item-2.png"]
    await connection.execute("UPDATE access_rights SET policy_options = '{\"x\": 1}'")
    response, _ = await call(gateway, "POST", ADD, {"selectAllOpenSearchRequest": ""})
    assert response.status == 503, "else files would be missing, and nobody would know"
    assert await shown(gateway) is None


async def test_selections_at_once_by_two_gateways_do_not_lose_each_other(
    gateway: RunningGateway, database: str, redis_url: str, tmp_path: Path
) -> None:
    await fill(gateway, products=16)
    root = tmp_path / "other"
    root.mkdir()
    async with running_gateway(config_for(database, redis_url, root), root) as second:
        gateways = (gateway, second)
        queries = [f"providerId:(item-{number} OR item-{(number + 1) % 16})" for number in range(16)]
        await asyncio.gather(*(add(gateways[number % 2], query) for number, query in enumerate(queries)))
        (dataset,) = await shown(second)
        assert len(dataset["itemsSelections"]) == 16
        assert len({one["date"] for one in dataset["itemsSelections"]}) == 16
        assert counts(dataset) == (16, 32, 240)
        # Nor are they lost to orders: each is in one, or still there.
        results = await asyncio.gather(
            call(gateway, "POST", "/user/orders"),
            *(add(gateways[number % 2], "tags:restricted") for number in range(4)),
            call(second, "POST", "/user/orders"),
        )
        taken = await gateway.catalogue.connection.fetch("SELECT query FROM order_tasks")
        left = await shown(gateway) or []
        written = " ".join([row["query"] for row in taken] + [one["openSearchRequest"] for one in left])
        assert (written.count("item-"), written.count("tags:restricted")) == (32, 4)
        assert {response.status for response, _ in (results[0], results[-1])} <= {200, 204}


@pytest.fixture
async def small(database: str, redis_url: str, tmp_path: Path) -> Any:
    root = tmp_path / "archive"
    root.mkdir()
    config = config_for(database, redis_url, root, orders={"basket_datasets": 2, "basket_selections": 2})
    async with running_gateway(config, root) as running:
        for collection in ("restricted", "two", "three"):
            await running.catalogue.grant(collection, await running.catalogue.group("science"))
            await fill(running, collection=collection, products=1)
        yield running


async def test_a_basket_is_bounded(small: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await add(small, "tags:(restricted OR two)")
    response, body = await call(small, "POST", ADD, {"selectAllOpenSearchRequest": ""})
    assert (response.status, "at most 2 datasets" in body["messages"][0]) == (409, True)
    assert await shown(small) == before
    before = await add(small, "tags:two")
    response, body = await call(small, "POST", ADD, {"selectAllOpenSearchRequest": "tags:two"})
    assert (response.status, "at most 2 selections" in body["messages"][0]) == (409, True)
    assert await shown(small) == before
    await call(small, "DELETE", BASKET)
    ids = ["URN:" + "x" * 240 + f"{number:06}" for number in range(900)]
    response, body = await call(small, "POST", ADD, {"selectAllOpenSearchRequest": "tags:two", "ipIds": ids})
    assert response.status == 200, body
    response, body = await call(small, "POST", ADD, {"selectAllOpenSearchRequest": "tags:two", "ipIds": ids})
    assert (response.status, "too much for one order" in body["messages"][0]) == (409, True), body
    monkeypatch.setattr("gateway.orders.baskets.MOST_OCTETS", 1000)
    await call(small, "DELETE", BASKET)
    await add(small, "tags:two")
    response, body = await call(small, "POST", ADD, {"selectAllOpenSearchRequest": "tags:two OR id:" + "x" * 400})
    assert (response.status, "too long together" in body["messages"][0]) == (409, True)


async def test_what_is_left_of_quotas_is_shown(gateway: RunningGateway) -> None:
    await fill(gateway)
    await add(gateway, "")
    _, basket = await call(gateway, "GET", BASKET)
    unlimited: dict[str, object] = {"downloads": None, "bytes": None, "sufficient": True, "limits": []}
    assert basket["content"]["remainingQuota"] == unlimited
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=3, octets=100)
    await gateway.catalogue.rule(Rule("tenant", "", False, "downloads", "day", 1, slow_rate=1000))
    _, basket = await call(gateway, "GET", BASKET)
    left = basket["content"]["remainingQuota"]
    assert (left["downloads"], left["bytes"], left["sufficient"]) == (3, 100, True), "three of six files count"
    assert {one["period"] for one in left["limits"]} == {"day", "total"}
    entry = await gateway.catalogue.file(b"x" * 71, item="large")
    assert (await gateway.get(entry.stac, SCIENTIST))[0].status == 200
    _, basket = await call(gateway, "GET", BASKET)
    left = basket["content"]["remainingQuota"]
    assert (left["downloads"], left["bytes"], left["sufficient"]) == (2, 29, False)


async def test_without_redis_a_basket_is_shown_without_quotas(database: str, redis_url: str, tmp_path: Path) -> None:
    async with (
        counting_proxy(redis_url) as (redis, url),
        running_gateway(config_for(database, url, tmp_path, orders={"workers": 0}), tmp_path) as gateway,
    ):
        await gateway.catalogue.grant("restricted", await gateway.catalogue.group("science"))
        await fill(gateway)
        before = await add(gateway, "")
        redis.shut = True
        redis.cut()
        response, basket = await call(gateway, "GET", BASKET)
        assert (response.status, basket["content"]["datasetSelections"]) == (200, before)
        assert "remainingQuota" not in basket["content"]
        assert counts((await add(gateway, "providerId:item-0"))[0]) == (3, 6, 45)


async def test_answers_have_the_shape_that_is_described(gateway: RunningGateway) -> None:
    _, received = await ask(gateway, "GET", "/api")
    document = json.loads(received)
    await fill(gateway)
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=3)
    await add(gateway, "providerId:item-0")
    (dataset,) = await add(gateway, "")
    path = f"{BASKET}/dataset/{dataset['id']}/updateFileFilters"
    _, basket = await call(gateway, "PUT", path, {"fileTypes": ["QUICKLOOK"], "fileNamePattern": "x"})
    schema = {**document, "$ref": "#/components/schemas/Basket"}
    assert list(Draft202012Validator(schema).iter_errors(basket)) == []
    schema = {**document, "$ref": "#/components/schemas/BasketSelection"}
    for body in ({"ipIds": ["a"]}, {"selectAllOpenSearchRequest": "x"}, {"engineType": "legacy"}):
        assert list(Draft202012Validator(schema).iter_errors(body)) == []


async def test_whoever_is_nobody_has_no_basket(gateway: RunningGateway) -> None:
    for method, path in [("GET", BASKET), ("DELETE", BASKET), ("POST", ADD), ("POST", UPLOAD)]:
        assert (await call(gateway, method, f"{path}?scope=esa", who=None))[0].status == 401
    ghost = principal("ghost", tenant="ghost")
    response, _ = await call(gateway, "POST", ADD, {"selectAllOpenSearchRequest": ""}, ghost)
    assert response.status == 404
    assert (await call(gateway, "GET", BASKET, who=ghost))[0].status == 204
