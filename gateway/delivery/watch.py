"""Watching the client of a connection: does it take what it is sent?"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Iterator

from gateway.delivery.pace import Pace
from gateway.delivery.transfer import Transfer

LOOKS = 8
"""How often within its deadline a client is looked at: it is cut at most an eighth later than the deadline says."""


class ClientStalledError(Exception):
    """The client took bytes too slowly, or none."""


class Watch:
    """Watches the client of one answer.

    The kernel says that a socket is writable only once a third of its buffer is free: megabytes, for which a slow
    client takes minutes. So it is asked what the client has acknowledged meanwhile.
    """

    def __init__(self, transport: asyncio.Transport, pace: Pace, transfer: Transfer) -> None:
        self._transport = transport
        self._pace = pace
        self._transfer = transfer
        self._loop = asyncio.get_running_loop()
        self._start = self._last = self._loop.time()
        self._held = 0

    @contextlib.asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Bound how long the client may keep us waiting in the block.

        Raises:
            ClientStalledError: see there.
        """
        self._held, self._last = held_for_client(self._transport), self._loop.time()
        interval = self._pace.send_timeout / LOOKS
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            deadline.reschedule(self._loop.time() + self._left())
            timer = self._loop.call_later(interval, look)

        timer = self._loop.call_later(interval, look)
        try:
            async with asyncio.timeout(self._left()) as deadline:
                yield
        except TimeoutError as error:
            elapsed = self._loop.time() - self._start
            raise ClientStalledError(f"it took {self._taken()} bytes in {elapsed:.0f} s") from error
        finally:
            timer.cancel()

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Leave the time in the block out of the average: it is we who send nothing."""
        began = self._loop.time()
        try:
            yield
        finally:
            self._start += self._loop.time() - began

    def _left(self) -> float:
        now, held = self._loop.time(), held_for_client(self._transport)
        if held != self._held:
            # Less: it took some. More: it had taken enough for us to send some.
            self._held, self._last = held, now
        return self._pace.patience(now - self._start, self._taken(), silent=now - self._last)

    def _taken(self) -> int:
        return max(self._transfer.sent - self._held, 0)


def held_for_client(transport: asyncio.Transport) -> int:
    """Bytes that the client has not acknowledged, as far as the system tells; fewer and fewer while nobody sends."""
    waiting = transport.get_write_buffer_size()
    with contextlib.suppress(OSError, ValueError):
        answer = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        waiting += int.from_bytes(answer, sys.byteorder)
    return waiting


def reset(transport: asyncio.Transport) -> None:
    """End the connection of a client that does not read: the kernel forgets at once what it holds for it."""
    with contextlib.suppress(OSError):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
