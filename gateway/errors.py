"""The one error type of the gateway, and its rendering in the shape of each API family."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus


class ConfigurationError(Exception):
    """The configuration cannot be used. The message names the setting, what is wrong and what would be right."""


class Family(enum.Enum):
    """The API families; each has its own shape of error body."""

    REGARDS = "regards"
    """``{"messages": […]}``, REGARDS' ServerErrorResponse."""
    STAC = "stac"
    """``{"code", "description"}``, the ``exception`` schema of OGC API - Features and the STAC Download extension."""
    PROBLEM = "problem"
    """``application/problem+json``, RFC 9457: everything else."""


_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""Names of RFC 9110 that Python took up in 3.13 only: codes must not depend on the version of Python."""


def phrase(status: HTTPStatus) -> str:
    """Its name in RFC 9110."""
    return _PHRASES.get(status, status.phrase)


@dataclasses.dataclass(eq=False)
class GatewayError(Exception):
    """A request that cannot be answered as asked; becomes an HTTP error answer.

    ``detail`` is shown to the caller: it says what is wrong in the caller's own terms, and holds no path, key, host
    or secret of the archive. What operators need goes to the log.
    """

    status: HTTPStatus
    detail: str
    code: str = ""
    """Short stable name for programs: the member ``code`` of STAC and of problems; the status' phrase unless given."""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: Mapping[str, object] | None = None
    """Replaces the REGARDS body where REGARDS has one of its own (423: ``{"license", "accept"}``); the other families
    add its members to theirs."""
    links: Sequence[Mapping[str, str]] = ()
    """Where to go from here (``rel``, ``href``, …): the member ``links`` of STAC and of problems."""

    def __post_init__(self) -> None:
        super().__init__(self.detail)
        if not self.code:
            self.code = phrase(self.status).title().replace(" ", "")


def unauthorized(detail: str, *, error: str = "") -> GatewayError:
    """401 with the challenge of RFC 6750 §3; ``error`` is its code (``invalid_token``) when a token was shown."""
    challenge = 'Bearer realm="downloads"' + (f', error="{error}"' if error else "")
    return GatewayError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})


def unavailable(detail: str, *, retry_after: int = 5, code: str = "") -> GatewayError:
    """503 with Retry-After in seconds: a neighbour of ours does not answer, or not in time."""
    return GatewayError(HTTPStatus.SERVICE_UNAVAILABLE, detail, code=code, headers={"Retry-After": str(retry_after)})


def render(error: GatewayError, family: Family, *, request_id: str) -> tuple[str, bytes]:
    """The media type and body of ``error`` in the shape of ``family``."""
    members = dict(error.body or {})
    if family is Family.REGARDS:
        return "application/json", _json(members or {"messages": [error.detail]})
    if error.links:
        members["links"] = list(error.links)
    if family is Family.STAC:
        return "application/json", _json({"code": error.code, "description": error.detail, **members})
    problem = {
        "type": "about:blank",
        "title": phrase(error.status),
        "status": int(error.status),
        "detail": error.detail,
        "code": error.code,
        "instance": f"urn:request:{request_id}",
        **members,
    }
    return "application/problem+json", _json(problem)


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
