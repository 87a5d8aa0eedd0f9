"""Browsers that log in at an identity provider, and what their cookies are good for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.config import Config
from gateway.errors import ConfigurationError
from gateway.identity.login import is_own_path
from gateway.identity.sealing import Seal
from tests.harness import SCIENCE, SCIENTIST, RunningGateway, config_for, running_gateway
from tests.identity.browser import ORIGIN, SECRET, Browser, settings
from tests.identity.login_provider import CLIENT_ID, LoginProvider, login_provider
from tests.quotas.holders import until
from tests.s3.strict.certificate import server_context

USER = {"sub": "ada", "email": "ada@example.org", "groups": [SCIENCE]}


@pytest.fixture
async def idp() -> AsyncIterator[LoginProvider]:
    async with login_provider() as it:
        it.says = USER
        yield it


@pytest.fixture
def config(database: str, redis_url: str, tmp_path: Path, idp: LoginProvider) -> Config:
    return config_for(database, redis_url, tmp_path, api={"public_url": ORIGIN}, identity=settings(idp))


@pytest.fixture
async def gateway(config: Config, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


async def is_over(browser: Browser) -> bool:
    return (await browser.ask("/me"))[0].status == 401


async def test_a_user_logs_in_downloads_and_logs_out(gateway: RunningGateway, idp: LoginProvider) -> None:
    entry = await gateway.catalogue.file(b"content")
    browser = Browser(gateway)
    response, _ = await browser.log_in(idp, entry.stac)
    assert (response.status, response.headers["Location"]) == (303, entry.stac)
    assert response.headers["Cache-Control"] == "no-store"
    assert list(browser.cookies) == ["__Host-session"]
    morsel = browser.last["__Host-session"]
    assert (morsel["secure"], morsel["httponly"], morsel["path"], morsel["samesite"]) == (True, True, "/", "Lax")
    assert (morsel["domain"], morsel["max-age"]) == ("", "28800")
    response, body = await browser.ask(entry.stac)
    assert (response.status, body) == (200, b"content")
    response, body = await browser.ask("/me")
    assert json.loads(body) == {
        "tenant": "esa",
        "subject": "ada",
        "email": "ada@example.org",
        "role": "REGISTERED_USER",
        "groups": [SCIENCE],
        "credential": "session",
        "scopes": None,
        "expires": None,
    }
    stolen = dict(browser.cookies)
    response, _ = await browser.ask("/logout", "POST", Origin=ORIGIN)
    assert (response.status, browser.cookies) == (204, {})
    browser.cookies = stolen
    assert (await browser.ask("/me"))[0].status == 401
    log = "".join(gateway.access_log)
    assert all(secret not in log for secret in (*stolen.values(), "code=", "state="))


async def test_what_is_kept_of_a_session_does_not_open_it(gateway: RunningGateway, idp: LoginProvider) -> None:
    browser = Browser(gateway)
    await browser.log_in(idp)
    (row,) = await gateway.catalogue.connection.fetch("SELECT hash, email, address FROM sessions")
    assert (row["email"], row["address"]) == ("ada@example.org", "127.0.0.1")
    assert browser.cookies["__Host-session"] not in row["hash"]
    for value in (row["hash"], "", "x" * 43, "é" * 10):
        browser.cookies = {"__Host-session": value}
        assert (await browser.ask("/me"))[0].status == 401


async def test_a_session_that_is_ended_on_one_instance_has_ended_on_another_at_once(
    gateway: RunningGateway, config: Config, tmp_path: Path, idp: LoginProvider
) -> None:
    async with running_gateway(config, tmp_path) as other:
        here, there = Browser(gateway), Browser(other)
        await here.log_in(idp)
        there.cookies = dict(here.cookies)
        assert (await there.ask("/me"))[0].status == 200
        await here.ask("/logout", "POST", Origin=ORIGIN)
        await until(lambda: is_over(there), "the session has ended there, too")


async def test_a_session_ends_in_time(gateway: RunningGateway, idp: LoginProvider) -> None:
    browser = Browser(gateway)
    await browser.log_in(idp)
    await gateway.catalogue.connection.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
    await until(lambda: is_over(browser), "the session has ended")


@pytest.mark.parametrize(
    ("origin", "status"),
    [(ORIGIN, 204), (None, 403), ("null", 403), ("https://evil.example", 403), (f"{ORIGIN}.evil.example", 403)],
)
async def test_what_changes_something_must_come_from_a_page_of_this_site(
    gateway: RunningGateway, idp: LoginProvider, origin: str | None, status: int
) -> None:
    browser = Browser(gateway)
    await browser.log_in(idp)
    fields = {} if origin is None else {"Origin": origin}
    assert (await browser.ask("/logout", "POST", **fields))[0].status == status
    assert (await browser.ask("/me"))[0].status == (401 if status == 204 else 200)


async def test_a_credential_that_is_shown_goes_before_a_cookie(gateway: RunningGateway, idp: LoginProvider) -> None:
    browser = Browser(gateway)
    await browser.log_in(idp)
    response, _ = await browser.ask("/me", Authorization="Bearer no.such.token")
    assert response.status == 401


async def test_a_licence_is_not_accepted_by_a_link_that_a_browser_follows(
    gateway: RunningGateway, idp: LoginProvider
) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.catalogue.licence("restricted")
    browser = Browser(gateway)
    await browser.log_in(idp)
    assert (await browser.ask(f"{entry.stac}?acceptLicense=true"))[0].status == 423
    assert await gateway.catalogue.connection.fetchval("SELECT count(*) FROM licence_acceptances") == 0


OTHER_SITES = [
    "//evil.example", "/\\evil.example", "https://evil.example", "https:evil", "evil", "", "/%0d%0a"[:1] + "\r\nX: y",
    "/a\tb", "/\u2215evil", "javascript:alert(1)", "/" + "x" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("then", OTHER_SITES)
async def test_nobody_is_sent_to_another_site(gateway: RunningGateway, then: str) -> None:
    url = URL(f"{gateway.url}/login").with_query(next=then)
    async with gateway.session.get(url, allow_redirects=False) as response:
        assert response.status == 400
        assert "Location" not in response.headers


@given(st.text(min_size=1, max_size=30))
def test_an_own_path_never_leaves_the_site(text: str) -> None:
    if is_own_path(text):
        found = urlsplit(f"{ORIGIN}{text}")
        assert (found.scheme, found.netloc) == ("https", "data.example.org")
        assert text[0] == "/" != text[1:2]
        assert "\\" not in text


async def test_the_way_back_is_for_the_browser_that_began(gateway: RunningGateway, idp: LoginProvider) -> None:
    ours, theirs = Browser(gateway), Browser(gateway)
    begun, _ = await ours.ask("/login")
    back = urlsplit(idp.log_in(begun.headers["Location"]))
    # Somebody else's browser, one without a cookie, and one that began another log-in.
    for browser in (theirs, Browser(gateway)):
        assert (await browser.ask(f"{back.path}?{back.query}"))[0].status == 400
        await browser.ask("/login")
        assert (await browser.ask(f"{back.path}?{back.query}"))[0].status == 400
    assert (await ours.ask(f"{back.path}?{back.query}&state=other"))[0].status in (303, 400)


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ({"nonce": "another"}, 401),
        ({"nonce": ...}, 401),
        ({"aud": "downloads"}, 401),
        ({"azp": "another client"}, 401),
        ({"exp": 1}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"email": ...}, 401),
        ({"role": "PUBLIC", "email": "public@regards.com"}, 401),
        ({"tenant": "nobody"}, 403),
        ({"azp": CLIENT_ID}, 303),
        ({"aud": [CLIENT_ID, "another"]}, 303),
    ],
)
async def test_what_an_id_token_must_say(
    gateway: RunningGateway, idp: LoginProvider, says: dict[str, Any], status: int
) -> None:
    await gateway.catalogue.tenant()
    idp.says = {**USER, **says}
    response, _ = await Browser(gateway).log_in(idp)
    assert response.status == status
    assert ("__Host-session" in response.cookies) == (status == 303)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (web.Response(status=500), 502),
        (web.Response(text="no json"), 502),
        (web.Response(text="[1]"), 502),
        (web.Response(text='{"id_token": 1}'), 502),
        (web.Response(text="{" * 100_000), 502),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), 502),
        (web.json_response({"error": "invalid_grant"}, status=400), 403),
        (web.json_response({"error": "invalid_client"}, status=401), 502),
        (web.json_response({"error": "unauthorized_client"}, status=400), 502),
        (web.json_response({"error": ["invalid_client"]}, status=400), 403),
        (web.json_response({"id_token": "a.b.c"}), 401),
    ],
)
async def test_an_identity_provider_that_answers_something_else(
    gateway: RunningGateway, idp: LoginProvider, answer: web.Response, status: int
) -> None:
    idp.answer = answer
    response, _ = await Browser(gateway).log_in(idp)
    assert response.status == status
    assert "__Host-session" not in response.cookies


async def test_a_code_is_good_once_and_a_refusal_is_one(gateway: RunningGateway, idp: LoginProvider) -> None:
    await gateway.catalogue.tenant()
    browser = Browser(gateway)
    begun, _ = await browser.ask("/login")
    kept = dict(browser.cookies)
    back = urlsplit(idp.log_in(begun.headers["Location"]))
    assert (await browser.ask(f"{back.path}?{back.query}"))[0].status == 303
    browser.cookies = kept
    assert (await browser.ask(f"{back.path}?{back.query}"))[0].status == 403
    begun, _ = await browser.ask("/login")
    state = urlsplit(idp.log_in(begun.headers["Location"])).query.partition("state=")[2]
    response, body = await browser.ask(f"/login/callback?error=access_denied&state={state}")
    assert (response.status, b"access_denied" in body) == (403, False)


async def test_an_identity_provider_that_is_gone_is_503(config: Config, tmp_path: Path) -> None:
    async with running_gateway(config, tmp_path) as gateway:
        login = config.identity.login
        assert login is not None
        async with login_provider():
            pass
        # The port that the settings name answers no more.
        gone = config.model_copy(
            update={
                "identity": config.identity.model_copy(
                    update={
                        "issuers": [
                            config.identity.issuers[0].model_copy(update={"issuer": "http://127.0.0.1:9/realm"})
                        ],
                        "login": login.model_copy(update={"issuer": "http://127.0.0.1:9/realm"}),
                    }
                )
            }
        )
        async with running_gateway(gone, tmp_path) as cut_off:
            response, _ = await cut_off.get("/login")
            assert (response.status, "Retry-After" in response.headers) == (503, True)
        assert (await gateway.get("/login"))[0].status == 303


async def test_a_flood_of_log_ins_is_no_flood_at_the_identity_provider(
    gateway: RunningGateway, idp: LoginProvider
) -> None:
    await until(_asked_for_keys(idp), "the keys are fetched at the start")
    before = idp.discoveries
    answers = await asyncio.gather(*(gateway.get("/login") for _ in range(50)))
    assert {response.status for response, _ in answers} == {303}
    assert (await Browser(gateway).log_in(idp))[0].status in (303, 403)
    assert idp.discoveries == before + 1


def _asked_for_keys(idp: LoginProvider) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return idp.key_fetches > 0

    return asked


async def test_a_session_that_has_ended_can_be_logged_out_of(gateway: RunningGateway, idp: LoginProvider) -> None:
    browser = Browser(gateway)
    browser.cookies = {"__Host-session": "ended long ago"}
    assert (await browser.ask("/logout", "POST"))[0].status == 403
    assert (await browser.ask("/logout", "POST", Origin=ORIGIN))[0].status == 204
    assert browser.cookies == {}


async def test_who_logs_in_again_leaves_no_session_behind(gateway: RunningGateway, idp: LoginProvider) -> None:
    browser = Browser(gateway)
    await browser.log_in(idp)
    first = dict(browser.cookies)
    await browser.log_in(idp)
    assert (await browser.ask("/me"))[0].status == 200
    browser.cookies = first
    assert await is_over(browser)


async def test_sessions_that_ended_by_themselves_are_cleared_away(gateway: RunningGateway, idp: LoginProvider) -> None:
    connection = gateway.catalogue.connection
    for _ in range(3):
        await Browser(gateway).log_in(idp)
    await connection.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
    await Browser(gateway).log_in(idp)
    assert await connection.fetchval("SELECT count(*) FROM sessions") == 1


async def test_users_log_in_where_a_private_authority_vouches_for_the_identity_provider(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    context, authority = server_context(tmp_path)
    async with login_provider(context) as idp:
        idp.says = USER
        for ca_file, status in ((str(authority), 303), (None, 503)):
            identity = settings(idp)
            identity["issuers"][0] |= {"ca_file": ca_file, "insecure_http": False}
            config = config_for(database, redis_url, tmp_path, api={"public_url": ORIGIN}, identity=identity)
            async with running_gateway(config, tmp_path) as gateway:
                await gateway.catalogue.tenant()
                assert (await gateway.get("/login"))[0].status == status
                if status == 303:
                    response, _ = await Browser(gateway).log_in(idp)
                    assert "__Host-session" in response.cookies


async def test_without_the_setting_nobody_logs_in(database: str, redis_url: str, tmp_path: Path) -> None:
    async with running_gateway(config_for(database, redis_url, tmp_path), tmp_path) as gateway:
        for path in ("/login", "/login/callback?code=x&state=y"):
            assert (await gateway.get(path))[0].status == 404
        _, body = await gateway.get("/me", SCIENTIST)
        assert json.loads(body)["credential"] == "token"
        assert (await gateway.get("/me"))[0].status == 401


def test_settings_that_cannot_work_are_refused(idp: LoginProvider, tmp_path: Path) -> None:
    def load(api: dict[str, str], **login: object) -> None:
        config_for("postgresql://x/y", "redis://x", tmp_path, api=api, identity=settings(idp, **login))

    load({"public_url": ORIGIN})
    named = settings(idp)
    named["issuers"][0] |= {"issuer": "a name", "jwks_url": f"{idp.url}/keys"}
    named["login"]["issuer"] = "a name"
    with pytest.raises(ConfigurationError, match=r"'issuer' of 'login' must be a URL"):
        config_for("postgresql://x/y", "redis://x", tmp_path, api={"public_url": ORIGIN}, identity=named)
    with pytest.raises(ConfigurationError, match=r"'public_url' of \[api\] must be set"):
        load({})
    for wrong, message in (
        ({"secret": "x" * 31}, "has 31 bytes, needs at least 32"),
        ({"issuer": "https://another.example"}, "is none of"),
        ({"scopes": ["email"]}, "must hold 'openid'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load({"public_url": ORIGIN}, **wrong)


class TestSeal:
    def test_it_opens_what_it_closed_until_it_is_too_old(self) -> None:
        now = [1000.0]
        seal = Seal(SECRET.encode(), "login", lambda: now[0])
        text = seal.close({"a": "é", "b": [1]}, 10)
        assert seal.open(text) == {"a": "é", "b": [1]}
        now[0] = 1009.9
        assert seal.open(text) is not None
        now[0] = 1010
        assert seal.open(text) is None

    def test_what_was_changed_or_sealed_for_something_else_does_not_open(self) -> None:
        seal = Seal(SECRET.encode(), "login", time.time)
        text = seal.close({"a": 1}, 10)
        for at in range(len(text) - 1):
            changed = "A" if text[at] != "A" else "B"
            assert seal.open(text[:at] + changed + text[at + 1 :]) is None
        for other in (Seal(SECRET.encode(), "logout", time.time), Seal(b"y" * 32, "login", time.time)):
            assert other.open(text) is None
        assert seal.open(text[:-4]) is None
        assert seal.close({"a": 1}, 10) != text

    @given(st.text(max_size=200))
    def test_whatever_is_shown_it_says_no(self, text: str) -> None:
        assert Seal(SECRET.encode(), "login", time.time).open(text) is None
