"""Files on HTTP servers: reference data and mirrors that a catalogue refers to by URL."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self, cast
from urllib.parse import unquote

from gateway.errors import ConfigurationError
from gateway.storage import ByteStream, CopyUnavailableError, SignedUrl, Stat
from storage_plugins.http.addresses import IPAddress, IPNetwork, is_public, is_within
from storage_plugins.http.client import HttpClient
from storage_plugins.http.copies import stat, stream_range
from storage_plugins.http.message import DEFAULT_PORTS, Target, parse_url

_HTTP = re.compile("https?://", re.IGNORECASE)
_HOST = re.compile(r"(?P<any>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_KNOWN = ("hosts", "schemes", "networks", "ca_file", "max_size", "public")


@dataclasses.dataclass(frozen=True, slots=True)
class HostPattern:
    """One of ``hosts``: a host, or all below it, at one port."""

    host: str
    """In lower case, without brackets."""
    port: int | None
    """None: that which the scheme has unless another is told."""
    below: bool
    """All subdomains, but not the host itself."""

    def matches(self, target: Target) -> bool:
        """Whether ``target`` lies there."""
        if target.port != (self.port or DEFAULT_PORTS[target.scheme]):
            return False
        return target.host.endswith(f".{self.host}") if self.below else target.host == self.host


@dataclasses.dataclass(frozen=True, slots=True)
class HttpOptions:
    """The options of a ``[[storage]]`` table with the plug-in ``http``."""

    hosts: tuple[HostPattern, ...]
    """Where files may be fetched from: ``data.example.org``, ``data.example.org:8443``, ``*.example.org`` (its
    subdomains, not itself)."""
    schemes: frozenset[str] = frozenset({"https"})
    networks: tuple[IPNetwork, ...] = ()
    """Networks that hosts may lie in though they are not part of the public Internet."""
    ca_file: Path | None = None
    """Certificates (PEM) that servers are trusted by, instead of those of the system."""
    max_size: int | None = None
    """Bytes; larger files are not fetched."""
    public: bool = False
    """Whether clients may be sent to the URL itself."""

    def allows(self, target: Target) -> bool:
        """Whether files may be fetched from ``target``."""
        return target.scheme in self.schemes and any(pattern.matches(target) for pattern in self.hosts)

    def permits(self, address: IPAddress) -> bool:
        """Whether ``address`` may be connected to."""
        return is_public(address) or is_within(address, self.networks)


class HttpStorage:
    """Files that listed HTTP servers give to everyone. The location of a copy is its URL.

    Redirects are not followed, and only addresses of the public Internet and of listed networks are connected to,
    whatever the name of a server leads to. Options: see `HttpOptions`.
    """

    def __init__(self, name: str, options: HttpOptions) -> None:
        self.name = name
        self._options = options
        self._client = HttpClient(permits=options.permits, ca_file=options.ca_file)

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object]) -> Self:
        """See `gateway.storage.Storage.from_options`. With ``public`` it can sign, too."""
        read = read_options(options)
        return cast("Self", (PublicHttpStorage if read.public else cls)(name, read))

    def locate(self, href: str) -> str | None:
        """The URL itself, with scheme and host in lower case, without a default port and a fragment.

        Raises:
            ValueError: it names a user or password, or has dot segments, or characters that must be percent-encoded.
        """
        if not _HTTP.match(href):
            return None
        target = parse_url(href)
        if not self._options.allows(target):
            return None
        if not {".", ".."}.isdisjoint(re.split(r"[/\\;]", unquote(target.path))):
            # It passes a check of the beginning of the path, and the server may look elsewhere.
            raise ValueError("has dot segments in its path")
        host = f"[{target.host}]" if ":" in target.host else target.host
        port = "" if target.port == DEFAULT_PORTS[target.scheme] else f":{target.port}"
        return f"{target.scheme}://{host}{port}{target.path}{target.query}"

    async def stat(self, location: str) -> Stat:
        """See `gateway.storage.CanStat`."""
        return self._within_size(await stat(self._client, location, name=self._allowed(location)), location)

    async def stream(self, location: str, start: int, stop: int, version: str | None) -> ByteStream:
        """See `gateway.storage.CanStream`."""
        found = await stream_range(self._client, location, start, stop, version, name=self._allowed(location))
        try:
            self._within_size(found.stat, location)
        except BaseException:
            found.close()
            raise
        return found

    async def close(self) -> None:
        """See `gateway.storage.Storage.close`."""
        await self._client.close()

    def _allowed(self, location: str) -> str:
        """What errors call the location, after a look that it is still allowed: the catalogue may be older."""
        try:
            if self.locate(location) is not None:
                return parse_url(location).shown
        except ValueError as error:
            raise CopyUnavailableError(f"the location {error}") from error
        raise CopyUnavailableError("the location is at no host of the options hosts and schemes")

    def _within_size(self, found: Stat, location: str) -> Stat:
        if self._options.max_size is not None and found.size > self._options.max_size:
            shown = parse_url(location).shown
            raise CopyUnavailableError(f"{shown}: has {found.size} bytes, max_size allows {self._options.max_size}")
        return found


class PublicHttpStorage(HttpStorage):
    """The same where clients may fetch the files from the servers themselves; see `gateway.storage.CanSign`."""

    async def sign(
        self,
        location: str,
        *,
        method: Literal["GET", "HEAD"],  # noqa: ARG002 - such a URL is for every method, and for ever
        lifetime: float,  # noqa: ARG002
        content_type: str | None = None,  # noqa: ARG002 - a server without signatures cannot be told
        disposition: str | None = None,  # noqa: ARG002
    ) -> SignedUrl:
        """See `gateway.storage.CanSign.sign`: the URL as it is."""
        self._allowed(location)
        return SignedUrl(location, None)


def read_options(options: Mapping[str, object]) -> HttpOptions:
    """Check and read the options of a table.

    Raises:
        ConfigurationError: one is unknown, missing or wrong; the message names it.
    """
    unknown = set(options) - set(_KNOWN)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ConfigurationError(f"{names}: no such option of plug-in 'http' ({', '.join(_KNOWN)})")
    schemes = frozenset(_texts(options, "schemes", ["https"]))
    if not schemes or not schemes <= {"http", "https"}:
        raise ConfigurationError('schemes: must be a list of "https", "http" or both')
    hosts = tuple(map(_host, _texts(options, "hosts", [])))
    if not hosts:
        raise ConfigurationError("hosts: must list the hosts that files may be fetched from")
    ca_file = options.get("ca_file")
    if ca_file is not None and not (isinstance(ca_file, str) and ca_file.startswith("/")):
        raise ConfigurationError("ca_file: must be the absolute path of a file with certificates in PEM")
    max_size = options.get("max_size")
    if max_size is not None and (not isinstance(max_size, int) or isinstance(max_size, bool) or max_size < 1):
        raise ConfigurationError("max_size: must be a number of bytes, at least 1")
    public = options.get("public", False)
    if not isinstance(public, bool):
        raise ConfigurationError("public: must be true or false")
    return HttpOptions(
        hosts=hosts,
        schemes=schemes,
        networks=tuple(map(_network, _texts(options, "networks", []))),
        ca_file=None if ca_file is None else Path(ca_file),
        max_size=max_size,
        public=public,
    )


def _texts(options: Mapping[str, object], name: str, default: list[str]) -> list[str]:
    value = options.get(name, default)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ConfigurationError(f"{name}: must be a list of texts")
    return value


def _host(text: str) -> HostPattern:
    found = _HOST.fullmatch(text.lower())
    try:
        if found is None or (found["any"] and found["host"].startswith("[")):
            raise ValueError("is no host")
        port = None if found["port"] is None else int(found["port"])
        target = parse_url(f"http://{found['host']}{'' if port is None else f':{port}'}/")
    except ValueError as error:
        examples = '"data.example.org", "data.example.org:8443" or "*.example.org"'
        raise ConfigurationError(f"hosts: {text!r} is not like {examples}") from error
    return HostPattern(target.host, port, found["any"] is not None)


def _network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f'networks: {text!r} is no network like "10.1.0.0/16": {error}') from error
