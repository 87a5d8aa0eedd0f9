"""What a caller has used, and what is left: ``/me/usage``."""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Sequence

from aiohttp import web

from gateway.api.bodies import answer
from gateway.api.callers import caller
from gateway.api.keys import DOWNLOADS
from gateway.quotas.limits import own_account
from gateway.quotas.standing import Standing, described
from gateway.quotas.usage import Held, reserved


async def get_usage(request: web.Request) -> web.Response:
    """``GET /me/usage``: every limit of the caller, and what his account has used.

    ``reserved`` is what running downloads were charged when they began, and part of what is used; the rest of it is
    given back when they end. ``reset`` is in seconds and ``resetAt`` a time (RFC 3339), null if time alone changes
    nothing.
    """
    downloads, principal = request.app[DOWNLOADS], await caller(request, "quota")
    limits = await downloads.catalog.limits(principal)
    quotas, tenant, account = downloads.quotas, principal.tenant, own_account(principal)
    now, standings = await quotas.standings(principal, limits)
    accounts = list(dict.fromkeys((account, *(limit.account for limit in limits))))
    held_each = await asyncio.gather(*(quotas.held(tenant, one, now) for one in accounts))
    held = dict(zip(accounts, held_each, strict=True))
    mine = (await quotas.usage(tenant, [account]))[account]
    return answer(
        {
            "account": account,
            "limits": [_told(standing, held[standing.limit.account], now) for standing in standings],
            "totals": {
                "all": _amount(mine.downloads, mine.octets),
                "today": _amount(*mine.today),
                "month": _amount(*mine.month),
            },
            "running": mine.running,
            "reserved": _amount(sum(one.downloads for one in held[account]), sum(one.octets for one in held[account])),
        }
    )


def routes() -> list[web.RouteDef]:
    """The route."""
    return [web.get("/me/usage", get_usage)]


def _told(standing: Standing, held: Sequence[Held], now: int) -> dict[str, object]:
    told = described(standing) | {"reserved": reserved(standing.limit, held, now), "resetAt": None}
    if standing.reset is not None:
        at = datetime.datetime.fromtimestamp(math.ceil(now / 1e6 + standing.reset), datetime.UTC)
        told["resetAt"] = at.isoformat().replace("+00:00", "Z")
    return told


def _amount(downloads: int, octets: int) -> dict[str, int]:
    return {"downloads": downloads, "bytes": octets}
