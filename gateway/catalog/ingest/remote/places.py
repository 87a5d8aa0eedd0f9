"""Where loads of other STAC APIs stopped: the table ``loads``, each row written with the page that it follows."""

from __future__ import annotations

import dataclasses
import json

import asyncpg

from gateway.catalog.ingest.remote.stac_api import Request, request_of

_TENANT = "(SELECT tenant_id FROM tenants WHERE name = $1)"
_FIND = f"""
SELECT collection, request, pages FROM loads
WHERE tenant_id = {_TENANT} AND source = $2 AND wanted = $3"""  # noqa: S608 - made of constants, as below; values are bound
_KEEP = f"""
INSERT INTO loads (tenant_id, source, wanted, collection, request, pages) VALUES ({_TENANT}, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, source, wanted)
DO UPDATE SET collection = $4, request = $5, pages = $6, updated_at = now()"""  # noqa: S608
_FORGET = f"DELETE FROM loads WHERE tenant_id = {_TENANT} AND source = $2 AND wanted = $3"  # noqa: S608


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Where a load goes on."""

    collection: str
    """Those before it, by code points, are done."""
    request: Request | None
    """What its next page is asked with; None: it is done, too."""
    pages: int
    """Written before."""

    def is_past(self, collection: str) -> bool:
        """Whether ``collection`` is done."""
        return collection < self.collection or (collection == self.collection and self.request is None)


class Places:
    """Of one load: of a tenant, from a source, of what is wanted."""

    def __init__(self, connection: asyncpg.Connection, tenant: str, source: str, wanted: str) -> None:
        self._connection = connection
        self._key = (tenant, source, wanted)

    async def find(self) -> Stop | None:
        """Where it stopped; None if it never began, or came to its end."""
        row = await self._connection.fetchrow(_FIND, *self._key)
        if row is None:
            return None
        request = None if row["request"] is None else request_of(json.loads(row["request"]))
        return Stop(row["collection"], request, row["pages"])

    async def keep(self, stop: Stop) -> None:
        """Go on there the next time, in the transaction that is open."""
        request = None if stop.request is None else json.dumps(stop.request.to_json())
        await self._connection.execute(_KEEP, *self._key, stop.collection, request, stop.pages)

    async def forget(self) -> None:
        """It came to its end, or is to begin anew."""
        await self._connection.execute(_FORGET, *self._key)
