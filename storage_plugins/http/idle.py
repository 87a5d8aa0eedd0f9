"""Connections that wait for their next request."""

from __future__ import annotations

import asyncio
import dataclasses

from storage_plugins.http.connection import Connection
from storage_plugins.http.message import Origin


@dataclasses.dataclass(frozen=True, slots=True)
class _Idle:
    origin: Origin
    connection: Connection
    until: float
    """Time of the loop."""


class IdleConnections:
    """Keeps at most ``most`` connections for ``seconds`` each, and closes them then."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._idle: list[_Idle] = []  # The one that waits for longest comes first.
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, origin: Origin) -> Connection | None:
        """The connection to ``origin`` that was put back last, if one is still good."""
        for place in reversed(range(len(self._idle))):
            if self._idle[place].origin == origin:
                connection = self._idle.pop(place).connection
                if connection.is_quiet():
                    return connection
                connection.close()
        return None

    def put(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection on which nothing is outstanding."""
        if self._closed or not self._most:
            connection.close()
            return
        if len(self._idle) >= self._most:
            self._idle.pop(0).connection.close()
        until = asyncio.get_running_loop().time() + self._seconds
        self._idle.append(_Idle(origin, connection, until))
        if self._timer is None:
            self._wait()

    def close(self) -> None:
        """Close all that wait, and at once whatever is put back later."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._idle:
            self._idle.pop().connection.close()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_at(self._idle[0].until, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._idle and self._idle[0].until <= now:
            self._idle.pop(0).connection.close()
        if self._idle:
            self._wait()
