"""A process that downloads without end: ``python -m tests.soak.worker SCENARIO NUMBER``.

Whatever it is told of by Redis it writes to a file of its own at once: if it is killed, that is known of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from http import HTTPStatus
from pathlib import Path
from unittest import mock

from gateway.db import connect
from gateway.delivery.allowance import AllowanceEndedError
from gateway.errors import ConfigurationError, GatewayError
from gateway.quotas.journal import Journal
from gateway.quotas.leases import Lease
from gateway.quotas.service import Quotas
from gateway.quotas.upkeep import open_quotas
from tests.soak.board import Board
from tests.soak.scenario import Scenario, Wish, Wishes

PAUSE = 0.05
"""Seconds before somebody asks again whom nobody could tell."""


class Diary:
    """A line for each thing that happened: time, tenant, reservation, kind, downloads, bytes."""

    def __init__(self, path: Path) -> None:
        # Not buffered: what a killed process wrote is there.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, tenant: str, reservation: str, kind: str, downloads: int | str, octets: int | str) -> None:
        os.write(self._file, f"{time.time():.3f}\t{tenant}\t{reservation}\t{kind}\t{downloads}\t{octets}\n".encode())


class WrittenJournal(Journal):
    """A journal whose events are in the diary, too."""

    diary: Diary

    def add(self, tenant: str, epoch: int, number: int, event: str) -> None:
        super().add(tenant, epoch, number, event)
        # {"r":"…","u":[…],…,"k":"grant","d":1,"b":10,"at":1}: cheaper than json.loads.
        reservation = event[6 : event.index('"', 6)]
        kind, downloads, octets, _ = event[event.rindex('"k":') + 4 :].split(",")
        self.diary.write(tenant, reservation, kind.strip('"'), downloads[4:], octets[4:])


class Downloader:
    """Downloads, one after the other, as many at a time as there are tasks."""

    def __init__(self, quotas: Quotas, board: Board, number: int, diary: Diary) -> None:
        self._quotas = quotas
        self._board = board
        self._number = number
        self._diary = diary
        self.stopped = asyncio.Event()

    async def work(self, wishes: Wishes) -> None:
        while not self.stopped.is_set():
            try:
                await self._download(wishes.next())
            except GatewayError as error:
                if error.status is HTTPStatus.TOO_MANY_REQUESTS:
                    self._count("refused")
                else:
                    self._count("unavailable")
                    await asyncio.sleep(PAUSE)

    async def _download(self, wish: Wish) -> None:
        if wish.whole:
            await self._quotas.charge(wish.principal, wish.file, wish.transfer.promised)
            self._count("granted")
            self._count("settled")
            return
        lease = await self._quotas.reserve(wish.principal, wish.file, wish.transfer)
        self._count("granted")
        try:
            with contextlib.suppress(AllowanceEndedError):
                await _send(lease, wish)
        finally:
            reservation = lease.reservation
            self._diary.write(reservation.tenant, reservation.identifier, "sent", 0, lease.sent)
            await self._quotas.settle(lease, delivered=wish.transfer.delivered)
        self._count("settled")

    def _count(self, name: str) -> None:
        self._board.add(self._number, name)


async def _send(lease: Lease, wish: Wish) -> None:
    """As delivery does: never more than is granted."""
    transfer = wish.transfer
    wanted = int(transfer.promised * wish.part)
    if wish.seconds:
        await asyncio.sleep(wish.seconds)
    while transfer.sent < wanted:
        granted = lease.granted()
        if granted == transfer.sent:
            await lease.more()
        else:
            transfer.sent = min(granted, wanted)
    transfer.finished = transfer.sent == transfer.promised


async def work(scenario: Scenario, number: int) -> None:
    """Until SIGTERM; then end in an orderly way."""
    board = Board(scenario.board)
    diary = WrittenJournal.diary = Diary(Path(scenario.directory) / f"diary-{number}")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    stack = contextlib.AsyncExitStack()
    stack.enter_context(mock.patch("gateway.quotas.upkeep.Journal", WrittenJournal))
    async with stack, connect(scenario.database, ()) as database:
        while not stop.is_set():
            try:
                async with open_quotas(scenario.redis, scenario.quotas, database) as quotas:
                    downloader = Downloader(quotas, board, number, diary)
                    wishes = Wishes(scenario, seed=number)
                    async with asyncio.TaskGroup() as group:
                        for _ in range(scenario.tasks):
                            group.create_task(downloader.work(wishes))
                        await stop.wait()
                        downloader.stopped.set()
            except ConfigurationError:
                # Redis is just away.
                await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(work(Scenario.from_json(sys.argv[1]), int(sys.argv[2])))
