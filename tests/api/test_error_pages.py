"""Errors as people see them in a browser; programs keep JSON."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.ops.error_page import FIELDS, page
from tests.credentials import LINK_SECRET
from tests.harness import OUTSIDER, SCIENCE, SCIENTIST, RunningGateway, bearer, config_for, running_gateway
from tests.identity.browser import ORIGIN, Browser, settings
from tests.identity.login_provider import LoginProvider, login_provider
from tests.identity.test_sessions import USER
from tests.proxy import counting_proxy
from tests.stac.doors import Doors, fresh

NAVIGATES = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, body: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.styles: list[str] = []
        self._inside = ""
        self.feed(body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.styles.append(data)
        else:
            self.text += data
        self._inside = ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def links(self) -> list[str | None]:
        return [one["href"] for one in self.of("a")]


def see_that_it_is_contained(fields: dict[str, str], body: bytes) -> Page:
    """Nothing is run or fetched, by the page itself and by its policy."""
    shown = Page(body)
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    policy = {directive.split()[0]: directive.split()[1:] for directive in fields["Content-Security-Policy"].split(";")}
    (style,) = shown.styles
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (policy["default-src"], policy["style-src"]) == (["'none'"], [f"'sha256-{digest}'"])
    assert "script-src" not in policy
    assert {tag for tag, _ in shown.tags} & {"script", "img", "link", "iframe", "object", "base", "svg"} == set()
    assert [name for _, attributes in shown.tags for name in attributes if name.startswith("on")] == []
    assert fields["X-Content-Type-Options"] == "nosniff"
    return shown


async def see(gateway: RunningGateway, path: str, fields: dict[str, str] | None = None) -> tuple[int, Page]:
    """A page and its status; a program gets the same status and fields, as JSON."""
    answers = []
    for accept in (NAVIGATES, {"Accept": "*/*"}):
        async with gateway.session.get(
            f"{gateway.url}{path}", headers={**(fields or {}), **accept}, allow_redirects=False
        ) as response:
            answers.append((response.status, dict(response.headers), await response.read()))
    (status, shown, body), (same, of_program, told) = answers
    assert same == status
    assert "json" in of_program["Content-Type"]
    assert json.loads(told)
    for name in set(of_program) - {"Date", "X-Request-ID", "Content-Length", "Content-Type"}:
        assert shown[name] == of_program[name], name
    found = see_that_it_is_contained(shown, body)
    assert shown["X-Request-ID"] in found.text
    return status, found


@pytest.fixture
async def idp() -> AsyncIterator[LoginProvider]:
    async with login_provider() as it:
        it.says = USER
        yield it


@pytest.fixture
async def site(database: str, redis_url: str, tmp_path: Path, idp: LoginProvider) -> AsyncIterator[RunningGateway]:
    """One where browsers log in."""
    identity = {**settings(idp), "links": {"secret": LINK_SECRET}}
    config = config_for(database, redis_url, tmp_path, api={"public_url": ORIGIN}, identity=identity)
    async with running_gateway(config, tmp_path) as running:
        await running.catalogue.grant("restricted", await running.catalogue.group(SCIENCE))
        yield running


def login_leads_to(shown: Page) -> str:
    (link,) = (link for link in shown.links if "/login" in str(link))
    parts = urlsplit(str(link))
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{ORIGIN}/login"
    return parse_qs(parts.query)["next"][0]


async def test_who_is_unknown_is_led_to_the_log_in_and_back(site: RunningGateway, idp: LoginProvider) -> None:
    entry = await site.catalogue.file(b"content", item="a b%c")
    status, shown = await see(site, f"{entry.stac}?isContentInline=true")
    assert (status, shown.of("title")) == (401, [{}])
    assert "401 Unauthorized" in shown.text
    then = login_leads_to(shown)
    assert then == f"{entry.stac}?isContentInline=true"
    response, _ = await Browser(site).log_in(idp, quote(then, safe=""))
    assert (response.status, response.headers["Location"]) == (303, then)
    status, shown = await see(site, f"{entry.stac}?scope=esa")
    assert (status, login_leads_to(shown)) == (403, f"{entry.stac}?scope=esa")


async def test_a_link_that_has_ended_is_not_kept_on_the_way(site: RunningGateway) -> None:
    entry = await site.catalogue.file(b"content")
    status, shown = await see(site, f"{entry.stac}?link=secret-token&isContentInline=true")
    assert (status, login_leads_to(shown)) == (401, f"{entry.stac}?isContentInline=true")
    assert "secret-token" not in shown.text
    assert "secret-token" not in str(shown.tags)
    status, shown = await see(site, "/login/callback?code=c&state=s")
    assert (status, "/login/callback" in str(shown.links)) == (400, False)


async def test_without_log_in_there_is_no_link_and_never_a_redirect(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    status, shown = await see(gateway, entry.stac)
    assert (status, shown.links) == (401, [])
    status, shown = await see(gateway, entry.stac, bearer(OUTSIDER))
    assert (status, shown.links, "You have no right" in shown.text) == (403, [], True)
    assert (await see(gateway, "/nowhere"))[0] == 404
    assert (await see(gateway, "/downloads/x/files/y?scope=esa"))[0] == 404


async def test_a_licence_is_accepted_by_a_link_where_a_token_is_shown(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.catalogue.licence("restricted", "https://example.org/licence?a=1&b=2")
    status, shown = await see(gateway, entry.stac, bearer(SCIENTIST))
    accept = f"{gateway.url}{entry.stac}?acceptLicense=true"
    assert (status, shown.links) == (423, ["https://example.org/licence?a=1&b=2", accept])


async def test_a_licence_of_no_web_address_is_no_link(gateway: RunningGateway) -> None:
    entry = await gateway.catalogue.file(b"content")
    await gateway.catalogue.licence("restricted", "javascript:alert(1)")
    status, shown = await see(gateway, entry.stac, bearer(SCIENTIST))
    assert (status, len(shown.links), "javascript:alert(1)" in shown.text) == (423, 1, True)


async def test_a_session_accepts_by_a_form_and_goes_on_to_the_file(site: RunningGateway, idp: LoginProvider) -> None:
    entry = await site.catalogue.file(b"content")
    await site.catalogue.licence("restricted")
    browser = Browser(site)
    await browser.log_in(idp)
    response, body = await browser.ask(entry.stac, **NAVIGATES)
    shown = see_that_it_is_contained(dict(response.headers), body)
    (form,), (field,) = shown.of("form"), shown.of("input")
    assert response.status == 423
    assert (form["method"], form["action"]) == ("post", f"{ORIGIN}/collections/restricted/license")
    # With less of a referrer browsers would call the origin of a form "null".
    assert response.headers["Referrer-Policy"] == "same-origin"
    sent = urlencode({str(field["name"]): str(field["value"])})

    async def submit(origin: str, data: str) -> tuple[int, str | None]:
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        async with site.session.post(
            f"{site.url}/collections/restricted/license",
            data=data,
            headers={"Cookie": cookie, "Origin": origin, "Content-Type": "application/x-www-form-urlencoded"},
            allow_redirects=False,
        ) as answer:
            return answer.status, answer.headers.get("Location")

    for origin in ("https://evil.example", "null"):
        assert await submit(origin, sent) == (403, None)
    for evil in ("next=https://evil.example", "next=//evil.example", "next=/%0d%0aX", "next=/%FF"):
        assert (await submit(ORIGIN, evil))[0] == 400
    assert (await browser.ask(entry.stac))[0].status == 423
    assert await submit(ORIGIN, sent) == (303, f"{ORIGIN}{entry.stac}")
    response, body = await browser.ask(entry.stac, **NAVIGATES)
    assert (response.status, body) == (200, b"content")


async def test_a_password_that_a_browser_knows_accepts_nothing_from_another_site(gateway: RunningGateway) -> None:
    fields = {"Authorization": "Basic eDp4", "Sec-Fetch-Site": "cross-site"}
    async with gateway.session.post(f"{gateway.url}/collections/restricted/license", headers=fields) as response:
        assert response.status == 403


async def test_when_to_come_back_is_said(doors: Doors) -> None:
    async with counting_proxy(doors.database) as (proxy, dsn), fresh(doors, dsn) as gateway:
        entry = await gateway.catalogue.file(b"content")
        proxy.shut = True
        proxy.cut()
        status, shown = await see(gateway, entry.stac, bearer(SCIENTIST))
        proxy.shut = False
    assert (status, "Try again in 5 seconds." in shown.text) == (503, True)


async def test_what_a_path_holds_is_text(gateway: RunningGateway) -> None:
    evil = "<script>alert(1)</script><a href=x onclick=y>\"'"
    status, shown = await see(
        gateway, f"/collections/{quote(evil, safe='')}/items/i/download/a?scope=esa&x={quote(evil)}"
    )
    assert (status, evil in shown.text.replace("\\", "")) == (404, True)


@given(
    st.text(), st.text(), st.text(), st.text(),
    st.one_of(st.none(), st.integers(0, 10**6).map(str), st.just("Wed, 21 Oct 2026 07:28:00 GMT")),
)  # fmt: skip
def test_whatever_an_error_says_the_page_holds_nothing_else(
    detail: str, href: str, path: str, request_id: str, retry_after: str | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    links = [{"rel": "license", "href": href}, {"rel": "accept", "href": f"https://h/{href}", "method": "PUT"}]
    error = GatewayError(HTTPStatus.LOCKED, detail, headers=headers, links=links)
    shown = see_that_it_is_contained(
        {**FIELDS, "Content-Type": "text/html; charset=utf-8"},
        page(error, request_id=request_id, login=f"https://h/login?next={path}", path=path),
    )
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "p", "ul", "li", "a", "form", "input", "button",
               "small", "code"}  # fmt: skip
    assert {tag for tag, _ in shown.tags} <= allowed
    assert ("Try again in" in shown.text) >= (retry_after is not None and retry_after.isdigit())
