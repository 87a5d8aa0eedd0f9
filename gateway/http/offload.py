"""Handing a file to the proxy in front, which sends it in our name: X-Accel-Redirect (nginx), X-Sendfile (others).

Only what the proxy answers just as we would is handed over. Preconditions it would judge by its own idea of the file.
Of ranges nginx is left a single one, plainly written, which it binds to the entity-tag that we name: several it answers
without our bound on them, and some spellings that we understand it refuses (``bytes=0-4,`` and numbers beyond 64 bits).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal
from urllib.parse import quote

from multidict import MultiMapping

from gateway.http.evaluate import Verdict

OFFER = "X-Sendfile-Type"
"""Request field by which a proxy says that it takes files: the name of the field that it understands. A load balancer
that is listed, too, says nothing, and is streamed to."""

_OWN_JUDGEMENT = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
_PLAIN_RANGE = re.compile("bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")


@dataclasses.dataclass(frozen=True, slots=True)
class Offload:
    """How the proxy in front finds the files of a storage."""

    field: Literal["X-Accel-Redirect", "X-Sendfile"]
    prefix: str
    """nginx: path of the internal location. X-Sendfile: directory on the proxy's machine. No slash at its end."""

    def address(self, location: str) -> str:
        """The value of the field for the copy at ``location``: percent-encoded for nginx, which decodes it.

        X-Sendfile is taken literally by some and decoded by others, so a name in which that makes a difference is
        not handed over (`suits`).
        """
        path = f"{self.prefix}/{location}"
        return quote(path) if self.field == "X-Accel-Redirect" else path

    def suits(self, method: str, headers: MultiMapping[str], verdict: Verdict, location: str) -> bool:
        """Whether the proxy would answer this request as we would."""
        if method != "GET" or not verdict.length or any(name in headers for name in _OWN_JUDGEMENT):
            return False
        if self.field == "X-Sendfile":
            return "Range" not in headers and quote(location) == location
        if "Range" not in headers:
            return True
        return verdict.status == HTTPStatus.PARTIAL_CONTENT and _PLAIN_RANGE.fullmatch(headers["Range"]) is not None


def offloaded_headers(fields: Mapping[str, str], offload: Offload, location: str) -> dict[str, str]:
    """The header of the answer that the proxy turns into its own: of the whole file, whatever range was asked.

    What describes the body is left to the proxy, which says it again and would say it twice.
    """
    again = {"Content-Length", "Content-Range"}
    if offload.field == "X-Accel-Redirect":
        again.add("Accept-Ranges")
    kept = {name: value for name, value in fields.items() if name not in again}
    return {**kept, offload.field: offload.address(location)}
