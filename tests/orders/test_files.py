"""Files of orders: lists of them, and their downloads with and without a token."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.principal import Principal
from gateway.orders.tokens import OrderToken, OrderTokens
from tests.canaries import CANARIES
from tests.harness import ADMIN, OUTSIDER, SCIENCE, SCIENTIST, bearer, principal
from tests.orders.market import Market
from tests.orders.support import SECRET, selection


async def ordered(market: Market, *, done: bool = True) -> tuple[int, list[int]]:
    """An order of three files, and their ids."""
    order_id = (await market.order())["content"]["id"]
    if done:
        await market.done(order_id)
    return order_id, [(order_id << 24) + number for number in (1, 2, 3)]


async def token_of(market: Market, order_id: int, who: Principal = SCIENTIST) -> str:
    # The one answer that holds it.
    url = f"{market.gateway.url}/user/orders/{order_id}/token"
    async with market.gateway.session.get(url, headers=bearer(who)) as response:
        assert response.status == 200
        token: str = (await response.json())["orderToken"]
    CANARIES.hide(f"signature of {token.rpartition('.')[0]}", token.rpartition(".")[2])
    return token


async def public(market: Market, file_id: object, token: str, method: str = "GET", **fields: str) -> tuple[int, bytes]:
    path = f"{market.gateway.url}/orders/public/files/{file_id}"
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    async with market.gateway.session.request(
        method, path, params={"orderToken": token, "scope": "esa"}, headers=headers
    ) as response:
        return response.status, await response.read()


async def states(market: Market) -> list[str]:
    rows = await market.gateway.catalogue.connection.fetch("SELECT state FROM order_files ORDER BY order_file_id")
    return [row["state"] for row in rows]


async def become(market: Market, *expected: str) -> None:
    """It is noted after the last byte has left."""
    async with asyncio.timeout(10):
        while await states(market) != list(expected):
            await asyncio.sleep(0.01)


async def test_files_of_a_dataset_task_come_by_pages(market: Market) -> None:
    order_id, ids = await ordered(market)
    _, order = await market.ask("GET", f"/user/orders/{order_id}")
    task = order["content"]["datasetTasks"][0]["id"]
    response, page = await market.ask("GET", f"/orders/{order_id}/dataset/{task}/files?size=2&page=1")
    assert response.status == 200
    assert page["metadata"] == {"size": 2, "totalElements": 3, "totalPages": 2, "number": 1}
    (file,) = (one["content"] for one in page["content"])
    assert (file["id"], file["orderId"], file["state"], file["dataType"]) == (ids[2], order_id, "AVAILABLE", "RAWDATA")
    assert (file["filename"], file["filesize"], file["online"], file["version"]) == ("item-2.tif", 9, True, 1)
    assert file["url"] == f"{market.gateway.url}/orders/files/{ids[2]}"
    assert (await market.ask("GET", f"/orders/{order_id}/dataset/{task}/files?page=9"))[1]["content"] == []
    for missing in ("999", "x"):
        response, body = await market.ask("GET", f"/orders/{order_id}/dataset/{missing}/files")
        assert (response.status, body) == (404, {"messages": [f"Dataset task with id : {missing} doesn't exist"]})
    other, _ = await ordered(market)
    assert (await market.ask("GET", f"/orders/{other}/dataset/{task}/files"))[0].status == 404, "of another order"


async def test_available_files_come_by_order_and_by_sub_order(market: Market) -> None:
    order_id, ids = await ordered(market)
    connection = market.gateway.catalogue.connection
    response, page = await market.ask("GET", f"/orders/{order_id}/files/available?size=2")
    assert (response.status, page["metadata"]["totalElements"]) == (200, 3)
    assert [one["content"]["id"] for one in page["content"]] == ids[:2]
    assert set(page["content"][0]["content"]) == {
        *("id", "productId", "version", "downloadUrl", "mimeType", "checksum", "filesize", "filename")
    }
    part = await connection.fetchval("SELECT suborder_id FROM suborders WHERE order_id = $1 AND number = 2", order_id)
    path = f"/orders/{order_id}/filesTask/{{}}/files/available"
    _, page = await market.ask("GET", path.format(part))
    assert [one["content"]["id"] for one in page["content"]] == ids[2:]
    await connection.execute("UPDATE order_files SET state = 'PENDING' WHERE order_file_id = $1", ids[2])
    assert (await market.ask("GET", path.format(part)))[1]["content"] == []
    assert (await market.ask("GET", path.format(part + 999)))[0].status == 404
    assert (await market.ask("GET", path.format("x")))[0].status == 404


async def test_a_file_is_downloaded_by_its_owner_with_rights_and_quota_of_the_moment(market: Market) -> None:
    _, ids = await ordered(market)
    response, body = await market.ask("GET", f"/orders/files/{ids[1]}")
    assert (response.status, body) == (200, b"content 1")
    assert "item-1.tif" in response.headers["Content-Disposition"]
    assert await market.gateway.usage(SCIENTIST) == (1, 9)
    await become(market, "AVAILABLE", "DOWNLOADED", "AVAILABLE")
    response, body = await market.ask("HEAD", f"/orders/files/{ids[0]}")
    assert (response.status, response.headers["Content-Length"]) == (200, "9")
    assert await states(market) == ["AVAILABLE", "DOWNLOADED", "AVAILABLE"]
    await market.gateway.catalogue.connection.execute("UPDATE access_rights SET metadata_level = 'NO_ACCESS'")
    assert (await market.ask("GET", f"/orders/files/{ids[0]}"))[0].status == 403
    assert (await market.ask("GET", f"/orders/files/{ids[0]}", ADMIN))[1] == b"content 0"


async def test_quota_and_licence_stand_in_the_way_as_of_every_download(market: Market) -> None:
    order_id, ids = await ordered(market)
    token = await token_of(market, order_id)
    await market.gateway.catalogue.limit("user", str(SCIENTIST.email), downloads=1)
    assert (await public(market, ids[0], token))[0] == 200
    assert (await public(market, ids[1], token))[0] == 429
    await market.gateway.catalogue.licence("restricted")
    status, body = await public(market, ids[0], token)
    assert status == 423
    assert token not in body.decode()


async def test_a_file_of_somebody_else_is_as_one_that_does_not_exist(market: Market) -> None:
    _, ids = await ordered(market)
    for who, number in [
        (OUTSIDER, ids[0]),
        (principal("other", SCIENCE), ids[0]),
        (principal("far", role="PROJECT_ADMIN", tenant="other"), ids[0]),
        (SCIENTIST, 999),
        (SCIENTIST, "x"),
        (SCIENTIST, 2**70),
    ]:
        response, body = await market.ask("GET", f"/orders/files/{number}", who)
        assert (response.status, body) == (404, {"messages": [f"Data file with id: {number} doesn't exist."]})


async def test_a_token_opens_the_files_of_its_order_for_whoever_has_it(market: Market) -> None:
    order_id, ids = await ordered(market)
    other, others = await ordered(market)
    token = await token_of(market, order_id)
    assert await public(market, ids[0], token) == (200, b"content 0")
    assert await public(market, ids[0], token, "HEAD") == (200, b"")
    assert await public(market, ids[0], token, Range="bytes=2-4") == (206, b"nte")
    assert await market.gateway.usage(SCIENTIST) == (1, 12), "charged to the owner"
    await become(market, "DOWNLOADED", *["AVAILABLE"] * 5)
    for wrong in (others[0], 999, "x"):
        status, body = await public(market, wrong, token)
        assert (status, json.loads(body)) == (404, {"messages": [f"Data file with id: {wrong} doesn't exist."]})
    assert (await public(market, others[0], await token_of(market, other)))[0] == 200
    lines = [json.loads(line) for line in market.gateway.access_log]
    assert any(line.get("user") == SCIENTIST.subject and "/public/" in line["path"] for line in lines)


async def test_a_token_ends_with_its_order_and_when_it_is_revoked(market: Market) -> None:
    order_id, ids = await ordered(market)
    connection = market.gateway.catalogue.connection
    token = await token_of(market, order_id)
    assert (await market.ask("DELETE", f"/user/orders/{order_id}/token"))[0].status == 204
    assert (await public(market, ids[0], token))[0] == 401
    token = await token_of(market, order_id)
    assert (await public(market, ids[0], token))[0] == 200
    await connection.execute("UPDATE orders SET expires_at = now()")
    assert (await public(market, ids[0], token))[0] == 401
    await connection.execute("UPDATE orders SET expires_at = now() + interval '1 hour', status = 'DELETED'")
    assert (await public(market, ids[0], token))[0] == 401
    assert (await market.ask("GET", f"/user/orders/{order_id}/token"))[0].status == 404


async def test_a_token_that_is_not_right_is_401(market: Market) -> None:
    order_id, ids = await ordered(market)
    token = await token_of(market, order_id)
    forged = [
        *("", "x", "999.0." + "A" * 43, f"{order_id}.0." + "A" * 43, token[:-1], token + "x", "²" + token[1:]),
        token.replace(".0.", ".1."),
        OrderTokens(b"another secret of as many bytes as it takes").make(order_id, 0),
        OrderTokens(SECRET.encode()).make(order_id + 1, 0),
        OrderTokens(SECRET.encode()).make(order_id, 1),
    ]
    for wrong in forged:
        assert (await public(market, ids[0], wrong))[0] == 401, wrong
    response, _ = await market.gateway.get(f"/orders/public/files/{ids[0]}?scope=esa")
    assert (response.status, "WWW-Authenticate" in response.headers) == (401, True)


async def test_a_file_that_is_not_ready_is_202_and_one_that_cannot_be_had_422(market: Market) -> None:
    connection = market.gateway.catalogue.connection
    order_id, ids = await ordered(market)
    token = await token_of(market, order_id)
    await connection.execute("UPDATE order_files SET state = 'PENDING' WHERE order_file_id = $1", ids[0])
    await connection.execute("UPDATE order_files SET state = 'ERROR', error = 'Gone.' WHERE order_file_id = $1", ids[1])
    for method in ("GET", "HEAD"):
        assert (await public(market, ids[0], token, method))[0] == 202
        assert (await public(market, ids[1], token, method))[0] == 422
        assert (await market.ask(method, f"/orders/files/{ids[0]}"))[0].status == 202
    assert json.loads((await public(market, ids[1], token))[1]) == {"messages": ["Gone."]}
    response, _ = await market.ask("GET", f"/orders/files/{ids[0]}")
    assert int(response.headers["Retry-After"]) > 0


async def test_a_storage_that_fails_marks_the_file_and_can_be_tried_again(market: Market) -> None:
    order_id, ids = await ordered(market)
    path = market.gateway.catalogue.root / "esa/restricted/item-0/data"
    path.rename(path.with_name("away"))
    response, _ = await market.ask("GET", f"/orders/files/{ids[0]}")
    assert response.status == 404
    order = await market.done(order_id)
    assert (order["content"]["status"], order["content"]["filesInErrorCount"]) == ("DONE_WITH_WARNING", 0)
    path.with_name("away").rename(path)
    assert (await market.ask("GET", f"/orders/files/{ids[0]}"))[1] == b"content 0"
    await become(market, "DOWNLOADED", "AVAILABLE", "AVAILABLE")


async def test_a_client_that_goes_away_spoils_nothing(market: Market) -> None:
    await market.gateway.catalogue.file(b"x" * 30_000_000, item="large")
    order_id = (await market.order(selection("restricted", "id:large")))["content"]["id"]
    await market.done(order_id)
    with contextlib.suppress(Exception):
        async with market.gateway.session.get(
            f"{market.gateway.url}/orders/public/files/{(order_id << 24) + 1}",
            params={"orderToken": await token_of(market, order_id)},
        ) as response:
            await response.content.readany()
            response.close()
    assert await states(market) == ["AVAILABLE"]
    assert (await market.done(order_id))["content"]["status"] == "DONE"


async def test_the_last_part_of_a_resumed_download_ends_it(market: Market) -> None:
    _, ids = await ordered(market)
    await market.ask("GET", f"/orders/files/{ids[0]}", Range="bytes=0-3")
    assert (await states(market))[0] == "AVAILABLE"
    response, body = await market.ask("GET", f"/orders/files/{ids[0]}", Range="bytes=4-")
    assert (response.status, body) == (206, b"ent 0")
    await become(market, "DOWNLOADED", "AVAILABLE", "AVAILABLE")


async def test_a_file_that_left_the_catalogue_is_gone(market: Market) -> None:
    order_id, ids = await ordered(market)
    await market.gateway.catalogue.connection.execute("DELETE FROM products")
    assert (await market.ask("GET", f"/orders/files/{ids[0]}"))[0].status == 410
    _, order = await market.ask("GET", f"/user/orders/{order_id}")
    _, page = await market.ask("GET", f"/orders/{order_id}/dataset/{order['content']['datasetTasks'][0]['id']}/files")
    assert [one["content"]["filename"] for one in page["content"]] == [None] * 3


SECRETS = OrderTokens(b"a secret of the property tests, of many bytes")


@given(st.integers(1, 2**29 - 1), st.integers(0, 10**9 - 1), st.data())
def test_a_token_tells_its_order_and_no_character_of_it_can_be_replaced(
    order_id: int, generation: int, data: st.DataObject
) -> None:
    token = SECRETS.make(order_id, generation)
    assert SECRETS.read(token) == OrderToken(order_id, generation)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda one: one != token[place]))
    assert SECRETS.read(token[:place] + other + token[place + 1 :]) is None


@pytest.mark.parametrize("status", ["EXPIRED", "DELETED"])
async def test_an_order_that_is_over_gives_nothing(market: Market, status: str) -> None:
    order_id, ids = await ordered(market)
    await market.set(order_id, status)
    assert (await market.ask("GET", f"/orders/files/{ids[0]}"))[0].status == 410
