"""Scripts run in Redis, many in one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway.batching import Batches, batching
from gateway.config import Redis as RedisSettings
from gateway.errors import ConfigurationError

NEIGHBOUR_ERRORS = (OSError, TimeoutError, RedisError)
"""What a Redis that is gone, slow or full raises."""

NAMES = ("reserve", "settle")
"""Of the scripts, ``lua/NAME.lua``: each can be run twice with the same keys and arguments as if it were once."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Script:
    text: str
    sha: str


class Scripts:
    """Runs the scripts. Made by `open_scripts`."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        calls: Batches[tuple[str | int, ...], Any],
        scripts: Mapping[str, _Script],
        timeout: float,
    ) -> None:
        self._client = client
        self._calls = calls
        self._scripts = scripts
        self.timeout = timeout
        """Seconds that a call may take."""

    async def run(self, name: str, keys: Sequence[str], arguments: Sequence[int]) -> Any:
        """What the script ``name`` answers. One round trip, shared with others.

        Raises:
            RedisError, OSError, TimeoutError: it gave no answer; nobody knows whether it ran.
        """
        return await self._calls.ask((self._scripts[name].sha, len(keys), *keys, *arguments))

    async def usage(self, key: str) -> tuple[int, int]:
        """The members ``downloads`` and ``bytes`` of a hash.

        Raises:
            RedisError, OSError, TimeoutError: as `run`.
        """
        async with asyncio.timeout(self.timeout):
            values = await self._client.hmget(key, ["downloads", "bytes"])
        return int(values[0] or 0), int(values[1] or 0)

    async def ping(self) -> None:
        """Ask for a sign of life.

        Raises:
            RedisError, OSError, TimeoutError: there is none.
        """
        async with asyncio.timeout(self.timeout):
            await self._client.ping()


@contextlib.asynccontextmanager
async def open_scripts(settings: RedisSettings) -> AsyncIterator[Scripts]:
    """Open the connections to Redis, and load the scripts.

    Raises:
        ConfigurationError: Redis cannot be reached.
    """
    pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
        settings.url.get_secret_value(),
        max_connections=settings.pool_size,
        timeout=settings.timeout,
        socket_connect_timeout=settings.timeout,
        # Each call has its deadline here. A second one inside would be asyncio.wait_for, which in Python 3.11 can
        # swallow the cancellation by the first, so that the call goes on for three times as long.
        socket_timeout=None,
        # One retry covers a connection that died while idle. It is safe, since every script can be run twice.
        retry=Retry(ExponentialBackoff(cap=0.05, base=0.01), 1),
        client_name="download-gateway",
    )
    scripts = {name: _read(name) for name in NAMES}

    async def run_all(calls: Sequence[tuple[str | int, ...]]) -> list[Any]:
        answers = await _pipeline(client, calls)
        forgotten = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            await _load(client, scripts)
            again = await _pipeline(client, [calls[number] for number in forgotten])
            for number, answer in zip(forgotten, again, strict=True):
                answers[number] = answer
        return answers

    async with contextlib.AsyncExitStack() as stack:
        client = redis.asyncio.Redis.from_pool(pool)
        stack.push_async_callback(client.aclose)
        try:
            async with asyncio.timeout(settings.timeout):
                await _load(client, scripts)
        except NEIGHBOUR_ERRORS as error:
            raise ConfigurationError(f"redis.url: Redis cannot be reached there: {error}") from error
        calls = await stack.enter_async_context(batching(run_all, seconds=settings.timeout, lanes=settings.pool_size))
        yield Scripts(client, calls, scripts, settings.timeout)


def _read(name: str) -> _Script:
    text = files("gateway.quotas").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
    return _Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def _load(client: redis.asyncio.Redis, scripts: Mapping[str, _Script]) -> None:
    pipeline = client.pipeline(transaction=False)
    for script in scripts.values():
        pipeline.script_load(script.text)
    await pipeline.execute()


async def _pipeline(client: redis.asyncio.Redis, calls: Sequence[tuple[str | int, ...]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for call in calls:
        pipeline.execute_command("EVALSHA", *call)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    return answers
