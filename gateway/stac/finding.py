"""How the items of a page are found, in SQL: their numbers, in the order of (``sorted_at``, ``product_id``).

What is fast depends on what only the run shows: in how many datasets the caller may see anything, and how much of what
lies next in the order is asked for. So a statement holds several ways, and gates let one of them be taken:

- Of few datasets (``:few``) each is read in order, by an index of its own, and what they give is merged.
- Of many datasets, all items of the tenant are read in order, and those that are asked for are kept: the walk. It ends
  at a bound (``:walk``). Where that is reached before there are enough, items that are asked for are rare, and each
  dataset is read by itself after all.
- Within a box, each dataset or the tenant is walked in the same way. Where that gives too few, the index of places
  gives all items that lie in the box, which are sorted.

An interval of time is a range of the order: the items that begin within it, and those that began at most a day before,
of which some last until then. What lasts longer is rare, and has an index of its own.
"""

from __future__ import annotations

import dataclasses

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
_EARLY = "coalesce(:since - interval '24 hours', '-infinity')"
_RANGE = f"p.sorted_at > '-infinity' AND p.sorted_at >= {_EARLY} AND p.sorted_at <= coalesce(:until, 'infinity')"
_LASTS = "p.end_datetime >= coalesce(:since, '-infinity')"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a search is made of: each has a statement of its own, planned once."""

    down: bool
    """Whether the order is read downwards: from the newest to the oldest."""
    collections: bool
    ids: bool
    box: bool
    time: bool


def finding(shape: Shape) -> str:
    """The parts of a WITH that find the next ``:most`` items after the place (``:start``, ``:product``).

    The last is ``found``, with ``product_id`` and ``sorted_at``. They speak of ``who``, the caller, and of ``wanted``,
    the datasets (``dataset_id``) that are asked for and in which he may see anything.
    """
    if shape.ids:
        parts, ways = "", [_by_ids(shape)]
    else:
        parts, ways = _walked_tenant(shape), [_of_few(shape), _of_many(shape)]
        if shape.time:
            ways.append(_of_long(shape))
    return f"""
{parts}found AS MATERIALIZED (
    SELECT product_id, sorted_at FROM ({" UNION ALL ".join(f"({way})" for way in ways)}) p
    ORDER BY {_order(shape)} LIMIT :most
)"""  # noqa: S608 - made of constants; values are bound


def _order(shape: Shape) -> str:
    way = "DESC" if shape.down else "ASC"
    return f"p.sorted_at {way}, p.product_id {way}"


def _after(shape: Shape) -> str:
    return f"(p.sorted_at, p.product_id) {'<' if shape.down else '>'} (coalesce(:start, '-infinity'), :product)"


def _next(shape: Shape, of: str, rows: str) -> str:
    """The next items ``of`` a dataset or tenant in order, read by its index; ``rows`` ends it."""
    columns = "p.product_id, p.sorted_at, p.dataset_id, p.end_datetime"
    if shape.box:
        columns += ", p.west, p.south, p.east, p.north"
    return f"""
SELECT {columns} FROM products p WHERE {of} AND {_after(shape)}{f" AND {_RANGE}" if shape.time else ""}
ORDER BY {_order(shape)} {rows}"""  # noqa: S608 - as above


def _walk(shape: Shape, of: str, kept: str) -> str:
    """Parts of a WITH that walk ``of`` a dataset or tenant.

    ``hits`` are the next items that are asked for, and ``scarce`` says whether there may be more behind the bound.
    """
    conditions = [kept, *([_LASTS] if shape.time else []), *([_WITHIN] if shape.box else [])]
    return f"""
hits AS MATERIALIZED (
    SELECT p.product_id, p.sorted_at
    FROM ({_next(shape, of, "LIMIT :walk")}) p WHERE {" AND ".join(conditions)} LIMIT :most
), scarce AS MATERIALIZED (
    SELECT CASE WHEN (SELECT count(*) FROM hits) < :most
           THEN EXISTS ({_next(shape, of, "OFFSET :walk LIMIT 1")}) ELSE false END AS scarce
)"""  # noqa: S608 - as above


_IS_FEW = "(SELECT count(*) FROM wanted) <= :few"
_OF_DATASET = "p.dataset_id = d.dataset_id"
# Of many: for few there is no walk, and nothing is scarce.
_OF_TENANT = f"p.tenant_id = (SELECT tenant_id FROM who WHERE NOT {_IS_FEW})"  # noqa: S608 - as above
_OF_WANTED = "(p.dataset_id IN (SELECT dataset_id FROM wanted)) IS TRUE"


def _walked_tenant(shape: Shape) -> str:
    return f"{_walk(shape, _OF_TENANT, _OF_WANTED)}, "


def _of_few(shape: Shape) -> str:
    if not shape.box:
        return _each(_in_order(shape), _IS_FEW)
    walked = f"""
WITH {_walk(shape, _OF_DATASET, "true")}
SELECT product_id, sorted_at FROM hits WHERE NOT (SELECT scarce FROM scarce)
UNION ALL
(SELECT product_id, sorted_at FROM ({_by_place(shape)}) p WHERE (SELECT scarce FROM scarce))"""  # noqa: S608 - as above
    return _each(walked, _IS_FEW)


def _of_many(shape: Shape) -> str:
    each = _each(_by_place(shape) if shape.box else _in_order(shape), "(SELECT scarce FROM scarce)")
    return f"SELECT product_id, sorted_at FROM hits WHERE NOT (SELECT scarce FROM scarce) UNION ALL ({each})"  # noqa: S608 - as above


def _each(of_dataset: str, gate: str) -> str:
    """What ``of_dataset`` gives of each wanted dataset ``d``, if the ``gate`` is open."""
    return f"""
SELECT p.product_id, p.sorted_at FROM wanted d CROSS JOIN LATERAL ({of_dataset}) p WHERE {gate}"""  # noqa: S608 - as above


def _in_order(shape: Shape) -> str:
    """The next items of the dataset ``d``."""
    lasts = f" AND {_LASTS}" if shape.time else ""
    return _next(shape, f"{_OF_DATASET}{lasts}", "LIMIT :most")


def _by_place(shape: Shape) -> str:
    """All items of the dataset ``d`` that lie in the box, once each, sorted; long ones are left to `_of_long`."""
    times = ""
    if shape.time:
        interval = "tstzrange(coalesce(:since, '-infinity'), coalesce(:until, 'infinity'), '[]')"
        times = f" AND {TIME} && {interval} AND {_RANGE} AND {_LASTS}"
    return f"""
SELECT p.product_id, p.sorted_at
FROM unnest(:wests, :easts) WITH ORDINALITY AS asked(west, east, number)
JOIN products p ON {DATASET} @> d.dataset_id AND {BOX} && box(point(asked.west, :south), point(asked.east, :north))
    AND (asked.number = 1 OR NOT {BOX} && box(point((:wests)[1], :south), point((:easts)[1], :north)))
    AND {_after(shape)} AND {_WITHIN}{times}
ORDER BY {_order(shape)} LIMIT :most"""  # noqa: S608 - as above


def _of_long(shape: Shape) -> str:
    """What began more than a day before the interval, and lasts until then."""
    within = f" AND {_WITHIN}" if shape.box else ""
    return _each(
        f"""
SELECT p.product_id, p.sorted_at FROM products p
WHERE {LONG} AND {DATASET} @> d.dataset_id AND {TIME} @> :since AND p.sorted_at < {_EARLY} AND {_after(shape)}{within}
ORDER BY {_order(shape)} LIMIT :most""",  # noqa: S608 - as above
        "true",
    )


def _by_ids(shape: Shape) -> str:
    conditions = [_after(shape)]
    if shape.time:
        conditions.append(f"p.sorted_at > '-infinity' AND p.sorted_at <= coalesce(:until, 'infinity') AND {_LASTS}")
    if shape.box:
        conditions.append(_WITHIN)
    return f"""
SELECT p.product_id, p.sorted_at
FROM who caller
CROSS JOIN LATERAL (
    SELECT p.* FROM products p WHERE p.tenant_id = caller.tenant_id AND p.provider_id = ANY (:ids) OFFSET 0
) p
WHERE {_OF_WANTED} AND {" AND ".join(conditions)}"""  # noqa: S608 - as above
