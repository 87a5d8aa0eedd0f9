"""The record of what administrators change."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from gateway.db import Connection

_RECORD = """
INSERT INTO changes (tenant_id, actor, action, object, detail, address, request_id, key_id)
VALUES ((SELECT tenant_id FROM tenants WHERE name = $1), $2, $3, $4, $5::jsonb, $6, $7, $8)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something."""

    name: str
    """E-mail address of the administrator, or ``command line``."""
    address: str | None = None
    """IP address that he came from."""
    request_id: str | None = None
    key_id: str | None = None
    """Of the API key that he showed, if he did."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What was done."""

    tenant: str
    action: str
    """Like ``group.create``, ``right.put``, ``key.revoke``."""
    what: str
    """What was changed, as administrators name it."""
    detail: Mapping[str, object]
    """What it became. No secrets."""


_RECORD_ALL = """
INSERT INTO changes (tenant_id, actor, action, object, detail, address, request_id)
SELECT (SELECT tenant_id FROM tenants WHERE name = $1), $2, $3, what, detail::jsonb, $6, $7
FROM unnest($4::text[], $5::text[]) AS made (what, detail)"""


async def record_all(
    connection: Connection, actor: Actor, tenant: str, action: str, made: Mapping[str, Mapping[str, object]]
) -> None:
    """Write down that ``action`` was done to each object of ``made``, which became what stands with it.

    In the transaction that does it, as `record`.
    """
    details = [json.dumps(detail) for detail in made.values()]
    parameters = (tenant, actor.name, action, list(made), details, actor.address, actor.request_id)
    await connection.execute(_RECORD_ALL, *parameters)


async def record(connection: Connection, actor: Actor, change: Change) -> None:
    """Write ``change`` down, in the transaction that makes it."""
    await connection.execute(
        _RECORD,
        change.tenant,
        actor.name,
        change.action,
        change.what,
        json.dumps(change.detail),
        actor.address,
        actor.request_id,
        actor.key_id,
    )
