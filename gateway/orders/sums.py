"""The CRC-32 of ordered files, so that their archive can be resumed: computed before a file counts as available.

Files that are held by somebody else are left out: they would have to be fetched whole, from him.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

import asyncpg

from gateway.catalog.locate import for_upkeep, read_copies
from gateway.catalog.statements import COPIES
from gateway.config import Config
from gateway.crc32_of_files import Crc32Reader
from gateway.db import Database
from gateway.locations import Location
from gateway.sources import choose
from gateway.verification import Verifier

log = logging.getLogger(__name__)

_PAGE_ROWS = 500
_UNKNOWN = f"""
SELECT o.order_file_id, f.file_id, f.data_type, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm,
       f.reference, p.urn, t.name AS tenant, (
           SELECT {COPIES}
           FROM copies c WHERE c.file_id = f.file_id
       ) AS copies
FROM (SELECT * FROM order_files WHERE order_file_id BETWEEN $1 AND $2 AND state = 'PENDING' OFFSET 0) o
JOIN files f ON f.file_id = o.file_id
JOIN products p ON p.product_id = f.product_id
JOIN tenants t USING (tenant_id)
WHERE f.crc32 IS NULL AND f.size IS DISTINCT FROM 0 AND NOT f.reference
ORDER BY o.order_file_id LIMIT {_PAGE_ROWS}"""  # noqa: S608 - made of constants


class OrderSums:
    """Reads files without a CRC-32 and remembers it; see `gateway.orders.model.Sums`."""

    def __init__(
        self, database: Database, reader: Crc32Reader, locations: Mapping[str, Location], *, seconds: float
    ) -> None:
        """``seconds``: that one call may take; a file that is being read then gets none."""
        self._database = database
        self._reader = reader
        self._locations = locations
        self._seconds = seconds

    async def sum(self, ranges: Sequence[tuple[int, int]]) -> None:
        """See `Sums`. What cannot be read is left: its download will tell why."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                for first, last in ranges:
                    await self._sum_all(first, last)

    async def _sum_all(self, first: int, last: int) -> None:
        while rows := await self._database.fetch(_UNKNOWN, first, last):
            await asyncio.gather(*map(self._sum, rows))
            first = rows[-1]["order_file_id"] + 1

    async def _sum(self, row: asyncpg.Record) -> None:
        file = for_upkeep(row, read_copies(row["copies"]))
        try:
            candidate = choose(file, self._locations, row["tenant"])[0]
            await self._reader.save(file, candidate, await self._reader.read(file, candidate))
        except Exception as error:  # noqa: BLE001 - one file that a plug-in fails at must not hold up its order
            log.warning("there is no CRC-32 of file %s: %r", file.file_id, error)


@contextlib.asynccontextmanager
async def summing(
    config: Config, database: Database, verifier: Verifier, locations: Mapping[str, Location]
) -> AsyncIterator[OrderSums | None]:
    """What computes CRC-32 while the block runs; None where the settings want none."""
    seconds = config.orders.sum_seconds
    if not seconds:
        yield None
        return
    with Crc32Reader(database, verifier, storage_timeout=config.delivery.storage_timeout) as reader:
        yield OrderSums(database, reader, locations, seconds=seconds)
