"""From an address and a caller to a file, in one statement: found, visible, licensed, allowed, and its copies."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import asyncpg

from gateway.catalog.model import (
    PUBLIC_DATA_TYPES,
    Address,
    ByAsset,
    ByChecksum,
    Copy,
    File,
    Limits,
)
from gateway.db import Database
from gateway.errors import GatewayError
from gateway.identity.principal import Principal
from gateway.rights.predicate import CALLER, RIGHTS, caller_parameters
from gateway.text import is_storable

# Two files of a product may hold the same bytes; the metered one is taken, so that no other name is a way round quota.
_FILE_BY_CHECKSUM = "f.product_id = product.product_id AND lower(f.checksum) = lower($6)"
_FILE_BY_ASSET = "f.product_id = product.product_id AND f.asset_key = $7"
_PRODUCT_BY_URN = "product.tenant_id = caller.tenant_id AND product.urn = $5"
_PRODUCT_BY_ITEM = """
    product.provider_id = $6 AND product.dataset_id =
        (SELECT d.dataset_id FROM datasets d WHERE d.tenant_id = caller.tenant_id AND d.collection_id = $5)"""


def _statement(product: str, file: str) -> str:
    return f"""
WITH {CALLER}
SELECT product.urn, rights.visible, rights.downloadable, rights.visible_to_all,
       licence.url AS licence_url, licence.accepted AS licence_accepted,
       file.*, copies.copies, quota.max_downloads, quota.max_bytes
FROM caller
JOIN products product ON {product}
CROSS JOIN {RIGHTS} rights
JOIN datasets dataset ON dataset.dataset_id = product.dataset_id
LEFT JOIN LATERAL (
    SELECT l.url, EXISTS (
        SELECT FROM licence_acceptances a
        WHERE a.licence_id = l.licence_id AND a.version = l.version AND a.email = caller.email
    ) AS accepted
    FROM licences l WHERE l.licence_id = dataset.licence_id
) licence ON true
LEFT JOIN LATERAL (
    SELECT f.file_id, f.data_type, f.file_name, f.mime_type, f.size, f.checksum, f.checksum_algorithm, f.reference
    FROM files f WHERE {file}
    ORDER BY f.data_type <> 'RAWDATA', f.file_id LIMIT 1
) file ON true
LEFT JOIN LATERAL (
    SELECT json_agg(json_build_array(c.copy_id, c.storage, c.location, c.state, c.size, c.modified, c.version,
                                     c.verified_version, c.broken_version) ORDER BY c.copy_id)::text AS copies
    FROM copies c WHERE c.file_id = file.file_id
) copies ON true
LEFT JOIN LATERAL (
    SELECT q.max_downloads, q.max_bytes FROM quota_limits q
    WHERE q.tenant_id = caller.tenant_id AND (
        (q.kind = 'user' AND q.email = caller.email)
        OR q.kind = CASE WHEN caller.email IS NULL THEN 'anonymous' ELSE 'default' END)
    ORDER BY q.kind <> 'user' LIMIT 1
) quota ON true"""  # noqa: S608 - made of the constants above; values are bound


LOCATE_BY_CHECKSUM = _statement(_PRODUCT_BY_URN, _FILE_BY_CHECKSUM)
LOCATE_BY_ASSET = _statement(_PRODUCT_BY_ITEM, _FILE_BY_ASSET)

WARM_UP: tuple[tuple[str, tuple[object, ...]], ...] = (
    (LOCATE_BY_CHECKSUM, ("", None, [], False, "", "")),
    (LOCATE_BY_ASSET, ("", None, [], False, "", "", "")),
)
"""What to run on a new connection so that the first look-up finds its statement prepared: one round trip, not two."""

_ACCEPT_LICENCE = f"""
WITH {CALLER}
INSERT INTO licence_acceptances (licence_id, email, version)
SELECT licence.licence_id, caller.email, licence.version
FROM caller
JOIN products product ON {{product}}
CROSS JOIN {RIGHTS} rights
JOIN datasets dataset ON dataset.dataset_id = product.dataset_id
JOIN licences licence ON licence.licence_id = dataset.licence_id
WHERE rights.visible
ON CONFLICT DO NOTHING"""  # noqa: S608 - as above


class Catalog:
    """Looks files up for callers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def locate(self, address: Address, principal: Principal) -> File:
        """The file at ``address``, if ``principal`` may have it. One round trip to PostgreSQL.

        Raises:
            GatewayError: 404 no such product, collection, item, file or asset in the caller's tenant; 403 no right to
                it; 423 its licence is not accepted, with ``body["license"]`` its URL; 503 PostgreSQL does not answer.
        """
        key = _key(address)
        if not all(is_storable(part) for part in key):
            raise _not_found(address)
        statement = LOCATE_BY_CHECKSUM if isinstance(address, ByChecksum) else LOCATE_BY_ASSET
        row = await self._database.fetch_row(statement, *caller_parameters(principal), *key)
        return decide(row, address, principal)

    async def accept_licence(self, address: Address, principal: Principal) -> None:
        """Record that ``principal`` accepts the licence of the dataset that ``address`` lies in, if it has one.

        Nothing is recorded for a product that the caller may not see.

        Raises:
            GatewayError: 503 PostgreSQL does not answer.
        """
        key = _key(address)[:-1]
        if principal.is_anonymous or not all(is_storable(part) for part in key):
            return
        product = _PRODUCT_BY_URN if isinstance(address, ByChecksum) else _PRODUCT_BY_ITEM
        statement = _ACCEPT_LICENCE.format(product=product)
        await self._database.fetch_row(statement, *caller_parameters(principal), *key)


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
        limits=_limits(row, principal),
    )


def _key(address: Address) -> tuple[str, ...]:
    if isinstance(address, ByChecksum):
        return address.product, address.checksum
    return address.collection, address.item, address.asset


def _copies(text: str | None) -> tuple[Copy, ...]:
    return tuple(
        Copy(identifier, storage, location, state, size, modified and datetime.datetime.fromisoformat(modified), *tags)
        for identifier, storage, location, state, size, modified, *tags in json.loads(text or "[]")
    )


def _limits(row: Mapping[str, Any] | asyncpg.Record, principal: Principal) -> Limits:
    """Without any row users are unlimited and anonymous callers are refused, as in REGARDS."""
    if row["max_downloads"] is None:
        return Limits(0, 0) if principal.is_anonymous else Limits(-1, -1)
    return Limits(row["max_downloads"], row["max_bytes"])


def _not_found(address: Address) -> GatewayError:
    if isinstance(address, ByAsset):
        detail = f"There is no asset {address.asset!r} of item {address.item!r} in collection {address.collection!r}."
    else:
        detail = f"There is no file with checksum {address.checksum!r} in product {address.product!r}."
    return GatewayError(HTTPStatus.NOT_FOUND, detail)
