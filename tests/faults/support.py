"""What the tests of faults share."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from pathlib import Path

from tests.harness import Catalogue, Entry


def replace_on_disk(path: Path, content: bytes) -> None:
    """Put other content at ``path`` as careful writers do: a new file, renamed over the old one."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.rename(path)


async def ingest_again(catalogue: Catalogue, entry: Entry, content: bytes) -> Entry:
    """Replace the file and bring its rows up to date, as the ingest of the same Item with a new file does."""
    replace_on_disk(entry.path, content)
    found = entry.path.stat()
    digest = hashlib.sha256(content).hexdigest()
    async with catalogue.connection.transaction():
        file = await catalogue.connection.fetchval(
            "UPDATE files SET checksum = $1, size = $2 WHERE checksum = $3 RETURNING file_id",
            digest,
            len(content),
            entry.checksum,
        )
        await catalogue.connection.execute(
            "UPDATE copies SET size = $1, modified = $2, version = $3 WHERE file_id = $4",
            found.st_size,
            datetime.datetime.fromtimestamp(int(found.st_mtime), datetime.UTC),
            f"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}",
            file,
        )
    return dataclasses.replace(entry, checksum=digest, content=content)
