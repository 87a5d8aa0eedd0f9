"""A copy of each storage to try it with, from the catalogue."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gateway.catalog.model import Copy
from gateway.config import Database
from gateway.db import one_connection

_LOOKED_AT = 20
"""Copies that are looked at to find one that may be served."""

_COPIES = """
SELECT c.copy_id, c.storage, c.location, c.state, c.size, c.modified, c.version, c.verified_version, c.broken_version,
       CASE WHEN c.restored_until > now() THEN c.restored_until END AS restored_until, c.entry_id,
       f.file_name, f.mime_type, t.name AS tenant
FROM copies c JOIN files f USING (file_id) JOIN products p USING (product_id) JOIN tenants t USING (tenant_id)
WHERE c.storage = $1 AND c.state = ANY($3) AND coalesce(f.size, c.size, 1) > 0
ORDER BY c.copy_id DESC LIMIT $2"""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A copy, and what a client would be told of its file."""

    copy: Copy
    tenant: str
    file_name: str
    mime_type: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Samples:
    """What the catalogue has of a storage."""

    newest: Sequence[Sample]
    """The copies ingested last that could be read, now or after a restore."""
    tenants: int
    """In the whole catalogue."""


async def samples_of(storage: str, settings: Database, *, nearline: bool) -> Samples:
    """Look a few copies of ``storage`` up that are said to be online or, with ``nearline``, to be restored first.

    Raises:
        ConfigurationError, asyncpg.PostgresError: the catalogue cannot be asked.
    """
    async with one_connection(settings) as connection:
        tenants: int = await connection.fetchval("SELECT count(*) FROM tenants")
        states = ["ONLINE", "NEARLINE"] if nearline else ["ONLINE"]
        rows = await connection.fetch(_COPIES, storage, _LOOKED_AT, states)
    newest = [
        Sample(
            Copy(**{field.name: row[field.name] for field in dataclasses.fields(Copy)}),
            row["tenant"],
            row["file_name"],
            row["mime_type"],
        )
        for row in rows
    ]
    return Samples(newest, tenants)
