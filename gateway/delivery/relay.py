"""Passing on bytes that Python itself must receive, because they come encrypted."""

from __future__ import annotations

import os

from gateway.delivery.client import Client
from gateway.delivery.mover import Mover
from gateway.storage import AtOnce, CopyUnavailableError, Descriptor


async def relay(stream: AtOnce, count: int, peer: Descriptor, client: Client, *, storage_timeout: float) -> None:
    """Send the next ``count`` bytes of ``stream`` to ``peer``, a non-blocking duplicate of the client's descriptor.

    The transfer counts what was sent, whatever happens.

    Raises:
        CopyUnavailableError, ConnectionError, ClientStalledError, AllowanceEndedError: as `Mover.run`.
    """
    await _Relay(stream, count, peer, client, storage_timeout=storage_timeout).run()


class _Relay(Mover):
    """A mover with one piece between the two."""

    def __init__(self, stream: AtOnce, count: int, peer: Descriptor, client: Client, *, storage_timeout: float) -> None:
        super().__init__(stream.waits_on(), count, peer, client, storage_timeout=storage_timeout)
        self._stream = stream
        self._piece = memoryview(b"")

    def take(self) -> int:
        """See `Mover`."""
        try:
            piece = self._stream.read_at_once()
        except CopyUnavailableError as error:
            self.problem = error
            return 0
        if len(piece) > self.left:
            self.problem = CopyUnavailableError("the storage gave more than it was asked for")
            return 0
        self._piece = memoryview(piece)
        return len(piece)

    def give(self, most: int) -> int:
        """See `Mover`."""
        try:
            given = os.write(self.peer.number, self._piece[:most])
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionResetError(error.errno, error.strerror) from error
        self._piece = self._piece[given:]
        return given
