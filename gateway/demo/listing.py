"""What the demo serves, read back from the database: for people who try it and programs that test it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from gateway.demo.accounts import TENANT
from gateway.demo.catalogue import TAPE

ARCHIVE = "archive"
"""Name of the storage in which the copies of the demo lie."""
TAPES = "tape"
"""Name of the storage whose copies must be restored first."""
TIMEOUT = 30.0
"""Seconds that the query may take."""


@dataclasses.dataclass(frozen=True, slots=True)
class DemoFile:
    """A file that the demo can deliver."""

    collection: str
    item: str
    asset: str
    product: str
    """URN of the product."""
    checksum: str | None
    """As the catalogue has it; None where it has none, and then there is no REGARDS address."""
    data_type: str
    name: str
    """What the user's copy is called."""
    path: str
    """Where it lies on this machine, absolute."""
    size: int
    """Bytes."""
    sha256: str
    """Of the content: hexadecimal, lower case."""
    nearline: bool = False
    """Whether it must be restored first."""


async def list_files(connection: asyncpg.Connection, root: Path) -> list[DemoFile]:
    """Every file of the demo's tenant with a copy in the storage `TAPES`, or seen in `ARCHIVE`, whose root is ``root``.

    Where the catalogue has no SHA-256 the file itself is read, in a thread.

    Raises:
        OSError: such a file cannot be read.
        asyncpg.PostgresError, TimeoutError: the database did not answer.
    """
    rows = await connection.fetch(
        """
        SELECT DISTINCT ON (d.collection_id, p.provider_id, f.asset_key)
               d.collection_id, p.provider_id, f.asset_key, p.urn, f.checksum, f.checksum_algorithm, f.data_type,
               f.file_name, c.location, coalesce(c.size, f.size) AS size, c.storage
        FROM tenants t
        JOIN datasets d USING (tenant_id)
        JOIN products p USING (dataset_id)
        JOIN files f USING (product_id)
        JOIN copies c USING (file_id)
        WHERE t.name = $1 AND ((c.storage = $2 AND c.version IS NOT NULL) OR c.storage = $3)
        ORDER BY d.collection_id, p.provider_id, f.asset_key, c.copy_id
        """,
        TENANT,
        ARCHIVE,
        TAPES,
        timeout=TIMEOUT,
    )
    return [await _demo_file(row, root) for row in rows]


async def _demo_file(row: asyncpg.Record, root: Path) -> DemoFile:
    is_nearline = row["storage"] == TAPES
    path = _absolute(root / TAPE if is_nearline else root, row["location"])
    if row["checksum_algorithm"] == "SHA-256" and row["size"] is not None:
        size, sha256 = row["size"], row["checksum"].lower()
    else:
        size, sha256 = await asyncio.to_thread(_measure, path)
    return DemoFile(
        collection=row["collection_id"],
        item=row["provider_id"],
        asset=row["asset_key"],
        product=row["urn"],
        checksum=row["checksum"],
        data_type=row["data_type"],
        name=row["file_name"],
        path=str(path),
        size=size,
        sha256=sha256,
        nearline=is_nearline,
    )


def _absolute(root: Path, location: str) -> Path:
    return (root / location).absolute()


def _measure(path: Path) -> tuple[int, str]:
    """Bytes of the file, and its SHA-256."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def to_json(
    base_url: str,
    tenant: str,
    tokens: Mapping[str, str],
    files: Iterable[DemoFile],
    *,
    regards_prefix: str,
    stac_prefix: str,
) -> dict[str, object]:
    """The demo as a value for JSON: where it is, a token for each account by name, and the files with their URLs.

    ``base_url`` has no slash at its end; the prefixes are those of ``[api]`` of the configuration.
    """
    return {
        "base_url": base_url,
        "tenant": tenant,
        "tokens": dict(tokens),
        "files": [
            {
                **dataclasses.asdict(file),
                "regards_url": _regards_url(base_url + regards_prefix, file),
                "stac_url": _stac_url(base_url + stac_prefix, file),
            }
            for file in files
        ],
    }


def _regards_url(base: str, file: DemoFile) -> str | None:
    if file.checksum is None:
        return None
    return f"{base}/downloads/{_segment(file.product)}/files/{_segment(file.checksum)}"


def _stac_url(base: str, file: DemoFile) -> str:
    collection, item, asset = _segment(file.collection), _segment(file.item), _segment(file.asset)
    return f"{base}/collections/{collection}/items/{item}/download/{asset}"


def _segment(text: str) -> str:
    """The text as one segment of a path (RFC 3986 §3.3), in which a colon may stand as it is."""
    return quote(text, safe=":")
