"""Licences: terms that must be accepted before private files of a dataset are delivered."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from gateway.administration.changes import Actor
from gateway.administration.rights import dataset_id_of, no_collection
from gateway.administration.work import (
    Outcome,
    Work,
    changing,
    check_name,
    conflict,
    missing,
    tenant_id_of,
    unacceptable,
)
from gateway.db import Database
from gateway.text import is_storable

_MOST_URL = 2048
_NAMED = 10
"""Datasets that a refusal names."""

_LICENCES = """
SELECT l.name, l.title, l.url, l.is_public, l.version, t.licence_id IS NOT DISTINCT FROM l.licence_id AS is_default
FROM licences l JOIN tenants t USING (tenant_id) WHERE l.tenant_id = $1"""
_LIST = f'{_LICENCES} AND l.name COLLATE "C" > $2 ORDER BY l.name COLLATE "C" LIMIT $3'
_ONE = f"{_LICENCES} AND l.name = $2"
_PUT = """
INSERT INTO licences (tenant_id, name, title, url, is_public) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, name) DO UPDATE SET title = $3, url = $4, is_public = $5
WHERE ROW (licences.title, licences.url, licences.is_public) IS DISTINCT FROM ROW ($3, $4, $5)
RETURNING xmax = 0"""
_NEXT_VERSION = """
UPDATE licences SET version = version + 1, url = coalesce($2, url) WHERE licence_id = $1 RETURNING version, url"""
_OF_DATASET = """
SELECT l.name FROM datasets d LEFT JOIN licences l USING (licence_id) WHERE d.tenant_id = $1 AND d.collection_id = $2"""
_ASSIGN = """
UPDATE datasets SET licence_id = $2 WHERE dataset_id = $1 AND licence_id IS DISTINCT FROM $2 RETURNING true"""
_ASSIGN_DEFAULT = """
UPDATE tenants SET licence_id = $2 WHERE tenant_id = $1 AND licence_id IS DISTINCT FROM $2 RETURNING true"""
_USES = "SELECT collection_id FROM datasets WHERE licence_id = $1 ORDER BY collection_id LIMIT $2"


@dataclasses.dataclass(frozen=True, slots=True)
class Licence:
    """A licence."""

    name: str
    title: str | None
    url: str
    """Of its text."""
    is_public: bool
    """Whether it is only shown and linked, and never in the way."""
    version: int = 1
    """A new one asks everyone again."""
    is_default: bool = False
    """Whether it is that of the datasets that name none."""


async def licences(database: Database, tenant: str, *, after: str = "", limit: int) -> list[Licence]:
    """At most ``limit`` licences whose names come after ``after``, by name.

    Raises:
        GatewayError: 404 no such tenant; 503.
    """
    return [Licence(*row) for row in await database.fetch(_LIST, await tenant_id_of(database, tenant), after, limit)]


async def licence(database: Database, tenant: str, name: str) -> Licence:
    """One licence.

    Raises:
        GatewayError: 404 no such tenant or licence; 503.
    """
    tenant_id = await tenant_id_of(database, tenant)
    rows = await database.fetch(_ONE, tenant_id, name) if is_storable(name) else []
    if not rows:
        raise _no_licence(name)
    return Licence(*rows[0])


async def put_licence(
    database: Database, tenant: str, name: str, actor: Actor, *, url: str, title: str | None, is_public: bool
) -> Outcome:
    """Make a licence, or change it. Its version stays: whoever accepted it has accepted it.

    Raises:
        GatewayError: 400 a value makes no sense; 404 no such tenant; 503.
    """
    check_name(name, "licence")
    _check_url(url)
    if title is not None:
        check_name(title, "licence (title)")
    async with changing(database, tenant, actor) as work:
        parameters = (work.tenant_id, name, title, url, is_public)
        return await work.put("licence", name, _PUT, *parameters, title=title, url=url, isPublic=is_public)


async def new_version(database: Database, tenant: str, name: str, actor: Actor, *, url: str | None) -> int:
    """Ask everyone again, at ``url`` if the text moved; the number of the version.

    Raises:
        GatewayError: 400 that is no URL; 404 no such tenant or licence; 503.
    """
    if url is not None:
        _check_url(url)
    async with changing(database, tenant, actor) as work:
        row = await work.connection.fetchrow(_NEXT_VERSION, await _licence_id_of(work, name), url)
        assert row is not None  # noqa: S101 - it is locked
        version: int = row["version"]
        await work.record("licence.version", name, version=version, url=row["url"])
        return version


async def delete_licence(database: Database, tenant: str, name: str, actor: Actor) -> None:
    """Delete a licence that nothing uses and nobody accepted: acceptances are kept as a proof.

    Raises:
        GatewayError: 404 no such tenant or licence; 409 it is in use, or was accepted; 503.
    """
    async with changing(database, tenant, actor) as work:
        connection, licence_id = work.connection, await _licence_id_of(work, name)
        used = [row["collection_id"] for row in await connection.fetch(_USES, licence_id, _NAMED + 1)]
        if used:
            more = ", …" if used[_NAMED:] else "."
            raise conflict(f"The licence is that of collections: {', '.join(used[:_NAMED])}{more}")
        if await connection.fetchval("SELECT EXISTS (SELECT FROM tenants WHERE licence_id = $1)", licence_id):
            raise conflict("The licence is the default of its tenant.")
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM licence_acceptances WHERE licence_id = $1)", licence_id
        ):
            raise conflict(
                "The licence has been accepted, and acceptances are kept as a proof. Nothing uses it any more."
            )
        await connection.execute("DELETE FROM licences WHERE licence_id = $1", licence_id)
        await work.record("licence.delete", name)


async def licence_of(database: Database, tenant: str, collection: str) -> str | None:
    """Name of the licence that ``collection`` names itself; None: that of the tenant, if it has one.

    Raises:
        GatewayError: 404 no such tenant or collection; 503.
    """
    tenant_id = await tenant_id_of(database, tenant)
    rows = await database.fetch(_OF_DATASET, tenant_id, collection) if is_storable(collection) else []
    if not rows:
        raise no_collection(collection)
    name: str | None = rows[0]["name"]
    return name


async def assign_licence(database: Database, tenant: str, collection: str, name: str | None, actor: Actor) -> None:
    """Have ``collection`` name a licence, or none.

    Raises:
        GatewayError: 404 no such tenant, collection or licence; 503.
    """
    async with changing(database, tenant, actor) as work:
        dataset_id = await dataset_id_of(work, collection)
        licence_id = None if name is None else await _licence_id_of(work, name)
        if await work.connection.fetchval(_ASSIGN, dataset_id, licence_id):
            await work.record("licence.assign", collection, licence=name)


async def default_licence(database: Database, tenant: str) -> str | None:
    """Name of the licence of the datasets of ``tenant`` that name none.

    Raises:
        GatewayError: 404 no such tenant; 503.
    """
    statement = "SELECT l.name FROM tenants t LEFT JOIN licences l USING (licence_id) WHERE t.tenant_id = $1"
    rows = await database.fetch(statement, await tenant_id_of(database, tenant))
    name: str | None = rows[0]["name"] if rows else None
    return name


async def put_default_licence(database: Database, tenant: str, name: str | None, actor: Actor) -> None:
    """Have the datasets of ``tenant`` that name no licence be under this one, or none.

    Raises:
        GatewayError: 404 no such tenant or licence; 503.
    """
    async with changing(database, tenant, actor) as work:
        licence_id = None if name is None else await _licence_id_of(work, name)
        if await work.connection.fetchval(_ASSIGN_DEFAULT, work.tenant_id, licence_id):
            await work.record("licence.default", tenant, licence=name)


async def _licence_id_of(work: Work, name: str) -> int:
    statement = "SELECT licence_id FROM licences WHERE tenant_id = $1 AND name = $2 FOR UPDATE"
    found = await work.connection.fetchval(statement, work.tenant_id, name) if is_storable(name) else None
    if found is None:
        raise _no_licence(name)
    identifier: int = found
    return identifier


def _check_url(url: str) -> None:
    """Links of browsers lead there: nothing that a page could run."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _MOST_URL
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname:
        raise unacceptable(
            f"The URL of a licence is http:// or https://, in ASCII, with at most {_MOST_URL} characters."
        )


def _no_licence(name: str) -> Exception:
    return missing(f"There is no licence {name!r}.")
