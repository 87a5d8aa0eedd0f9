"""Rules for administrators: as they are, and as REGARDS sees them.

What changes is recorded with it, what stays as it was is not. A rule that is written applies to the next request. All
functions raise GatewayError: 404 for a tenant that does not exist, 503 if PostgreSQL does not answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import asyncpg

from gateway.administration.changes import Actor
from gateway.administration.work import changing, no_tenant, tenant_id_of, unacceptable
from gateway.db import Database
from gateway.quotas.limits import UNLIMITED, Metric, Rule, RuleKey, Subject, complaint
from gateway.text import is_storable


class RegardsLimits(NamedTuple):
    """What REGARDS calls the limits of a user; -1 is unlimited."""

    max_quota: int
    """Downloads in all."""
    rate_limit: int
    """Downloads at a time."""


FIRST: RuleKey = ("", "", False, "", "")
"""Before those of all rules."""
MOST_RULES = 1000
"""In one list, unless its limit says otherwise."""

_KEY = "subject, name, shared, metric, period"
_COLUMNS = f"{_KEY}, value, burst, slow_rate, fail"

_RULES = f"""
SELECT {_COLUMNS} FROM quota_limits
WHERE tenant_id = $1 AND ($2::text IS NULL OR subject = $2) AND ($3::text IS NULL OR name = $3)
    AND ({_KEY}) > ($4, $5, $6, $7, $8)
ORDER BY {_KEY} LIMIT $9"""  # noqa: S608 - made of constants; values are bound

_PUT = f"""
INSERT INTO quota_limits AS q (tenant_id, {_COLUMNS})
SELECT $1, rule.* FROM unnest($2::text[], $3::text[], $4::boolean[], $5::text[], $6::text[], $7::bigint[],
                              $8::integer[], $9::bigint[], $10::text[]) AS rule
ON CONFLICT (tenant_id, {_KEY}) DO UPDATE SET """  # noqa: S608 - as above
_PUT_RULES = f"""{_PUT} (value, burst, slow_rate, fail)
    = ROW (EXCLUDED.value, EXCLUDED.burst, EXCLUDED.slow_rate, EXCLUDED.fail)
WHERE ROW (q.value, q.burst, q.slow_rate, q.fail)
    IS DISTINCT FROM ROW (EXCLUDED.value, EXCLUDED.burst, EXCLUDED.slow_rate, EXCLUDED.fail)
RETURNING {_COLUMNS}"""
# REGARDS knows of values alone: what else was set stays.
_PUT_VALUES = f"{_PUT} value = EXCLUDED.value WHERE q.value <> EXCLUDED.value RETURNING {_COLUMNS}"

_DELETE = f"""
DELETE FROM quota_limits WHERE tenant_id = $1 AND ({_KEY}) = ($2, $3, $4, $5, $6) RETURNING true"""  # noqa: S608

_REGARDS_DEFAULTS = """
SELECT (SELECT q.value FROM quota_limits q WHERE q.tenant_id = tenant.tenant_id AND q.subject = 'tenant'
            AND q.name = '' AND NOT q.shared AND q.metric = 'downloads' AND q.period = 'total') AS max_quota,
       (SELECT q.value FROM quota_limits q WHERE q.tenant_id = tenant.tenant_id AND q.subject = 'tenant'
            AND q.name = '' AND NOT q.shared AND q.metric = 'concurrent' AND q.period = 'now') AS rate_limit
FROM tenants tenant WHERE tenant.name = $1"""

_REGARDS_LIMITS = f"""
SELECT asked.email, coalesce(own_quota.value, defaults.max_quota) AS max_quota,
       coalesce(own_rate.value, defaults.rate_limit) AS rate_limit
FROM (SELECT tenant_id FROM tenants WHERE name = $1) tenant
CROSS JOIN ({_REGARDS_DEFAULTS}) defaults
LEFT JOIN unnest($2::text[]) AS asked(email) ON true
LEFT JOIN quota_limits own_quota ON own_quota.tenant_id = tenant.tenant_id AND own_quota.subject = 'user'
    AND own_quota.name = asked.email AND own_quota.metric = 'downloads' AND own_quota.period = 'total'
LEFT JOIN quota_limits own_rate ON own_rate.tenant_id = tenant.tenant_id AND own_rate.subject = 'user'
    AND own_rate.name = asked.email AND own_rate.metric = 'concurrent' AND own_rate.period = 'now'
"""  # noqa: S608 - as above


async def rules(
    database: Database,
    tenant: str,
    subject: str | None = None,
    name: str | None = None,
    *,
    after: RuleKey = FIRST,
    limit: int = MOST_RULES,
) -> tuple[Rule, ...]:
    """At most ``limit`` rules of ``tenant`` that come after ``after``, by key; of ``subject`` and ``name`` if given."""
    if not all(is_storable(text) for text in (subject or "", name or "")):
        return ()
    tenant_id = await tenant_id_of(database, tenant)
    rows = await database.fetch(_RULES, tenant_id, subject, name, *after, limit)
    return tuple(Rule(*row) for row in rows)


async def put_rule(database: Database, tenant: str, rule: Rule, actor: Actor) -> None:
    """Write ``rule``, in place of the one of the same subject, name, sharing, metric and period.

    Raises:
        GatewayError: 400 the rule makes no sense.
    """
    await _put(database, tenant, _PUT_RULES, [rule], actor)


async def delete_rule(
    database: Database,
    tenant: str,
    subject: Subject,
    name: str,
    *,
    shared: bool,
    metric: Metric,
    period: str,
    actor: Actor,
) -> bool:
    """Delete a rule; whether there was one.

    Raises:
        GatewayError: 400 there can be no such rule.
    """
    rule = Rule(subject, name, shared, metric, period, UNLIMITED)
    _check(rule)
    async with changing(database, tenant, actor) as work:
        found = await work.connection.fetchval(_DELETE, work.tenant_id, *rule.key)
        if found:
            await work.record("rule.delete", _named(rule))
        return bool(found)


async def regards_limits(database: Database, tenant: str, emails: Iterable[str]) -> dict[str, RegardsLimits]:
    """What REGARDS calls the limits of each of ``emails``: their own, else the tenant's, else -1."""
    asked = [email for email in dict.fromkeys(emails) if is_storable(email)]
    rows = await _fetch(database, tenant, _REGARDS_LIMITS, asked)
    return {row["email"]: _regards(row) for row in rows if row["email"] is not None}


async def put_regards_limits(
    database: Database, tenant: str, limits: Mapping[str, RegardsLimits], actor: Actor
) -> None:
    """Write the limits of users by email; all of them or none.

    Raises:
        GatewayError: 400 an email or a number makes no sense.
    """
    written = [rule for email, of_user in limits.items() for rule in _of_regards("user", email, of_user)]
    await _put(database, tenant, _PUT_VALUES, written, actor)


async def regards_defaults(database: Database, tenant: str) -> RegardsLimits:
    """The limits of users who have none of their own."""
    (row,) = await _fetch(database, tenant, _REGARDS_DEFAULTS)
    return _regards(row)


async def put_regards_defaults(database: Database, tenant: str, limits: RegardsLimits, actor: Actor) -> None:
    """Write the limits of users who have none of their own.

    Raises:
        GatewayError: 400 a number makes no sense.
    """
    await _put(database, tenant, _PUT_VALUES, _of_regards("tenant", "", limits), actor)


async def put_regards_default(
    database: Database, tenant: str, limit: Literal["max_quota", "rate_limit"], value: int | None, *, actor: Actor
) -> None:
    """Write one of these limits; delete it for None.

    Raises:
        GatewayError: 400 the number makes no sense.
    """
    at = RegardsLimits._fields.index(limit)
    rule = _of_regards("tenant", "", RegardsLimits(*(UNLIMITED if value is None else value,) * 2))[at]
    if value is None:
        await delete_rule(
            database, tenant, "tenant", "", shared=False, metric=rule.metric, period=rule.period, actor=actor
        )
    else:
        await _put(database, tenant, _PUT_VALUES, [rule], actor)


async def put_regards_public(database: Database, tenant: str, limits: RegardsLimits, actor: Actor) -> None:
    """Write the limits of all anonymous callers together: of REGARDS' public user.

    Raises:
        GatewayError: 400 a number makes no sense.
    """
    await _put(database, tenant, _PUT_VALUES, _of_regards("anonymous", "", limits, shared=True), actor)


def _of_regards(subject: Subject, name: str, limits: RegardsLimits, *, shared: bool = False) -> list[Rule]:
    max_quota, rate_limit = limits
    return [
        Rule(subject, name, shared, "downloads", "total", max_quota),
        Rule(subject, name, shared, "concurrent", "now", rate_limit),
    ]


def _regards(row: asyncpg.Record) -> RegardsLimits:
    return RegardsLimits(*(UNLIMITED if row[name] is None else row[name] for name in RegardsLimits._fields))


def _check(rule: Rule) -> None:
    problem = complaint(rule)
    if problem is not None:
        raise unacceptable(f"This is no rule: {problem}.")


async def _put(database: Database, tenant: str, statement: str, written: Sequence[Rule], actor: Actor) -> None:
    for rule in written:
        _check(rule)
    # In one order, so that two who write at a time do not wait for each other.
    rows = map(dataclasses.astuple, sorted(written, key=lambda rule: rule.key))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(dataclasses.fields(Rule))
    async with changing(database, tenant, actor) as work:
        for row in await work.connection.fetch(statement, work.tenant_id, *columns):
            rule = Rule(*row)
            await work.record("rule.put", _named(rule), **dataclasses.asdict(rule))


def _named(rule: Rule) -> str:
    return " ".join(filter(None, (rule.subject, rule.name, "shared" if rule.shared else "each", *rule.key[3:])))


async def _fetch(database: Database, tenant: str, statement: str, *parameters: object) -> list[asyncpg.Record]:
    """The rows of a statement that gives at least one for a tenant that exists."""
    rows = await database.fetch(statement, tenant, *parameters) if is_storable(tenant) else []
    if not rows:
        raise no_tenant(tenant)
    return rows
