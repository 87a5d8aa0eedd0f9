"""Reading the copies of a storage again, to see that they still are what the catalogue says (a fixity check)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Literal

import asyncpg

from gateway.catalog.locate import for_upkeep
from gateway.catalog.model import Copy, File
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.locations import Location
from gateway.sources import Candidate
from gateway.storage import CopyChangedError, CopyNotFoundError, CopyOfflineError, StorageError
from gateway.verification import Verifier

Passed = Literal["not served", "not online", "without checksum", "without size"]
Outcome = Literal["verified", "broken", "missing", "changed", "unreadable"] | Passed

FAILURES: tuple[Outcome, ...] = ("broken", "missing", "changed", "unreadable")
PASSED: tuple[Outcome, ...] = ("not served", "not online", "without checksum", "without size")
"""Outcomes of copies that were not read."""

_PAGE_ROWS = 500

_COPIES = """
SELECT c.copy_id, c.storage, c.location, c.state, c.size AS copy_size, c.modified, c.version, c.verified_version,
       c.broken_version, f.file_id, f.data_type, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm,
       f.reference, p.urn, t.name AS tenant
FROM copies c JOIN files f USING (file_id) JOIN products p USING (product_id) JOIN tenants t USING (tenant_id)
WHERE c.storage = $1 AND c.copy_id > $2 AND ($3::text IS NULL OR t.name = $3)
  AND ($4 OR c.verified_version IS NULL OR c.verified_version <> c.version)
ORDER BY c.copy_id LIMIT $5"""


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Which copies are read."""

    storage: str
    tenant: str | None = None
    """None for those of all tenants."""
    everything: bool = False
    """Also those whose version was verified before."""
    most: int | None = None
    """As many are read; None for all. Those that are passed over do not count."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What became of a copy."""

    location: str
    outcome: Outcome
    size: int = 0
    """Bytes that were read."""
    reason: str = ""
    healed: bool = False
    """Whether it is verified now and was known to be broken before."""


class FixityCheck:
    """Reads copies, some at a time, and writes down what it finds of each right after it was read."""

    def __init__(
        self, database: Database, verifier: Verifier, location: Location, hear: Callable[[Seen], None]
    ) -> None:
        self._database = database
        self._verifier = verifier
        self._location = location
        self._hear = hear

    async def run(self, selection: Selection, *, jobs: int) -> None:
        """Read what is selected, ``jobs`` copies at a time. No connection to the database is held meanwhile.

        When it is cancelled, what was read to the end is written down first.

        Raises:
            GatewayError: 503; PostgreSQL does not answer.
        """
        waiting: asyncio.Queue[tuple[File, Candidate] | None] = asyncio.Queue(jobs)
        failed: GatewayError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(self._work(waiting))
                async with aclosing(self._to_read(selection)) as copies:
                    async for copy in copies:
                        await waiting.put(copy)
                for _ in range(jobs):
                    await waiting.put(None)
        except* GatewayError as errors:
            failed = _leaves(errors)[0]
        if failed is not None:
            raise failed

    async def _to_read(self, selection: Selection) -> AsyncGenerator[tuple[File, Candidate], None]:
        """The copies that can be read and checked; the others are told of."""
        last, count = 0, 0
        while True:
            rows = await self._database.fetch(
                _COPIES, selection.storage, last, selection.tenant, selection.everything, _PAGE_ROWS
            )
            for row in rows:
                if count == selection.most:
                    return
                file, candidate = for_upkeep(row), Candidate(_copy(row), self._location)
                passed = self._passed(row["tenant"], file, candidate.copy)
                if passed is not None:
                    self._hear(Seen(candidate.copy.location, passed))
                else:
                    count += 1
                    yield file, candidate
            if len(rows) < _PAGE_ROWS:
                return
            last = rows[-1]["copy_id"]

    def _passed(self, tenant: str, file: File, copy: Copy) -> Passed | None:
        """Why a copy is not read."""
        if not self._location.serves(tenant, copy.location):
            return "not served"
        if copy.state != "ONLINE" or self._location.type != "ONLINE":
            return "not online"
        if self._verifier.proof_of(file) is None:
            return "without checksum"
        if file.size is None and copy.size is None:
            return "without size"
        return None

    async def _work(self, waiting: asyncio.Queue[tuple[File, Candidate] | None]) -> None:
        while (copy := await waiting.get()) is not None:
            await self._read(*copy)

    async def _read(self, file: File, candidate: Candidate) -> None:
        copy = candidate.copy
        try:
            version, holds = await self._verifier.verify(file, candidate)
        except StorageError as error:
            self._hear(Seen(copy.location, _outcome(error), reason=str(error)))
        except Exception as error:  # noqa: BLE001 - one copy that a plug-in fails at must not end it all
            self._hear(Seen(copy.location, "unreadable", reason=f"the plug-in failed: {type(error).__name__}"))
        else:
            size = (copy.size if file.size is None else file.size) or 0
            reason = "" if holds else f"has not the {file.checksum_algorithm} {file.checksum} of the catalogue"
            healed = holds and copy.broken_version == version
            seen = Seen(copy.location, "verified" if holds else "broken", size, reason, healed)
            await _to_the_end(self._keep(copy.copy_id, version, seen))

    async def _keep(self, copy_id: int, version: str, seen: Seen) -> None:
        await self._verifier.record(copy_id, version, holds=seen.outcome == "verified")
        self._hear(seen)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work``, which is short, even if the task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _leaves(group: BaseExceptionGroup[GatewayError]) -> list[GatewayError]:
    found: list[GatewayError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _outcome(error: StorageError) -> Outcome:
    if isinstance(error, CopyNotFoundError):
        return "missing"
    if isinstance(error, CopyChangedError):
        return "changed"
    if isinstance(error, CopyOfflineError):
        return "not online"
    return "unreadable"


def _copy(row: asyncpg.Record) -> Copy:
    return Copy(
        copy_id=row["copy_id"],
        storage=row["storage"],
        location=row["location"],
        state=row["state"],
        size=row["copy_size"],
        modified=row["modified"],
        version=row["version"],
        verified_version=row["verified_version"],
        broken_version=row["broken_version"],
    )
