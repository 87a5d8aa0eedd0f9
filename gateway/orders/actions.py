"""What users do with their orders, by the rules of `gateway.orders.lifecycle`."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence

import asyncpg

from gateway.config import Orders as Settings
from gateway.db import Connection, Database
from gateway.identity.principal import Principal
from gateway.orders import upkeep
from gateway.orders.creation import Creator
from gateway.orders.lifecycle import Action, FileState, Status, check
from gateway.orders.model import ID_BITS, DatasetSelection, FileFilters, Wish
from gateway.orders.queue import WAKE, settle
from gateway.orders.reading import Scope, no_order
from gateway.orders.rows import COUNTS, counts_of

_LOCK = f"""
SELECT order_id, tenant_id, owner, status, on_success_url, {COUNTS} FROM orders
WHERE order_id = $1 AND tenant_id = (SELECT tenant_id FROM tenants WHERE name = $2) AND ($3::text IS NULL OR owner = $3)
  AND (status <> 'DELETED' OR $3::text IS NULL)
FOR UPDATE"""  # noqa: S608 - made of constants
_STATUS = """
UPDATE orders SET status = $2, status_at = now(), expires_at = greatest(expires_at, now() + $3::interval)
WHERE order_id = $1"""
_HOLD = """
UPDATE suborders SET state = 'HELD', due_at = NULL WHERE order_id = $1 AND state IN ('WAITING', 'STAGING')"""
_RELEASE = """
UPDATE suborders s SET state = 'WAITING', turn = s.number + greatest(
    coalesce((SELECT turn - 1 FROM suborders WHERE state = 'WAITING' ORDER BY turn, suborder_id LIMIT 1), 0),
    coalesce((SELECT max(turn) FROM suborders WHERE state = 'WAITING' AND tenant_id = s.tenant_id AND owner = s.owner),
             0))
WHERE s.order_id = $1 AND s.state = ANY ($2) AND s.files_pending > 0"""
_END_HELD = "UPDATE suborders SET state = 'ENDED' WHERE order_id = $1 AND state = 'HELD' AND files_pending = 0"
_RETRY_FILES = """
UPDATE order_files SET state = 'PENDING', error = NULL
WHERE order_file_id BETWEEN $1 AND $2 AND state IN ('ERROR', 'DOWNLOAD_ERROR')"""
_FORGET_FAILED = """
DELETE FROM restore_wishes w USING restores r
WHERE r.restore_id = w.restore_id AND r.state = 'FAILED' AND w.order_file_id <> 0
  AND w.order_file_id BETWEEN $1 AND $2"""
# What is downloaded makes room for what comes next.
_WISHED_NO_MORE = "DELETE FROM restore_wishes WHERE order_file_id = ANY ($1::bigint[]) AND order_file_id <> 0"
_TASKS = """
SELECT dataset, query, data_types, name_pattern FROM order_tasks WHERE order_id = $1 ORDER BY task_id"""
_REVOKE = "UPDATE orders SET token_generation = token_generation + 1 WHERE order_id = $1 RETURNING token_generation"
_MARK = """
UPDATE order_files SET state = $2, error = $3
WHERE order_file_id = ANY ($1::bigint[]) AND state IN ('AVAILABLE', 'DOWNLOADED', 'DOWNLOAD_ERROR') AND state <> $2"""


@dataclasses.dataclass(frozen=True, slots=True)
class Actions:
    """Changes orders. Every method raises `GatewayError` 404 for an order that ``scope`` does not reach, and 503."""

    database: Database
    """Of its own: a large order takes longer than a look-up."""
    settings: Settings
    creator: Creator

    async def pause(self, scope: Scope, order_id: int) -> None:
        """Have nothing more done for an order.

        Raises:
            RefusedError: not in its status.
        """
        async with self.database.transaction() as connection:
            await self._change(connection, scope, order_id, Action.PAUSE)
            await connection.execute(_HOLD, order_id)

    async def resume(self, scope: Scope, order_id: int) -> None:
        """Go on with an order that was paused.

        Raises:
            RefusedError: not in its status.
        """
        async with self.database.transaction() as connection:
            await self._change(connection, scope, order_id, Action.RESUME)
            await self._release(connection, order_id, ["HELD"])

    async def retry(self, scope: Scope, order_id: int) -> None:
        """Try again what could not be had or downloaded.

        Raises:
            RefusedError: not in its status.
        """
        async with self.database.transaction() as connection:
            await self._change(connection, scope, order_id, Action.RETRY)
            await connection.execute(_RETRY_FILES, *files_of(order_id))
            await connection.execute(_FORGET_FAILED, *files_of(order_id))
            await self._release(connection, order_id, ["HELD", "ENDED"])

    async def delete(self, scope: Scope, order_id: int) -> None:
        """Forget the files of an order, and hide it from its user.

        Raises:
            RefusedError: not in its status.
        """
        async with self.database.transaction() as connection:
            await self._change(connection, scope, order_id, Action.DELETE)
            await upkeep.close(connection, order_id, Status.DELETED)

    async def remove(self, scope: Scope, order_id: int) -> None:
        """Leave nothing of an order.

        Raises:
            RefusedError: not in its status.
        """
        async with self.database.transaction() as connection:
            await self._change(connection, scope, order_id, Action.REMOVE)
            await upkeep.remove(connection, order_id)

    async def restart(self, scope: Scope, principal: Principal, order_id: int, wish: Wish) -> int:
        """Make a new order of ``principal`` with the selections of an old one of his; its id.

        Raises:
            RefusedError: not in its status.
            EmptyOrderError: there is no file any more that he may have.
        """

        async def choose(connection: Connection) -> Sequence[DatasetSelection]:
            await self._lock(connection, scope, order_id, Action.RESTART)
            return [
                DatasetSelection(
                    row["dataset"], row["query"], FileFilters(tuple(row["data_types"]), row["name_pattern"])
                )
                for row in await connection.fetch(_TASKS, order_id)
            ]

        return await self.creator.create(principal, wish, choose)

    async def revoke_token(self, scope: Scope, order_id: int) -> int:
        """Have all tokens of an order end; the generation of the next."""
        async with self.database.transaction() as connection:
            await self._lock(connection, scope, order_id, None)
            generation: int = await connection.fetchval(_REVOKE, order_id)
            return generation

    async def mark(self, order_file_id: int, state: FileState, error: str | None = None) -> None:
        """Note what became of a download of a file; nothing if it is gone meanwhile."""
        await self.mark_all(order_file_id >> ID_BITS, [order_file_id], state, error)

    async def mark_all(
        self, order_id: int, order_file_ids: Sequence[int], state: FileState, error: str | None = None
    ) -> None:
        """As `mark`, of some files of an order, in one transaction."""
        async with self.database.transaction() as connection:
            if await connection.fetchval("SELECT true FROM orders WHERE order_id = $1 FOR NO KEY UPDATE", order_id):
                await connection.execute(_MARK, order_file_ids, state, error)
                if state is FileState.DOWNLOADED:
                    await connection.execute(_WISHED_NO_MORE, order_file_ids)
                await settle(connection, order_id, datetime.timedelta(0))

    async def _lock(
        self, connection: Connection, scope: Scope, order_id: int, action: Action | None
    ) -> tuple[asyncpg.Record, Status | None]:
        row = await connection.fetchrow(_LOCK, order_id, scope.tenant, scope.owner)
        if row is None:
            raise no_order(order_id)
        if action is None:
            return row, None
        status, strict = Status(row["status"]), self.settings.strict_delete
        return row, check(action, status, counts_of(row), strict_delete=strict)

    async def _change(self, connection: Connection, scope: Scope, order_id: int, action: Action) -> None:
        _, becomes = await self._lock(connection, scope, order_id, action)
        if becomes is not None:
            goes_on = becomes is Status.RUNNING
            least = datetime.timedelta(hours=self.settings.least_hours if goes_on else 0)
            await connection.execute(_STATUS, order_id, becomes, least)

    async def _release(self, connection: Connection, order_id: int, states: list[str]) -> None:
        """Have workers go on with sub-orders that are in ``states``."""
        await connection.execute(_RELEASE, order_id, states)
        await connection.execute(_END_HELD, order_id)
        await settle(connection, order_id, datetime.timedelta(hours=self.settings.least_hours))
        await connection.execute(WAKE)


def files_of(order_id: int) -> tuple[int, int]:
    """The first and the last id that a file of an order can have."""
    return order_id << ID_BITS, ((order_id + 1) << ID_BITS) - 1
