"""An error as a page, for people: it says what is wrong and how to go on."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from urllib.parse import quote, urlsplit

from gateway.errors import GatewayError, phrase

MEDIA_TYPE = "text/html"
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color:#222}"
    "h1{font-size:1.4rem}small{color:#666}li{margin:.4rem 0}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
FIELDS: Mapping[str, str] = {
    # What a form leads to may redirect to a storage, which browsers hold against form-action, too.
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self' https:; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not less: without any referrer browsers name no Origin with a form either, and a session needs one.
    "Referrer-Policy": "same-origin",
}
"""Fields of the answer: nothing is run, fetched or framed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """What pages lead to."""

    public_url: str | None
    """Base of absolute links; None takes the request's Host."""
    has_login: bool
    """Whether browsers can log in."""


def page(error: GatewayError, *, request_id: str, login: str | None, path: str) -> bytes:
    """HTML without scripts that says what ``error`` does.

    Args:
        error: what is wrong.
        request_id: that operators find the request by.
        login: where the user can log in; None if that would not help.
        path: of the request, to come back to.
    """
    title = f"{int(error.status)} {phrase(error.status)}"
    ways = "".join(f"<li>{way}</li>" for way in _ways(error, login, path))
    text = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{escape(error.detail)}</p>{f'<ul>{ways}</ul>' if ways else ''}"
        f"<p><small>If you ask for help, name this request: <code>{escape(request_id)}</code></small></p></body></html>"
    )
    return text.encode("utf-8", "replace")


def login_link(base: str, path: str) -> str:
    """Where one logs in to come back to ``path``."""
    return f"{base}/login?next={quote(path, safe='')}"


def _ways(error: GatewayError, login: str | None, path: str) -> Iterator[str]:
    """How to go on, as HTML."""
    if login is not None:
        yield _link(login, "Log in")
    for link in error.links:
        if link["rel"] == "license":
            yield _link(link["href"], "Read the licence")
        elif link["rel"] == "accept" and link.get("method") == "PUT":
            yield (
                f'<form method="post" action="{escape(link["href"])}"><input type="hidden" name="next" '
                f'value="{escape(path)}"><button>Accept the licence and go on</button></form>'
            )
        elif link["rel"] == "accept":
            yield _link(link["href"], "Accept the licence and download")
    seconds = error.headers.get("Retry-After", "")
    if seconds.isdecimal():
        yield f"Try again in {_duration(int(seconds))}."


def _link(href: str, text: str) -> str:
    """A link; the address alone where it is not one of the web (``javascript:``)."""
    if urlsplit(href).scheme not in ("http", "https"):
        return f"{text}: {escape(href)}"
    return f'<a href="{escape(href)}" rel="noreferrer">{text}</a>'


def _duration(seconds: int) -> str:
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"about {-(-seconds // size)} {unit}s"
    return "1 second" if seconds == 1 else f"{seconds} seconds"
