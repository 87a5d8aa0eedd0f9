"""The statements of searches: each gives the next items in order that a caller may perhaps see, in one round trip.

Items are in the order of (``sorted_at``, ``product_id``), which is read upwards or downwards from a place on: pages
cost the same wherever they are. Which datasets the caller has any right to is looked up first; a right to the very
item is judged with each row.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from gateway.rights.predicate import CALLER, DATASET_RIGHTS, FACTS, PRODUCT_COLUMNS, RIGHTS, asked
from gateway.stac.finding import Shape, finding

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")
_TYPES = {
    "collections": "text[]",
    "ids": "text[]",
    "start": "timestamptz",
    "product": "bigint",
    "begin": "timestamptz",
    "begin_product": "bigint",
    "most": "bigint",
    "walk": "bigint",
    "few": "bigint",
    "area": "bigint",
    "far": "bigint",
    "since": "timestamptz",
    "until": "timestamptz",
    "early": "timestamptz",
    "west": "float8",
    "south": "float8",
    "east": "float8",
    "north": "float8",
    "wests": "float8[]",
    "easts": "float8[]",
    "collection": "text",
    "item": "text",
    "open_types": "text[]",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """A statement with parameters that have names. The first five are the caller's, as `asked` takes them."""

    text: str
    parameters: tuple[str, ...]
    """The others, in their order."""


_WHO = f"who AS MATERIALIZED (SELECT caller.* FROM {asked()} CROSS JOIN {CALLER} caller)"  # noqa: S608 - made of constants; values are bound

# A dataset is wanted if the caller has a right that may show some of its items: which ones, RIGHTS says.
_SHOWS = "(r.metadata_level = 'FULL_ACCESS' OR (r.metadata_level = 'CUSTOM_ACCESS' AND r.policy IS NOT NULL))"
_WANTED_OF_ALL = f"""
wanted AS MATERIALIZED (
    SELECT d.dataset_id FROM who caller JOIN datasets d ON d.tenant_id = caller.tenant_id WHERE caller.is_admin
    UNION
    SELECT d.dataset_id
    FROM who caller
    JOIN access_rights r ON r.group_id = ANY (caller.groups) AND {_SHOWS}
    JOIN datasets d ON d.dataset_id = r.dataset_id AND d.tenant_id = caller.tenant_id
    WHERE NOT caller.is_admin
)"""  # noqa: S608 - as above
_WANTED_OF_THESE = f"""
wanted AS MATERIALIZED (
    SELECT d.dataset_id
    FROM who caller JOIN datasets d ON d.tenant_id = caller.tenant_id AND d.collection_id = ANY (:collections)
    WHERE caller.is_admin OR EXISTS (
        SELECT FROM access_rights r WHERE r.dataset_id = d.dataset_id AND r.group_id = ANY (caller.groups) AND {_SHOWS}
    )
)"""  # noqa: S608 - as above

_FILES = """
LATERAL (
    SELECT json_agg(json_build_array(
        f.asset_key, f.data_type, f.body::text, f.checksum, f.checksum_algorithm, f.size, f.mime_type, f.file_name,
        f.reference,
        of_copies.states,
        CASE WHEN 'NEARLINE' = ANY (of_copies.states) AND 'ONLINE' <> ALL (of_copies.states) THEN (
            SELECT json_build_array(CASE WHEN r.state <> 'RESTORED' THEN r.state
                                         WHEN r.expires_at > now() THEN 'RESTORED' ELSE 'EXPIRED' END,
                                    r.expires_at)
            FROM restores r WHERE r.file_id = f.file_id ORDER BY r.restore_id DESC LIMIT 1) END,
        NOT (everyone.visible AND (f.data_type = ANY (:open_types) OR (everyone.downloadable AND everyone.unlicensed)))
    ) ORDER BY f.file_id)::text AS files
    FROM files f CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT DISTINCT c.state FROM copies c WHERE c.file_id = f.file_id ORDER BY c.state) AS states
        OFFSET 0
    ) of_copies
    WHERE f.product_id = product.product_id
)"""
# What an anonymous caller may: one who is in the public groups alone.
_EVERYONE = f"""
LATERAL (
    SELECT rights.visible, rights.downloadable, NOT EXISTS (
        SELECT FROM licences l
        WHERE l.licence_id = coalesce(product.licence_id, caller.licence_id) AND NOT l.is_public
    ) AS unlicensed
    FROM (
        SELECT caller.tenant_id, caller.licence_id, false AS is_admin, caller.public_groups AS groups,
               caller.public_groups
    ) caller
    CROSS JOIN {RIGHTS} rights
)"""  # noqa: S608 - as above
_ITEM = f"""
{PRODUCT_COLUMNS}, d.collection_id, d.licence_id, p.provider_id, p.properties::text AS properties,
p.geometry::text AS geometry, p.west, p.south, p.east, p.north, p.body::text AS body, p.start_datetime, p.end_datetime,
p.created_at, p.updated_at"""
_ROW = "rights.visible, rights.downloadable, rights.questions, facts.facts, shown.*"
# What is not for the caller is not even read.
_SHOWN = f"""
LEFT JOIN {FACTS} facts ON true
LEFT JOIN LATERAL (
    SELECT product.urn, product.collection_id, product.provider_id, product.properties, product.geometry, product.west,
           product.south, product.east, product.north, product.body, product.end_datetime, product.created_at,
           product.updated_at, files.files
    FROM {_EVERYONE} everyone CROSS JOIN {_FILES} files
) shown ON rights.visible OR rights.questions IS NOT NULL"""  # noqa: S608 - as above


def _numbered(text: str) -> Statement:
    """``text`` with the numbers of PostgreSQL for ``:names``."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match[1]
        if name not in names:
            names.append(name)
        return f"${6 + names.index(name)}::{_TYPES[name]}"

    return Statement(_PARAMETER.sub(number, text), tuple(names))


@functools.cache
def page(shape: Shape) -> Statement:
    """The next ``:most`` items of a search after the place (``:start``, ``:product``), in their order.

    A row with a ``mark`` is no item (`gateway.stac.finding`). Of each other: its place, ``visible``, ``downloadable``,
    ``questions`` and ``facts`` of the rights, and, unless it is certainly not for the caller, what documents show.
    """
    way = "DESC" if shape.down else "ASC"
    return _numbered(f"""
WITH {_WHO}, {_WANTED_OF_THESE if shape.collections else _WANTED_OF_ALL}, {finding(shape)}
SELECT found.mark, found.product_id, nullif(found.sorted_at, '-infinity') AS start_datetime, {_ROW}
FROM found CROSS JOIN who caller
LEFT JOIN LATERAL (
    SELECT {_ITEM} FROM products p JOIN datasets d USING (dataset_id)
    WHERE p.product_id = found.product_id AND found.mark IS NULL OFFSET 0
) product ON true
CROSS JOIN {RIGHTS} rights
{_SHOWN}
ORDER BY found.sorted_at {way}, found.product_id {way}, found.mark NULLS FIRST""")  # noqa: S608 - as above


ITEM = _numbered(f"""
WITH {_WHO}
SELECT product.product_id, product.start_datetime, {_ROW}
FROM who caller CROSS JOIN LATERAL (
    SELECT {_ITEM} FROM products p JOIN datasets d USING (dataset_id)
    WHERE d.tenant_id = caller.tenant_id AND d.collection_id = :collection AND p.provider_id = :item OFFSET 0
) product
CROSS JOIN {RIGHTS} rights
{_SHOWN}""")  # noqa: S608 - as above
"""The item ``:item`` of ``:collection``, with the columns of `page`, but for the mark."""

_COLLECTION = f"""
SELECT dataset.collection_id, dataset.urn, dataset.title, dataset.body::text AS body, l.url AS licence_url,
       dataset.updated_at, rights.visible
FROM {asked()} CROSS JOIN {CALLER} caller
JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id
CROSS JOIN {DATASET_RIGHTS} rights
LEFT JOIN licences l ON l.licence_id = coalesce(dataset.licence_id, caller.licence_id)"""  # noqa: S608 - as above
COLLECTIONS = _numbered(
    f"{_COLLECTION}\nWHERE rights.visible AND dataset.collection_id > :collection"
    "\nORDER BY dataset.collection_id LIMIT :most"
)
"""The next collections that the caller may see, by id."""
COLLECTION_NAMES = _numbered(f"""
SELECT dataset.collection_id, dataset.title
FROM {asked()} CROSS JOIN {CALLER} caller
JOIN datasets dataset ON dataset.tenant_id = caller.tenant_id
CROSS JOIN {DATASET_RIGHTS} rights
WHERE rights.visible ORDER BY dataset.collection_id LIMIT :most""")  # noqa: S608 - as above
"""The first collections that the caller may see, without what they came as."""
COLLECTION = _numbered(f"{_COLLECTION}\nWHERE dataset.collection_id = :collection")
"""The collection, with ``visible``: whether the caller may see it."""
PAGE_SECRET = "SELECT secret FROM page_secret"  # noqa: S105 - no secret
"""What tokens of pages are sealed with."""
