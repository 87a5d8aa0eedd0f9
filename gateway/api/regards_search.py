"""REGARDS' search of products, in the standard form: ``/engines/legacy/dataobjects``."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.api.bodies import answer, bad
from gateway.api.callers import caller
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.config import Api, Config, Rights
from gateway.errors import GatewayError
from gateway.links import absolute_url, base_url
from gateway.search.composition import date_text
from gateway.search.products import SORTS, Found, FoundFile, Order, Page, ProductSearch
from gateway.search.query import QueryError
from gateway.search.reading import parse

MOST_SIZE = 100
"""Products on a page."""
FURTHEST = 10_000
"""Products that can be paged to: each page has to pass by those before it."""
_SIZE = 20
_NUMBER = re.compile(r"[0-9]{1,9}")
_DIRECTIONS: Mapping[str, bool] = {"asc": False, "desc": True}


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """Where files are downloaded from."""

    base: str
    regards_prefix: str
    stac_prefix: str

    def of(self, product: Found, file: FoundFile) -> str:
        """The URL of ``file``: of a reference its own, which takes no credential of this gateway."""
        if file.reference and file.url is not None:
            return file.url
        if file.checksum is not None:
            parts: tuple[str, ...] = (product.urn, file.checksum)
            path = f"{self.regards_prefix}/downloads/{{}}/files/{{}}"
        else:
            parts = (product.collection, product.provider_id, file.asset_key)
            path = f"{self.stac_prefix}/collections/{{}}/items/{{}}/download/{{}}"
        return self.base + path.format(*(quote(part, safe=":") for part in parts))


_API = web.AppKey("api of product search", Api)
_RIGHTS = web.AppKey("rights of product search", Rights)
_SEARCH = web.AppKey("product search", ProductSearch)


def set_up(app: web.Application, config: Config) -> None:
    """Have ``app`` search products."""
    app[_API], app[_RIGHTS] = config.api, config.rights
    app.add_routes(routes(config.api.regards_prefix))
    app.on_startup.append(_open)


async def search(request: web.Request) -> web.Response:
    """``GET /engines/legacy/dataobjects/search?q=…&page=…&size=…&sort=…``: a page of the products of a query."""
    principal = await caller(request, "download")
    number, size = _whole(request, "page", 0), _whole(request, "size", _SIZE)
    if not 1 <= size <= MOST_SIZE:
        raise bad(f"'size' must be 1 to {MOST_SIZE}.")
    if (number + 1) * size > FURTHEST:
        raise bad(f"Only the first {FURTHEST} products can be paged to: narrow the query, for example by creationDate.")
    order = _order(request)
    try:
        query = await asyncio.to_thread(parse, request.query.get("q", ""))
        page = await request.app[_SEARCH].find(principal, query, order, number * size, size)
    except QueryError as error:
        raise GatewayError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    links = _links(request, number, size, page.total)
    return await asyncio.to_thread(_answer_page, page, number, size, links, _addresses(request))


async def get_product(request: web.Request) -> web.Response:
    """``GET /engines/legacy/dataobjects/{urn}``: one product."""
    principal, urn = await caller(request, "download"), request.match_info["urn"]
    missing = GatewayError(HTTPStatus.NOT_FOUND, f"There is no product {urn!r}.")
    try:
        found = await request.app[_SEARCH].get(principal, urn)
    except GatewayError as error:
        if error.status == HTTPStatus.FORBIDDEN and request.app[_RIGHTS].hide_forbidden:
            raise missing from error
        raise
    if found is None:
        raise missing
    return answer(_entity(found, _addresses(request)))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    path = f"{prefix}/engines/legacy/dataobjects"
    return [web.get(f"{path}/search", search), web.get(f"{path}/{{urn}}", get_product)]


async def _open(app: web.Application) -> None:
    policies, open_data_types = app[DOWNLOADS].catalog.policies, app[_RIGHTS].open_data_types
    app[_SEARCH] = ProductSearch(app[DATABASE], policies, open_data_types)


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not _NUMBER.fullmatch(text):
        raise bad(f"{name!r} must be a whole number.")
    return int(text)


def _order(request: web.Request) -> list[Order]:
    """What ``sort=name,name,desc`` says, which may be there several times."""
    found: dict[str, Order] = {}
    for text in request.query.getall("sort", []):
        *names, last = text.split(",")
        descending = _DIRECTIONS.get(last.lower())
        for name in names if descending is not None else [*names, last]:
            if name not in SORTS:
                raise bad(f"Products cannot be sorted by {name[:60]!r}; they can by {', '.join(SORTS)}.")
            found.setdefault(name, Order(name, descending is True))
    return list(found.values()) or [Order("creationDate")]


def _addresses(request: web.Request) -> Addresses:
    api = request.app[_API]
    return Addresses(base_url(request, api.public_url), api.regards_prefix, api.stac_prefix)


def _links(request: web.Request, number: int, size: int, total: int) -> list[dict[str, str]]:
    pages = {"self": number}
    if number > 0:
        pages["prev"] = number - 1
    if (number + 1) * size < total and (number + 2) * size <= FURTHEST:
        pages["next"] = number + 1
    public_url = request.app[_API].public_url
    return [
        {"rel": rel, "href": absolute_url(request, public_url, "page", page=str(page))} for rel, page in pages.items()
    ]


def _answer_page(page: Page, number: int, size: int, links: list[dict[str, str]], addresses: Addresses) -> web.Response:
    metadata = {"size": size, "totalElements": page.total, "totalPages": -(-page.total // size), "number": number}
    content = [_entity(product, addresses) for product in page.products]
    return answer({"metadata": metadata, "content": content, "links": links})


def _entity(product: Found, addresses: Addresses) -> dict[str, Any]:
    """A product as REGARDS' standard search has it."""
    by_type: dict[str, list[dict[str, Any]]] = {}
    for file in product.files:
        by_type.setdefault(file.data_type, []).append(_file(product, file, addresses))
    feature = {
        "id": product.urn,
        "providerId": product.provider_id,
        "entityType": "DATA",
        "type": "Feature",
        "label": product.label or product.provider_id,
        "model": product.model,
        "tags": list(dict.fromkeys((product.dataset, *product.tags))),
        "creationDate": date_text(product.created),
        "lastUpdate": date_text(product.updated),
        "geometry": product.geometry,
        "bbox": product.bbox,
        "properties": product.properties,
        "files": by_type,
    }
    return {"content": {name: value for name, value in feature.items() if value is not None}, "links": []}


def _file(product: Found, file: FoundFile, addresses: Addresses) -> dict[str, Any]:
    return {
        "dataType": file.data_type,
        "reference": file.reference,
        "uri": addresses.of(product, file),
        "mimeType": file.mime_type,
        "online": file.online,
        "checksum": file.checksum,
        "digestAlgorithm": file.checksum_algorithm,
        "filesize": file.size,
        "filename": file.name,
        "types": [],
    }
