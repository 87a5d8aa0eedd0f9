"""Links to many files at once: ``POST /download`` below the root of the STAC API."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.api.bodies import answer, bad, members, read_json, text
from gateway.api.callers import caller
from gateway.api.keys import DOWNLOADS
from gateway.api.link_routes import Maker, maker_for
from gateway.archive.names import Names
from gateway.catalog.model import Address, ByAsset, ByChecksum, File
from gateway.downloads import Downloads
from gateway.errors import GatewayError
from gateway.hashing import HASHES
from gateway.http.accept import prefers
from gateway.identity.principal import Principal
from gateway.licence_links import show_way
from gateway.links import API, FileUrls, base_url
from gateway.metalink import Entry, Metalink4, Mirror, document
from gateway.rights.licences import NotAcceptedError
from gateway.sources import choose
from gateway.stac.roots import root_url

MOST_FILES = 500
"""In one request."""
_AT_A_TIME = 50
"""Links that are signed before others have their turn."""
_OPTIONS = ("expires", "network")


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """A file that the caller may have, and how he gets it."""

    file: File
    url: str
    expires: str | None

    @property
    def digests(self) -> dict[str, str]:
        file = self.file
        known = file.checksum is not None and file.checksum_algorithm in HASHES
        return {str(file.checksum_algorithm).lower(): str(file.checksum).lower()} if known else {}

    def told(self) -> dict[str, object]:
        return {
            "href": self.url,
            "expires": self.expires,
            "name": self.file.name,
            "type": self.file.mime_type,
            "size": self.file.size,
            "digests": self.digests,
        }


async def post_download(request: web.Request) -> web.Response:
    """``POST /download``: where each of many files is fetched, or why it cannot be.

    The body is a list of ``{"collection", "item", "asset"}`` or ``{"product", "checksum"}``; or an object that has it
    as ``files``, and ``expires`` and ``network`` as for ``POST /links``. Users get signed links, anonymous callers the
    addresses as they are. Nothing is charged: downloads are. All is looked up in one round trip.
    """
    principal = await caller(request, "download")
    addresses, options = _asked(await read_json(request))
    api = request.app[API]
    urls = FileUrls(f"{base_url(request, api.public_url)}{api.regards_prefix}", root_url(request, principal))
    maker = await maker_for(request, principal, options, urls)
    found = await _find(request.app[DOWNLOADS], principal, list(dict.fromkeys(addresses)), urls, maker)
    if prefers(request.headers, Metalink4.media_type, "application/json"):
        return _as_metalink(request, found)
    return answer({"files": [_told(one, found[one]) for one in addresses]})


def routes(root: str) -> list[web.RouteDef]:
    """The route below the path of a root."""
    return [web.post(f"{root}/download", post_download)]


def _asked(body: Any) -> tuple[list[Address], dict[str, Any]]:
    options: dict[str, Any] = {}
    if isinstance(body, dict):
        options = members(body, ("files",), _OPTIONS)
        body = options.pop("files")
    if not isinstance(body, list) or not 1 <= len(body) <= MOST_FILES:
        raise bad(f"The body must be a list of 1 to {MOST_FILES} files, or an object with such a list as 'files'.")
    return [_address(one) for one in body], options


def _address(value: Any) -> Address:
    if isinstance(value, dict) and "product" in value:
        names: tuple[str, ...] = ("product", "checksum")
    else:
        names = ("collection", "item", "asset")
    parts = [text(members(value, names)[name], name) for name in names]
    return ByChecksum(*parts) if len(parts) == 2 else ByAsset(*parts)


async def _find(
    downloads: Downloads, principal: Principal, addresses: Sequence[Address], urls: FileUrls, maker: Maker | None
) -> dict[Address, _Found | GatewayError]:
    hindrances = await _hindrances(downloads, principal, addresses)
    located = await downloads.catalog.locate_all(addresses, principal)
    found: dict[Address, _Found | GatewayError] = {}
    for number, (address, file) in enumerate(located.items()):
        if number % _AT_A_TIME == 0:
            await asyncio.sleep(0)
        try:
            hindrance = hindrances.get((address.collection, address.item)) if isinstance(address, ByAsset) else None
            unknown = isinstance(file, GatewayError) and file.status == HTTPStatus.NOT_FOUND
            if hindrance is not None and (unknown or hindrance.status == HTTPStatus.NOT_FOUND):
                raise hindrance
            if isinstance(file, GatewayError):
                raise file
            if not downloads.waiting.would_restore(file, principal.tenant):
                choose(file, downloads.locations, principal.tenant, resting=downloads.resting)
            found[address] = _made(file, address, urls, principal, maker)
        except NotAcceptedError as error:
            show_way(error, principal, f"{urls.of(address)}?acceptLicense=true", urls.stac)
            found[address] = error
        except GatewayError as error:
            found[address] = error
    return found


async def _hindrances(
    downloads: Downloads, principal: Principal, addresses: Sequence[Address]
) -> Mapping[tuple[str, str], GatewayError]:
    """Have the catalogue know the items as the upstream does, where there is one; what hindered it."""
    upstream = downloads.upstream
    if upstream is None or principal.tenant != upstream.tenant:
        return {}
    return await upstream.ensure_all((one.collection, one.item) for one in addresses if isinstance(one, ByAsset))


def _made(file: File, address: Address, urls: FileUrls, principal: Principal, maker: Maker | None) -> _Found:
    if maker is not None:
        return _Found(file, maker.link(address)[1], maker.expires)
    # The root of the STAC API that he is led to tells his tenant, REGARDS' paths do not.
    names = principal.is_anonymous and isinstance(address, ByChecksum)
    query = f"?scope={quote(principal.tenant, safe='')}" if names else ""
    return _Found(file, f"{urls.of(address)}{query}", None)


def _told(address: Address, found: _Found | GatewayError) -> Mapping[str, object]:
    named = dataclasses.asdict(address)
    if isinstance(found, _Found):
        return {**named, **found.told()}
    error: dict[str, object] = {"status": int(found.status), "code": found.code, "description": found.detail}
    if found.links:
        error["links"] = list(found.links)
    return {**named, "error": error}


def _as_metalink(request: web.Request, found: Mapping[Address, _Found | GatewayError]) -> web.Response:
    """All files, or the first error: whoever downloads by a metalink would not see that some are left out."""
    errors = {address: one for address, one in found.items() if isinstance(one, GatewayError)}
    for error in errors.values():
        refused = [_told(address, one) for address, one in errors.items()]
        detail = f"{len(errors)} of {len(found)} files cannot be had. {error.detail}"
        raise GatewayError(error.status, detail, error.code, error.headers, {"files": refused})
    body = b"".join(document(Metalink4(), _entries(found), request.app[DOWNLOADS].clock()))
    fields = {"Cache-Control": "no-store", "Vary": "Authorization, Accept"}
    return web.Response(body=body, content_type=Metalink4.media_type, headers=fields)


def _entries(found: Mapping[Address, _Found | GatewayError]) -> Iterator[Entry]:
    """Each file in a folder of its own item or product."""
    names = Names()
    for address, one in found.items():
        if isinstance(one, _Found):
            path = names.place(one.file.name, _directory(address))
            digests = {name.upper(): value for name, value in one.digests.items()}
            yield Entry(path, [Mirror(one.url)], one.file.size, digests)


def _directory(address: Address) -> str:
    return address.product if isinstance(address, ByChecksum) else address.item
