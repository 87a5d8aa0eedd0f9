"""Scripts run in Redis, many in one round trip, wherever their keys are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MasterDownError, MovedError, ResponseError, TryAgainError

from gateway.config import Redis as RedisSettings
from gateway.errors import ConfigurationError
from gateway.redis.server import NEIGHBOUR_ERRORS, CircuitOpenError, Command, Script, Server
from gateway.redis.topology import Topology, topology_for

__all__ = ["NEIGHBOUR_ERRORS", "CircuitOpenError", "Scripts", "open_scripts"]

_ELSEWHERE = (AskError, TryAgainError, ClusterDownError)
"""Answers of a cluster in motion; MOVED is an `AskError`, too."""
_PAUSE = 0.02
"""Seconds before asking again while the cluster is in motion."""

_Ask = Callable[..., Awaitable[Any]]
"""`Server.ask` or `Server.ask_alone`."""


class Scripts:
    """Runs the scripts. Made by `open_scripts`.

    Every error that any method raises because of Redis is one of `NEIGHBOUR_ERRORS`: CircuitOpenError at once while the
    server in question does not answer.
    """

    def __init__(self, topology: Topology, scripts: Mapping[str, Script], timeout: float) -> None:
        self._topology = topology
        self._scripts = scripts
        self._now = asyncio.get_running_loop().time
        self.timeout = timeout
        """Seconds that a call may take."""

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Coroutine[Any, Any, Any]:
        """What the script ``name`` answers. One round trip, shared with others.

        All ``keys`` must have the same hash tag: ``{…}``.

        Raises:
            RedisError, OSError, TimeoutError: it gave no answer; nobody knows whether it ran.
        """
        return self._ask(keys[0], ("EVALSHA", self._scripts[name].sha, len(keys), *keys, *arguments), Server.ask)

    async def call(self, *command: str | int | bytes) -> Any:
        """What a command answers whose first argument is its key: HGETALL, XRANGE, ZRANGE and the like.

        Its answer may be long: it holds up no script.

        Raises:
            RedisError, OSError, TimeoutError: as `run`.
        """
        return await self._ask(str(command[1]), command, Server.ask_alone)

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """The keys that match ``pattern``, of all primaries, as SCAN gives them: one may come twice.

        Raises:
            RedisError, OSError, TimeoutError: as `run`; each step has its own deadline.
        """
        for server in self._topology.primaries():
            cursor = 0
            while True:
                cursor, keys = await server.ask_alone(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000))
                for key in keys:
                    yield key.decode()
                if cursor == 0:
                    break

    async def ping(self) -> None:
        """Ask all primaries for a sign of life; one is enough, as the callers whose counters it holds can go on.

        Raises:
            RedisError, OSError, TimeoutError: there is none.
        """
        primaries = self._topology.primaries()
        answers = await asyncio.gather(*(server.ping() for server in primaries), return_exceptions=True)
        problems = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(problems) == len(primaries):
            raise problems[0]

    async def _ask(self, key: str, command: Command, ask: _Ask) -> Any:
        deadline = self._now() + self.timeout
        try:
            return await ask(self._topology.server_for(key), command)
        except MasterDownError:
            raise
        except _ELSEWHERE as error:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._follow(error, key, command, ask)
            except TimeoutError:
                raise error from None

    async def _follow(
        self, error: ResponseError, key: str, command: Command, ask: Callable[..., Awaitable[Any]]
    ) -> Any:
        """Go where the cluster points until the answer is there; the caller sets the deadline."""
        for step in itertools.count():
            server = self._topology.redirect(error) if isinstance(error, AskError) else None
            if step or server is None:
                await asyncio.sleep(_PAUSE)
            asking = server is not None and not isinstance(error, MovedError)
            try:
                return await ask(server or self._topology.server_for(key), command, asking=asking)
            except _ELSEWHERE as another:
                error = another
                if isinstance(error, ClusterDownError):
                    self._topology.trouble()
        raise AssertionError("it counts for ever")


@contextlib.asynccontextmanager
async def open_scripts(settings: RedisSettings, scripts: Mapping[str, Script]) -> AsyncIterator[Scripts]:
    """Find the servers, open connections to them, and load the ``scripts``.

    Raises:
        ConfigurationError: Redis cannot be reached, or is not what the settings say.
    """
    topology = topology_for(settings, scripts)
    try:
        try:
            await topology.start()
        except NEIGHBOUR_ERRORS as error:
            raise ConfigurationError(
                f"redis.url: Redis cannot be reached there: {error or type(error).__name__}"
            ) from error
        yield Scripts(topology, scripts, settings.timeout)
    finally:
        await topology.close()
