"""Where handlers find what `gateway.app` made for them."""

from __future__ import annotations

from aiohttp import web

from gateway.downloads import Downloads
from gateway.ops.health import Health

DOWNLOADS = web.AppKey("downloads", Downloads)
HEALTH = web.AppKey("health", Health)
