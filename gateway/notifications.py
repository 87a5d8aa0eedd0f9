"""What PostgreSQL tells at once: triggers of schema.sql notify the channel ``gateway``, one connection listens.

Caches live by it. What a cache holds is as good as the last sign of life on that connection: after a gap subscribers
are told that they missed something, and while `Notifications.is_current` is false nobody may answer from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import asyncpg

from gateway.config import Database as DatabaseSettings
from gateway.db import NEIGHBOUR_ERRORS

log = logging.getLogger(__name__)

CHANNEL = "gateway"
PING_SECONDS = 5.0
"""How often we notify ourselves as a sign of life, and how long that may take."""
BOUND_SECONDS = 30.0
"""Without a sign of life for so long, what was remembered may be old."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds before connecting again; doubled each time up to the longest."""
_CLOSE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Payload:
    """What changed."""

    tenant: str | None
    """Its name; None if it is gone."""
    id: str | None
    """Of the row, as its trigger names it."""


class Subscriber(Protocol):
    """Who is told. Neither method may wait."""

    def changed(self, topic: str, payload: Payload) -> None:
        """A row changed; ``topic`` is that of its trigger."""

    def missed(self) -> None:
        """Anything may have changed."""


class _Echo:
    """Notifies itself.

    It proves more than that the connection lives: behind a pooler that lends connections for a transaction, or on a
    server of another kind, everything seems well, and nothing is heard.
    """

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._channel = f"{CHANNEL}_{secrets.token_hex(8)}"
        self._heard = asyncio.Event()

    async def begin(self) -> None:
        """Listen."""
        await self._connection.add_listener(self._channel, lambda *_: self._heard.set())

    async def call(self) -> None:
        """Return when our own call is heard."""
        self._heard.clear()
        await self._connection.execute(f"NOTIFY {self._channel}")
        await self._heard.wait()


class Notifications:
    """Tells subscribers what changes. Made by `listening`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self._alive = -BOUND_SECONDS
        self.connected = False
        """Whether changes are heard of."""
        self.since = datetime.datetime.now(datetime.UTC)
        """Since when they are, or are not."""

    @property
    def is_current(self) -> bool:
        """Whether subscribers were told of all that changed until `BOUND_SECONDS` ago, usually until now."""
        return self.connected and self._clock() - self._alive <= BOUND_SECONDS

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell ``subscriber`` from now on."""
        self._subscribers.append(subscriber)

    async def listen(self, settings: DatabaseSettings) -> None:
        """Hear what changes until this is cancelled, over as many connections as it takes, one after the other."""
        pause, told = _SHORTEST_PAUSE, False
        while True:
            try:
                async with _connection(settings) as connection:
                    try:
                        echo = await self._begin(connection)
                        pause, told = _SHORTEST_PAUSE, False
                        await self._watch(connection, echo)
                    finally:
                        # At once: to close a connection takes time.
                        self._state(connected=False)
            except Exception as error:  # noqa: BLE001 - whatever it is: without a connection nothing is ever heard again
                if not told:
                    log.warning("changes are not heard of, so nothing is answered from memory: %r", error)
                told = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _begin(self, connection: asyncpg.Connection[Any]) -> _Echo:
        echo = _Echo(connection)
        async with asyncio.timeout(PING_SECONDS):
            await connection.add_listener(CHANNEL, self._hear)
            await echo.begin()
        await self._ping(echo)
        self._state(connected=True)
        log.info("changes are heard of")
        self._tell_missed()
        return echo

    async def _watch(self, connection: asyncpg.Connection[Any], echo: _Echo) -> None:
        """Return or raise when the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), PING_SECONDS)
            if lost.is_set() or connection.is_closed():
                raise ConnectionResetError("the connection was closed")
            await self._ping(echo)

    async def _ping(self, echo: _Echo) -> None:
        # Notifications come in the order of their transactions: whatever changed before was heard of before the echo.
        began = self._clock()
        async with asyncio.timeout(PING_SECONDS):
            await echo.call()
        self._alive = began

    def _hear(self, _connection: object, _process: int, _channel: str, text: object) -> None:
        try:
            told = json.loads(str(text))
            topic, payload = str(told["topic"]), Payload(_text(told["tenant"]), _text(told["id"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            log.warning("a notification cannot be read: caches begin anew")
            self._tell_missed()
            return
        for subscriber in self._subscribers:
            try:
                subscriber.changed(topic, payload)
            except Exception:
                log.exception("a subscriber failed")

    def _tell_missed(self) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber.missed()
            except Exception:
                log.exception("a subscriber failed")

    def _state(self, *, connected: bool) -> None:
        if connected != self.connected:
            self.connected, self.since = connected, datetime.datetime.now(datetime.UTC)


@contextlib.asynccontextmanager
async def listening(settings: DatabaseSettings) -> AsyncIterator[Notifications]:
    """Hear what changes in PostgreSQL while the block runs. It begins in the background, at once if it can."""
    notifications = Notifications()
    task = asyncio.create_task(notifications.listen(settings), name="notifications")
    try:
        yield notifications
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _connection(settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(
        settings.dsn.get_secret_value(),
        timeout=PING_SECONDS,
        server_settings={"application_name": "download-gateway notifications"},
    )
    try:
        yield connection
    finally:
        with contextlib.suppress(*NEIGHBOUR_ERRORS):
            await connection.close(timeout=_CLOSE_SECONDS)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
