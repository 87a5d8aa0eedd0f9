"""``gateway explain``."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.shared import CONFIG, plain_errors
from gateway.config import Config, load
from gateway.text import one_line

if TYPE_CHECKING:
    from gateway.identity.principal import Principal

_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


@click.command()
@click.argument("url")
@CONFIG
@click.option("--token", envvar="GATEWAY_TOKEN", help="Bearer token of the caller. [env: GATEWAY_TOKEN]")
@click.option("--email", help="The caller instead, with --tenant.")
@click.option("--tenant", help="Tenant of the caller.")
@click.option(
    "--group", "groups", multiple=True, help="Access group in the caller's token; may be given several times."
)
@click.option("--role", default="REGISTERED_USER", show_default=True, help="Role of the caller.")
@click.option("--user-agent", help="What the client calls itself.")
@click.option("--header", "fields", multiple=True, metavar="'NAME: VALUE'", help="Field of the request, like Range.")
@click.option("--method", default="GET", show_default=True, type=click.Choice(["GET", "HEAD"]))
@click.option("--by-proxy", is_flag=True, help="As if it came by one of trusted_proxies.")
def explain(
    *,
    url: str,
    config_file: Path | None,
    token: str | None,
    email: str | None,
    tenant: str | None,
    groups: tuple[str, ...],
    role: str,
    user_agent: str | None,
    fields: tuple[str, ...],
    method: str,
    by_proxy: bool,
) -> None:
    """Say, step by step, how the gateway answers a request for URL, and why.

    URL is absolute, or path and query. The caller is that of --token, or the one described by --email and --tenant;
    without both the request is anonymous (?scope=TENANT). No quota is spent, and nothing is sent or changed.
    """
    if (email is None) != (tenant is None):
        raise click.UsageError("--email and --tenant go together")
    if token is not None and email is not None:
        raise click.UsageError("--token says who the caller is: --email does not go with it")
    from gateway.identity.principal import Principal  # noqa: PLC0415 - each command loads only what it needs

    principal = None
    if email is not None and tenant is not None:
        principal = Principal(tenant, email, email, role, groups)
    # Nobody reads the value for --email, but that there is a token tells how bytes may leave.
    authorization = f"Bearer {token}" if token is not None else "Bearer" if email is not None else None
    shown = {"User-Agent": user_agent, "Authorization": authorization}
    headers = [_field(text) for text in fields] + [(name, value) for name, value in shown.items() if value is not None]
    with plain_errors():
        asyncio.run(_explain(load(config_file), url, method, headers, principal, by_proxy=by_proxy))


def _field(text: str) -> tuple[str, str]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise click.BadParameter("must be like 'Range: bytes=0-9'", param_hint="--header")
    return found[1], found[2].strip()


async def _explain(
    config: Config,
    url: str,
    method: str,
    headers: list[tuple[str, str]],
    principal: Principal | None,
    *,
    by_proxy: bool,
) -> None:
    from multidict import CIMultiDict, CIMultiDictProxy  # noqa: PLC0415 - as above
    from yarl import URL  # noqa: PLC0415

    from gateway.app import create_app, neighbours  # noqa: PLC0415
    from gateway.explanation import Question, explain  # noqa: PLC0415
    from gateway.identity.opening import identities  # noqa: PLC0415

    try:
        target = URL(url)
    except ValueError as error:
        raise click.BadParameter(f"is no URL: {error}", param_hint="URL") from error
    if not target.path.startswith("/"):
        raise click.BadParameter("must be absolute, or begin with a slash", param_hint="URL")
    one = {"pool_size": 1}
    config = config.model_copy(
        update={
            "database": config.database.model_copy(update=one),
            "redis": config.redis.model_copy(update=one),
        }
    )
    fields = CIMultiDictProxy(CIMultiDict(headers))
    question = Question(method, target, fields, principal, by_proxy)
    async with neighbours(config, identities(config)) as found:
        async for step in explain(create_app(config), found.downloads, question):
            click.echo(f"{step.name:<9} {one_line(step.text)}")
