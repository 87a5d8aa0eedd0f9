"""From an address and a caller to a file, in one statement: found, visible, licensed, allowed, and its copies."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.batching import Batches, batching
from gateway.catalog.model import (
    PUBLIC_DATA_TYPES,
    Address,
    ByAsset,
    ByChecksum,
    Copy,
    File,
)
from gateway.db import Database, no_answer
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.quotas.limits import Limit, Rule, limits_of
from gateway.rights.predicate import CALLER, RIGHTS, caller_columns
from gateway.text import is_storable

# Two files of a product may hold the same bytes; the metered one is taken, so that no other name is a way round quota.
_FILE_BY_CHECKSUM = "f.product_id = product.product_id AND lower(f.checksum) = lower(asked.checksum)"
_FILE_BY_ASSET = "f.product_id = product.product_id AND f.asset_key = asked.asset"
# OFFSET 0 keeps the order: a question leads to its caller and its product by indexes, whatever the planner thinks.
_BY_URN = """
LATERAL (
    SELECT p.product_id, p.urn, p.dataset_id, d.licence_id FROM products p JOIN datasets d USING (dataset_id)
    WHERE p.tenant_id = caller.tenant_id AND p.urn = asked.product OFFSET 0
)"""
_BY_ITEM = """
LATERAL (
    SELECT p.product_id, p.urn, p.dataset_id, d.licence_id FROM products p JOIN datasets d USING (dataset_id)
    WHERE d.tenant_id = caller.tenant_id AND d.collection_id = asked.collection AND p.provider_id = asked.item OFFSET 0
)"""


def _asked(*key: str) -> str:
    """A from item with a row for each question: who asks (`caller_columns`), the ``key``, and a ``number`` from 1 on.

    The parameters are its columns, as arrays.
    """
    columns = "".join(f", ${number}::text[]" for number in range(6, 6 + len(key)))
    names = ", ".join(("tenant", "email", "groups", "role", "is_admin", *key, "number"))
    return f"""
unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]{columns}) WITH ORDINALITY AS asked({names})"""


# The rules of quota_limits that concern a caller. Groups are looked at only where a tenant has rules for some; ORDER BY
# has the index asked for that, where EXISTS might read the table.
_CONCERNED = """
SELECT unnest(ARRAY['tenant', 'role', CASE WHEN caller.email IS NULL THEN 'anonymous' ELSE 'user' END]) AS subject,
       unnest(ARRAY['', asked.role, coalesce(caller.email, '')]) AS name
UNION ALL
SELECT 'group', of_caller.name
FROM (
    SELECT unnest(asked.groups::text[]) AS name
    UNION
    SELECT g.name FROM groups g WHERE g.group_id = ANY (caller.groups || caller.public_groups)
) of_caller
WHERE (
    SELECT q.name FROM quota_limits q WHERE q.tenant_id = caller.tenant_id AND q.subject = 'group'
    ORDER BY q.name LIMIT 1
) IS NOT NULL"""


def _rules_where(condition: str) -> str:
    """A join item with one row: the rules that concern the caller, as JSON, if ``condition`` holds."""
    return f"""
LATERAL (
    SELECT json_agg(json_build_array(q.subject, q.name, q.shared, q.metric, q.period, q.value, q.burst, q.slow_rate,
                                     q.fail) ORDER BY q.subject, q.name, q.shared, q.metric, q.period)::text AS rules
    FROM ({_CONCERNED}) concerned
    JOIN quota_limits q ON q.tenant_id = caller.tenant_id AND q.subject = concerned.subject AND q.name = concerned.name
    WHERE {condition}
)"""  # noqa: S608 - made of constants; values are bound


def _locate(asked: str, product: str, file: str, *, metered: str) -> str:
    """A row for each question that leads to a product; the data types that count are the parameter ``metered``."""
    return f"""
SELECT asked.number, product.urn, rights.visible, rights.downloadable, rights.visible_to_all,
       licence.url AS licence_url, licence.accepted AS licence_accepted,
       file.*, copies.copies, quota.rules
FROM {asked}
CROSS JOIN {CALLER} caller
CROSS JOIN {product} product
CROSS JOIN {RIGHTS} rights
LEFT JOIN LATERAL (
    SELECT l.url, EXISTS (
        SELECT FROM licence_acceptances a
        WHERE a.licence_id = l.licence_id AND a.version = l.version AND a.email = caller.email
    ) AS accepted
    FROM licences l WHERE l.licence_id = product.licence_id
) licence ON true
LEFT JOIN LATERAL (
    SELECT f.file_id, f.data_type, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm, f.reference,
           f.data_type = ANY ({metered}) AS is_metered
    FROM files f WHERE {file}
    ORDER BY is_metered DESC, f.file_id LIMIT 1
) file ON true
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_array(c.copy_id, c.storage, c.location, c.state, c.size, c.modified, c.version,
                                     c.verified_version, c.broken_version) ORDER BY c.copy_id)::text AS copies
    FROM copies c WHERE c.file_id = file.file_id
) copies ON true
LEFT JOIN {_rules_where("file.is_metered")} quota ON true"""  # noqa: S608 - as above


LOCATE_BY_CHECKSUM = _locate(_asked("product", "checksum"), _BY_URN, _FILE_BY_CHECKSUM, metered="$8::text[]")
LOCATE_BY_ASSET = _locate(_asked("collection", "item", "asset"), _BY_ITEM, _FILE_BY_ASSET, metered="$9::text[]")
_RULES = f"SELECT quota.rules FROM {_asked()} CROSS JOIN {CALLER} caller CROSS JOIN {_rules_where('true')} quota"  # noqa: S608

WARM_UP: tuple[tuple[str, tuple[object, ...]], ...] = (
    (LOCATE_BY_CHECKSUM, ([],) * 8),
    (LOCATE_BY_ASSET, ([],) * 9),
)
"""What to run on a new connection so that the first look-up finds its statement prepared: one round trip, not two."""


def _accept_licence(asked: str, product: str) -> str:
    return f"""
INSERT INTO licence_acceptances (licence_id, email, version)
SELECT licence.licence_id, caller.email, licence.version
FROM {asked}
CROSS JOIN {CALLER} caller
CROSS JOIN {product} product
CROSS JOIN {RIGHTS} rights
JOIN licences licence ON licence.licence_id = product.licence_id
WHERE rights.visible
ON CONFLICT DO NOTHING"""  # noqa: S608 - as above


_ACCEPT_BY_URN = _accept_licence(_asked("product"), _BY_URN)
_ACCEPT_BY_ITEM = _accept_licence(_asked("collection", "item"), _BY_ITEM)

Question = tuple[str | bool | None, ...]
"""What `_asked` has a row for."""


class Catalog:
    """Looks files up for callers. Made by `catalog`."""

    def __init__(
        self,
        database: Database,
        by_checksum: Batches[Question, asyncpg.Record | None],
        by_asset: Batches[Question, asyncpg.Record | None],
    ) -> None:
        self._database = database
        self._by_checksum = by_checksum
        self._by_asset = by_asset

    async def locate(self, address: Address, principal: Principal) -> File:
        """The file at ``address``, if ``principal`` may have it. One round trip to PostgreSQL, shared with others.

        Raises:
            GatewayError: 404 no such product, collection, item, file or asset in the caller's tenant; 403 no right to
                it; 423 its licence is not accepted, with ``body["license"]`` its URL; 503 PostgreSQL does not answer.
        """
        key = _key(address)
        if not all(is_storable(part) for part in key):
            raise _not_found(address)
        look_ups = self._by_checksum if isinstance(address, ByChecksum) else self._by_asset
        try:
            row = await look_ups.ask((*caller_columns(principal), *key))
        except TimeoutError as error:
            raise no_answer() from error
        return decide(row, address, principal)

    async def limits(self, principal: Principal) -> tuple[Limit, ...]:
        """What bounds the metered downloads of ``principal``, whatever the file.

        Raises:
            GatewayError: 404 his tenant does not exist; 503 PostgreSQL does not answer.
        """
        rows = await self._database.fetch(_RULES, *([value] for value in caller_columns(principal)))
        if not rows:
            raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no tenant {principal.tenant!r}.")
        return _limits(rows[0]["rules"], principal)

    async def accept_licence(self, address: Address, principal: Principal) -> None:
        """Record that ``principal`` accepts the licence of the dataset that ``address`` lies in, if it has one.

        Nothing is recorded for a product that the caller may not see.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        key = _key(address)[:-1]
        if principal.is_anonymous or not all(is_storable(part) for part in key):
            return
        statement = _ACCEPT_BY_URN if isinstance(address, ByChecksum) else _ACCEPT_BY_ITEM
        await self._database.fetch(statement, *([value] for value in (*caller_columns(principal), *key)))


@contextlib.asynccontextmanager
async def catalog(database: Database, metered: Sequence[str]) -> AsyncIterator[Catalog]:
    """The catalogue in ``database``; downloads of files of the data types ``metered`` count in quotas."""
    by_checksum, by_asset = (_look_up(database, text, metered) for text in (LOCATE_BY_CHECKSUM, LOCATE_BY_ASSET))
    async with (
        batching(by_checksum, seconds=database.timeout, lanes=database.most) as checksums,
        batching(by_asset, seconds=database.timeout, lanes=database.most) as assets,
    ):
        yield Catalog(database, checksums, assets)


def _look_up(
    database: Database, statement: str, metered: Sequence[str]
) -> Callable[[Sequence[Question]], Awaitable[list[asyncpg.Record | None]]]:
    async def look_up(questions: Sequence[Question]) -> list[asyncpg.Record | None]:
        rows: list[asyncpg.Record | None] = [None] * len(questions)
        for row in await database.fetch(statement, *zip(*questions, strict=True), metered):
            rows[row["number"] - 1] = row
        return rows

    return look_up


def decide(row: Mapping[str, Any] | asyncpg.Record | None, address: Address, principal: Principal) -> File:
    """Read the row of a look-up: the file, or the refusal. Denied unless everything says yes.

    Raises:
        GatewayError: 404, 403 or 423, in REGARDS' order of checks.
    """
    if row is None:
        raise _not_found(address)
    if row["visible"] is not True:
        raise GatewayError(HTTPStatus.FORBIDDEN, "You have no right to this product.")
    if row["file_id"] is None:
        raise _not_found(address)
    if row["data_type"] not in PUBLIC_DATA_TYPES:
        if row["licence_url"] is not None and row["licence_accepted"] is not True:
            raise GatewayError(
                HTTPStatus.LOCKED,
                "The licence of this dataset has not been accepted.",
                code="LicenseNotAccepted",
                body={"license": row["licence_url"]},
            )
        if row["downloadable"] is not True:
            raise GatewayError(HTTPStatus.FORBIDDEN, "You have no right to the files of this product.")
    return File(
        file_id=row["file_id"],
        product=row["urn"],
        data_type=row["data_type"],
        name=row["file_name"],
        mime_type=row["mime_type"],
        size=row["size"],
        checksum=row["checksum"],
        checksum_algorithm=row["checksum_algorithm"],
        reference=row["reference"],
        visible_to_all=row["visible_to_all"],
        copies=_copies(row["copies"]),
        is_metered=row["is_metered"],
        limits=_limits(row["rules"], principal) if row["is_metered"] else (),
    )


def _key(address: Address) -> tuple[str, ...]:
    if isinstance(address, ByChecksum):
        return address.product, address.checksum
    return address.collection, address.item, address.asset


@functools.lru_cache(maxsize=4096)
def _copies(text: str | None) -> tuple[Copy, ...]:
    return tuple(
        Copy(identifier, storage, location, state, size, modified and datetime.datetime.fromisoformat(modified), *tags)
        for identifier, storage, location, state, size, modified, *tags in json.loads(text or "[]")
    )


@functools.lru_cache(maxsize=4096)
def _limits(text: str | None, principal: Principal) -> tuple[Limit, ...]:
    return limits_of(_rules(text), principal)


@functools.lru_cache(maxsize=4096)
def _rules(text: str | None) -> tuple[Rule, ...]:
    return tuple(Rule(*columns) for columns in json.loads(text or "[]"))


def _not_found(address: Address) -> GatewayError:
    if isinstance(address, ByAsset):
        detail = f"There is no asset {address.asset!r} of item {address.item!r} in collection {address.collection!r}."
    else:
        detail = f"There is no file with checksum {address.checksum!r} in product {address.product!r}."
    return GatewayError(HTTPStatus.NOT_FOUND, detail)
