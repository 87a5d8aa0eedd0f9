"""URLs for one object of Google Cloud Storage, signed with the key of a service account.

After "V4 signing process" of the Cloud Storage reference. Only the Host field is signed. Pure: the time is given, and
nothing is asked of anybody.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Self
from urllib.parse import quote, urlsplit

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

GOOGLE = "https://storage.googleapis.com"
_ALGORITHM = "GOOG4-RSA-SHA256"


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Signs for the objects of one bucket."""

    email: str
    key: RSAPrivateKey = dataclasses.field(repr=False)
    base: str
    """URL of the service, without a slash at its end."""
    bucket: str

    @classmethod
    def load(cls, text: str, *, base: str | None, bucket: str) -> Self | None:
        """Take the JSON of a key file; None if it has no key to sign with.

        ``base`` wins over what the file may say of it, as it does for obstore.
        """
        try:
            found = json.loads(text)
            key = load_pem_private_key(found["private_key"].encode(), password=None)
            email, own = found["client_email"], found.get("gcs_base_url")
        except (ValueError, TypeError, LookupError, AttributeError):
            return None
        if not isinstance(key, RSAPrivateKey) or not isinstance(email, str) or not email:
            return None
        return cls(email, key, (base or own or GOOGLE).rstrip("/"), bucket)

    def url(
        self,
        name: str,
        *,
        method: str,
        now: float,
        seconds: int,
        content_type: str | None = None,
        disposition: str | None = None,
    ) -> str:
        """A URL for ``method`` of the object ``name`` and nothing else.

        Args:
            name: of the object, not encoded.
            method: the only one that it works for.
            now: seconds since the epoch.
            seconds: how long it works, from the whole second before ``now`` on; 7 days at most.
            content_type: the Content-Type that the service shall answer with.
            disposition: the Content-Disposition that it shall answer with.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(int(now)))
        scope = f"{stamp[:8]}/auto/storage/goog4_request"
        query = {
            "X-Goog-Algorithm": _ALGORITHM,
            "X-Goog-Credential": f"{self.email}/{scope}",
            "X-Goog-Date": stamp,
            "X-Goog-Expires": str(seconds),
            "X-Goog-SignedHeaders": "host",
            "response-content-disposition": disposition,
            "response-content-type": content_type,
        }
        # In the order of their names already.
        given = "&".join(f"{field}={quote(value, safe='')}" for field, value in query.items() if value)
        origin = urlsplit(self.base)
        host = origin.netloc.lower()
        path = f"{origin.path}/{quote(self.bucket, safe='')}/{quote(name, safe='/')}"
        request = f"{method}\n{path}\n{given}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = self.key.sign(f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}".encode(), PKCS1v15(), SHA256())
        return f"{origin.scheme}://{host}{path}?{given}&X-Goog-Signature={signature.hex()}"
