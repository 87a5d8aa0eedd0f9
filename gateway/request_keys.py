"""What a request for a file leaves behind for the access log and the record of downloads."""

from __future__ import annotations

import dataclasses

from aiohttp import web

from gateway.catalog.model import Address, File
from gateway.delivery.transfer import Transfer
from gateway.identity.principal import Principal

PRINCIPAL = web.RequestKey("principal", Principal)
"""The caller, for the access log."""
TRANSFER = web.RequestKey("transfer", Transfer)
"""What became of the bytes, for the access log."""


@dataclasses.dataclass(slots=True)
class Asked:
    """What a request asked for, and what was found of it, for the record of downloads."""

    address: Address
    file: File | None = None
    """None: it was not found, or is not for the caller."""
    way: str | None = None
    """How the bytes leave: stream, redirect or accel."""
    storage: str | None = None
    """Where the bytes lie."""


ASKED = web.RequestKey("asked", Asked)
"""Present from the beginning of a request for a file."""
