"""Moving a span of a file into a connection by sendfile."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from gateway.delivery.transfer import Transfer
from gateway.delivery.watch import Watch
from gateway.http.evaluate import Span
from gateway.storage import Descriptor, OnDisk, OpenFile, answering_within

HOP_BYTES = 4 * 1024 * 1024
"""Most bytes that one call in a thread moves: what progress, deadlines and aborts are seen at."""


LOOK_AHEAD_BYTES = 16 * 1024 * 1024
"""How far ahead is looked at once whether bytes are in memory."""

ABANDON_SECONDS = 1.0
"""Time for a thread that sends to an ended connection to notice."""


class Pump:
    """Sends spans of ``file`` over ``connection``, of which ``peer`` is a duplicate that stays open.

    Whenever the connection takes bytes, those that are in memory are moved at once on the loop: a hop to a thread and
    back costs as much as a megabyte. From the first byte on that a disk must be asked for, a thread moves them, so that
    a slow disk stalls nobody else.
    """

    def __init__(
        self, storage: OnDisk, file: OpenFile, connection: socket.socket, peer: Descriptor, transfer: Transfer
    ) -> None:
        self._storage = storage
        self._file = file
        self._connection = connection
        self._peer = peer
        self._transfer = transfer
        self._loop = asyncio.get_running_loop()
        self._offset = self._stop = 0
        self._known = 0  # As far as here the bytes are in memory.
        self._cold = False
        self._pause: asyncio.Future[None] = self._loop.create_future()

    async def send(self, span: Span, watch: Watch, *, storage_timeout: float) -> None:
        """Send the whole span; the transfer counts what was sent, whatever happens.

        Raises:
            StorageError: the file could not be read, changed, or ended.
            ConnectionError: the client is gone.
            ClientStalledError: see there.
        """
        self._offset, self._stop, self._known = span.start, span.stop, span.start
        while self._offset < self._stop:
            async with watch.patience():
                await self._send_from_memory()
            if self._offset < self._stop:
                # From here on the disk reads ahead of us: samples would hit pages between others that are on their way,
                # and the loop would wait for these.
                self._cold = True
                async with answering_within(storage_timeout):
                    await self._send_from_disk(min(HOP_BYTES, self._stop - self._offset))

    async def _send_from_memory(self) -> None:
        """Send until all is sent or a disk must be asked."""
        self._pause = self._loop.create_future()
        self._loop.add_writer(self._peer.number, self._move)
        try:
            await self._pause
        finally:
            self._loop.remove_writer(self._peer.number)

    async def _send_from_disk(self, count: int) -> None:
        """Have a thread send up to ``count`` bytes. Whatever it sent is counted, even if nobody waits for it."""
        hop = asyncio.ensure_future(self._storage.sendfile(self._file, self._offset, count, self._peer))
        try:
            self._count(await asyncio.shield(hop))
        except asyncio.CancelledError:
            await self._abandon(hop, count)
            raise

    async def _abandon(self, hop: asyncio.Future[int], count: int) -> None:
        """Count what a thread sent that cannot be stopped: all it was asked for, if it does not say soon."""
        sent = count
        try:
            # The thread gets an error at its next write, and comes back.
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            await asyncio.wait([hop], timeout=ABANDON_SECONDS)
            if hop.done():
                sent = 0 if hop.cancelled() or hop.exception() else hop.result()
        finally:
            self._count(sent)
            hop.cancel()

    def _move(self) -> None:
        """The connection takes bytes: send what is in memory, as far as it is our turn."""
        if self._pause.done():
            return
        try:
            if self._offset >= self._known:
                self._known = self._offset + self._bytes_in_memory()
            if self._offset == self._known:
                self._pause.set_result(None)
                return
            count = self._known - self._offset
            self._count(self._storage.sendfile_from_memory(self._file, self._offset, count, self._peer))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
            self._pause.set_exception(error)
            return
        if self._offset == self._stop:
            self._pause.set_result(None)

    def _bytes_in_memory(self) -> int:
        if self._cold:
            return 0
        asked = min(LOOK_AHEAD_BYTES, self._stop - self._offset)
        return self._storage.bytes_in_memory(self._file, self._offset, asked)

    def _count(self, moved: int) -> None:
        self._offset += moved
        self._transfer.sent += moved
