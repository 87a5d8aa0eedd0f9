"""REGARDS' questions whether one may: ``/entities/{urn}/access`` and ``/entities/access``."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from gateway.api.bodies import answer, bad, read_json, text
from gateway.api.callers import caller
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.errors import GatewayError, unavailable
from gateway.rights.access import access
from gateway.rights.policies import Verdict

MOST_URNS = 1000
"""In one request."""
_MOST_BYTES = 256 * 1024
"""Of a list of them."""


async def get_access(request: web.Request) -> web.Response:
    """``GET /entities/{urn}/access``: whether the caller may download the product, or see the dataset, as JSON.

    Licences and quotas are not looked at: HEAD on a download does the one, ``?dryRun=true`` the other.
    """
    principal, urn = await caller(request, "download"), request.match_info["urn"]
    catalog = request.app[DOWNLOADS].catalog
    verdict = (await access(request.app[DATABASE], catalog.policies, principal, [urn])).get(urn)
    if verdict is None or (catalog.settings.hide_forbidden and verdict.visible is False):
        raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no product or dataset {urn!r}.")
    return answer(_may(verdict))


async def post_access(request: web.Request) -> web.Response:
    """``POST /entities/access``: of the URNs in a list those that the caller may download, in its order, each once."""
    principal = await caller(request, "download")
    asked = await read_json(request.clone(client_max_size=_MOST_BYTES))
    if not isinstance(asked, list):
        raise bad("The body must be a JSON array of URNs.")
    if len(asked) > MOST_URNS:
        raise bad(f"{len(asked)} URNs are too many: at most {MOST_URNS}.")
    urns = list(dict.fromkeys(text(urn, "a URN") for urn in asked))
    verdicts = await access(request.app[DATABASE], request.app[DOWNLOADS].catalog.policies, principal, urns)
    return answer([urn for urn in urns if urn in verdicts and _may(verdicts[urn])])


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    return [
        web.get(f"{prefix}/entities/{{urn}}/access", get_access),
        web.post(f"{prefix}/entities/access", post_access),
    ]


def _may(verdict: Verdict) -> bool:
    if verdict.downloadable is None:
        raise unavailable("What decides on this product does not answer at the moment.", code="PolicyUnavailable")
    return verdict.downloadable
