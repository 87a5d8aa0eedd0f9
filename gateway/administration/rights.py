"""Rights: what a group may do with a dataset (a STAC Collection). No right, no access."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import asyncpg

from gateway.administration.changes import Actor
from gateway.administration.groups import group_id_of
from gateway.administration.work import Outcome, Work, changing, check_name, missing, tenant_id_of, unacceptable
from gateway.db import Database
from gateway.text import is_storable

METADATA_LEVELS = ("NO_ACCESS", "RESTRICTED_ACCESS", "CUSTOM_ACCESS", "FULL_ACCESS")
FILE_LEVELS = ("NO_ACCESS", "INHERITED_ACCESS", "CUSTOM_ACCESS")
QUALITY_LEVELS = ("ACCEPTED", "ACCEPTED_WITH_WARNINGS", "REJECTED")

_MOST_DEPTH = 32
"""Levels of the options of a policy."""

_COLUMNS = "metadata_level, file_level, quality_min, quality_max, quality_levels, policy, policy_options"
_RIGHTS = f"""
SELECT g.name AS group_name, {_COLUMNS}
FROM access_rights r JOIN groups g USING (group_id)
WHERE r.dataset_id = $1"""  # noqa: S608 - made of constants, as below; values are bound
_LIST = f'{_RIGHTS} AND g.name COLLATE "C" > $2 ORDER BY g.name COLLATE "C" LIMIT $3'
_ONE = f"{_RIGHTS} AND g.name = $2"
_PUT = f"""
INSERT INTO access_rights (dataset_id, group_id, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb)
ON CONFLICT (dataset_id, group_id) DO UPDATE SET ({_COLUMNS}) = ROW ($3, $4, $5, $6, $7, $8, $9::jsonb)
WHERE ROW (access_rights.metadata_level, access_rights.file_level, access_rights.quality_min,
           access_rights.quality_max, access_rights.quality_levels, access_rights.policy,
           access_rights.policy_options)
      IS DISTINCT FROM ROW ($3, $4, $5, $6, $7, $8, $9::jsonb)
RETURNING xmax = 0"""  # noqa: S608
_DELETE = "DELETE FROM access_rights WHERE dataset_id = $1 AND group_id = $2 RETURNING true"


@dataclasses.dataclass(frozen=True, slots=True)
class Right:
    """What a group may do with a dataset; see the table ``access_rights``."""

    metadata_level: str = "NO_ACCESS"
    file_level: str = "NO_ACCESS"
    quality_min: float | None = None
    """Least score of products; None takes any, and those without one."""
    quality_max: float | None = None
    quality_levels: tuple[str, ...] | None = None
    policy: str | None = None
    """Name of the policy plug-in that CUSTOM_ACCESS asks."""
    policy_options: Mapping[str, Any] | None = None


async def rights(
    database: Database, tenant: str, collection: str, *, after: str = "", limit: int
) -> list[tuple[str, Right]]:
    """At most ``limit`` rights to ``collection`` of groups whose names come after ``after``, with those names.

    Raises:
        GatewayError: 404 no such tenant or collection; 503.
    """
    dataset_id = await _dataset_id(database, tenant, collection)
    return [(row["group_name"], _right(row)) for row in await database.fetch(_LIST, dataset_id, after, limit)]


async def right(database: Database, tenant: str, collection: str, group: str) -> Right:
    """The right of ``group`` to ``collection``.

    Raises:
        GatewayError: 404 no such tenant or collection, or no right; 503.
    """
    dataset_id = await _dataset_id(database, tenant, collection)
    rows = await database.fetch(_ONE, dataset_id, group) if is_storable(group) else []
    if not rows:
        raise _no_right(collection, group)
    return _right(rows[0])


async def put_right(
    database: Database,
    tenant: str,
    collection: str,
    group: str,
    wanted: Right,
    *,
    actor: Actor,
    policies: Collection[str],
) -> Outcome:
    """Give ``group`` a right to ``collection``, in place of the one it has.

    Raises:
        GatewayError: 400 the right makes no sense, or its policy is none of ``policies``; 404 no such tenant,
            collection or group; 503.
    """
    _check(wanted, policies)
    async with changing(database, tenant, actor) as work:
        return await work.put(
            "right",
            f"{collection}: {group}",
            _PUT,
            await dataset_id_of(work, collection),
            await group_id_of(work, group),
            wanted.metadata_level,
            wanted.file_level,
            wanted.quality_min,
            wanted.quality_max,
            wanted.quality_levels,
            wanted.policy,
            None if wanted.policy_options is None else json.dumps(wanted.policy_options),
            **dataclasses.asdict(wanted),
        )


async def delete_right(database: Database, tenant: str, collection: str, group: str, actor: Actor) -> None:
    """Take the right of ``group`` to ``collection`` away.

    Raises:
        GatewayError: 404 no such tenant, collection or group, or no right; 503.
    """
    async with changing(database, tenant, actor) as work:
        dataset_id, group_id = await dataset_id_of(work, collection), await group_id_of(work, group)
        if not await work.connection.fetchval(_DELETE, dataset_id, group_id):
            raise _no_right(collection, group)
        await work.record("right.delete", f"{collection}: {group}")


async def dataset_id_of(work: Work, collection: str) -> int:
    """The id of a dataset, which is kept until the change is made.

    Raises:
        GatewayError: 404.
    """
    statement = "SELECT dataset_id FROM datasets WHERE tenant_id = $1 AND collection_id = $2 FOR KEY SHARE"
    found = await work.connection.fetchval(statement, work.tenant_id, collection) if is_storable(collection) else None
    if found is None:
        raise no_collection(collection)
    identifier: int = found
    return identifier


def no_collection(collection: str) -> Exception:
    """404."""
    return missing(f"There is no collection {collection!r}.")


async def _dataset_id(database: Database, tenant: str, collection: str) -> int:
    tenant_id = await tenant_id_of(database, tenant)
    statement = "SELECT dataset_id FROM datasets WHERE tenant_id = $1 AND collection_id = $2"
    rows = await database.fetch(statement, tenant_id, collection) if is_storable(collection) else []
    if not rows:
        raise no_collection(collection)
    identifier: int = rows[0]["dataset_id"]
    return identifier


def _check(wanted: Right, policies: Collection[str]) -> None:
    _one_of(wanted.metadata_level, METADATA_LEVELS, "The level of metadata")
    _one_of(wanted.file_level, FILE_LEVELS, "The level of files")
    if wanted.quality_levels is not None:
        if not wanted.quality_levels:
            raise unacceptable("No quality level at all would let nothing through; leave them out for any.")
        for level in wanted.quality_levels:
            _one_of(level, QUALITY_LEVELS, "A quality level")
    scores = [score for score in (wanted.quality_min, wanted.quality_max) if score is not None]
    if not all(math.isfinite(score) for score in scores) or scores != sorted(scores):
        raise unacceptable("The least quality score must be a number that is not above the greatest.")
    if wanted.policy is not None:
        check_name(wanted.policy, "policy")
        if wanted.policy not in policies:
            raise unacceptable(f"There is no policy {wanted.policy!r}; there are: {', '.join(sorted(policies))}.")
    elif "CUSTOM_ACCESS" in (wanted.metadata_level, wanted.file_level):
        raise unacceptable("CUSTOM_ACCESS needs the name of a policy.")
    if wanted.policy_options is not None:
        if wanted.policy is None:
            raise unacceptable("Options of a policy need the name of the policy.")
        _check_options(wanted.policy_options)


def _check_options(options: Mapping[str, Any]) -> None:
    level: list[Any] = [options]
    for _ in range(_MOST_DEPTH):
        if not all(is_storable(text) for text in level if isinstance(text, str)):
            raise unacceptable("Options of a policy hold text that cannot be stored (NUL, or half a character).")
        level = [part for one in level for part in _parts(one)]
    if level:
        raise unacceptable(f"Options of a policy are too deep: more than {_MOST_DEPTH} levels.")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()


def _one_of(value: str, known: Sequence[str], what: str) -> None:
    if value not in known:
        raise unacceptable(f"{what} is one of {', '.join(known)}.")


def _right(row: asyncpg.Record) -> Right:
    levels, options = row["quality_levels"], row["policy_options"]
    return Right(
        row["metadata_level"],
        row["file_level"],
        row["quality_min"],
        row["quality_max"],
        None if levels is None else tuple(levels),
        row["policy"],
        None if options is None else json.loads(options),
    )


def _no_right(collection: str, group: str) -> Exception:
    return missing(f"The group {group!r} has no right to the collection {collection!r}.")
