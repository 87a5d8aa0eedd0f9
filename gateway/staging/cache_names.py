"""Where entries of the cache lie, and what their files are called while they are written."""

from __future__ import annotations

import hashlib
import re
import uuid

_KEPT = re.compile(r"(?:.*/)?([0-9a-f]{2}/[0-9a-f]{2})/[0-9]{1,19}-([0-9]{1,19})", re.DOTALL)
_SCRATCH = re.compile(r"([0-9]{1,19})-([0-9a-f]{32})")


def prefix_of(tenant: str, prefixes: tuple[str, ...], base: str) -> str:
    """What locations of a tenant's entries begin with, in a storage that serves ``prefixes`` (`Location.prefixes`).

    Args:
        tenant: name.
        prefixes: of the storage; the first is taken, unless it is empty.
        base: of the storage (`gateway.storage.CanKeep`).
    """
    first = prefixes[0] or base
    return first.replace("{tenant}", tenant) if "{tenant}" in first else f"{first}{tenant}/"


def location_of(prefix: str, file_id: int, entry_id: int) -> str:
    """Where the file of an entry lies: a folder gets no more than some hundreds of them."""
    return f"{prefix}{_spread(entry_id)}/{file_id}-{entry_id}"


def is_entry(location: str) -> bool:
    """Whether something lies where the file of an entry would: nothing else is the cache's to remove."""
    found = _KEPT.fullmatch(location)
    return found is not None and found[1] == _spread(int(found[2]))


def scratch_name(entry_id: int, lease: uuid.UUID) -> str:
    """What a file is called while it is written."""
    return f"{entry_id}-{lease.hex}"


def lease_of(name: str) -> tuple[int, uuid.UUID] | None:
    """The entry and the lease that a file is written by; None if it is none of the cache's."""
    found = _SCRATCH.fullmatch(name)
    return None if found is None else (int(found[1]), uuid.UUID(found[2]))


def _spread(entry_id: int) -> str:
    digest = hashlib.sha256(str(entry_id).encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:4]}"
