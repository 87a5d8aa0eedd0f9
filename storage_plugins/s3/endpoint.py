"""Endpoints of S3: how buckets are named in their URLs."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from urllib.parse import urlsplit

from storage_plugins.s3.sigv4 import Origin

_DEFAULT_PORTS = {"http": 80, "https": 443}
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_HOST = re.compile(r"[a-z0-9._-]+")
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """A host that speaks S3."""

    origin: Origin
    virtual: bool
    """Whether buckets are named in the host ("virtual-hosted style"), else in the path."""

    @classmethod
    def parse(cls, url: str, *, virtual: bool | None) -> Endpoint:
        """Take ``http(s)://host[:port]``; with ``virtual`` None buckets are named in the host if that is Amazon's.

        Raises:
            ValueError: it is anything else. The URL is not part of the message: it might hold a password.
        """
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("must be like 'https://host' or 'http://host:9000'") from None
        more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if scheme not in _DEFAULT_PORTS or more or port == 0 or not (_is_address(host) or _HOST.fullmatch(host)):
            raise ValueError("must be like 'https://host' or 'http://host:9000', with no user, path or query")
        if virtual and _is_address(host):
            raise ValueError("must have a name as its host, not an address, for addressing 'virtual'")
        if virtual is None:
            virtual = host.endswith(_AMAZON)
        written = f"[{host}]" if ":" in host else host
        if port not in (None, _DEFAULT_PORTS[scheme]):
            written = f"{written}:{port}"
        return cls(Origin(scheme, written), virtual)

    def root(self, bucket: str) -> tuple[Origin, str]:
        """The origin of a bucket's objects, and what their paths start with.

        A bucket whose name cannot be part of a host's name is named in the path all the same; likewise one with dots
        where there is TLS, because no certificate covers it.
        """
        if self.virtual and _fits_host(bucket, dots=self.origin.scheme == "http"):
            return Origin(self.origin.scheme, f"{bucket}.{self.origin.host}"), "/"
        return self.origin, f"/{bucket}/"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _fits_host(bucket: str, *, dots: bool) -> bool:
    if not 3 <= len(bucket) <= 63 or _is_address(bucket):
        return False
    labels = bucket.split(".") if dots else [bucket]
    return all(_HOST_LABEL.fullmatch(label) for label in labels)
