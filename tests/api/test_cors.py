"""Pages of other sites, over real sockets: what browsers are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from gateway.app import create_app
from gateway.config import Api
from gateway.errors import ConfigurationError
from tests.harness import SCIENCE, SCIENTIST, RunningGateway, bearer, config_for, running_gateway
from tests.identity.browser import ORIGIN, Browser, settings
from tests.identity.login_provider import LoginProvider, login_provider
from tests.identity.test_sessions import USER

PORTAL, EVIL = "https://portal.example.org", "https://evil.example"
ASKS = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization,range"}
CORS = "Access-Control-"


@pytest.fixture
async def idp() -> AsyncIterator[LoginProvider]:
    async with login_provider() as it:
        it.says = USER
        yield it


@pytest.fixture
async def listed(database: str, redis_url: str, tmp_path: Path, idp: LoginProvider) -> AsyncIterator[RunningGateway]:
    """One whose answers the pages of the portal may read, and where browsers log in."""
    api = {"public_url": ORIGIN, "cors_origins": [PORTAL]}
    config = config_for(database, redis_url, tmp_path, api=api, identity=_both_ways(idp))
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


def _both_ways(idp: LoginProvider) -> dict[str, Any]:
    return {**settings(idp), "jwt": config_for("postgresql://u@h/d", "redis://h", Path("/nowhere")).identity.jwt}


async def ask(
    gateway: RunningGateway, method: str, path: str, fields: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    async with gateway.session.request(
        method, f"{gateway.url}{path}", headers=fields, allow_redirects=False
    ) as response:
        return response.status, dict(response.headers), await response.read()


def told(fields: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(CORS): value for name, value in fields.items() if name.startswith(CORS)}


async def test_a_listed_page_may_read_answers_and_errors(listed: RunningGateway) -> None:
    entry = await listed.catalogue.file(b"content")
    page = {"Origin": PORTAL}
    for path, shown, status in (
        (entry.stac, bearer(SCIENTIST), HTTPStatus.OK),
        (entry.stac, {**bearer(SCIENTIST), "If-None-Match": f'"{entry.checksum}"'}, HTTPStatus.NOT_MODIFIED),
        (entry.stac, {}, HTTPStatus.UNAUTHORIZED),
        (f"{entry.stac}/none", {}, HTTPStatus.NOT_FOUND),
        ("/health", {}, HTTPStatus.OK),
        ("/login?next=/me", {}, HTTPStatus.SEE_OTHER),
    ):
        found, fields, _ = await ask(listed, "GET", path, {**page, **shown})
        cors = told(fields)
        assert (found, cors["Allow-Origin"], cors["Allow-Credentials"]) == (status, PORTAL, "true")
        exposed = cors["Expose-Headers"].split(", ")
        assert {
            "Content-Disposition", "Content-Range", "Content-Length", "ETag", "Digest", "Repr-Digest", "Retry-After",
            "RateLimit", "RateLimit-Policy", "Link", "Location", "X-Request-ID", "Accept-Ranges",
        } <= set(exposed)  # fmt: skip
        assert "Origin" in fields["Vary"].split(", ")


async def test_nobody_else_is_named(listed: RunningGateway) -> None:
    entry = await listed.catalogue.file(b"content")
    for origin in (EVIL, "null", f"{PORTAL}.evil.example", f"{PORTAL}:8443", PORTAL.upper(), ORIGIN):
        for method, more in (("GET", bearer(SCIENTIST)), ("OPTIONS", ASKS)):
            _, fields, _ = await ask(listed, method, entry.stac, {"Origin": origin, **more})
            assert told(fields) == {}
            assert "Origin" in fields["Vary"].split(", ")
    _, fields, _ = await ask(listed, "GET", entry.stac, bearer(SCIENTIST))
    assert (told(fields), fields["Vary"]) == ({}, "Authorization, Origin")


async def test_a_preflight_is_answered_for_every_path_and_asks_nobody(listed: RunningGateway) -> None:
    await listed.catalogue.connection.execute("ALTER TABLE products RENAME TO away")
    for path in ("/collections/c/items/i/download/a", "/downloads/u/files/c", "/me/keys", "/nowhere"):
        status, fields, body = await ask(listed, "OPTIONS", path, {"Origin": PORTAL, **ASKS})
        assert (status, body, "X-Request-ID" in fields) == (204, b"", True)
        cors = told(fields)
        assert (cors["Allow-Origin"], cors["Allow-Credentials"], cors["Max-Age"]) == (PORTAL, "true", "7200")
        assert "DELETE" in cors["Allow-Methods"]
        assert {"Authorization", "Range", "X-API-Key", "If-Range"} <= set(cors["Allow-Headers"].split(", "))
    status, _, _ = await ask(listed, "OPTIONS", "/health", {"Origin": PORTAL})
    assert status == 405, "no preflight"


async def test_a_session_writes_from_our_own_pages_alone_whoever_is_listed(
    listed: RunningGateway, idp: LoginProvider
) -> None:
    browser = Browser(listed)
    await browser.log_in(idp)
    response, _ = await browser.ask("/me", Origin=PORTAL)
    assert (response.status, response.headers[f"{CORS}Allow-Credentials"]) == (200, "true")
    for origin, status in ((PORTAL, 403), (EVIL, 403), ("null", 403), (ORIGIN, 204)):
        response, _ = await browser.ask("/logout", "POST", Origin=origin)
        assert response.status == status, origin


async def test_everybody_may_read_without_cookies_where_all_are_allowed(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    config = config_for(database, redis_url, tmp_path, api={"cors_origins": "*"})
    async with running_gateway(config, tmp_path) as gateway:
        for fields in ({}, {"Origin": EVIL}, {"Origin": "null"}):
            _, answered, _ = await ask(gateway, "GET", "/health", fields)
            assert (answered[f"{CORS}Allow-Origin"], "Vary" in answered) == ("*", False)
            assert f"{CORS}Allow-Credentials" not in answered
        status, answered, _ = await ask(gateway, "OPTIONS", "/me", {"Origin": EVIL, **ASKS})
        assert (status, answered[f"{CORS}Allow-Origin"]) == (204, "*")


async def test_without_the_setting_nothing_is_said(gateway: RunningGateway) -> None:
    _, fields, _ = await ask(gateway, "GET", "/health", {"Origin": PORTAL})
    assert (told(fields), "Vary" in fields) == ({}, False)
    status, fields, body = await ask(gateway, "OPTIONS", "/me", {"Origin": PORTAL, **ASKS})
    assert (status, told(fields), json.loads(body)["code"]) == (405, {}, "MethodNotAllowed")


@pytest.mark.parametrize(
    "origin",
    ["null", "portal.example.org", f"{PORTAL}/", f"{PORTAL}/path", PORTAL.upper(), f"{PORTAL}:443", "http://h:80",
     "https://u@h", "ftp://h", "https://*.example.org", "https://h:99999", "", "https://h?x"],
)  # fmt: skip
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"api\.cors_origins\.0: must be '\*' or an origin as browsers name"):
        config_for("postgresql://u@h/d", "redis://h", Path("/nowhere"), api={"cors_origins": [origin]})


def test_origins_as_browsers_name_them() -> None:
    good = [PORTAL, "http://localhost:3000", "https://[2001:db8::1]:8443", "http://192.0.2.1", "*"]
    assert Api(cors_origins=good).cors_origins == good
    config = config_for("postgresql://u@h/d", "redis://h", Path("/nowhere"), api={"cors_origins": "*"})
    assert config.api.cors_origins == ["*"]
    assert create_app(config) is not None
