"""The download class of the STAC API to the letter: its statuses, and every error as an ``exception``."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.identity.principal import Principal
from tests.harness import OUTSIDER, SCIENTIST, RunningGateway
from tests.proxy import counting_proxy
from tests.stac.doors import Doors, far_file, fresh

CONTENT = b"0123456789" * 1000
EXCEPTION = Draft202012Validator(
    {
        "type": "object",
        "required": ["code"],
        "properties": {"code": {"type": "string"}, "description": {"type": "string"}},
    }
)
"""The schema of the extension's OpenAPI definition."""


async def refusal(gateway: RunningGateway, path: str, who: Principal | None = SCIENTIST, **fields: str) -> Any:
    """Status, code, Retry-After and such of an error, which must be an exception."""
    response, body = await gateway.get(path, who, **fields)
    assert response.headers["Content-Type"] == "application/json"
    told = json.loads(body)
    EXCEPTION.validate(told)
    assert told["code"]
    assert told["description"]
    head, empty = await gateway.request("HEAD", path, who, **fields)
    assert (head.status, empty) == (response.status, b"") or response.status == 429
    return response.status, told["code"], response.headers


@pytest.mark.parametrize("name", ["download", "assets"])
async def test_a_file_is_streamed_or_redirected_to_and_nothing_else(every_way: RunningGateway, name: str) -> None:
    gateway = every_way
    streamed = (await gateway.catalogue.file(CONTENT)).stac.replace("/download/", f"/{name}/")
    redirected = (await far_file(gateway, CONTENT)).stac.replace("/download/", f"/{name}/")
    response, body = await gateway.get(streamed, SCIENTIST)
    assert (response.status, body, response.headers["Content-Type"]) == (200, CONTENT, "image/tiff")
    response, body = await gateway.get(redirected, SCIENTIST)
    assert (response.status, body) == (307, b"")
    assert response.headers["Location"].startswith("http://storage.example.org/")
    response, body = await gateway.get(streamed, SCIENTIST, Range="bytes=10-14")
    assert (response.status, body) == (206, b"01234")
    for method in ("POST", "PUT", "DELETE"):
        response, body = await gateway.request(method, streamed, SCIENTIST)
        assert (response.status, json.loads(body)["code"]) == (405, "MethodNotAllowed")
        assert response.headers["Allow"] == "GET,HEAD"


async def test_what_is_not_there_is_404(gateway: RunningGateway) -> None:
    await gateway.catalogue.file(CONTENT)
    for path in (
        "none/items/item/download/data",
        "restricted/items/none/download/data",
        "restricted/items/item/download/none",
        "restricted/items/item/download/",
        "restricted/items/item/assets/none",
    ):
        status, code, _ = await refusal(gateway, f"/collections/{path}")
        assert (status, code) == (404, "NotFound"), path


async def test_whoever_may_not_is_told_why(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(CONTENT)
    status, code, fields = await refusal(gateway, entry.stac, None)
    assert (status, code, fields["WWW-Authenticate"]) == (401, "Unauthorized", 'Bearer realm="downloads"')
    status, _, fields = await refusal(gateway, entry.stac, None, Authorization="Bearer x.y.z")
    assert (status, 'error="invalid_token"' in fields["WWW-Authenticate"]) == (401, True)
    assert (await refusal(gateway, entry.stac, OUTSIDER))[:2] == (403, "Forbidden")
    assert (await refusal(gateway, f"{entry.stac}?scope=esa", None))[:2] == (403, "Forbidden")


async def test_conditions_that_do_not_hold(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(CONTENT)
    response, body = await gateway.get(entry.stac, SCIENTIST, Range="bytes=20000-")
    assert (response.status, json.loads(body)["code"]) == (416, "RangeNotSatisfiable")
    assert response.headers["Content-Range"] == "bytes */10000"
    assert (await refusal(gateway, entry.stac, If_Match='"other"'))[:2] == (412, "PreconditionFailed")


async def test_a_licence_that_is_not_accepted(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(CONTENT)
    await gateway.catalogue.licence("restricted")
    status, code, fields = await refusal(gateway, entry.stac)
    assert (status, code) == (423, "LicenseNotAccepted")
    assert fields["Link"] == '<https://example.org/licence>; rel="license"'
    told = json.loads((await gateway.get(entry.stac, SCIENTIST))[1])
    (accept,) = [link["href"] for link in told["links"] if link["rel"] == "accept"]
    response, _ = await gateway.get(accept.removeprefix(gateway.url), SCIENTIST)
    assert response.status == 200


async def test_what_the_storage_lacks_at_the_moment(gateway: RunningGateway) -> None:
    nearline = await gateway.catalogue.file(CONTENT, asset="nearline", state="NEARLINE")
    elsewhere = await gateway.catalogue.file(CONTENT, asset="elsewhere", storage="nobody's")
    status, code, _ = await refusal(gateway, nearline.stac)
    assert (status, code) == (409, "NotOnline")
    status, code, fields = await refusal(gateway, elsewhere.stac)
    assert (status, code, fields["Retry-After"]) == (503, "NoStorage", "300")


async def test_a_quota_that_is_used_up(gateway: RunningGateway) -> None:
    one, two = [await gateway.catalogue.file(b"%d" % number, item=f"item-{number}") for number in range(2)]
    await gateway.catalogue.limit("user", SCIENTIST.email or "", downloads=1)
    assert (await gateway.get(one.stac, SCIENTIST))[0].status == 200
    assert (await refusal(gateway, two.stac))[:2] == (429, "QuotaExceeded")


async def test_without_postgresql(doors: Doors) -> None:
    async with counting_proxy(doors.database) as (proxy, dsn), fresh(doors, dsn) as gateway:
        entry = await gateway.catalogue.file(CONTENT)
        proxy.shut = True
        proxy.cut()
        status, _, fields = await refusal(gateway, entry.stac)
        proxy.shut = False
        assert (status, int(fields["Retry-After"]) > 0) == (503, True)


async def test_a_copy_that_is_gone_is_told_as_an_exception(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(CONTENT)
    entry.path.unlink()
    response, body = await gateway.get(entry.stac, SCIENTIST)
    EXCEPTION.validate(json.loads(body))
    assert response.status == 404


async def test_the_description_has_the_operation_of_the_extension(gateway: RunningGateway) -> None:
    told = json.loads((await gateway.get("/api"))[1])
    operation = told["paths"]["/collections/{collectionId}/items/{itemId}/download/{assetId}"]["get"]
    assert (operation["operationId"], operation["tags"]) == ("getDownload", ["Download"])
    assert {"200", "307", "404", "500"} <= set(operation["responses"])
    assert "application/octet-stream" in operation["responses"]["200"]["content"]
    location = operation["responses"]["307"]["headers"]["Location"]
    assert (location["required"], location["schema"]) == (True, {"type": "string", "format": "uri"})
    for status in ("401", "403", "404", "409", "416", "423", "429", "500", "503"):
        (media_type,) = operation["responses"][status]["content"].items()
        assert media_type == ("application/json", {"schema": {"$ref": "#/components/schemas/exception"}})
    exception = told["components"]["schemas"]["exception"]
    assert (exception["required"], exception["properties"]["code"]) == (["code"], {"type": "string"})


async def test_a_digest_goes_with_the_redirect(every_way: RunningGateway) -> None:
    entry = await far_file(every_way, CONTENT)
    response, _ = await every_way.get(entry.stac, SCIENTIST)
    assert hashlib.sha256(CONTENT).hexdigest() == entry.checksum
    assert "Repr-Digest" in response.headers
