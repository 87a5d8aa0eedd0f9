"""Whether scripts of web pages may fetch files from a storage: cross-origin resource sharing.

Source: the Fetch standard, "HTTP extensions" and "CORS protocol".
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from gateway.doctor.asking import Answer, Asking, NoAnswerError
from gateway.doctor.findings import Finding, Findings, ok, warning
from gateway.http.origin import origin_of

SEEN = ("Content-Disposition", "Content-Range", "ETag")
"""Fields that a script must see to name, resume and check a download; others see them only if they are exposed."""

_ASKED = "range"
"""The field that a script adds; a browser asks beforehand, unless the range is of the simplest form."""


async def look_at_cors(client: Asking, url: str, *, public_url: str | None, page: str | None) -> Findings:
    """Whether a script may fetch ``url`` after a redirect by the gateway.

    Args:
        client: asks.
        url: a signed one.
        public_url: of the gateway.
        page: URL of the page, or its origin; None for the gateway's own.
    """
    own = None if public_url is None else origin_of(public_url)
    page = own if page is None else origin_of(page)
    if page is None:
        yield warning("whether pages may fetch from it is not known", "set public_url of [api], or give --origin")
        return
    # A redirect from another origin than the page's own leaves the page unnamed.
    sent = page if own in (None, page) else "null"
    try:
        preflight = await client.ask(
            "OPTIONS",
            url,
            {"Origin": sent, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": _ASKED},
        )
        answer = await client.ask("GET", url, {"Origin": sent, "Range": "bytes=0-0"})
    except NoAnswerError as error:
        yield warning(f"whether pages of {page} may fetch from it is not known: it {error}", "run this again")
        return
    yield _finding(page, sent, preflight, answer)
    if page.startswith("https://") and url.startswith("http://"):
        yield warning(
            f"browsers do not let pages of {page} fetch from it without TLS",
            "give clients an https endpoint of the storage",
        )


def _finding(page: str, sent: str, preflight: Answer, answer: Answer) -> Finding:
    lacks = []
    if not preflight.succeeded or not _allows(preflight.headers, sent):
        lacks.append(f"the preflight request is refused ({preflight})")
    elif _ASKED not in (names := _names(preflight.headers, "Access-Control-Allow-Headers")) and "*" not in names:
        lacks.append("Range is not allowed")
    if not _allows(answer.headers, sent):
        lacks.append("the answer does not allow the origin")
    else:
        exposed = _names(answer.headers, "Access-Control-Expose-Headers")
        hidden = [name for name in SEEN if name.lower() not in exposed and "*" not in exposed]
        if hidden:
            lacks.append(f"{', '.join(hidden)} cannot be seen")
    if lacks:
        return warning(
            f"pages of {page}: {'; '.join(lacks)}", f"set the CORS configuration of the bucket: {cors_rules(sent)}"
        )
    return ok(f"pages of {page} may fetch from it, and see {', '.join(SEEN)}")


def cors_rules(origin: str) -> str:
    """The configuration of an S3 bucket that lets pages of ``origin`` fetch files (``aws s3api put-bucket-cors``)."""
    rule = {
        # No bucket can name the origin "null".
        "AllowedOrigins": ["*" if origin == "null" else origin],
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["Range"],
        "ExposeHeaders": ["Accept-Ranges", *SEEN, "Last-Modified"],
        "MaxAgeSeconds": 3600,
    }
    return json.dumps({"CORSRules": [rule]})


def _allows(headers: Mapping[str, str], origin: str) -> bool:
    return headers.get("Access-Control-Allow-Origin") in ("*", origin)


def _names(headers: Mapping[str, str], field: str) -> set[str]:
    return {name.strip().lower() for name in headers.get(field, "").split(",")}
