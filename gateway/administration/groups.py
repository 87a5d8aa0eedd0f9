"""Access groups, and who is a member by the database (beside what tokens carry)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from gateway.administration.changes import Actor
from gateway.administration.work import Lock, Outcome, Work, changing, check_email, check_name, missing, tenant_id_of
from gateway.db import Database
from gateway.text import is_storable

_GROUPS = """
SELECT name, is_public, (SELECT count(*) FROM group_members m WHERE m.group_id = g.group_id) AS members
FROM groups g WHERE tenant_id = $1"""
_LIST = f'{_GROUPS} AND name COLLATE "C" > $2 ORDER BY name COLLATE "C" LIMIT $3'
_ONE = f"{_GROUPS} AND name = $2"
_PUT = """
INSERT INTO groups (tenant_id, name, is_public) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, name) DO UPDATE SET is_public = $3 WHERE groups.is_public <> $3 RETURNING xmax = 0"""
_ID = "SELECT group_id FROM groups WHERE tenant_id = $1 AND name = $2"
_MEMBERS = """
SELECT email FROM group_members WHERE group_id = $1 AND email COLLATE "C" > $2 ORDER BY email COLLATE "C" LIMIT $3"""
_ADD = """
INSERT INTO group_members (group_id, email) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING RETURNING email"""
_REMOVE = "DELETE FROM group_members WHERE group_id = $1 AND email = $2 RETURNING true"
_REMOVE_OTHERS = "DELETE FROM group_members WHERE group_id = $1 AND email <> ALL ($2::text[]) RETURNING email"


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """An access group."""

    name: str
    is_public: bool
    """Whether it reaches everyone, anonymous callers included."""
    members: int = 0
    """How many the database knows."""


async def groups(database: Database, tenant: str, *, after: str = "", limit: int) -> list[Group]:
    """At most ``limit`` groups whose names come after ``after``, by name.

    Raises:
        GatewayError: 404 no such tenant; 503.
    """
    return [Group(*row) for row in await database.fetch(_LIST, await tenant_id_of(database, tenant), after, limit)]


async def group(database: Database, tenant: str, name: str) -> Group:
    """One group.

    Raises:
        GatewayError: 404 no such tenant or group; 503.
    """
    tenant_id = await tenant_id_of(database, tenant)
    rows = await database.fetch(_ONE, tenant_id, name) if is_storable(name) else []
    if not rows:
        raise _no_group(name)
    return Group(*rows[0])


async def put_group(database: Database, tenant: str, name: str, actor: Actor, *, is_public: bool) -> Outcome:
    """Make a group, or change it.

    Raises:
        GatewayError: 400 that is no name; 404 no such tenant; 503.
    """
    check_name(name, "group")
    async with changing(database, tenant, actor) as work:
        return await work.put("group", name, _PUT, work.tenant_id, name, is_public, isPublic=is_public)


async def delete_group(database: Database, tenant: str, name: str, actor: Actor) -> None:
    """Delete a group with its memberships and rights. Tokens that carry its name get nothing by it any more.

    Raises:
        GatewayError: 404 no such tenant or group; 503.
    """
    async with changing(database, tenant, actor) as work:
        await work.connection.execute(
            "DELETE FROM groups WHERE group_id = $1", await group_id_of(work, name, "FOR UPDATE")
        )
        await work.record("group.delete", name)


async def members(database: Database, tenant: str, name: str, *, after: str = "", limit: int) -> list[str]:
    """At most ``limit`` e-mail addresses of members that come after ``after``, in order.

    Raises:
        GatewayError: 404 no such tenant or group; 503.
    """
    tenant_id = await tenant_id_of(database, tenant)
    found = await database.fetch(_ID, tenant_id, name) if is_storable(name) else []
    if not found:
        raise _no_group(name)
    return [row["email"] for row in await database.fetch(_MEMBERS, found[0]["group_id"], after, limit)]


async def add_members(database: Database, tenant: str, name: str, emails: Iterable[str], actor: Actor) -> list[str]:
    """Add members; those who were none before.

    Raises:
        GatewayError: 400 one is no e-mail address; 404 no such tenant or group; 503.
    """
    wanted = _checked(emails)
    async with changing(database, tenant, actor) as work:
        return await _add(work, name, await group_id_of(work, name, "FOR NO KEY UPDATE"), wanted)


async def remove_member(database: Database, tenant: str, name: str, email: str, actor: Actor) -> None:
    """Remove a member.

    Raises:
        GatewayError: 404 no such tenant, group or member; 503.
    """
    async with changing(database, tenant, actor) as work:
        group_id = await group_id_of(work, name, "FOR NO KEY UPDATE")
        if not is_storable(email) or not await work.connection.fetchval(_REMOVE, group_id, email):
            raise missing(f"The group {name!r} has no member {email!r}.")
        await work.record("member.remove", name, emails=[email])


async def put_members(
    database: Database, tenant: str, name: str, emails: Iterable[str], actor: Actor
) -> tuple[list[str], list[str]]:
    """Have exactly these members; who was added, and who removed.

    Raises:
        GatewayError: 400 one is no e-mail address; 404 no such tenant or group; 503.
    """
    wanted = _checked(emails)
    async with changing(database, tenant, actor) as work:
        group_id = await group_id_of(work, name, "FOR NO KEY UPDATE")
        removed = [row["email"] for row in await work.connection.fetch(_REMOVE_OTHERS, group_id, wanted)]
        if removed:
            await work.record("member.remove", name, emails=removed)
        return await _add(work, name, group_id, wanted), removed


async def group_id_of(work: Work, name: str, lock: Lock = "FOR KEY SHARE") -> int:
    """The id of a group, whose row is locked until the change is made.

    Raises:
        GatewayError: 404.
    """
    found = await work.connection.fetchval(f"{_ID} {lock}", work.tenant_id, name) if is_storable(name) else None
    if found is None:
        raise _no_group(name)
    identifier: int = found
    return identifier


async def _add(work: Work, name: str, group_id: int, wanted: Sequence[str]) -> list[str]:
    added = [row["email"] for row in await work.connection.fetch(_ADD, group_id, wanted)]
    if added:
        await work.record("member.add", name, emails=added)
    return added


def _checked(emails: Iterable[str]) -> list[str]:
    """Each once, in one order: two who add the same do not wait for each other in a circle."""
    return sorted({check_email(email) for email in emails})


def _no_group(name: str) -> Exception:
    return missing(f"There is no group {name!r}.")
