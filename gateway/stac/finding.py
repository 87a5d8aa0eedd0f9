"""How the items of a page are found, in SQL: their numbers, in the order of (``sorted_at``, ``product_id``).

What is fast depends on what only the run shows: in how many datasets the caller may see anything, and how much of what
lies next in the order is asked for. So a statement holds several ways, and gates let one of them be taken:

- Of few datasets (``:few``) each is read in order, by an index of its own, and what they give is merged.
- Of many datasets, all items of the tenant are read in order, and those that are asked for are kept: the walk. It ends
  at a bound (``:walk``). Where that is reached before there are enough, items that are asked for are rare, and each
  dataset is read by itself after all.
- Within a box, each dataset or the tenant is walked in the same way. Where that gives too few, the index of places
  gives all items that lie in the box, which are sorted. Where even they are too many (``:area``), the walk was unlucky:
  the row with the mark ``crowded`` asks for the statement that walks on, further (``:far``). That may end before there
  are enough, too: then the row with the mark ``horizon`` is the last item that it looked at.

An interval of time is a range of the order: the items that begin within it, and those that began at most a day before,
of which some last until then. What lasts longer is rare, and has an index of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

CROWDED, HORIZON = "crowded", "horizon"
"""Marks of rows that are no items."""

DATASET = "int8range(p.dataset_id, p.dataset_id, '[]')"
"""Of an item ``p``, as the indexes of places and of long times have it: GiST knows numbers only as ranges."""
LONG = "(p.end_datetime - p.start_datetime) > interval '24 hours'"
"""Of an item ``p``: that the index of long times has it."""
TIME = "CASE WHEN p.start_datetime <= p.end_datetime THEN tstzrange(p.start_datetime, p.end_datetime, '[]') END"
"""Of an item ``p``, as those indexes have it."""
BOX = """
box(point(CASE WHEN p.west <= p.east AND p.west > -180 AND p.east < 180 THEN p.west ELSE -180 END, p.south),
    point(CASE WHEN p.west <= p.east AND p.west > -180 AND p.east < 180 THEN p.east ELSE 180 END, p.north))"""
"""Around an item ``p``, as the index of places has it: one that touches 180° goes all around the Earth there."""

# An item's east lies beyond 180° where its box crosses that, and so does the east of the box that is asked for. What is
# apart by whole turns is the same.
_EAST = "p.east + CASE WHEN p.west > p.east THEN 360 ELSE 0 END"
_WITHIN = f"""p.south <= :north AND p.north >= :south AND (
    (p.west <= :east AND {_EAST} >= :west)
    OR (p.west <= :east + 360 AND {_EAST} >= :west + 360)
    OR (p.west <= :east - 360 AND {_EAST} >= :west - 360)
)"""
# OFFSET 0 behind such a query has it answered by the one index that it is made for, and the rest looked at afterwards:
# what else is asked for would lead the planner to others, as it does not know how rare things are.
_COLUMNS = "p.product_id, p.sorted_at, p.end_datetime, p.west, p.south, p.east, p.north"
_EARLY = "coalesce(:early, '-infinity')"
_NOT_BEFORE = f"p.sorted_at >= {_EARLY} AND p.sorted_at > '-infinity'"
_NOT_BEHIND = "p.sorted_at <= coalesce(:until, 'infinity')"
_LASTS = "p.end_datetime >= coalesce(:since, '-infinity')"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a search is made of: each has a statement of its own, planned once."""

    down: bool
    """Whether the order is read downwards: from the newest to the oldest."""
    collections: bool = False
    ids: bool = False
    box: bool = False
    time: bool = False
    on: bool = False
    """Whether items in a box are looked for by walking on."""


def finding(shape: Shape) -> str:
    """The parts of a WITH that find the next ``:most`` items after the place (``:start``, ``:product``).

    The last is ``found``, with ``product_id``, ``sorted_at`` and ``mark``; it may give more than ``:most``, of which
    the first count. They speak of ``who``, the caller, and of ``wanted``, the datasets (``dataset_id``) that are asked
    for and in which he may see anything. Where a time is asked for, (``:begin``, ``:begin_product``) is the place where
    walks begin.
    """
    if shape.ids:
        parts, ways = "", [_by_ids(shape)]
    else:
        parts, ways = _within(shape) if shape.box else _anywhere(shape)
        if shape.time:
            ways.append(_of_long(shape))
    return f"""
{parts}found AS MATERIALIZED (
    SELECT product_id, sorted_at, mark FROM ({" UNION ALL ".join(f"({way})" for way in ways)}) p
    ORDER BY {_order(shape)} LIMIT :most + 1
)"""  # noqa: S608 - made of constants; values are bound


_Ways = tuple[str, list[str]]
"""Parts of a WITH, each with a comma behind it, and what gives ``product_id``, ``sorted_at`` and ``mark``."""

_IS_FEW = "(SELECT count(*) FROM wanted) <= :few"
_IS_ONE = "(SELECT count(*) FROM wanted) = 1"
_IS_SCARCE = "(SELECT scarce FROM scarce)"
_SHARE = ":walk / (SELECT greatest(count(*), 1) FROM wanted)"
_OF_DATASET = "p.dataset_id = d.dataset_id"
_OF_THE_ONE = f"p.dataset_id = (SELECT dataset_id FROM wanted WHERE {_IS_ONE})"  # noqa: S608 - as above
_OF_WANTED = "(p.dataset_id IN (SELECT dataset_id FROM wanted)) IS TRUE"


def _anywhere(shape: Shape) -> _Ways:
    in_order = _next(shape, [_OF_DATASET, *([_LASTS] if shape.time else [])], "LIMIT :most")
    return f"{_walk(shape, _of_tenant(f'NOT {_IS_FEW}'), _OF_WANTED, ':walk')}, ", [
        _each(in_order, _IS_FEW),
        f"SELECT product_id, sorted_at, NULL AS mark FROM hits WHERE NOT {_IS_SCARCE}",  # noqa: S608 - as above
        _each(in_order, _IS_SCARCE),
    ]


def _within(shape: Shape) -> _Ways:
    if shape.on:
        return "", [_walk_on(shape, _OF_THE_ONE), _walk_on(shape, _of_tenant(f"NOT {_IS_ONE}"))]
    flagged = """
SELECT product_id, sorted_at, false AS more FROM hits UNION ALL
SELECT NULL, NULL, true FROM scarce WHERE scarce"""
    of_dataset = f"WITH {_walk(shape, _OF_DATASET, 'true', _SHARE)} {flagged}"
    of_tenant = f"WITH {_walk(shape, _of_tenant(f'NOT {_IS_FEW}'), _OF_WANTED, ':walk')} {flagged}"
    parts = f"""
near AS MATERIALIZED (
    SELECT p.product_id, p.sorted_at, p.more FROM wanted d CROSS JOIN LATERAL ({of_dataset}) p WHERE {_IS_FEW}
    UNION ALL
    SELECT product_id, sorted_at, more FROM ({of_tenant}) p
), scarce AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM near WHERE more) AS scarce
), placed AS MATERIALIZED (
    {_placed(shape)}
), crowded AS MATERIALIZED (
    SELECT count(*) > :area AS crowded FROM placed
), """  # noqa: S608 - as above
    kept = [_after(shape), _WITHIN, *([_NOT_BEFORE, _NOT_BEHIND, _LASTS] if shape.time else [])]
    return parts, [
        f"SELECT product_id, sorted_at, NULL AS mark FROM near WHERE NOT {_IS_SCARCE}",  # noqa: S608 - as above
        f"""
SELECT p.product_id, p.sorted_at, NULL AS mark FROM placed p
WHERE NOT (SELECT crowded FROM crowded) AND {" AND ".join(kept)}""",  # noqa: S608 - as above
        # Before all items.
        f"SELECT NULL, '{'' if shape.down else '-'}infinity', '{CROWDED}' FROM crowded WHERE crowded",  # noqa: S608 - as above
    ]


def _placed(shape: Shape) -> str:
    """All items of wanted datasets that may lie in the box, once each, as far as ``:area``."""
    times = ""
    if shape.time:
        times = f" AND {TIME} && tstzrange(coalesce(:since, '-infinity'), coalesce(:until, 'infinity'), '[]')"
    return f"""
SELECT {_COLUMNS}
FROM wanted d
CROSS JOIN unnest(:wests, :easts) WITH ORDINALITY AS asked(west, east, number)
CROSS JOIN LATERAL (
    SELECT {_COLUMNS} FROM products p
    WHERE {DATASET} @> d.dataset_id AND {BOX} && box(point(asked.west, :south), point(asked.east, :north)){times}
    OFFSET 0
) p
WHERE {_IS_SCARCE}
  AND (asked.number = 1 OR NOT {BOX} && box(point((:wests)[1], :south), point((:easts)[1], :north)))
LIMIT :area + 1"""  # noqa: S608 - as above


def _walk_on(shape: Shape, of: str) -> str:
    return f"""
WITH {_walk(shape, of, _OF_WANTED, ":far")}
SELECT product_id, sorted_at, NULL AS mark FROM hits
UNION ALL
SELECT p.product_id, p.sorted_at, '{HORIZON}' FROM ({_next(shape, [of], "OFFSET :far - 1 LIMIT 1")}) p
WHERE {_IS_SCARCE}"""  # noqa: S608 - as above


def _of_tenant(gate: str) -> str:
    """That ``p`` is of the caller's tenant; of none if the ``gate`` is shut."""
    return f"p.tenant_id = (SELECT tenant_id FROM who WHERE {gate})"  # noqa: S608 - as above


def _walk(shape: Shape, of: str, kept: str, steps: str) -> str:
    """Parts of a WITH that walk ``of`` a dataset or tenant, at most ``steps`` items.

    ``hits`` are the next items that are asked for, and ``scarce`` says whether there may be more behind the bound.
    """
    conditions = [kept, *([_LASTS] if shape.time else []), *([_WITHIN] if shape.box else [])]
    return f"""
hits AS MATERIALIZED (
    SELECT p.product_id, p.sorted_at
    FROM ({_next(shape, [of], f"LIMIT {steps}")}) p
    WHERE {" AND ".join(conditions)}
    ORDER BY {_order(shape)} LIMIT :most
), scarce AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM hits) < :most
           THEN EXISTS ({_next(shape, [of], f"OFFSET {steps} LIMIT 1")}) ELSE false END AS scarce
)"""  # noqa: S608 - as above


def _next(shape: Shape, conditions: Sequence[str], rows: str) -> str:
    """The next items in order, read by the index of a dataset or a tenant; ``rows`` ends it.

    An interval of time is where the reading begins, and where it ends: with two conditions on either end, PostgreSQL
    may take the wrong one to begin with.
    """
    columns = "p.product_id, p.sorted_at, p.dataset_id, p.end_datetime"
    if shape.box:
        columns += ", p.west, p.south, p.east, p.north"
    bounds = [_after(shape)]
    if shape.time:
        bounds = [_after(shape, ":begin", ":begin_product"), _NOT_BEFORE if shape.down else _NOT_BEHIND]
    return f"""
SELECT {columns} FROM products p WHERE {" AND ".join((*conditions, *bounds))}
ORDER BY {_order(shape)} {rows}"""  # noqa: S608 - as above


def _each(of_dataset: str, gate: str) -> str:
    """What ``of_dataset`` gives of each wanted dataset ``d``, if the ``gate`` is open."""
    return f"""
SELECT p.product_id, p.sorted_at, NULL AS mark FROM wanted d CROSS JOIN LATERAL ({of_dataset}) p
WHERE {gate}"""  # noqa: S608 - as above


def _of_long(shape: Shape) -> str:
    """What began more than a day before the interval, and lasts until then."""
    kept = [f"p.sorted_at < {_EARLY}", _after(shape), *([_WITHIN] if shape.box else [])]
    return _each(
        f"""
SELECT p.product_id, p.sorted_at
FROM (
    SELECT {_COLUMNS} FROM products p
    WHERE {LONG} AND {DATASET} @> d.dataset_id AND {TIME} @> :since
    OFFSET 0
) p
WHERE {" AND ".join(kept)}
ORDER BY {_order(shape)} LIMIT :most""",  # noqa: S608 - as above
        "true",
    )


def _by_ids(shape: Shape) -> str:
    conditions = [_OF_WANTED, _after(shape)]
    if shape.time:
        conditions += [_NOT_BEHIND, _LASTS]
    if shape.box:
        conditions.append(_WITHIN)
    return f"""
SELECT p.product_id, p.sorted_at, NULL AS mark
FROM who caller
CROSS JOIN LATERAL (
    SELECT p.* FROM products p WHERE p.tenant_id = caller.tenant_id AND p.provider_id = ANY (:ids) OFFSET 0
) p
WHERE {" AND ".join(conditions)}"""  # noqa: S608 - as above


def _order(shape: Shape) -> str:
    way = "DESC" if shape.down else "ASC"
    return f"p.sorted_at {way}, p.product_id {way}"


def _after(shape: Shape, start: str = ":start", product: str = ":product") -> str:
    return f"(p.sorted_at, p.product_id) {'<' if shape.down else '>'} (coalesce({start}, '-infinity'), {product})"
