"""What tests of the record of downloads write and ask."""

from __future__ import annotations

import datetime
from typing import Any

from gateway.config import Audit, Database
from gateway.ops.audit_table import AuditTable
from tests.api.support import PROJECT_ADMIN, call
from tests.harness import RunningGateway, bearer
from tests.ops.test_audit import noted

START = datetime.datetime(2027, 3, 1, tzinfo=datetime.UTC)
"""After the tenants of the tests are made."""


async def write(gateway: RunningGateway, number: int, **other: Any) -> None:
    """Records, a minute apart from `START` on."""
    table = AuditTable(Database.model_validate({"dsn": gateway.config.database.dsn}), Audit())
    await table.write([noted(n, START.timestamp() + 60 * n, **other) for n in range(number)], again=False)
    await table.close()


async def listed(gateway: RunningGateway, query: str, who: Any = PROJECT_ADMIN, kind: str = "downloads") -> Any:
    status, told = await call(gateway, "GET", f"/admin/{kind}?{query}", who)
    assert status == 200, told
    return told


async def streamed(gateway: RunningGateway, query: str, accept: str, kind: str = "downloads") -> tuple[Any, bytes]:
    fields = {**bearer(PROJECT_ADMIN), "Accept": accept}
    async with gateway.session.get(f"{gateway.url}/admin/{kind}?{query}", headers=fields) as response:
        return response, await response.read()


def numbers(told: Any) -> list[int]:
    return [int(one["requestId"].removeprefix("request-")) for one in told["downloads"]]
