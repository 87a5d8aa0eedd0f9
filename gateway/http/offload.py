"""Handing a file to the proxy in front, which sends it in our name: X-Accel-Redirect (nginx), X-Sendfile (others).

Only what the proxy answers just as we would is handed over. Preconditions it would judge by its own idea of the file.
Ranges it reads in its own way, too: nginx takes ``bytes=0-0`` with a tab after it for no range, and would send the
whole file for the price of a byte. So only whole files are handed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

from multidict import MultiMapping

from gateway.http.evaluate import Verdict

OFFER = "X-Sendfile-Type"
"""Request field by which a proxy says that it takes files: the name of the field that it understands. A load balancer
that is listed, too, says nothing, and is streamed to."""

_OWN_JUDGEMENT = ("Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


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
        return self.field == "X-Accel-Redirect" or quote(location) == location


def offloaded_headers(fields: Mapping[str, str], offload: Offload, location: str) -> dict[str, str]:
    """The header of the answer that the proxy turns into its own: of the whole file.

    What describes the body is left to the proxy, which says it again and would say it twice.
    """
    again = {"Content-Length", "Content-Range"}
    if offload.field == "X-Accel-Redirect":
        again.add("Accept-Ranges")
    kept = {name: value for name, value in fields.items() if name not in again}
    return {**kept, offload.field: offload.address(location)}
