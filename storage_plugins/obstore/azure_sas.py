"""URLs that read one blob of Azure, signed with the key of its account.

After "Create a service SAS" of the Azure Storage REST reference, version 2020-12-06 and later. Pure: the time is given,
and nothing is asked of anybody.
"""

from __future__ import annotations

import base64
import dataclasses
import hmac
import time
from urllib.parse import quote, urlencode

_VERSION = "2023-11-03"
_READ, _BLOB = "r", "b"


@dataclasses.dataclass(frozen=True, slots=True)
class AccountKey:
    """Signs for the blobs of one container."""

    account: str
    key: bytes = dataclasses.field(repr=False)
    endpoint: str
    """URL of the account, without a slash at its end."""
    container: str

    def url(
        self, name: str, *, now: float, seconds: int, content_type: str | None = None, disposition: str | None = None
    ) -> str:
        """A URL for GET of the blob ``name``; HEAD works as well, nothing else does.

        It says nothing of when it begins, so that clocks may differ.

        Args:
            name: of the blob, not encoded.
            now: seconds since the epoch.
            seconds: how long it works, from the whole second before ``now`` on.
            content_type: the Content-Type that the service shall answer with.
            disposition: the Content-Disposition that it shall answer with.
        """
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(now) + seconds))
        protocol = "https" if self.endpoint.startswith("https:") else ""
        # The name is signed as it is, not as it is written in a URL.
        resource = f"/blob/{self.account}/{self.container}/{name}"
        start = identifier = address = snapshot = scope = control = encoding = language = ""
        to_sign = [
            *(_READ, start, expiry, resource, identifier, address, protocol, _VERSION, _BLOB, snapshot, scope),
            *(control, disposition or "", encoding, language, content_type or ""),
        ]
        signature = hmac.digest(self.key, "\n".join(to_sign).encode(), "sha256")
        query = {
            "sv": _VERSION,
            "se": expiry,
            "sr": _BLOB,
            "sp": _READ,
            "spr": protocol,
            "rscd": disposition,
            "rsct": content_type,
            "sig": base64.b64encode(signature).decode(),
        }
        given = urlencode({field: value for field, value in query.items() if value}, quote_via=quote, safe="")
        return f"{self.endpoint}/{quote(self.container)}/{quote(name, safe='/~')}?{given}"
