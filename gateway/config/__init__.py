"""Settings of the gateway: one TOML file, then environment variables over it.

An environment variable is named ``GATEWAY_`` and the path to the setting with ``__`` between its parts, in capitals:
``GATEWAY_DATABASE__DSN`` is ``dsn`` of ``[database]``. ``config.example.toml`` shows every setting.
"""

from __future__ import annotations

from gateway.config.audit import Audit
from gateway.config.companion import Companion
from gateway.config.identity import ApiKeys, ClaimNames, Identity, Issuer, JwtKey, Links, Login
from gateway.config.loading import Config, from_values, load
from gateway.config.neighbours import Database, Redis
from gateway.config.notices import Mail, Webhook
from gateway.config.orders import Orders
from gateway.config.quotas import Quotas
from gateway.config.rights import PolicyTable, Rights
from gateway.config.serving import Api, Delivery, Server
from gateway.config.staging import Staging
from gateway.config.storage import StorageLocation

__all__ = [
    "Api",
    "ApiKeys",
    "Audit",
    "ClaimNames",
    "Companion",
    "Config",
    "Database",
    "Delivery",
    "Identity",
    "Issuer",
    "JwtKey",
    "Links",
    "Login",
    "Mail",
    "Orders",
    "PolicyTable",
    "Quotas",
    "Redis",
    "Rights",
    "Server",
    "Staging",
    "StorageLocation",
    "Webhook",
    "from_values",
    "load",
]
