"""Each route of orders: its documented request, its answer, and every documented error."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.credentials import new_key, send, shown_key
from tests.harness import (
    ADMIN,
    OUTSIDER,
    SCIENCE,
    SCIENTIST,
    bearer,
    principal,
)
from tests.orders.market import Market
from tests.orders.support import selection

INSTANCE_ADMIN = principal("root", role="INSTANCE_ADMIN")
COLUMNS = [
    *("ORDER_ID", "CREATION_DATE", "EXPIRATION_DATE", "OWNER"),
    *("STATUS", "STATUS_DATE", "PERCENT_COMPLETE", "FILES_IN_ERROR"),
]
MISSING = "Entity fr.cnes.regards.modules.order.domain.Order with id : {} doesn't exist"


async def test_create_answers_the_order_as_documented_and_empties_the_basket(market: Market) -> None:
    order = await market.order(onSuccessUrl="/user/Olivier/redirect?module=order-history")
    content = order["content"]
    assert set(content) == {
        *("id", "owner", "label", "creationDate", "expirationDate", "percentCompleted", "filesInErrorCount"),
        *("availableFilesCount", "status", "statusDate", "waitingForUser", "datasetTasks"),
    }
    assert (content["owner"], content["filesInErrorCount"]) == (SCIENTIST.email, 0)
    assert content["status"] in ("RUNNING", "DONE")
    (task,) = content["datasetTasks"]
    assert {name: task[name] for name in ("objectsCount", "filesCount", "filesSize")} == {
        "objectsCount": 3,
        "filesCount": 3,
        "filesSize": 27,
    }
    assert set(task) == {"id", "datasetLabel", "objectsCount", "filesCount", "filesSize"}
    assert content["creationDate"].endswith("Z")
    assert content["expirationDate"][10:] == content["creationDate"][10:]
    response, body = await market.ask("POST", "/user/orders")
    assert (response.status, body, response.headers["X-Message"]) == (204, b"", "Basket is empty")


async def test_get_answers_the_order_and_ignores_a_body(market: Market) -> None:
    order_id = (await market.order())["content"]["id"]
    order = await market.done(order_id)
    response, again = await market.ask("GET", f"/user/orders/{order_id}", SCIENTIST, {"onSuccessUrl": "x"})
    assert (response.status, again) == (200, order)
    content = order["content"]
    assert (content["status"], content["percentCompleted"], content["availableFilesCount"]) == ("DONE", 100, 3)
    assert content["waitingForUser"] is True


ROUTES = [
    ("GET", "/user/orders/{}"),
    ("PUT", "/user/orders/pause/{}"),
    ("PUT", "/user/orders/resume/{}"),
    ("DELETE", "/user/orders/{}"),
    ("DELETE", "/user/orders/remove/{}"),
    ("PUT", "/user/orders/{}/retry"),
    ("POST", "/user/orders/{}/restart"),
    ("GET", "/user/orders/{}/token"),
    ("DELETE", "/user/orders/{}/token"),
    ("GET", "/orders/{}/files/available"),
    ("GET", "/orders/{}/dataset/1/files"),
    ("GET", "/orders/{}/filesTask/1/files/available"),
]


async def test_an_unknown_order_and_one_of_somebody_else_is_404_with_the_documented_message(market: Market) -> None:
    order_id = (await market.order())["content"]["id"]
    await market.done(order_id)
    for method, path in ROUTES:
        for who, number in [
            *((SCIENTIST, one) for one in ("999", "0", "abc", "99999999999999999999", "-1", "%C2%B2")),
            (OUTSIDER, str(order_id)),
            (principal("far", role="PROJECT_ADMIN", tenant="other"), str(order_id)),
        ]:
            response, body = await market.ask(method, path.format(number), who)
            shown = number.replace("%C2%B2", "²")
            assert (response.status, body) == (404, {"messages": [MISSING.format(shown)]}), (method, path, number)
    order = await market.done(order_id)
    assert order["content"]["status"] == "DONE"


async def test_a_key_of_an_administrator_reaches_orders_of_others_only_if_it_is_one_to_administer(
    market: Market,
) -> None:
    order_id = (await market.order())["content"]["id"]
    await market.done(order_id)
    for scopes, status in ((["order"], 404), (["order", "admin"], 200)):
        key = shown_key((await new_key(market.gateway, ADMIN, scopes=scopes))["key"])
        answer, *_ = await send(market.gateway, "GET", f"/user/orders/{order_id}", key)
        assert answer == status, scopes


async def test_an_action_is_200_where_it_is_possible_and_else_401_with_the_documented_message(
    market: Market,
) -> None:
    order_id = (await market.order())["content"]["id"]
    await market.done(order_id)
    for status, method, path, message in [
        ("DONE", "PUT", "/user/orders/pause/{}", "ORDER_MUST_BE_PENDING_OR_RUNNING"),
        ("RUNNING", "PUT", "/user/orders/resume/{}", "ONLY_PAUSED_ORDER_CAN_BE_RESUMED"),
        ("RUNNING", "DELETE", "/user/orders/{}", "ORDER_MUST_BE_PAUSED_BEFORE_BEING_DELETED"),
        ("RUNNING", "DELETE", "/user/orders/remove/{}", "ORDER_MUST_NOT_BE_RUNNING"),
        ("DONE", "PUT", "/user/orders/{}/retry", "ORDER_MUST_BE_DONE_WITH_WARNING_OR_FAILED"),
        ("PAUSED", "POST", "/user/orders/{}/restart", "ORDER_MUST_BE_DONE_OR_DONE_WITH_WARNING_OR_FAILED"),
    ]:
        await market.set(order_id, status)
        response, body = await market.ask(method, path.format(order_id))
        assert (response.status, body) == (401, {"messages": [message]})
    for status, method, path, becomes in [
        ("RUNNING", "PUT", "/user/orders/pause/{}", "PAUSED"),
        ("PENDING", "PUT", "/user/orders/pause/{}", "PAUSED"),
        ("PAUSED", "PUT", "/user/orders/resume/{}", "DONE"),
        ("FAILED", "PUT", "/user/orders/{}/retry", "DONE"),
    ]:
        await market.set(order_id, status)
        response, body = await market.ask(method, path.format(order_id))
        assert (response.status, body) == (200, b"")
        assert (await market.done(order_id))["content"]["status"] == becomes
    response, _ = await market.ask("DELETE", f"/user/orders/{order_id}")
    assert response.status == 200
    assert (await market.ask("GET", f"/user/orders/{order_id}"))[0].status == 404, "its user does not see it"
    assert (await market.ask("GET", f"/user/orders/{order_id}", ADMIN))[1]["content"]["status"] == "DELETED"
    assert (await market.ask("DELETE", f"/user/orders/remove/{order_id}", ADMIN))[0].status == 200
    assert (await market.ask("GET", f"/user/orders/{order_id}", ADMIN))[0].status == 404


async def test_links_lead_to_what_is_possible_and_to_nothing_else(market: Market) -> None:
    order_id = (await market.order())["content"]["id"]
    await market.done(order_id)
    always = {"self", "list"}
    for status, offered in {
        "PENDING": {"pause", "remove"},
        "RUNNING": {"pause", "download"},
        "PAUSED": {"resume", "delete", "remove", "download"},
        "DONE": {"delete", "remove", "restart", "download"},
        "DONE_WITH_WARNING": {"delete", "remove", "restart", "retry", "download"},
        "FAILED": {"delete", "remove", "restart", "retry", "download"},
        "EXPIRED": {"delete", "remove"},
    }.items():
        await market.set(order_id, status)
        _, order = await market.ask("GET", f"/user/orders/{order_id}")
        assert {link["rel"] for link in order["links"]} == always | offered, status
        assert all(link["href"].startswith(f"{market.gateway.url}/user/orders") for link in order["links"])


async def test_answers_have_the_shape_that_is_described(market: Market) -> None:
    path = f"{market.gateway.url}/api"
    async with market.gateway.session.get(path) as response:
        document = json.loads(await response.read())
    order_id = (await market.order())["content"]["id"]
    order = await market.done(order_id)
    task = order["content"]["datasetTasks"][0]["id"]
    # Tokens of other tests, which nobody may see, may be the same.
    url = f"{market.gateway.url}/user/orders/{order_id}/token"
    async with market.gateway.session.get(url, headers=bearer(SCIENTIST)) as response:
        token = await response.json()
    answers = {
        "Order": order,
        "Orders": (await market.ask("GET", "/user/orders"))[1],
        "OrderFiles": (await market.ask("GET", f"/orders/{order_id}/dataset/{task}/files"))[1],
        "AvailableFiles": (await market.ask("GET", f"/orders/{order_id}/files/available"))[1],
        "OrderResponse": (await market.ask("POST", "/user/orders/apply", SCIENTIST, {"queries": [""]}))[1],
        "OrderToken": token,
    }
    for name, body in answers.items():
        schema = {**document, "$ref": f"#/components/schemas/{name}"}
        assert list(Draft202012Validator(schema).iter_errors(body)) == [], name


async def test_restart_orders_the_same_again(market: Market) -> None:
    order_id = (await market.order(selection("restricted", "id:item-1")))["content"]["id"]
    await market.done(order_id)
    response, again = await market.ask("POST", f"/user/orders/{order_id}/restart", SCIENTIST, {"label": "again"})
    assert response.status == 200
    assert again["content"]["id"] != order_id
    assert (again["content"]["label"], again["content"]["datasetTasks"][0]["filesCount"]) == ("again", 1)
    assert (await market.ask("POST", f"/user/orders/{order_id}/restart", ADMIN))[0].status == 404


async def test_pages_have_metadata_links_and_the_newest_first(market: Market) -> None:
    made = [(await market.order())["content"]["id"] for _ in range(5)]
    other = (await market.order(who=ADMIN))["content"]["id"]
    for order_id in made:
        await market.done(order_id)
    response, page = await market.ask("GET", "/user/orders?page=1&size=2")
    assert response.status == 200
    assert page["metadata"] == {"size": 2, "totalElements": 5, "totalPages": 3, "number": 1}
    assert [one["content"]["id"] for one in page["content"]] == [made[2], made[1]]
    links = {link["rel"]: link["href"].partition("?")[2] for link in page["links"]}
    assert links == {
        "first": "page=0&size=2",
        "prev": "page=0&size=2",
        "self": "page=1&size=2",
        "next": "page=2&size=2",
        "last": "page=2&size=2",
    }
    _, page = await market.ask("GET", "/orders", ADMIN)
    assert [one["content"]["id"] for one in page["content"]] == [other, *reversed(made)]
    _, page = await market.ask("GET", f"/orders?user={SCIENTIST.email}&size=3", ADMIN)
    assert (page["metadata"]["totalElements"], len(page["content"])) == (5, 3)
    assert (await market.ask("GET", "/orders?user=nobody@example.org", ADMIN))[1]["content"] == []
    for query in ("page=-1", "size=0", "size=1001", "page=x", "page=1.5"):
        assert (await market.ask("GET", f"/user/orders?{query}"))[0].status == 400, query
    for path in ("/orders", "/orders/csv"):
        assert (await market.ask("GET", path))[0].status == 403


async def test_administrators_search_by_owner_status_time_and_what_waits(market: Market) -> None:
    first, second = [(await market.order())["content"]["id"] for _ in range(2)]
    await market.done(first)
    await market.done(second)
    await market.set(first, "FAILED")

    async def search(**body: Any) -> list[int]:
        response, page = await market.ask("POST", "/orders/search", ADMIN, body)
        assert response.status == 200, page
        return [one["content"]["id"] for one in page["content"]]

    assert await search() == [second, first]
    assert await search(owner=SCIENTIST.email) == [second, first]
    assert await search(owner="x") == []
    assert await search(statuses={"mode": "INCLUDE", "values": ["FAILED"]}) == [first]
    assert await search(statuses={"mode": "EXCLUDE", "values": ["FAILED"]}) == [second]
    assert await search(waitingForUser=True) == [second, first]
    assert await search(waitingForUser=False) == []
    assert await search(creationDate={"after": "2020-01-01T00:00:00Z"}) == [second, first]
    assert await search(creationDate={"before": "2020-01-01T00:00:00Z"}) == []
    wrong: dict[str, Any]
    for wrong in (
        {"statuses": {"values": ["NO"]}},
        {"statuses": {"values": [[]]}},
        {"statuses": []},
        {"creationDate": {"after": "yesterday"}},
        {"waitingForUser": "yes"},
        {"owner": 1},
        {"else": 1},
    ):
        assert (await market.ask("POST", "/orders/search", ADMIN, wrong))[0].status == 400, wrong


@pytest.mark.parametrize("accept", ["text/csv", "test/csv", "text/html, text/csv;q=0.5"])
async def test_csv_has_the_documented_columns_and_runs_in_no_spreadsheet(market: Market, accept: str) -> None:
    evil = principal("evil", SCIENCE, email='=cmd|"/c calc"!A1')
    order = (await market.order(who=evil))["content"]
    await market.done(order["id"], evil)
    asked = [
        await market.ask("GET", "/orders", ADMIN, Accept=accept),
        await market.ask("GET", "/orders/csv", ADMIN),
        await market.ask("POST", "/orders/csv", ADMIN, {"statuses": {"values": ["DONE"]}}),
    ]
    for response, text in asked:
        assert (response.status, response.content_type) == (200, "text/csv")
        header, line = csv.reader(io.StringIO(text.decode()), delimiter=";")
        assert header == COLUMNS
        assert line[:3] == [str(order["id"]), order["creationDate"], order["expirationDate"]]
        assert line[3].startswith("'=")
        assert (line[4], line[6:]) == ("DONE", ["100", "0"])


async def test_csv_is_streamed_piece_by_piece_and_whole(market: Market) -> None:
    await market.gateway.catalogue.connection.execute(
        "INSERT INTO orders (tenant_id, owner, owner_subject, owner_role, owner_groups, label, status, expires_at) "
        "SELECT tenant_id, 'x', 'x', 'x', '{}', 'label ' || n, 'DONE', now() FROM tenants, generate_series(1, 2500) n"
    )
    _, text = await market.ask("GET", "/orders/csv", ADMIN)
    assert [int(line.partition(b";")[0]) for line in text.splitlines()[1:]] == list(range(1, 2501))


async def test_apply_orders_what_queries_select_in_one_call(market: Market) -> None:
    body = {"queries": ["providerId:item-1"], "filters": {"dataTypes": ["RAWDATA"]}, "correlationId": "mine"}
    response, granted = await market.ask("POST", "/user/orders/apply", SCIENTIST, body)
    assert response.status == 200
    order = await market.done(granted["orderId"])
    assert granted == {"status": "GRANTED", "orderId": order["content"]["id"], "correlationId": "mine"}
    assert order["content"]["availableFilesCount"] == 1
    for wrong, kind in [
        ({"queries": ["providerId:none"]}, "EMPTY_ORDER"),
        ({"queries": ["what?"]}, "INVALID_CONTENT"),
        ({"queries": ["providerId:item-1) OR (providerId:item-2"]}, "INVALID_CONTENT"),
        ({"queries": [""], "filters": {"filenameRegExp": "("}}, "INVALID_CONTENT"),
        ({"queries": [""], "filters": {"dataTypes": ["QUICKLOOK"]}}, "EMPTY_ORDER"),
        ({"queries": [""], "sizeLimitInBytes": 26}, "ORDER_LIMIT_REACHED"),
        ({"queries": [""], "user": "somebody@example.org"}, "FORBIDDEN"),
        ({"queries": [""], "label": "x" * 51}, "INVALID_CONTENT"),
    ]:
        response, denied = await market.ask("POST", "/user/orders/apply", SCIENTIST, wrong)
        assert (response.status, denied["status"], denied["errorType"]) == (422, "DENIED", kind), denied
    bad: dict[str, Any]
    for bad in ({}, {"queries": []}, {"queries": [1]}, {"queries": ["x"], "correlationId": ""}, {"queries": ["\0"]}):
        assert (await market.ask("POST", "/user/orders/apply", SCIENTIST, bad))[0].status == 400, bad
    response, granted = await market.ask(
        "POST", "/user/orders/apply", SCIENTIST, {"queries": ["", "providerId:item-1"]}
    )
    assert (await market.done(granted["orderId"]))["content"]["availableFilesCount"] == 3


async def test_a_label_is_bounded_and_unique_and_a_url_leads_home(market: Market) -> None:
    await market.order(label="mine")
    for label, message in (("mine", "LABEL_NOT_UNIQUE_FOR_OWNER"), ("x" * 51, "TOO_MANY_CHARACTERS_IN_LABEL")):
        market.basket = [selection()]
        response, body = await market.ask("POST", "/user/orders", SCIENTIST, {"label": label})
        assert (response.status, body) == (422, {"messages": [message]})
    for url in ("https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil", "/" + "x" * 2001, 7):
        response, _ = await market.ask("POST", "/user/orders", SCIENTIST, {"onSuccessUrl": url})
        assert response.status == 400, url
