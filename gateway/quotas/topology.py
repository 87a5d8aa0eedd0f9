"""Which server holds a key: a single one, the primary behind Sentinel, or the nodes of a cluster."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from gateway.config import Redis as RedisSettings
from gateway.quotas.redis_server import NEIGHBOUR_ERRORS, NO_ANSWER, Limits, Script, Server
from gateway.quotas.redis_url import address, each_host, with_host

log = logging.getLogger(__name__)

RECOVERY_PAUSE = 0.25
"""Seconds between two looks at servers that do not answer, and at most one search for the primaries in that time."""

SENTINEL_PORT = 26379


class Topology(abc.ABC):
    """Knows the servers, and finds them again after trouble. Whoever makes it closes it."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script]) -> None:
        self._urls = each_host(settings.url.get_secret_value())
        self._timeout = settings.timeout
        self._limits = Limits(settings.pool_size, settings.timeout)
        self._scripts = scripts
        self._servers: dict[str, Server] = {}
        self._recovery: asyncio.Task[None] | None = None
        self._trouble = False
        self._closed = False

    @abc.abstractmethod
    def server_for(self, key: str) -> Server:
        """The server that holds ``key``.

        Raises:
            ClusterDownError: none does, as far as known.
        """

    @abc.abstractmethod
    def primaries(self) -> Sequence[Server]:
        """The servers that together hold all keys."""

    @abc.abstractmethod
    async def find(self) -> None:
        """Find out who the primaries are.

        Raises:
            RedisError, OSError, TimeoutError: nobody tells.
        """

    def redirect(self, error: AskError) -> Server:
        """The server that MOVED or ASK names."""
        raise error

    def trouble(self) -> None:
        """Look again in the background for the primaries, until every one of them answers."""
        self._trouble = True
        if self._recovery is None and not self._closed:
            self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait([self._recovery])
        await asyncio.gather(*(server.close() for server in self._servers.values()))

    def _server_at(self, url: str) -> Server:
        where = address(url)
        server = self._servers.get(where)
        if server is None:
            server = self._servers[where] = Server(url, self._limits, self._scripts, self.trouble)
        return server

    async def _recover(self) -> None:
        try:
            while self._trouble:
                self._trouble = False
                try:
                    await self.find()
                except NEIGHBOUR_ERRORS as error:
                    log.debug("nobody tells which Redis is the primary: %r", error)
                await self._retire()
                silent = [server for server in self._servers.values() if server.breaker.is_open]
                await asyncio.gather(*(server.probe() for server in silent))
                if any(server.breaker.is_open for server in silent):
                    self._trouble = True
                await asyncio.sleep(RECOVERY_PAUSE)
        finally:
            self._recovery = None

    async def _retire(self) -> None:
        """Close the servers that hold nothing any more, once nobody waits for their answers."""
        used = {server.address for server in self.primaries()}
        for where in [where for where, server in self._servers.items() if where not in used and server.is_idle]:
            await self._servers.pop(where).close()


class Single(Topology):
    """One server, always the same."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script]) -> None:
        super().__init__(settings, scripts)
        self._server = self._server_at(self._urls[0])

    def server_for(self, key: str) -> Server:  # noqa: ARG002 - it holds all
        """The server."""
        return self._server

    def primaries(self) -> Sequence[Server]:
        """The server."""
        return [self._server]

    async def find(self) -> None:
        """It is where it always was."""


class Sentinels(Topology):
    """The primary of a service that Sentinels watch."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script], service: str) -> None:
        super().__init__(settings, scripts)
        self._service = service
        password = settings.sentinel_password
        ...


class Cluster(Topology):
    """The primaries of a Redis Cluster, and which slots each of them holds."""
