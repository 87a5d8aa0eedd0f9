"""The record of downloads: one for each download, and for each refusal on their routes.

A request leaves its record in a queue in memory, which costs it microseconds. A task writes what has gathered to
PostgreSQL, each second or as soon as there is enough for a batch. While PostgreSQL is away records wait; beyond a bound
new ones are counted as lost and that is logged. A download never waits for any of it.

What leaves no record: answers that are neither a download nor a refusal (304, HEAD, ``?dryRun=true``), and what is
refused before anybody looks at its path (a bad Host). What a process has not written when it is killed is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Protocol

from aiohttp import web

from gateway.config import Audit as AuditSettings
from gateway.config import Database as DatabaseSettings
from gateway.db import NEIGHBOUR_ERRORS
from gateway.delivery.transfer import Transfer
from gateway.links import CLIENT
from gateway.ops.audit_table import MOST_TEXT, AuditTable, Noted, names_of
from gateway.ops.request_context import PROBLEM, REQUEST_ID
from gateway.request_keys import ASKED, PRINCIPAL, TRANSFER, Asked
from gateway.staging.model import RESTORING

log = logging.getLogger(__name__)

MOST_AT_ONCE = 1000
"""Records in one batch."""
GATHER_SECONDS = 1.0
"""How long records gather, unless there are enough for a batch before."""
MOST_WAITING = 50_000
"""Records that may wait; usually less than a kilobyte each, and a few at most."""
RETRY_SECONDS = 2.0
"""Between attempts while PostgreSQL does not answer."""
UPKEEP_SECONDS = 3600.0
"""Between looks at the months: the next one is made, old ones are dropped."""
SOON_SECONDS = 60.0
"""Before the months are looked at again, if that failed."""
CLOSING_SECONDS = 5.0
"""That the last records may take to be written when the process ends."""


class Table(Protocol):
    """Where records are kept."""

    async def write(self, records: Sequence[Noted], *, again: bool) -> int:
        """Write a batch, all of it or nothing; how many of it can never be written.

        Args:
            records: of the batch.
            again: whether this very batch may have been written by an attempt whose end nobody saw.

        Raises:
            NEIGHBOUR_ERRORS: no answer, or not in time.
        """

    async def upkeep(self, now: float) -> None:
        """Make the months around ``now``, and drop those that are past keeping; raises as `write`."""

    async def close(self) -> None:
        """Let go of what is open."""


class Audit:
    """Takes records, and writes them in the background from `open_audit` on."""

    def __init__(self, table: Table, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._clock = clock
        self._waiting: deque[Noted] = deque()
        self._batch: list[Noted] = []
        self._enough = asyncio.Event()
        self._closing = False
        self._numbers = itertools.count(random.getrandbits(62))
        self._trouble = False
        self.lost = 0
        """Records that were not kept, since the start of the process."""
        self._told = 0

    @property
    def waiting(self) -> int:
        """Records that are still to be written."""
        return len(self._waiting) + len(self._batch)

    def note(self, request: web.Request, asked: Asked, status: int | None, seconds: float) -> None:
        """Take the record of a request that ended after ``seconds`` with ``status``; None if it has no answer.

        It never waits.
        """
        transfer = request.get(TRANSFER)
        problem = request.get(PROBLEM) if transfer is None or not transfer.finished else None
        verdict, reason = judge(status, transfer, problem)
        if verdict is None:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.lost += 1
            return
        found, client, resource = asked.file, request.get(CLIENT), request.match_info.route.resource
        # What a client wrote is cut here: many may wait.
        product, file = names_of(asked.address)
        self._waiting.append(
            Noted(
                self._clock(),
                next(self._numbers),
                request.get(PRINCIPAL),
                client.address if client is not None else "",
                request.method,
                resource.canonical if resource is not None else "",
                request.rel_url.raw_path[:MOST_TEXT],
                (found.product if found is not None else product)[:MOST_TEXT],
                file[:MOST_TEXT],
                found.file_id if found is not None else None,
                verdict,
                reason,
                status,
                transfer.promised if transfer is not None else None,
                transfer.sent if transfer is not None else None,
                asked.storage,
                asked.way,
                seconds,
                request.get(REQUEST_ID),
                agent[:MOST_TEXT] if (agent := request.headers.get("User-Agent")) is not None else None,
            )
        )
        if len(self._waiting) == MOST_AT_ONCE:
            self._enough.set()

    async def run(self) -> None:
        """Write what gathers, until `finish` is called and everything is written."""
        monotonic = asyncio.get_running_loop().time
        next_upkeep = monotonic()
        while not (self._closing and not self.waiting):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if self._trouble else GATHER_SECONDS):
                    await self._enough.wait()
            if not self._closing:
                self._enough.clear()
            try:
                if monotonic() >= next_upkeep:
                    next_upkeep = monotonic() + (UPKEEP_SECONDS if await self._look_after() else SOON_SECONDS)
                await self._write_all()
                continue
            except NEIGHBOUR_ERRORS as error:
                if not self._trouble:
                    log.warning(
                        "PostgreSQL does not take the record of downloads: %s; records wait", type(error).__name__
                    )
            except Exception:
                # Whatever it is, the next records are to be written.
                log.exception("the record of downloads cannot be written")
            self._trouble = True
            self._tell_lost()
            if self._closing:
                await asyncio.sleep(min(RETRY_SECONDS, CLOSING_SECONDS / 10))

    def finish(self) -> None:
        """Have `run` write what waits, and return."""
        self._closing = True
        self._enough.set()

    def give_up(self) -> None:
        """Count what still waits as lost, and say how many records were."""
        self.lost += self.waiting
        self._waiting.clear()
        self._batch = []
        self._tell_lost()

    async def _look_after(self) -> bool:
        """Look at the months; whether that worked. If not, there may still be one to write to."""
        try:
            await self._table.upkeep(self._clock())
        except NEIGHBOUR_ERRORS as error:
            log.warning("the months of the record of downloads cannot be looked after: %s", type(error).__name__)
            return False
        return True

    async def _write_all(self) -> None:
        while True:
            again = bool(self._batch)
            if not again:
                self._batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            if not self._batch:
                return
            self.lost += await self._table.write(self._batch, again=again)
            self._batch = []
            if self._trouble:
                self._trouble = False
                log.warning("PostgreSQL takes the record of downloads again")
            self._tell_lost()

    def _tell_lost(self) -> None:
        if self.lost > self._told:
            log.error("%s records of downloads are lost (the access log has them)", self.lost - self._told)
            self._told = self.lost


AUDIT = web.AppKey("audit", Audit)


def judge(status: int | None, transfer: Transfer | None, problem: str | None) -> tuple[str | None, str | None]:
    """What became of a request, and the reason of what went wrong; None if it was neither a download nor refused."""
    if transfer is not None and (problem is None or transfer.sent):
        if transfer.handed_over:
            return transfer.handed_over, None
        if transfer.finished:
            return "whole", None
        return "cut", problem or (type(transfer.problem).__name__ if transfer.problem is not None else "Ended")
    if status is None:
        return "cut", "Ended"
    if problem == RESTORING:
        # Nothing failed, and whoever comes back gets it.
        return "refused", problem
    if status < HTTPStatus.BAD_REQUEST:
        return None, None
    return ("failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused"), problem


@web.middleware
async def audited(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Have each request for a file leave its record, even one that is cancelled as the process ends."""
    began, status = time.perf_counter(), None
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        asked = request.get(ASKED)
        if asked is not None:
            request.app[AUDIT].note(request, asked, status, time.perf_counter() - began)


@contextlib.asynccontextmanager
async def open_audit(table: Table, clock: Callable[[], float] = time.time) -> AsyncIterator[Audit]:
    """An `Audit` that writes to ``table`` while the block runs, and what is left at its end, within a bound."""
    audit = Audit(table, clock)
    task = asyncio.create_task(audit.run())
    try:
        yield audit
    finally:
        audit.finish()
        await asyncio.wait([task], timeout=CLOSING_SECONDS)
        task.cancel()
        await asyncio.wait([task])
        audit.give_up()
        await table.close()


def auditing(database: DatabaseSettings, settings: AuditSettings) -> Callable[[web.Application], AsyncIterator[None]]:
    """Keep records of the application's downloads in ``database`` from its start to its end."""

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with open_audit(AuditTable(database, settings)) as app[AUDIT]:
            yield

    return opened
