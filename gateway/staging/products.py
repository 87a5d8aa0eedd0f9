"""Files of products, or by checksum, for those who ask how it stands with many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gateway.catalog.locate import read_copies
from gateway.catalog.model import Copy
from gateway.catalog.statements import COPIES
from gateway.db import Database
from gateway.text import is_storable

# Of what is too many only the number matters: copies are looked up of what is told.
_TOLD = f"""
SELECT found.*, copies.copies
FROM found CROSS JOIN LATERAL (SELECT {COPIES} AS copies FROM copies c WHERE c.file_id = found.file_id) copies
ORDER BY found.file_id"""  # noqa: S608 - made of constants; values are bound
_OF_PRODUCTS = f"""
WITH found AS MATERIALIZED (
    SELECT p.urn, f.file_id, f.checksum, f.size, f.data_type, count(*) OVER () AS total
    FROM tenants t
    JOIN products p ON p.tenant_id = t.tenant_id AND p.urn = ANY ($2::text[])
    JOIN files f ON f.product_id = p.product_id
    WHERE t.name = $1 ORDER BY f.file_id LIMIT $3
){_TOLD}"""  # noqa: S608 - as above
_BY_CHECKSUM = f"""
WITH found AS MATERIALIZED (
    SELECT p.urn, f.file_id, f.checksum, f.size, f.data_type, count(*) OVER () AS total
    FROM files f
    JOIN products p ON p.product_id = f.product_id
    JOIN tenants t ON t.tenant_id = p.tenant_id AND t.name = $1
    WHERE lower(f.checksum) = ANY ($2::text[]) ORDER BY f.file_id LIMIT $3
){_TOLD}"""  # noqa: S608 - as above


@dataclasses.dataclass(frozen=True, slots=True)
class ProductFile:
    """A file, as far as its availability goes."""

    product: str
    """URN."""
    file_id: int
    checksum: str | None
    size: int | None
    """Bytes."""
    data_type: str
    copies: tuple[Copy, ...]


async def files_of_products(
    database: Database, tenant: str, urns: Sequence[str], *, most: int
) -> tuple[list[ProductFile], int]:
    """Up to ``most`` files of products, and how many there are.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    return await _fetch(database, _OF_PRODUCTS, tenant, urns, most)


async def files_by_checksum(
    database: Database, tenant: str, checksums: Sequence[str], *, most: int
) -> tuple[list[ProductFile], int]:
    """Up to ``most`` files that have one of ``checksums``, in any case, and how many there are.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    return await _fetch(database, _BY_CHECKSUM, tenant, [one.lower() for one in checksums], most)


async def _fetch(
    database: Database, statement: str, tenant: str, names: Sequence[str], most: int
) -> tuple[list[ProductFile], int]:
    rows = await database.fetch(statement, tenant, list({one for one in names if is_storable(one)}), most)
    found = [
        ProductFile(
            row["urn"], row["file_id"], row["checksum"], row["size"], row["data_type"], read_copies(row["copies"])
        )
        for row in rows
    ]
    return found, rows[0]["total"] if rows else 0
