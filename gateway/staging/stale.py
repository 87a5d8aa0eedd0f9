"""Copies that were to be readable for a while, and are not: the catalogue takes note, and their restore ends."""

from __future__ import annotations

from gateway.catalog.model import File
from gateway.db import Database

# Only what the request saw: meanwhile it may be restored anew. How long it was wanted does not hold any more, as its
# worker would extend what is not there.
_END = """
UPDATE restores r
SET expires_at = least(r.expires_at, now()), wanted_until = NULL, due_at = now()
WHERE r.file_id = $1 AND r.state = 'RESTORED' AND EXISTS (
    SELECT FROM unnest($2::bigint[], $3::timestamptz[]) AS seen(copy_id, restored_until)
    JOIN copies c ON c.copy_id = seen.copy_id AND c.restored_until = seen.restored_until
)"""
_DROP = """
WITH seen AS (SELECT * FROM unnest($1::bigint[], $2::timestamptz[]) AS seen(copy_id, restored_until)),
gone AS (
    DELETE FROM copies c USING seen
    WHERE c.copy_id = seen.copy_id AND c.entry_id IS NOT NULL AND c.restored_until = seen.restored_until
)
UPDATE copies c SET state = 'NEARLINE', restored_until = NULL FROM seen
WHERE c.copy_id = seen.copy_id AND c.entry_id IS NULL AND c.restored_until IS NOT DISTINCT FROM seen.restored_until"""


async def forget(database: Database, file: File, *, cold: int | None = None) -> None:
    """Take note that no restored copy of ``file`` can be read, nor the one that is ``cold``, by its id.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    copies = [copy for copy in file.copies if copy.restored_until is not None or copy.copy_id == cold]
    ids, ends = [copy.copy_id for copy in copies], [copy.restored_until for copy in copies]
    async with database.transaction() as connection:
        await connection.execute(_END, file.file_id, ids, ends)
        await connection.execute(_DROP, ids, ends)
