"""Which web pages of other sites may read answers: the CORS protocol of the Fetch standard, as pure rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

ANY = "*"
"""Every origin, without credentials of the browser."""

METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
ASKED_WITH = (
    "Accept, Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, "
    "Prefer, Range, Want-Digest, Want-Repr-Digest, X-API-Key, X-Request-ID, scope"
)
"""Fields that a page may send. A ``*`` would leave out Authorization."""
EXPOSED = (
    "Accept-Ranges, Allow, Content-Disposition, Content-Length, Content-Range, Digest, ETag, File-State, "
    "Last-Modified, Link, Location, Preference-Applied, Quota-Admitted, Quota-Cost, RateLimit, RateLimit-Policy, "
    "Repr-Digest, Retry-After, Server-Timing, WWW-Authenticate, X-Message, X-Request-ID"
)
"""Fields of answers that a page may read."""
PREFLIGHT_SECONDS = 7200
"""That a browser may keep the answer to a preflight; none keeps it longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class CrossOrigin:
    """Whose pages may read answers."""

    origins: frozenset[str]
    """As browsers name them (RFC 6454 §6.2), like ``https://portal.example.org``; or `ANY`."""

    @property
    def varies(self) -> bool:
        """Whether answers differ by Origin."""
        return self.origins != {ANY}

    def allowed(self, origin: str | None) -> Mapping[str, str]:
        """The fields that let a page of ``origin`` read an answer; none for one that may not.

        Only an origin that is listed itself is named, and may ask with cookies and the like. ``null``, which stands for
        any sandboxed page, can never be.
        """
        if origin is not None and origin != ANY and origin in self.origins:
            return {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": EXPOSED,
            }
        if ANY in self.origins:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": EXPOSED}
        return {}

    def preflight(self, origin: str) -> Mapping[str, str]:
        """The further fields of the answer to a preflight; none for a page that may not read the answer either."""
        if not self.allowed(origin):
            return {}
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": ASKED_WITH,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }


def with_origin(vary: str | None) -> str:
    """A value of Vary (RFC 9110 §12.5.5) that names Origin, too."""
    if not vary:
        return "Origin"
    names = [name.strip().lower() for name in vary.split(",")]
    return vary if "origin" in names or "*" in names else f"{vary}, Origin"
