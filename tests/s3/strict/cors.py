"""Cross-origin rules of a bucket.

Source: Amazon S3 User Guide, "Using cross-origin resource sharing (CORS)".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from tests.s3.strict.messages import Fields, Reply, Request, S3Error, xml

METHODS = {"GET", "PUT", "POST", "DELETE", "HEAD"}


@dataclasses.dataclass(frozen=True, slots=True)
class CorsRule:
    """One CORSRule. Origins and headers may hold one ``*`` each."""

    origins: Sequence[str]
    methods: Sequence[str] = ("GET", "HEAD")
    headers: Sequence[str] = ()
    exposed: Sequence[str] = ()
    max_age: int | None = None
    """Seconds."""

    def allows(self, origin: str, method: str, headers: Sequence[str] = ()) -> bool:
        """Whether a page of ``origin`` may send such a request."""
        return (
            any(_fits(pattern, origin) for pattern in self.origins)
            and method in self.methods
            and all(any(_fits(pattern.lower(), header) for pattern in self.headers) for header in headers)
        )

    def fields(self, origin: str) -> Fields:
        """What the answer to an allowed request has."""
        anyone = "*" in self.origins
        fields = [("Access-Control-Allow-Origin", "*" if anyone else origin)]
        fields.append(("Access-Control-Allow-Methods", ", ".join(self.methods)))
        if self.exposed:
            fields.append(("Access-Control-Expose-Headers", ", ".join(self.exposed)))
        if self.max_age is not None:
            fields.append(("Access-Control-Max-Age", str(self.max_age)))
        if not anyone:
            fields.append(("Access-Control-Allow-Credentials", "true"))
        fields.append(("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"))
        return tuple(fields)


def preflight(request: Request, rules: Sequence[CorsRule]) -> Reply:
    """The answer to OPTIONS, which nobody signs.

    Raises:
        S3Error: it is not allowed, or not a preflight.
    """
    origin, method = request.field("Origin"), request.field("Access-Control-Request-Method")
    if origin is None:
        raise S3Error(400, "BadRequest", "Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise S3Error(400, "BadRequest", f"Invalid Access-Control-Request-Method: {method}")
    if not rules:
        raise S3Error(403, "AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", Method=method)
    asked = request.field("Access-Control-Request-Headers") or ""
    headers = [name.strip().lower() for name in asked.split(",") if name.strip()]
    for rule in rules:
        if rule.allows(origin, method, headers):
            allowed = (("Access-Control-Allow-Headers", ", ".join(headers)),) if headers else ()
            return Reply(200, rule.fields(origin) + allowed)
    raise S3Error(403, "AccessForbidden", "CORSResponse: This CORS request is not allowed.", Method=method)


def fields_for(request: Request, rules: Sequence[CorsRule]) -> Fields:
    """What the answer to any other request has besides."""
    origin = request.field("Origin")
    if origin is not None:
        for rule in rules:
            if rule.allows(origin, request.method):
                return rule.fields(origin)
    return ()


def document(rules: Sequence[CorsRule]) -> Reply:
    """The answer to ``GET ?cors``.

    Raises:
        S3Error: the bucket has no configuration.
    """
    if not rules:
        raise S3Error(404, "NoSuchCORSConfiguration", "The CORS configuration does not exist")
    inner = ""
    for rule in rules:
        elements = [("AllowedOrigin", origin) for origin in rule.origins]
        elements += [("AllowedMethod", method) for method in rule.methods]
        elements += [("AllowedHeader", header) for header in rule.headers]
        elements += [("ExposeHeader", header) for header in rule.exposed]
        if rule.max_age is not None:
            elements.append(("MaxAgeSeconds", str(rule.max_age)))
        inner += f"<CORSRule>{''.join(f'<{name}>{text}</{name}>' for name, text in elements)}</CORSRule>"
    return xml(200, "CORSConfiguration", inner)


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
