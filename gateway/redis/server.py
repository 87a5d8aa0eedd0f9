"""One Redis server that takes changes: its connections, its calls in batches, its circuit breaker."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.batching import Batches
from gateway.redis.breaker import Breaker
from gateway.redis.url import address

log = logging.getLogger(__name__)

NEIGHBOUR_ERRORS = (OSError, TimeoutError, RedisError)
"""What a Redis that is gone, slow or full raises."""
NO_ANSWER = (OSError, TimeoutError, RedisConnectionError, RedisTimeoutError)
"""Those that speak of the server and not of one call; LOADING is among them."""

Command = tuple[str | int | bytes, ...]


class CircuitOpenError(RedisConnectionError):
    """The server did not answer several times in a row, so that it is not asked until it shows a sign of life."""


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, and the name by which Redis knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Script:
        """The script with this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def read_scripts(package: str) -> Mapping[str, Script]:
    """The scripts of ``package``, ``lua/NAME.lua``, by name; each with ``common.lua`` behind its first line."""
    texts = {
        path.name.removesuffix(".lua"): path.read_text(encoding="utf-8")
        for path in files(package).joinpath("lua").iterdir()
        if path.name.endswith(".lua")
    }
    common = texts.pop("common")
    return {name: _with_common(text, common) for name, text in texts.items()}


def _with_common(text: str, common: str) -> Script:
    first_line, rest = text.split("\n", 1)
    return Script.of(f"{first_line}\n{common}{rest}")


@functools.cache
def _packing_fast(connection_class: type[Any]) -> type[Any]:
    """Have connections write commands by hiredis, which takes a sixth of the time of redis-py's own way."""

    def pack_command(_: object, *arguments: str | int | bytes) -> list[bytes]:
        # Some of redis-py's own are two words in one.
        name, *rest = arguments
        words = str(name).split() if " " in str(name) else [name]
        return [hiredis.pack_command((*words, *rest))]

    return type(connection_class.__name__, (connection_class,), {"pack_command": pack_command})


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say of each server."""

    connections: int
    timeout: float
    """Seconds that a call may take."""


class Server:
    """Asks one server. Whoever makes it closes it."""

    def __init__(self, url: str, limits: Limits, scripts: Mapping[str, Script], on_trouble: Callable[[], None]) -> None:
        """Prepare to ask; nothing is connected yet.

        Args:
            url: of the server, with one host.
            limits: of its connections.
            scripts: that are loaded into it when it turns out not to know them.
            on_trouble: called after each failure that speaks of the server, and when it takes no changes any more.
        """
        self.url = url
        self.address = address(url)
        self.breaker = Breaker()
        pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=limits.connections,
            timeout=limits.timeout,
            socket_connect_timeout=limits.timeout,
            # Each call has its deadline here. A second one inside would be asyncio.wait_for, which in Python 3.11 can
            # swallow the cancellation by the first, so that the call goes on for three times as long.
            socket_timeout=None,
            # One retry covers a connection that died while idle. It is safe, since every script can be run twice.
            retry=Retry(ExponentialBackoff(cap=0.05, base=0.01), 1),
            client_name="download-gateway",
        )
        pool.connection_class = _packing_fast(pool.connection_class)
        self._client = redis.asyncio.Redis.from_pool(pool)
        self._pool = pool
        self._batches = Batches(self._ask_batch, seconds=limits.timeout, lanes=limits.connections)
        self._timeout = limits.timeout
        self._scripts = scripts
        self._on_trouble = on_trouble
        self._now = asyncio.get_running_loop().time

    def ask(self, command: Command, *, asking: bool = False) -> Awaitable[Any]:
        """The answer to ``command``, in a round trip shared with others.

        With ``asking`` it may be about a slot that is just being moved to this server.

        Raises:
            RedisError, OSError, TimeoutError: it gave no answer, or this error.
        """
        self._refuse_if_open()
        return self._batches.ask((asking, command))

    async def ask_alone(self, command: Command, *, asking: bool = False) -> Any:
        """As `ask`, on a connection of its own: an answer that is long holds nobody up."""
        self._refuse_if_open()
        began = self._now()
        try:
            async with asyncio.timeout(self._timeout):
                (answer,) = await self._ask_all([(asking, command)])
        except TimeoutError:
            self._failed(began)
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def load(self) -> None:
        """Load the scripts.

        Raises:
            RedisError, OSError, TimeoutError: as `ask`.
        """
        pipeline = self._client.pipeline(transaction=False)
        for script in self._scripts.values():
            pipeline.script_load(script.text)
        async with asyncio.timeout(self._timeout):
            await pipeline.execute()

    async def ping(self) -> None:
        """Ask for a sign of life, which closes the circuit; it is asked even while that is open.

        Raises:
            RedisError, OSError, TimeoutError: there is none.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.ping()
        except NEIGHBOUR_ERRORS:
            await self._drop_connections()
            raise
        self._succeeded()

    async def close(self) -> None:
        """Give up what waits, and close the connections."""
        await self._batches.close()
        await self._client.aclose()

    def _refuse_if_open(self) -> None:
        if self.breaker.is_open:
            raise CircuitOpenError(f"Redis at {self.address} does not answer; it is asked again in a moment")

    async def _ask_batch(self, questions: Sequence[tuple[bool, Command]]) -> list[Any]:
        began = self._now()
        try:
            return await self._ask_all(questions)
        except asyncio.CancelledError:
            # By the deadline: whoever waits for an answer may leave without cancelling the round trip.
            self._failed(began)
            raise

    async def _ask_all(self, questions: Sequence[tuple[bool, Command]]) -> list[Any]:
        began = self._now()
        try:
            self._refuse_if_open()
            answers = await self._pipeline(questions)
            errors = {number: answer for number, answer in enumerate(answers) if isinstance(answer, ResponseError)}
            forgotten = [number for number, error in errors.items() if isinstance(error, NoScriptError)]
            if forgotten:
                await self.load()
                again = await self._pipeline([questions[number] for number in forgotten])
                for number, answer in zip(forgotten, again, strict=True):
                    answers[number] = answer
        except CircuitOpenError as error:
            return [error] * len(questions)
        except NO_ANSWER as error:
            self._failed(began)
            # No call of the batch would fare better by itself.
            return [error] * len(questions)
        self._succeeded()
        if any(isinstance(answers[number], ReadOnlyError) for number in errors):
            # Where an address leads to whoever is the primary, new connections do.
            await self._drop_connections()
            self._on_trouble()
        return answers

    async def _pipeline(self, questions: Sequence[tuple[bool, Command]]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for asking, command in questions:
            if asking:
                pipeline.execute_command("ASKING")
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        if len(answers) == len(questions):
            return answers
        in_turn = iter(answers)
        # Of ASKING and of the command after it, the second answer counts.
        return [(next(in_turn), next(in_turn))[1] if asking else next(in_turn) for asking, _ in questions]

    def _failed(self, began: float) -> None:
        if self.breaker.failed(began):
            log.warning("Redis at %s does not answer: calls are refused until it does", self.address)
        self._on_trouble()

    def _succeeded(self) -> None:
        if self.breaker.succeeded(self._now()):
            log.warning("Redis at %s answers again", self.address)

    async def _drop_connections(self) -> None:
        with contextlib.suppress(*NEIGHBOUR_ERRORS):
            await self._pool.disconnect(inuse_connections=False)
