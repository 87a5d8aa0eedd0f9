"""REGARDS' question how full the cache of restored copies is: ``/cache``."""

from __future__ import annotations

from aiohttp import web

from gateway.api.bodies import answer
from gateway.api.callers import with_role
from gateway.api.keys import DATABASE
from gateway.config import Config, Staging
from gateway.staging.cache_rows import USED

_STAGING = web.AppKey("cache settings", Staging)


def set_up(app: web.Application, config: Config) -> None:
    """Have ``app`` tell of the cache."""
    app[_STAGING] = config.staging
    app.add_routes([web.get(f"{config.api.regards_prefix}/cache", get_cache)])


async def get_cache(request: web.Request) -> web.Response:
    """``GET /cache``: its size and what of it is used, in bytes, as JSON; role EXPLOIT.

    Used is what lies there, what is promised to restores that go on, and what is not removed yet; of all tenants, who
    share one cache. Without a cache both are 0.
    """
    await with_role(request, "EXPLOIT")
    settings, used = request.app[_STAGING], 0
    if settings.cache is not None:
        rows = await request.app[DATABASE].fetch(USED, settings.cache)
        used = rows[0]["used"] if rows else 0
    limit = 0 if settings.cache is None else settings.cache_size
    # REGARDS spells it so.
    return answer({"sizeLimitInBytes": limit, "occupedSizeInBytes": used})
