"""All rules of quota, for administrators: ``/quota/rules``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

from aiohttp import web

from gateway.api.admin import actor_of
from gateway.api.bodies import answer, bad, integer, members, read_json, text
from gateway.api.callers import administrator
from gateway.api.keys import DATABASE
from gateway.errors import GatewayError
from gateway.quotas import administration
from gateway.quotas.limits import Fail, Metric, Rule, Subject

_KEY = ("subject", "name", "shared", "metric", "period")
_REQUIRED = ("subject", "metric", "period", "value")
_OPTIONAL = ("name", "shared", "burst", "slowRate", "fail")


async def get_rules(request: web.Request) -> web.Response:
    """``GET /quota/rules``: a list; ``?subject=…&name=…`` picks some."""
    principal = await administrator(request)
    query = _query(request, ("subject", "name"))
    found = await administration.rules(
        request.app[DATABASE], principal.tenant, cast("Subject | None", query.get("subject")), query.get("name")
    )
    return answer([_told(rule) for rule in found])


async def put_rule(request: web.Request) -> web.Response:
    """``PUT /quota/rules``: one rule, in place of the one of the same subject, name, sharing, metric and period."""
    principal = await administrator(request)
    rule = _rule(members(await read_json(request), _REQUIRED, _OPTIONAL))
    await administration.put_rule(request.app[DATABASE], principal.tenant, rule, actor_of(request, principal))
    return answer(_told(rule))


async def delete_rule(request: web.Request) -> web.Response:
    """``DELETE /quota/rules?subject=…&name=…&shared=…&metric=…&period=…``: 204, or 404 if there is none."""
    principal = await administrator(request)
    query = _query(request, _KEY)
    for name in ("subject", "metric", "period"):
        if name not in query:
            raise bad(f"The query lacks {name!r}.")
    shared = query.get("shared", "false")
    if shared not in ("true", "false"):
        raise bad("'shared' must be true or false.")
    found = await administration.delete_rule(
        request.app[DATABASE],
        principal.tenant,
        cast("Subject", query["subject"]),
        query.get("name", ""),
        shared=shared == "true",
        metric=cast("Metric", query["metric"]),
        period=query["period"],
        actor=actor_of(request, principal),
    )
    if not found:
        raise GatewayError(HTTPStatus.NOT_FOUND, "There is no such rule.")
    return web.Response(status=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})


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


def _query(request: web.Request, known: tuple[str, ...]) -> dict[str, str]:
    """Parameters of the query, each at most once; others are passed over."""
    for name in known:
        if len(request.query.getall(name, [])) > 1:
            raise bad(f"The query has {name!r} twice.")
    return {name: request.query[name] for name in known if name in request.query}
