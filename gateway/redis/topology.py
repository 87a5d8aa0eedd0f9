"""Which server holds a key: a single one, the primary behind Sentinel, or the nodes of a cluster."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, ClusterError, MovedError, RedisError, ResponseError

from gateway.config import Redis as RedisSettings
from gateway.errors import ConfigurationError
from gateway.redis.server import NEIGHBOUR_ERRORS, Limits, Script, Server
from gateway.redis.url import DEFAULT_SENTINEL_PORT, address, each_host, with_host, without_credentials

log = logging.getLogger(__name__)

RECOVERY_PAUSE = 0.25
"""Seconds between two looks at servers that do not answer, and at most one search for the primaries in that time."""


class Topology(abc.ABC):
    """Knows the servers, and finds them again after trouble. Whoever makes it closes it."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script]) -> None:
        self._urls = each_host(settings.url.get_secret_value())
        self._timeout = settings.timeout
        self._limits = Limits(settings.pool_size, settings.timeout)
        self._scripts = scripts
        self._servers: dict[str, Server] = {}
        """By address."""
        self._unused_since: dict[str, float] = {}
        self._recovery: asyncio.Task[None] | None = None
        self._trouble = False
        self._closed = False

    @abc.abstractmethod
    def server_for(self, key: str) -> Server:
        """The server that holds ``key``.

        Raises:
            RedisError: none does, as far as known.
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

    async def start(self) -> None:
        """Find the primaries, and load the scripts into them.

        Raises:
            RedisError, OSError, TimeoutError: one of them does not answer, or nobody tells who they are.
        """
        await self.find()
        await asyncio.gather(*(server.load() for server in self.primaries()))

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
        self._unused_since.pop(where, None)
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
                silent = [server for server in self.primaries() if server.breaker.is_open]
                await asyncio.gather(*(server.ping() for server in silent), return_exceptions=True)
                if any(server.breaker.is_open for server in silent):
                    self._trouble = True
                await asyncio.sleep(RECOVERY_PAUSE)
        finally:
            self._recovery = None

    async def _retire(self) -> None:
        """Close the servers that hold nothing any more, once no call that was sent to them can still be answered."""
        used = {server.address for server in self.primaries()}
        now = asyncio.get_running_loop().time()
        for where, server in [(where, server) for where, server in self._servers.items() if where not in used]:
            since = self._unused_since.setdefault(where, now)
            if server.breaker.is_open or now - since > 2 * self._timeout:
                del self._unused_since[where], self._servers[where]
                await server.close()


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

    async def start(self) -> None:
        """Load the scripts into it.

        Raises:
            ClusterError: it is a node of a cluster, which holds a part of the keys only.
            RedisError, OSError, TimeoutError: it does not answer.
        """
        await super().start()
        with contextlib.suppress(ResponseError):
            await self._server.ask_alone(("CLUSTER", "SLOTS"))
            raise ClusterError("it is a node of a cluster, which needs 'cluster = true'")


class Sentinels(Topology):
    """The primary of a service that Sentinels watch."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script], service: str) -> None:
        super().__init__(settings, scripts)
        self._service = service
        password = settings.sentinel_password
        self._sentinels: list[Any] = [
            redis.asyncio.Redis.from_url(
                without_credentials(url, DEFAULT_SENTINEL_PORT),
                password=None if password is None else password.get_secret_value(),
                socket_timeout=None,
                socket_connect_timeout=settings.timeout,
                retry=Retry(NoBackoff(), 0),
                client_name="download-gateway",
            )
            for url in self._urls
        ]
        self._primary: Server | None = None

    def server_for(self, key: str) -> Server:  # noqa: ARG002 - it holds all
        """The primary."""
        if self._primary is None:
            raise MasterNotFoundError(f"no Sentinel told the primary of {self._service!r} yet")
        return self._primary

    def primaries(self) -> Sequence[Server]:
        """The primary."""
        return [] if self._primary is None else [self._primary]

    async def find(self) -> None:
        """Ask all Sentinels at once. What more than half of them say counts; else what most of those say that answer.

        Raises:
            MasterNotFoundError: none of them answers, or none knows the service.
        """
        votes: Counter[tuple[str, int]] = Counter()
        problem: object = "they do not know it"
        questions = [asyncio.ensure_future(self._ask(sentinel)) for sentinel in self._sentinels]
        try:
            for question in asyncio.as_completed(questions):
                try:
                    primary = await question
                except NEIGHBOUR_ERRORS as error:
                    problem = error or type(error).__name__
                    continue
                if primary is not None:
                    votes[primary] += 1
                    if votes[primary] * 2 > len(questions):
                        break
        finally:
            for late in questions:
                late.cancel()
            await asyncio.gather(*questions, return_exceptions=True)
        if not votes:
            raise MasterNotFoundError(f"the Sentinels do not tell the primary of {self._service!r}: {problem}")
        (host, port), _ = votes.most_common(1)[0]
        server = self._server_at(with_host(self._urls[0], host, port))
        if self._primary not in (None, server):
            log.warning("the primary of %s is Redis at %s now", self._service, server.address)
        self._primary = server

    async def close(self) -> None:
        """Close all connections."""
        await super().close()
        await asyncio.gather(*(sentinel.aclose() for sentinel in self._sentinels))

    async def _ask(self, sentinel: Any) -> tuple[str, int] | None:
        async with asyncio.timeout(self._timeout):
            answer = await sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        return None if answer is None else (_text(answer[0]), int(answer[1]))


class Cluster(Topology):
    """The primaries of a Redis Cluster, and which slots each of them holds."""

    def __init__(self, settings: RedisSettings, scripts: Mapping[str, Script]) -> None:
        super().__init__(settings, scripts)
        self._slots: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._turn = 0

    def server_for(self, key: str) -> Server:
        """The server that holds the slot of ``key``, as far as known.

        Raises:
            ClusterDownError: no server held it when last asked.
        """
        slot = key_slot(key.encode())
        server = self._slots[slot]
        if server is None:
            self.trouble()
            raise ClusterDownError(f"no server holds slot {slot}")
        return server

    def primaries(self) -> Sequence[Server]:
        """The servers that hold slots."""
        return list(dict.fromkeys(server for server in self._slots if server is not None))

    async def find(self) -> None:
        """Ask one node after the other, another one first each time: a node that is cut off may know no better.

        Raises:
            RedisError, OSError, TimeoutError: what the last one said.
        """
        nodes = dict.fromkeys([*self.primaries(), *(self._server_at(url) for url in self._urls)])
        in_turn = deque(node for node in nodes if not node.breaker.is_open)
        in_turn.rotate(-self._turn)
        self._turn += 1
        problem: Exception = ClusterDownError("no node of the cluster answers")
        for node in in_turn:
            try:
                ranges = await node.ask_alone(("CLUSTER", "SLOTS"))
            except NEIGHBOUR_ERRORS as error:
                problem = error
                continue
            self._take(ranges, node)
            return
        raise problem

    def redirect(self, error: AskError) -> Server:
        """The server that the answer names; after MOVED it is asked about the slot from now on."""
        server = self._server_at(with_host(self._urls[0], error.host or self._host, error.port))
        if isinstance(error, MovedError):
            self._slots[error.slot_id] = server
            # A slot seldom moves alone.
            self.trouble()
        return server

    @property
    def _host(self) -> str:
        return urlsplit(self._urls[0]).hostname or ""

    def _take(self, ranges: Sequence[Sequence[Any]], teller: Server) -> None:
        slots: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, primary, *_ in ranges:
            host, port = _text(primary[0] or b""), int(primary[1])
            if host in ("", "?"):
                # It does not know by which name it is known.
                host = urlsplit(f"//{teller.address}").hostname or ""
            server = self._server_at(with_host(self._urls[0], host, port))
            slots[first : last + 1] = [server] * (last + 1 - first)
        self._slots = slots


def topology_for(settings: RedisSettings, scripts: Mapping[str, Script]) -> Topology:
    """The topology that the settings speak of; nothing is connected yet.

    Raises:
        ConfigurationError: the client cannot use the options of the URL.
    """
    for url in each_host(settings.url.get_secret_value()):
        _check_options(url)
    if settings.cluster:
        return Cluster(settings, scripts)
    if settings.sentinel_service is not None:
        return Sentinels(settings, scripts, settings.sentinel_service)
    return Single(settings, scripts)


def _check_options(url: str) -> None:
    try:
        pool = redis.asyncio.ConnectionPool.from_url(url)
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):
        # What they say may quote the URL.
        raise ConfigurationError(
            "redis.url: has an option after '?' that redis-py does not know, or a value that it cannot use"
        ) from None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
