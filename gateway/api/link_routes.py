"""Signed download links: ``/links``."""

from __future__ import annotations

import dataclasses
import datetime
import time
from http import HTTPStatus
from typing import Any

from aiohttp import web

from gateway.administration import links
from gateway.administration.keys import time_of
from gateway.api.admin import actor_of, no_content
from gateway.api.bodies import answer, bad, email, integer, members, read_json, text
from gateway.api.callers import caller, forbidden, is_administrator
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.api.keys_admin import end, network
from gateway.catalog.model import Address, ByAsset, ByChecksum
from gateway.config import Config
from gateway.config import Links as LinkSettings
from gateway.errors import GatewayError, unauthorized
from gateway.identity.api_keys import new_id
from gateway.identity.principal import Principal
from gateway.identity.signed_links import LONGEST_TOKEN, Grant, Signer
from gateway.links import API, LINK, FileUrls, base_url
from gateway.quotas.limits import MOST

_OPTIONAL = ("expires", "downloads", "bytes", "network")


@dataclasses.dataclass(frozen=True, slots=True)
class Making:
    """What links are made with."""

    signer: Signer
    settings: LinkSettings


@dataclasses.dataclass(frozen=True, slots=True)
class Maker:
    """Makes links of one caller; all are good for as much, each for one file."""

    made_with: Making
    grant: Grant
    """Without the id of a link."""
    key_id: str
    """Of the key that they are signed with."""
    urls: FileUrls

    @property
    def expires(self) -> str | None:
        """When the links end."""
        return time_of(datetime.datetime.fromtimestamp(self.grant.expires, datetime.UTC))

    def link(self, address: Address) -> tuple[str, str]:
        """Id and URL of a link to the file at ``address``.

        Raises:
            GatewayError: 400 it would be too long.
        """
        grant = dataclasses.replace(self.grant, link_id=f"{self.key_id}-{new_id()}")
        token = self.made_with.signer.sign(grant, address)
        if len(token) > LONGEST_TOKEN:
            raise bad("You have too many groups for a link: they do not fit into a URL.")
        return grant.link_id, f"{self.urls.of(address)}?{LINK}={token}"


LINKS = web.AppKey("links", Making)
"""Not there if the settings allow no links."""


def set_up(app: web.Application, config: Config) -> None:
    """Have ``app`` make links."""
    app.add_routes(routes())
    settings = config.identity.links
    if settings is not None:
        app[LINKS] = Making(Signer(settings.secret.get_secret_value().encode()), settings)


async def post_link(request: web.Request) -> web.Response:
    """``POST /links``: a URL that downloads one file, as the caller, without a credential beside it.

    The body names the file, ``{"product", "checksum"}`` or ``{"collection", "item", "asset"}``, and may say when the
    link ends (``expires``), how many ``downloads`` and ``bytes`` it is good for, and from which ``network``.
    """
    principal, made_with = await _maker(request), _making(request)
    body = await read_json(request)
    names = ("product", "checksum") if isinstance(body, dict) and "product" in body else ("collection", "item", "asset")
    body = members(body, names, _OPTIONAL)
    parts = [text(body[name], name) for name in names]
    address: Address = ByChecksum(*parts) if len(parts) == 2 else ByAsset(*parts)
    grant = _grant(body, principal, made_with.settings)
    file = await request.app[DOWNLOADS].catalog.locate(address, principal)
    if not file.is_metered and (grant.downloads, grant.octets) != (None, None):
        raise bad("Downloads of this file are not counted, so that 'downloads' and 'bytes' cannot bound them.")
    key_id = await links.key_for(request.app[DATABASE], actor_of(request, principal), principal)
    base, api = base_url(request, request.app[API].public_url), request.app[API]
    maker = Maker(made_with, grant, key_id, FileUrls(f"{base}{api.regards_prefix}", f"{base}{api.stac_prefix}"))
    identifier, url = maker.link(address)
    return answer({"url": url, "expires": maker.expires, "id": identifier}, status=HTTPStatus.CREATED)


async def delete_links(request: web.Request) -> web.Response:
    """``DELETE /links``: revokes all links that the caller, or for an administrator the user ``?email=…``, made yet."""
    principal = await _maker(request)
    _making(request)
    of = str(principal.email)
    if "email" in request.query and not is_administrator(principal):
        raise forbidden("Links of others are revoked by administrators only.")
    if "email" in request.query:
        of = email(request.query["email"])
    await links.revoke_keys(request.app[DATABASE], actor_of(request, principal), principal.tenant, email=of)
    return no_content()


async def delete_link(request: web.Request) -> web.Response:
    """``DELETE /links/{id}``: revokes a link; of the caller, or any of the tenant for an administrator."""
    principal = await _maker(request)
    _making(request)
    of = None if is_administrator(principal) else principal.email
    actor = actor_of(request, principal)
    await links.revoke_link(request.app[DATABASE], actor, principal.tenant, request.match_info["id"], of)
    return no_content()


async def maker_for(request: web.Request, principal: Principal, body: dict[str, Any], urls: FileUrls) -> Maker | None:
    """What makes links of ``principal``, as ``body`` (``expires``, ``network``) wants them; None if there are none.

    Raises:
        GatewayError: 400 the body is wrong; 503.
    """
    made_with = request.app.get(LINKS)
    if made_with is None or principal.is_anonymous:
        return None
    grant = _grant(body, principal, made_with.settings)
    key_id = await links.key_for(request.app[DATABASE], actor_of(request, principal), principal)
    return Maker(made_with, grant, key_id, urls)


def routes() -> list[web.RouteDef]:
    """The routes of this family."""
    return [
        web.post("/links", post_link),
        web.delete("/links", delete_links),
        web.delete("/links/{id}", delete_link),
    ]


async def _maker(request: web.Request) -> Principal:
    principal = await caller(request, "download")
    if principal.is_anonymous:
        raise unauthorized("links belong to users: show a bearer token or an API key")
    return principal


def _making(request: web.Request) -> Making:
    made_with = request.app.get(LINKS)
    if made_with is None:
        raise GatewayError(HTTPStatus.NOT_FOUND, "This gateway makes no links.")
    return made_with


def _grant(body: dict[str, Any], principal: Principal, settings: LinkSettings) -> Grant:
    """What the body asks for; the link has no id yet.

    What an API key makes ends with it at the latest, also if it is revoked, and works only where the key does.
    """
    now = int(time.time())
    last = None if principal.until is None else int(principal.until.timestamp())
    expires = now + settings.lifetime
    if body.get("expires") is not None:
        expires = int(end(body["expires"], "expires").timestamp())
        if expires > now + settings.max_lifetime:
            raise bad(f"'expires' is too far away: a link works for at most {settings.max_lifetime} seconds.")
        if last is not None and expires > last:
            raise forbidden("'expires' is too far away: a link works no longer than the API key that makes it.")
    elif last is not None:
        expires = min(expires, last)
    given = None if body.get("network") is None else network(body["network"], "network")
    return Grant(
        link_id="",
        tenant=principal.tenant,
        subject=principal.subject,
        email=str(principal.email),
        role=principal.role,
        groups=principal.groups,
        expires=expires,
        network=None if given is None else str(given),
        downloads=_bound(body.get("downloads"), "downloads"),
        octets=_bound(body.get("bytes"), "bytes"),
    )


def _bound(value: Any, name: str) -> int | None:
    if value is None:
        return None
    number = integer(value, name)
    if not 1 <= number <= MOST:
        raise bad(f"{name!r} must be from 1 to {MOST}.")
    return number
