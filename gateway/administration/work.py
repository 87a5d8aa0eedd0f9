"""What changes of administrators have in common: one transaction, one tenant, a record, and refusals in plain words."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from typing import Literal

import asyncpg

from gateway.administration.changes import Actor, Change, record
from gateway.db import Connection, Database
from gateway.errors import GatewayError
from gateway.text import is_storable

MOST_NAME = 256
"""Characters of the name of anything."""

Outcome = Literal["created", "changed", "same"]
"""What a PUT did."""


Lock = Literal["FOR KEY SHARE", "FOR NO KEY UPDATE", "FOR UPDATE"]
"""That it stays; that nobody else changes it or what it consists of; that nobody else even refers to it. Taken at once
as strong as it is needed: two who make theirs stronger would wait for each other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """A change that is being made: all of it and its record, or nothing."""

    connection: Connection
    tenant: str
    tenant_id: int
    actor: Actor

    async def record(self, action: str, what: str, **detail: object) -> None:
        """Write down what was done; see `gateway.administration.changes`."""
        await record(self.connection, self.actor, Change(self.tenant, action, what, detail))

    async def put(self, kind: str, what: str, statement: str, *parameters: object, **detail: object) -> Outcome:
        """Run a statement that writes a row and gives whether it is new; no row if there was nothing to change."""
        created = await self.connection.fetchval(statement, *parameters)
        if created is None:
            return "same"
        await self.record(f"{kind}.{'create' if created else 'change'}", what, **detail)
        return "created" if created else "changed"


@contextlib.asynccontextmanager
async def changing(
    database: Database, tenant: str, actor: Actor, *, lock: Lock = "FOR KEY SHARE"
) -> AsyncIterator[Work]:
    """A transaction in which ``actor`` changes something of ``tenant``, whose row is locked until its end.

    Raises:
        GatewayError: 404 there is no such tenant; 400 or 409 the change breaks a rule of the database that nobody
            looked at before; 503 PostgreSQL does not answer in time.
    """
    with plain_refusals():
        async with database.transaction() as connection:
            yield Work(connection, tenant, await _tenant_id(connection, tenant, lock), actor)


@contextlib.contextmanager
def plain_refusals() -> Iterator[None]:
    """Say in plain words what rule of the database a change breaks.

    Raises:
        GatewayError: 400, 409.
    """
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise conflict("There is one of that name already.") from error
    except asyncpg.ForeignKeyViolationError as error:
        raise conflict("What it refers to is gone, or something still refers to it; look again.") from error
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        rule = getattr(error, "constraint_name", None)
        raise unacceptable("The database does not take these values" + (f" ({rule})." if rule else ".")) from error


async def tenant_id_of(database: Database, tenant: str) -> int:
    """The id of ``tenant``, for what only reads.

    Raises:
        GatewayError: 404 there is no such tenant; 503.
    """
    rows = await database.fetch("SELECT tenant_id FROM tenants WHERE name = $1", tenant) if is_storable(tenant) else []
    if not rows:
        raise no_tenant(tenant)
    identifier: int = rows[0]["tenant_id"]
    return identifier


async def _tenant_id(connection: Connection, tenant: str, lock: Lock) -> int:
    statement = f"SELECT tenant_id FROM tenants WHERE name = $1 {lock}"  # noqa: S608 - one of three
    identifier: int | None = await connection.fetchval(statement, tenant) if is_storable(tenant) else None
    if identifier is None:
        raise no_tenant(tenant)
    return identifier


def check_name(name: str, what: str) -> str:
    """A name that may be given to ``what``: it appears in logs, in answers and on terminals.

    Raises:
        GatewayError: 400.
    """
    if not 0 < len(name) <= MOST_NAME:
        raise unacceptable(f"The name of a {what} has 1 to {MOST_NAME} characters.")
    if not name.isprintable() or name != name.strip():
        raise unacceptable(f"The name of a {what} has no control characters, and no blank at its ends.")
    return name


def check_email(email: str) -> str:
    """What may be the e-mail address of a user.

    Raises:
        GatewayError: 400.
    """
    if not 0 < len(email) <= MOST_NAME or not email.isprintable() or " " in email:
        raise unacceptable(f"An e-mail address has 1 to {MOST_NAME} characters, without blanks and control characters.")
    return email


def no_tenant(tenant: str) -> GatewayError:
    """404, the same whether it does not exist or is somebody else's."""
    return missing(f"There is no tenant {tenant!r}.")


def missing(detail: str) -> GatewayError:
    """404."""
    return GatewayError(HTTPStatus.NOT_FOUND, detail)


def conflict(detail: str) -> GatewayError:
    """409: it would break what is there."""
    return GatewayError(HTTPStatus.CONFLICT, detail)


def unacceptable(detail: str) -> GatewayError:
    """400: a value makes no sense."""
    return GatewayError(HTTPStatus.BAD_REQUEST, detail)
