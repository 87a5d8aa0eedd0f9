"""``[server]``, ``[api]`` and ``[delivery]``: where requests come in, and how bytes leave."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from gateway.config.section import Seconds, Section, Text, scheme_of
from gateway.http.cors import ANY
from gateway.http.forwarded import Network

Port = Annotated[int, Field(ge=0, le=65535)]


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value), strict=False)
    except ValueError as error:
        raise ValueError("must be an IP address or network, like '127.0.0.1' or '10.0.0.0/8'") from error


class Server(Section):
    """``[server]``: where the gateway listens."""

    host: Text = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    shutdown_timeout: Seconds = 30
    """Seconds that running downloads get to end after SIGTERM, before they are cut."""

    trusted_proxies: list[Annotated[Network, BeforeValidator(_network)]] = []  # noqa: RUF012 - pydantic copies it
    """Addresses or networks of the proxies in front (``127.0.0.1``, ``10.0.0.0/8``): only what they write in Forwarded
    and X-Forwarded-* is believed, and only they are handed files to send."""


def _prefix(value: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", value):
        raise ValueError("must be empty or start with '/' and not end with one, like '/api/v1/rs-catalog'")
    return value


Prefix = Annotated[str, AfterValidator(_prefix)]


_ORIGIN = re.compile(r"https?://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _origin(value: str) -> str:
    parts = urlsplit(value) if _ORIGIN.fullmatch(value) else None
    if value != ANY and (parts is None or _is_needless(parts)):
        raise ValueError(
            "must be '*' or an origin as browsers name it, like 'https://portal.example.org' or "
            "'http://localhost:3000': in lower case, without path and default port"
        )
    return value


def _is_needless(parts: SplitResult) -> bool:
    try:
        return parts.port == _DEFAULT_PORTS[parts.scheme]
    except ValueError:  # no host or port that can be
        return True


def _listed(value: object) -> object:
    return [value] if value == ANY else value


class Api(Section):
    """``[api]``: where each API family stands."""

    public_url: str | None = None
    """Base of every absolute link, like ``https://data.example.org``; absent, links take the request's Host."""
    regards_prefix: Prefix = ""
    """Before ``/downloads/…``; REGARDS itself has ``/api/v1/rs-catalog``."""
    stac_prefix: Prefix = ""
    """Before the STAC API: ``/collections/…`` and, for each tenant, ``/tenants/{tenant}/collections/…``."""
    default_tenant: Text | None = None
    """Tenant of those who show no credential to the STAC API and name no tenant; absent, they are refused."""
    asset_href: Literal["gateway", "origin"] = "gateway"
    """Where the ``href`` of STAC Assets leads: to downloads by the gateway, or where the catalogue has it. The other
    one is an alternate."""
    cors_origins: Annotated[list[Annotated[str, AfterValidator(_origin)]], BeforeValidator(_listed)] = []  # noqa: RUF012 - pydantic copies it
    """Origins whose pages may read answers in browsers; ``*`` for all, without cookies."""

    @field_validator("public_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if scheme_of(value) not in ("http", "https") or not urlsplit(value).netloc or set(value) & set("?#"):
            raise ValueError("must be an absolute http or https URL without query, like 'https://data.example.org'")
        return value.rstrip("/")


class Delivery(Section):
    """``[delivery]``: how bytes leave."""

    send_timeout: Seconds = 60
    """Seconds that a client may take no byte at all before its connection is cut."""
    min_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1024
    """Bytes a second that a client must take on average, or its connection is cut; 0 asks nothing."""
    min_rate_grace: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60
    """Seconds from the start of a download in which its rate is not looked at."""
    storage_timeout: Seconds = 30
    """Seconds that a storage may take for one step (to open a file, to read some of it); then 503, or a cut."""
    redirect_agents: list[Annotated[str, Field(pattern=r"^[^/\s]+/[0-9]+(\.[0-9]+)*$")]] = [  # noqa: RUF012 - pydantic copies it
        "curl/7.83",
        "python-requests/2.20",
        "python-httpx/0.18",
        "aiohttp/3.8",
        "Mozilla/5.0",
    ]
    """Clients, with their oldest version, that are proven not to send a token on to another host: only these are
    redirected where ``delivery`` is ``auto`` and the request has an Authorization field."""
