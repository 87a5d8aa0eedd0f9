"""All rules of quota, for administrators: ``/quota/rules``."""

from __future__ import annotations

from typing import Any, cast

from aiohttp import web

from gateway.administration.work import missing
from gateway.api.admin import LISTING, acting, answer_page, cursor_of, limit_of, no_content
from gateway.api.bodies import answer, bad, integer, members, read_json, text
from gateway.quotas import administration
from gateway.quotas.administration import FIRST
from gateway.quotas.limits import Fail, Metric, Rule, Subject

_KEY = ("subject", "name", "shared", "metric", "period")
_REQUIRED = ("subject", "metric", "period", "value")
_OPTIONAL = ("name", "shared", "burst", "slowRate", "fail")


async def get_rules(request: web.Request) -> web.Response:
    """``GET /quota/rules``: all, by key; ``?subject=…&name=…`` picks some."""
    work, query = await acting(request, ("subject", "name", *LISTING)), request.query
    after = tuple(cursor_of(query["cursor"], str, str, bool, str, str)) if "cursor" in query else FIRST
    limit = limit_of(query)
    found = await administration.rules(
        work.database, work.tenant, query.get("subject"), query.get("name"), after=after, limit=limit + 1
    )
    return answer_page("rules", found, limit, _told, lambda rule: rule.key)


async def put_rule(request: web.Request) -> web.Response:
    """``PUT /quota/rules``: one rule, in place of the one of the same subject, name, sharing, metric and period."""
    work = await acting(request)
    rule = _rule(members(await read_json(request), _REQUIRED, _OPTIONAL))
    await administration.put_rule(work.database, work.tenant, rule, work.actor)
    return answer(_told(rule))


async def delete_rule(request: web.Request) -> web.Response:
    """``DELETE /quota/rules?subject=…&name=…&shared=…&metric=…&period=…``: 204, or 404 if there is none."""
    work, query = await acting(request, _KEY), request.query
    for name in ("subject", "metric", "period"):
        if name not in query:
            raise bad(f"The query lacks {name!r}.")
    shared = query.get("shared", "false")
    if shared not in ("true", "false"):
        raise bad("'shared' must be true or false.")
    found = await administration.delete_rule(
        work.database,
        work.tenant,
        cast("Subject", query["subject"]),
        query.get("name", ""),
        shared=shared == "true",
        metric=cast("Metric", query["metric"]),
        period=query["period"],
        actor=work.actor,
    )
    if not found:
        raise missing("There is no such rule.")
    return no_content()


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    path = f"{prefix}/quota/rules"
    return [
        web.get(path, get_rules),
        web.put(path, put_rule),
        web.delete(path, delete_rule),
    ]


def _rule(body: dict[str, Any]) -> Rule:
    """The rule that a body describes; whether it makes sense is seen when it is written."""
    shared = body.get("shared", False)
    if not isinstance(shared, bool):
        raise bad("'shared' must be true or false.")
    slow_rate = body.get("slowRate")
    return Rule(
        subject=cast("Subject", text(body["subject"], "subject")),
        name=text(body.get("name", ""), "name"),
        shared=shared,
        metric=cast("Metric", text(body["metric"], "metric")),
        period=text(body["period"], "period"),
        value=integer(body["value"], "value"),
        burst=integer(body.get("burst", 1), "burst"),
        slow_rate=None if slow_rate is None else integer(slow_rate, "slowRate"),
        fail=cast("Fail", text(body.get("fail", "closed"), "fail")),
    )


def _told(rule: Rule) -> dict[str, object]:
    return {
        "subject": rule.subject,
        "name": rule.name,
        "shared": rule.shared,
        "metric": rule.metric,
        "period": rule.period,
        "value": rule.value,
        "burst": rule.burst,
        "slowRate": rule.slow_rate,
        "fail": rule.fail,
    }
