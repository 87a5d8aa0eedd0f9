"""``[database]`` and ``[redis]``: the servers that a gateway stands on."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gateway.config.section import Seconds, Section, Text, scheme_of, url_with_scheme
from gateway.redis.url import each_host


class Database(Section):
    """``[database]``: PostgreSQL, which holds the catalogue, rights, licences and limits."""

    dsn: Annotated[SecretStr, url_with_scheme("postgresql", "postgres")]
    """``postgresql://user:password@host:port/name``."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 8
    """Most connections of one gateway process: calls share round trips, so that few of them are opened."""
    timeout: Seconds = 2
    """Seconds that a look-up may take, waiting for a free connection included; then the answer is 503."""


def _redis_url(value: SecretStr) -> SecretStr:
    each_host(value.get_secret_value())
    return value


class Redis(Section):
    """``[redis]``: Redis 7 or Valkey, which holds the quota counters: one server, a cluster, or one behind Sentinel."""

    url: Annotated[SecretStr, url_with_scheme("redis", "rediss", "unix"), AfterValidator(_redis_url)]
    """``redis://user:password@host:port/db``; ``rediss://`` for TLS, ``unix:///path`` for a socket. For a cluster or
    for Sentinel it may list several hosts, ``redis://user:password@host:port,host:port``. User, password and TLS are
    those of the servers that hold data."""
    cluster: bool = False
    """Whether ``url`` names nodes of a Redis Cluster; the others are found through them."""
    sentinel_service: Text | None = None
    """Name of the service whose primary holds the counters; ``url`` names Sentinels then."""
    sentinel_password: SecretStr | None = None
    """Of the Sentinels themselves, when they want one."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 16
    """Most connections of one gateway process to one server: calls share round trips, so that few are opened."""
    timeout: Seconds = 0.5
    """Seconds that a reservation may take, waiting for a free connection included; then the answer is 503."""

    @model_validator(mode="after")
    def _one_topology(self) -> Self:
        url = self.url.get_secret_value()
        if self.cluster and self.sentinel_service is not None:
            raise ValueError("'cluster' and 'sentinel_service' exclude each other")
        if self.sentinel_password is not None and self.sentinel_service is None:
            raise ValueError("'sentinel_password' needs a 'sentinel_service'")
        if not self.cluster and self.sentinel_service is None:
            if len(each_host(url)) > 1:
                raise ValueError("'url' lists several hosts, which needs 'cluster = true' or a 'sentinel_service'")
        elif scheme_of(url) == "unix":
            raise ValueError("'url' must be redis:// or rediss:// for a cluster or for Sentinel")
        if self.cluster and urlsplit(url).path.strip("/0"):
            raise ValueError("'url' must end with /0 or with nothing: a cluster has no other database")
        return self
