"""Moving bytes from a storage's socket to a client's within the kernel (splice(2)), so that Python never holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from gateway.delivery.client import Client
from gateway.delivery.mover import Mover
from gateway.storage import CopyUnavailableError, Descriptor, OnSocket

PIPE_BYTES = 1024 * 1024
"""What the pipe between the sockets holds, where the system allows it."""


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
        ClientStalledError, AllowanceEndedError: see these.
    """
    if not hasattr(os, "splice"):
        return 0
    with _pipe() as (outlet, inlet):
        mover = _Splicer(stream, count, peer, client, pipe=(outlet, inlet), storage_timeout=storage_timeout)
        try:
            await mover.run()
        except _NoSpliceError:
            return 0
    return count


class _NoSpliceError(Exception):
    """This kind of socket has no splice."""


class _Splicer(Mover):
    """A mover with a pipe between the two."""

    holds = PIPE_BYTES

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
        super().__init__(stream.socket(), count, peer, client, storage_timeout=storage_timeout)
        self._stream = stream
        self._outlet, self._inlet = pipe
        self._started = False

    def take(self) -> int:
        """See `Mover`; 0 also when the pipe is full."""
        try:
            taken = os.splice(self.source.number, self._inlet, self.left, flags=_FLAGS)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS) and not self._started:
                raise _NoSpliceError from error
            self.problem = CopyUnavailableError(f"the connection broke: {error.strerror}")
            return 0
        if taken == 0:
            self.problem = CopyUnavailableError(f"the connection ended {self.left} bytes early")
            return 0
        self._started = True
        self._stream.took(taken)
        return taken

    def give(self, most: int) -> int:
        """See `Mover`."""
        try:
            return os.splice(self._outlet, self.peer.number, most, flags=_FLAGS)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionResetError(error.errno, error.strerror) from error


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
