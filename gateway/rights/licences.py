"""Licences: which one applies, who has accepted it, and the record of that.

A dataset has its own licence or, without one, its tenant's. One that is public is shown, and never in the way. What is
accepted is a version of a licence: a new version asks everyone again.
"""

from __future__ import annotations

import dataclasses
import datetime
from http import HTTPStatus
from typing import Self

from gateway.administration.changes import Actor, Change, record
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.identity.principal import Credential, Principal
from gateway.rights.predicate import CALLER, DATASET_RIGHTS, asked, caller_columns
from gateway.text import is_storable

ACCEPT_BY_DOWNLOAD: frozenset[Credential] = frozenset({"token", "api key"})
"""Credentials with which a download can accept a licence: those that no other web site can make a browser send, and
that stand for the user himself."""
ACCEPT_BY_PUT: frozenset[Credential] = ACCEPT_BY_DOWNLOAD | {"session"}
"""Credentials with which a licence can be accepted by a request that does nothing else. A session is believed in those
that come from a page of this gateway."""

_APPLIES = """
LEFT JOIN licences l ON l.licence_id = {licence}
LEFT JOIN licence_acceptances a ON a.licence_id = l.licence_id AND a.version = l.version AND a.email = caller.email"""
_COLUMNS = "l.licence_id, l.version, l.url, l.title, l.is_public, a.accepted_at"

_OF_TENANT = f"""
SELECT {_COLUMNS} FROM {asked()} CROSS JOIN {CALLER} caller {_APPLIES.format(licence="caller.licence_id")}"""  # noqa: S608 - made of constants; values are bound
_OF_COLLECTION = f"""
SELECT {_COLUMNS}, rights.visible FROM {asked("collection")} CROSS JOIN {CALLER} caller
JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id AND dataset.collection_id = asked.collection
CROSS JOIN {DATASET_RIGHTS} rights
{_APPLIES.format(licence="coalesce(dataset.licence_id, caller.licence_id)")}"""  # noqa: S608 - as above

# Only the version that was looked at: between that and this a new one may have come.
_ACCEPT = """
INSERT INTO licence_acceptances (licence_id, version, email, address, credential)
SELECT licence_id, version, $3, $4, $5 FROM licences WHERE licence_id = $1 AND version = $2
ON CONFLICT DO NOTHING"""

_RESET = """
UPDATE licences SET version = version + 1
WHERE licence_id = (SELECT licence_id FROM tenants WHERE name = $1) RETURNING name, version"""


@dataclasses.dataclass(frozen=True, slots=True)
class Licence:
    """The terms of a dataset, and what one caller made of them."""

    licence_id: int
    version: int
    url: str
    """Where they can be read."""
    title: str | None = None
    is_public: bool = False
    """Whether nobody need accept them."""
    accepted_at: datetime.datetime | None = None
    """When the caller accepted this version; None if he has not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Acceptance:
    """Who accepts, and how."""

    email: str
    address: str | None
    """IP address of the client."""
    credential: Credential

    @classmethod
    def by(cls, principal: Principal, client: str) -> Self:
        """That ``principal``, who is not anonymous, accepts from the address ``client``."""
        return cls(principal.email or "", client or None, principal.credential)


class NotAcceptedError(GatewayError):
    """423: the caller has to accept the licence first."""

    def __init__(self, url: str, collection: str) -> None:
        super().__init__(
            HTTPStatus.LOCKED,
            "The licence of this dataset has not been accepted.",
            code="LicenseNotAccepted",
            body={"license": url},
        )
        self.url = url
        """Where it can be read."""
        self.collection = collection
        """Whose licence it is."""


def is_exempt(principal: Principal) -> bool:
    """Whether no licence is in the way of ``principal`` (REGARDS: of administrators of the instance alone)."""
    return principal.role == "INSTANCE_ADMIN"


def is_accepted(licence: Licence | None, principal: Principal) -> bool:
    """Whether ``licence``, if there is one, is not in the way of ``principal``."""
    return licence is None or licence.is_public or licence.accepted_at is not None or is_exempt(principal)


async def of_tenant(database: Database, principal: Principal) -> Licence | None:
    """The licence of the caller's tenant, None if it has none.

    Raises:
        GatewayError: 404 there is no such tenant; 503 PostgreSQL does not answer.
    """
    rows = await database.fetch(_OF_TENANT, *([value] for value in caller_columns(principal)))
    if not rows:
        raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {principal.tenant!r}.")
    return None if rows[0]["licence_id"] is None else Licence(*rows[0])


async def of_collection(
    database: Database, principal: Principal, collection: str, *, hide_forbidden: bool
) -> Licence | None:
    """The licence that applies to ``collection``, None if none does.

    Raises:
        GatewayError: 404 there is no such collection in the caller's tenant; 403 he may not see it (404 with
            ``hide_forbidden``); 503 PostgreSQL does not answer.
    """
    missing = GatewayError(HTTPStatus.NOT_FOUND, f"There is no collection {collection!r}.")
    if not is_storable(collection):
        raise missing
    rows = await database.fetch(_OF_COLLECTION, *([value] for value in (*caller_columns(principal), collection)))
    if not rows:
        raise missing
    *columns, visible = rows[0]
    if not visible:
        raise missing if hide_forbidden else GatewayError(HTTPStatus.FORBIDDEN, "You have no right to this collection.")
    return None if columns[0] is None else Licence(*columns)


async def accept(database: Database, licence: Licence, acceptance: Acceptance) -> None:
    """Record that this very version of ``licence`` is accepted. The first time counts.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    await database.fetch(
        _ACCEPT, licence.licence_id, licence.version, acceptance.email, acceptance.address, acceptance.credential
    )


async def reset(database: Database, tenant: str, actor: Actor) -> None:
    """Have everyone asked again for the licence of ``tenant``, if it has one: it becomes a new version.

    Raises:
        GatewayError: 503 PostgreSQL does not answer.
    """
    async with database.transaction() as connection:
        row = await connection.fetchrow(_RESET, tenant)
        if row is not None:
            await record(connection, actor, Change(tenant, "licence.reset", row["name"], {"version": row["version"]}))
