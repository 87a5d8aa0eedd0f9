"""REGARDS' quota: ``/quota``, ``/quotas``, and of the tenant's settings those that are defaults of quota.

REGARDS' maxQuota is downloads in all, its rateLimit is downloads at a time, despite its name; -1 is unlimited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal

from aiohttp import web

from gateway.api.admin import actor_of
from gateway.api.bodies import answer, bad, email, limit_value, members, read_json
from gateway.api.callers import administrator, caller, forbidden, is_administrator
from gateway.api.keys import DATABASE, DOWNLOADS
from gateway.errors import GatewayError
from gateway.identity.principal import ADMIN_ROLES, Principal, anonymous
from gateway.quotas import administration
from gateway.quotas.administration import RegardsLimits
from gateway.quotas.limits import ANONYMOUS, UNLIMITED, Limit, limits_of, own_account
from gateway.quotas.usage import Usage

PUBLIC_EMAIL = "public@regards.com"
"""REGARDS' name for all anonymous callers together."""
MOST_EMAILS = 1000
"""In one request."""

_NAMES = {"max_quota": "maxQuota", "rate_limit": "rateLimit"}
_DESCRIPTIONS = {
    "maxQuota": "Default maximum number of downloads of a user; -1 for unlimited",
    "rateLimit": "Default maximum number of downloads of a user at a time; -1 for unlimited",
}
_RESERVED = "current|currents|defaults|max|rules"
"""Below ``/quota/``: names of resources, not of users."""


async def get_own_limits(request: web.Request) -> web.Response:
    """``GET /quota``: what binds the caller, by whichever rules; anonymous callers share REGARDS' public user."""
    principal = await caller(request, "quota")
    return answer(_told(_email_of(principal), await _own_limits(request, principal)))


async def get_own_usage(request: web.Request) -> web.Response:
    """``GET /quota/current``: the same, and what is used of it."""
    principal = await caller(request, "quota")
    who, limits = _email_of(principal), await _own_limits(request, principal)
    usage = await request.app[DOWNLOADS].quotas.usage(principal.tenant, [_account_of(principal)])
    return answer(_told_with_usage(who, limits, usage[_account_of(principal)]))


async def get_limits(request: web.Request) -> web.Response:
    """``GET /quota/{user_email}``: limits of a user by his own rules and the tenant's defaults."""
    principal = await administrator(request)
    who = email(request.match_info["user_email"])
    return answer(_told(who, (await _limits(request, principal.tenant, [who]))[who]))


async def put_limits(request: web.Request) -> web.Response:
    """``PUT /quota/{user_email}``: limits of a user, as rules of his own."""
    principal = await administrator(request)
    body = members(await read_json(request), ("email", *_NAMES.values()))
    who = email(request.match_info["user_email"])
    if body["email"] != who:
        raise bad("'email' of the body is not the user of the path.")
    limits = _limits_in(body)
    await _put(request, principal, who, limits)
    return answer(_told(who, limits))


async def get_usage(request: web.Request) -> web.Response:
    """``GET /quota/current/{user_email}``."""
    principal = await administrator(request)
    who = email(request.match_info["user_email"])
    limits = await _limits(request, principal.tenant, [who])
    (told,) = await _with_usage(request, principal.tenant, limits)
    return answer(told)


async def post_usages(request: web.Request) -> web.Response:
    """``POST /quota/currents``: usage of the users in a list, in its order."""
    principal = await administrator(request, ADMIN_ROLES)
    asked = await read_json(request)
    if not isinstance(asked, list):
        raise bad("The body must be a JSON array of e-mail addresses.")
    limits = await _limits(request, principal.tenant, _emails(asked))
    return answer(await _with_usage(request, principal.tenant, limits))


async def get_limits_of_several(request: web.Request) -> web.Response:
    """``GET /quotas?user_email=…&user_email=…``: of any users for administrators, of oneself for everybody."""
    principal = await caller(request, "quota")
    asked = _emails(request.query.getall("user_email", []))
    if not asked:
        raise bad("Name users: ?user_email=…&user_email=…")
    if is_administrator(principal, ADMIN_ROLES):
        limits = await _limits(request, principal.tenant, asked)
    elif set(asked) == {_email_of(principal)}:
        limits = {_email_of(principal): await _own_limits(request, principal)}
    else:
        raise forbidden("The limits of others are told to administrators only.")
    return answer([_told(who, of_one) for who, of_one in limits.items()])


async def get_max(request: web.Request) -> web.Response:
    """``GET /quota/max``: the default of maxQuota, a number."""
    principal = await administrator(request, ADMIN_ROLES)
    return answer((await administration.regards_defaults(request.app[DATABASE], principal.tenant)).max_quota)


async def get_defaults(request: web.Request) -> web.Response:
    """``GET /quota/defaults``: limits of users who have none of their own."""
    principal = await administrator(request)
    return answer(_defaults(await administration.regards_defaults(request.app[DATABASE], principal.tenant)))


async def put_defaults(request: web.Request) -> web.Response:
    """``PUT /quota/defaults``."""
    principal = await administrator(request)
    limits = _limits_in(members(await read_json(request), tuple(_NAMES.values())))
    database, actor = request.app[DATABASE], actor_of(request, principal)
    await administration.put_regards_defaults(database, principal.tenant, limits, actor)
    return answer(_defaults(limits))


async def get_settings(request: web.Request) -> web.Response:
    """``GET /settings``, of which ``?names=…`` picks some; of all settings of REGARDS only those of quota are here."""
    principal = await administrator(request, ADMIN_ROLES)
    names = request.query.getall("names", list(_DESCRIPTIONS))
    values = _defaults(await administration.regards_defaults(request.app[DATABASE], principal.tenant))
    return answer([_setting(name, value) for name, value in values.items() if name in names])


async def get_setting(request: web.Request) -> web.Response:
    """``GET /settings/{name}``."""
    principal, name = await administrator(request, ADMIN_ROLES), _setting_name(request)
    values = _defaults(await administration.regards_defaults(request.app[DATABASE], principal.tenant))
    return answer(_setting(name, values[name]))


async def put_setting(request: web.Request) -> web.Response:
    """``PUT /settings/{name}``: its member ``value``; the others of a setting may be there."""
    principal, name = await administrator(request, ADMIN_ROLES), _setting_name(request)
    body = members(await read_json(request), ("value",), ("name", "description", "defaultValue"))
    if body.get("name", name) != name:
        raise bad("'name' of the body is not the setting of the path.")
    value = limit_value(body["value"], "value")
    await _put_default(request, principal, name, value)
    return answer(_setting(name, value))


async def delete_setting(request: web.Request) -> web.Response:
    """``DELETE /settings/{name}``: back to unlimited."""
    principal, name = await administrator(request, ADMIN_ROLES), _setting_name(request)
    await _put_default(request, principal, name, None)
    return answer(_setting(name, UNLIMITED))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    quota, user = f"{prefix}/quota", f"{{user_email:(?!(?:{_RESERVED})$)[^/]+}}"
    settings = f"{prefix}/settings"
    return [
        web.get(quota, get_own_limits),
        web.get(f"{quota}/current", get_own_usage),
        web.post(f"{quota}/currents", post_usages),
        web.get(f"{quota}/max", get_max),
        web.get(f"{quota}/defaults", get_defaults),
        web.put(f"{quota}/defaults", put_defaults),
        web.get(f"{quota}/current/{{user_email}}", get_usage),
        web.get(f"{quota}/{user}", get_limits),
        web.put(f"{quota}/{user}", put_limits),
        web.get(f"{prefix}/quotas", get_limits_of_several),
        web.get(settings, get_settings),
        web.get(f"{settings}/{{name}}", get_setting),
        web.put(f"{settings}/{{name}}", put_setting),
        web.delete(f"{settings}/{{name}}", delete_setting),
    ]


def _email_of(principal: Principal) -> str:
    return principal.email or PUBLIC_EMAIL


def _emails(asked: Sequence[object]) -> list[str]:
    if len(asked) > MOST_EMAILS:
        raise bad(f"{len(asked)} e-mail addresses are too many: at most {MOST_EMAILS}.")
    return [email(one) for one in asked]


def _account_of(principal: Principal) -> str:
    """Where REGARDS' limits of a caller count: anonymous callers share theirs."""
    return ANONYMOUS if principal.is_anonymous else own_account(principal)


async def _own_limits(request: web.Request, principal: Principal) -> RegardsLimits:
    return _of_account(_account_of(principal), await request.app[DOWNLOADS].catalog.limits(principal))


async def _limits(request: web.Request, tenant: str, emails: Iterable[str]) -> dict[str, RegardsLimits]:
    """Limits by e-mail address, each once, as administrators see them: groups and roles of users are not known here."""
    database, asked = request.app[DATABASE], list(dict.fromkeys(emails))
    limits = await administration.regards_limits(database, tenant, [who for who in asked if who != PUBLIC_EMAIL])
    if PUBLIC_EMAIL in asked:
        rules = await administration.rules(database, tenant, "anonymous", "")
        limits[PUBLIC_EMAIL] = _of_account(ANONYMOUS, limits_of(rules, anonymous(tenant)))
    return {who: limits[who] for who in asked}


def _of_account(account: str, limits: Iterable[Limit]) -> RegardsLimits:
    values = {(limit.metric, limit.period): limit.value for limit in limits if limit.account == account}
    return RegardsLimits(values.get(("downloads", "total"), UNLIMITED), values.get(("concurrent", "now"), UNLIMITED))


async def _put(request: web.Request, principal: Principal, who: str, limits: RegardsLimits) -> None:
    database, tenant, actor = request.app[DATABASE], principal.tenant, actor_of(request, principal)
    if who != PUBLIC_EMAIL:
        await administration.put_regards_limits(database, tenant, {who: limits}, actor)
        return
    await administration.put_regards_public(database, tenant, limits, actor)


async def _put_default(request: web.Request, principal: Principal, name: str, value: int | None) -> None:
    limit: Literal["max_quota", "rate_limit"] = "max_quota" if name == "maxQuota" else "rate_limit"
    database, actor = request.app[DATABASE], actor_of(request, principal)
    await administration.put_regards_default(database, principal.tenant, limit, value, actor=actor)


async def _with_usage(
    request: web.Request, tenant: str, limits: Mapping[str, RegardsLimits]
) -> list[dict[str, object]]:
    accounts = {who: ANONYMOUS if who == PUBLIC_EMAIL else f"user:{who}" for who in limits}
    usage = await request.app[DOWNLOADS].quotas.usage(tenant, list(accounts.values()))
    return [_told_with_usage(who, of_one, usage[accounts[who]]) for who, of_one in limits.items()]


def _told(who: str, limits: RegardsLimits) -> dict[str, object]:
    return {"email": who, **_defaults(limits)}


def _told_with_usage(who: str, limits: RegardsLimits, usage: Usage) -> dict[str, object]:
    return {**_told(who, limits), "currentQuota": usage.downloads, "currentRate": usage.running}


def _defaults(limits: RegardsLimits) -> dict[str, int]:
    return {name: getattr(limits, field) for field, name in _NAMES.items()}


def _limits_in(body: Mapping[str, object]) -> RegardsLimits:
    return RegardsLimits(**{field: limit_value(body[name], name) for field, name in _NAMES.items()})


def _setting(name: str, value: int) -> dict[str, object]:
    """As REGARDS has a setting: a resource with links, of which there are none here."""
    content = {"name": name, "description": _DESCRIPTIONS[name], "value": value, "defaultValue": UNLIMITED}
    return {"content": content, "links": []}


def _setting_name(request: web.Request) -> str:
    name = request.match_info["name"]
    if name not in _DESCRIPTIONS:
        raise GatewayError(HTTPStatus.NOT_FOUND, f"There is no setting {name!r}.")
    return name
