"""Which URLs belong to a source: those of the scheme, host and port of its root (RFC 6454), and no others."""

from __future__ import annotations

import dataclasses
import ipaddress
from urllib.parse import SplitResult, quote, urljoin, urlsplit, urlunsplit

from gateway.catalog.ingest.events import SourceError
from gateway.catalog.ingest.extent import short

_PORTS = {"http": 80, "https": 443}
_ALLOWED = "%:/?#[]@!$&'()*+,;=~"
MOST_URL = 8192
"""Characters of a URL."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a source lies."""

    scheme: str
    host: str
    port: int

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is said: by https, or on this machine."""
        if self.scheme == "https":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def resolve(self, href: str, base: str) -> str:
        """The absolute URL of ``href``, which stands in the document at ``base``; without a fragment.

        A link by http to the default port of the host of an https source is meant to be one by https: servers behind a
        proxy that do not know of it write such links.

        Raises:
            SourceError: it leads elsewhere, or is no URL.
        """
        try:
            parts = urlsplit(urljoin(base, href))
            found = origin_of(parts)
        except ValueError as error:
            raise SourceError(f"the link {short(href)} is no URL") from error
        upgraded = found == Origin("http", self.host, 80) and self.scheme == "https" and self.port == 443
        if found != self and not upgraded:
            raise SourceError(f"the link {short(href)} leads away from {self}: not followed")
        text = self.url(parts)
        if len(text) > MOST_URL:
            raise SourceError(f"the link {short(href)}… is longer than {MOST_URL} characters")
        return text

    def url(self, parts: SplitResult) -> str:
        """The URL with the path and query of ``parts`` here, always written alike."""
        # What may not stand in a URL is encoded; what is encoded stays so.
        return f"{self}{quote(urlunsplit(('', '', parts.path or '/', parts.query, '')), safe=_ALLOWED)}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")


def origin_of(parts: SplitResult) -> Origin:
    """The origin of an absolute URL.

    Raises:
        ValueError: it has none, or a user and password.
    """
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must be a URL like 'https://stac.example.org/api'")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user and a password in it")
    return Origin(parts.scheme, parts.hostname.lower(), parts.port or _PORTS[parts.scheme])


def root_of(url: str) -> tuple[str, Origin]:
    """A root URL without its fragment, and its origin.

    Raises:
        ValueError: it is no URL by http or https, or has a user and password in it.
    """
    parts = urlsplit(url)
    origin = origin_of(parts)
    return origin.url(parts), origin


def is_url(text: str) -> bool:
    """Whether ``text`` is meant as a URL and not as a path."""
    return text.lower().startswith(("http://", "https://"))
