"""Moving bytes from a storage to a client in callbacks of the loop: a coroutine for each piece costs more."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable

from gateway.delivery.client import Client
from gateway.storage import CopyUnavailableError, Descriptor

TURN_BYTES = 4 * 1024 * 1024
"""Bytes that are moved before others have their turn: about half a millisecond."""


class Mover(abc.ABC):
    """Takes bytes from a storage and gives them to a client, whenever one of them is ready.

    What is between the two is the business of those who implement `take` and `give`.
    """

    holds = 1
    """Bytes between the two from which on no more are taken."""

    def __init__(
        self, source: Descriptor, count: int, peer: Descriptor, client: Client, *, storage_timeout: float
    ) -> None:
        """Nothing is moved yet.

        Args:
            source: is readable when the storage may have given something.
            count: bytes.
            peer: a non-blocking duplicate of the client's descriptor.
            client: whom it leads to; the transfer counts what was moved, whatever happens.
            storage_timeout: seconds that the storage may give nothing.
        """
        self.source = source
        self.left = count
        """Bytes that are to be taken yet."""
        self.peer = peer
        self.client = client
        self.held = 0
        """Bytes that were taken and not yet given."""
        self.problem: CopyUnavailableError | None = None
        """Why no more can be taken; what is held is given before it is told."""
        self._timeout = storage_timeout
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0  # When the storage gave something, or was first waited for.
        self._pause: asyncio.Future[None]

    @abc.abstractmethod
    def take(self) -> int:
        """Take some bytes; 0 when the storage has given nothing, or there is a `problem` now."""

    @abc.abstractmethod
    def give(self, most: int) -> int:
        """Give up to ``most`` of the bytes that are held, at least one; 0 when the connection takes nothing.

        Raises:
            ConnectionError: the client is gone.
        """

    async def run(self) -> None:
        """Move all, waiting for whichever side holds things up.

        Raises:
            CopyUnavailableError: the bytes ended early or did not come in time; what had come was sent on.
            ConnectionError: the client is gone.
            ClientStalledError, AllowanceEndedError: see these.
        """
        while self.left or self.held:
            if self.held:
                # Nobody listens to the storage meanwhile: it may rest.
                await self.client.allowed(self.held)
                async with self.client.watch.patience():
                    await self._until(self._loop.add_writer, self._loop.remove_writer, self.peer.number)
            elif self.problem is not None:
                raise self.problem
            else:
                await self._until_storage_gives()

    async def _until_storage_gives(self) -> None:
        """Move, until the client holds things up; a storage that gives nothing for too long is a problem."""
        self._heard = self._loop.time()
        while True:
            try:
                async with asyncio.timeout_at(self._heard + self._timeout):
                    await self._until(self._loop.add_reader, self._loop.remove_reader, self.source.number)
            except TimeoutError:
                if self._loop.time() < self._heard + self._timeout:
                    continue
                self.problem = CopyUnavailableError(f"gave nothing for {self._timeout:g} s")
            return

    async def _until(self, add: Callable[..., object], remove: Callable[[int], object], number: int) -> None:
        """Move whenever the side that is waited for is ready, until the other side is to be waited for."""
        self._pause = self._loop.create_future()
        waits_for_client = number == self.peer.number
        add(number, self._turn, self._pause, waits_for_client)
        # Bytes may be at hand already without the descriptor being ready: decrypted along with those before.
        self._loop.call_soon(self._turn, self._pause, waits_for_client)
        try:
            await self._pause
        finally:
            remove(number)

    def _turn(self, pause: asyncio.Future[None], waits_for_client: bool) -> None:
        """Move as much as both sides take, but let others have their turn."""
        if pause.done():
            return
        try:
            moved = self._move()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever waits
            pause.set_exception(error)
            return
        over = not self.left and not self.held
        withheld = self.held and not self.client.room(self.held)
        if over or withheld or self.problem is not None or bool(self.held) != waits_for_client:
            pause.set_result(None)
        elif moved >= TURN_BYTES:
            # As above.
            self._loop.call_soon(self._turn, pause, waits_for_client)

    def _move(self) -> int:
        moved = 0
        while moved < TURN_BYTES and (self.left or self.held):
            taken = self.take() if self.left and self.held < self.holds and self.problem is None else 0
            if taken:
                self._heard = self._loop.time()
                self.left -= taken
                self.held += taken
            room = self.client.room(self.held)
            given = self.give(room) if room else 0
            self.held -= given
            self.client.transfer.sent += given
            if not taken and not given:
                break
            moved += given
        return moved
