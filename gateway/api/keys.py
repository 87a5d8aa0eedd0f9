"""Where handlers find what `gateway.app` made for them."""

from __future__ import annotations

from aiohttp import web

from gateway.catalog.transactions.transactions import Transactions
from gateway.db import Database
from gateway.downloads import Downloads
from gateway.identity.opening import Logins
from gateway.ops.health import Health

DOWNLOADS = web.AppKey("downloads", Downloads)
DATABASE = web.AppKey("database", Database)
TRANSACTIONS = web.AppKey("transactions", Transactions)
HEALTH = web.AppKey("health", Health)
LOGINS: web.AppKey[Logins | None] = web.AppKey("logins")
