"""Moving bytes from a storage's socket to a client's within the kernel (splice(2)), so that Python never holds them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from gateway.delivery.client import Client
from gateway.storage import CopyUnavailableError, Descriptor, OnSocket

PIPE_BYTES = 1024 * 1024
"""What the pipe between the sockets holds, where the system allows it."""

TURN_BYTES = 4 * 1024 * 1024
"""Bytes that are moved before others have their turn: about half a millisecond."""


async def splice(stream: OnSocket, count: int, peer: Descriptor, client: Client, *, storage_timeout: float) -> int:
    """Move the next ``count`` bytes of ``stream`` into ``peer``, a duplicate of the client's descriptor.

    Returns ``count``, or 0 where this system or this kind of socket has no splice: then nothing was moved. The
    transfer counts what was moved, whatever happens.

    Args:
        stream: after a first ``read``.
        count: bytes.
        peer: non-blocking.
        client: whom ``peer`` leads to.
        storage_timeout: seconds that the storage may give nothing.

    Raises:
        CopyUnavailableError: the bytes ended early or did not come in time; what had come was sent on.
        ConnectionError: the client is gone.
        ClientStalledError: see there.
    """
    if not hasattr(os, "splice"):
        return 0
    with _pipe() as (outlet, inlet):
        mover = _Mover(stream, count, peer, client, pipe=(outlet, inlet), storage_timeout=storage_timeout)
        try:
            await mover.run()
        except _NoSpliceError:
            return 0
    return count


class _NoSpliceError(Exception):
    """This kind of socket has no splice."""


class _Mover:
    """Both ends of the pipe: what fills it from the storage, and what empties it to the client."""

    def __init__(
        self,
        stream: OnSocket,
        count: int,
        peer: Descriptor,
        client: Client,
        *,
        pipe: tuple[int, int],
        storage_timeout: float,
    ) -> None:
        self._stream = stream
        self._source = stream.socket()
        self._left = count
        self._peer = peer
        self._client = client
        self._outlet, self._inlet = pipe
        self._timeout = storage_timeout
        self._loop = asyncio.get_running_loop()
        self._held = 0
        """Bytes in the pipe."""
        self._problem: CopyUnavailableError | None = None
        self._heard = 0.0
        """When the storage gave something, or was first waited for."""
        self._started = False
        self._pause: asyncio.Future[None]

    async def run(self) -> None:
        """Move all, waiting for whichever side holds things up."""
        while self._left or self._held:
            if self._held or self._problem is not None:
                if not self._held and self._problem is not None:
                    raise self._problem
                async with self._client.watch.patience():
                    await self._until(self._loop.add_writer, self._loop.remove_writer, self._peer.number)
            else:
                await self._until_storage_gives()

    async def _until_storage_gives(self) -> None:
        """Move, until the client holds things up; a storage that gives nothing for too long is an error."""
        self._heard = self._loop.time()
        while True:
            try:
                async with asyncio.timeout_at(self._heard + self._timeout):
                    await self._until(self._loop.add_reader, self._loop.remove_reader, self._source.number)
            except TimeoutError:
                if self._loop.time() < self._heard + self._timeout:
                    continue
                self._problem = CopyUnavailableError(f"gave nothing for {self._timeout:g} s")
            return

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object], number: int) -> None:
        """Move whenever the side that is waited for is ready, until the other side is to be waited for."""
        waits_for_client = number == self._peer.number
        self._pause = self._loop.create_future()
        add(number, self._turn, waits_for_client)
        try:
            await self._pause
        finally:
            remove(number)

    def _turn(self, waits_for_client: bool) -> None:
        """Move as much as both sides take, but let others have their turn."""
        if self._pause.done():
            return
        try:
            self._move()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
            self._pause.set_exception(error)
            return
        over = not self._left and not self._held
        if over or self._problem is not None or bool(self._held) != waits_for_client:
            self._pause.set_result(None)

    def _move(self) -> None:
        moved = 0
        while moved < TURN_BYTES and (self._left or self._held):
            taken = self._take() if self._left and self._held < PIPE_BYTES and self._problem is None else 0
            given = self._give() if self._held else 0
            if not taken and not given:
                break
            moved += given

    def _take(self) -> int:
        """Fill the pipe; 0 when the storage has given nothing or the pipe is full."""
        try:
            taken = os.splice(self._source.number, self._inlet, self._left, flags=_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS) and not self._started:
                raise _NoSpliceError from error
            self._problem = CopyUnavailableError(f"the connection broke: {error.strerror}")
            return 0
        if taken == 0:
            self._problem = CopyUnavailableError(f"the connection ended {self._left} bytes early")
            return 0
        self._started, self._heard = True, self._loop.time()
        self._left -= taken
        self._held += taken
        self._stream.took(taken)
        return taken

    def _give(self) -> int:
        """Empty the pipe into the connection; 0 when that is full."""
        try:
            given = os.splice(self._outlet, self._peer.number, self._held, flags=_FLAGS)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionResetError(error.errno, error.strerror) from error
        self._held -= given
        self._client.transfer.sent += given
        return given


_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Beyond what a user may have in all pipes, the system keeps them at their default.
        with contextlib.suppress(OSError):
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield outlet, inlet
    finally:
        os.close(outlet)
        os.close(inlet)
