"""Metalink documents: what download managers fetch many files by, and verify them.

Version 4 is RFC 5854; version 3 is the elder that REGARDS serves (Metalink 3.0, Second Edition). Both are written file
by file: ``head``, any number of ``file``, ``tail``. A document without any file is none (RFC 5854 §4.1.2).
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit
from xml.sax.saxutils import escape, quoteattr

from gateway import __version__

MOST_PREFERRED = 100
"""What version 3 gives the best URL; its scale runs the other way."""
LAST_PRIORITY = 999_999
"""RFC 5854 §4.2.16."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TEXTUAL_NAMES = {
    "MD5": ("md5",),
    "SHA-1": ("sha-1",),
    "SHA-256": ("sha-256",),
    "SHA-384": ("sha-384",),
    "SHA-512": ("sha-512",),
}
"""Of the catalogue's algorithms: IANA's Hash Function Textual Names, which version 4 asks for."""
_OLD_NAMES = {
    "MD5": ("md5",),
    "SHA-1": ("sha1",),
    "SHA-256": ("sha256",),
    "SHA-384": ("sha384", "sha-384"),
    "SHA-512": ("sha512", "sha-512"),
}
"""Version 3's own, and where aria2 knows another one that, too: what a client does not know, it passes over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mirror:
    """Where a file can be fetched.

    Raises:
        ValueError: the priority is none.
    """

    url: str
    priority: int = 1
    """From 1, which clients try first, to `LAST_PRIORITY`."""

    def __post_init__(self) -> None:
        if not 1 <= self.priority <= LAST_PRIORITY:
            raise ValueError(f"no priority: {self.priority}")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file.

    Raises:
        ValueError: its name leads out of the client's directory, or there is no place to fetch it from.
    """

    name: str
    """The relative path that clients save it as; `gateway.archive.names.Names` makes safe ones."""
    mirrors: Sequence[Mirror]
    """At least one."""
    size: int | None = None
    """Bytes."""
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Hexadecimal, by the catalogue's algorithm (``SHA-256``); those of other names are left out."""
    identity: str | None = None
    """What it is, for people."""
    media_type: str | None = None
    """Told by version 3 alone."""

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        # As RFC 5854 §4.1.2.1 demands of names, and its §7 warns of.
        if "\\" in self.name or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"not a relative path below a directory: {self.name!r}")
        if not self.mirrors:
            raise ValueError(f"nowhere to fetch {self.name!r} from")


class Writer(Protocol):
    """Writes one version of the format."""

    media_type: str
    extension: str
    """Of file names, with its dot."""

    def head(self, published: datetime.datetime) -> bytes:
        """What stands before the files; ``published`` has a timezone."""
        ...

    def file(self, entry: Entry) -> bytes:
        """One file."""
        ...

    def tail(self) -> bytes:
        """What stands behind them."""
        ...


class Metalink4:
    """RFC 5854."""

    media_type = "application/metalink4+xml"
    extension = ".meta4"

    def head(self, published: datetime.datetime) -> bytes:
        """See `Writer`."""
        time = published.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'
            f"<generator>{_GENERATOR}</generator>\n<published>{time}</published>\n"
        ).encode()

    def file(self, entry: Entry) -> bytes:
        """See `Writer`."""
        urls = "".join(f'<url priority="{mirror.priority}">{_text(mirror.url)}</url>' for mirror in entry.mirrors)
        return (
            f"<file name={_attribute(entry.name)}>{_element('identity', entry.identity)}{_element('size', entry.size)}"
            f"{_hashes(entry, _TEXTUAL_NAMES)}{urls}</file>\n"
        ).encode()

    def tail(self) -> bytes:
        """See `Writer`."""
        return b"</metalink>\n"


class Metalink3:
    """Version 3.0."""

    media_type = "application/metalink+xml"
    extension = ".metalink"

    def head(self, published: datetime.datetime) -> bytes:
        """See `Writer`."""
        time = email.utils.format_datetime(published.astimezone(datetime.UTC), usegmt=True)
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<metalink version="3.0" xmlns="http://www.metalinker.org/" '
            f'type="static" generator="{_GENERATOR}" pubdate="{time}">\n<files>\n'
        ).encode()

    def file(self, entry: Entry) -> bytes:
        """See `Writer`."""
        hashes = _hashes(entry, _OLD_NAMES)
        verification = f"<verification>{hashes}</verification>" if hashes else ""
        urls = "".join(
            f'<url type={_attribute(urlsplit(mirror.url).scheme)} preference="{_preference(mirror)}">'
            f"{_text(mirror.url)}</url>"
            for mirror in entry.mirrors
        )
        return (
            f"<file name={_attribute(entry.name)}>{_element('identity', entry.identity)}{_element('size', entry.size)}"
            f"{verification}{_element('mimetype', entry.media_type)}<resources>{urls}</resources></file>\n"
        ).encode()

    def tail(self) -> bytes:
        """See `Writer`."""
        return b"</files>\n</metalink>\n"


def document(writer: Writer, entries: Iterable[Entry], published: datetime.datetime) -> Iterator[bytes]:
    """The whole document, piece by piece."""
    yield writer.head(published)
    yield from map(writer.file, entries)
    yield writer.tail()


_GENERATOR = f"download-gateway/{__version__}"


def _hashes(entry: Entry, names: Mapping[str, Sequence[str]]) -> str:
    known = ((name, value.lower()) for algorithm, value in entry.digests.items() for name in names.get(algorithm, ()))
    return "".join(f"<hash type={_attribute(name)}>{_text(value)}</hash>" for name, value in known)


def _preference(mirror: Mirror) -> int:
    return max(MOST_PREFERRED + 1 - mirror.priority, 1)


def _element(name: str, value: str | int | None) -> str:
    return "" if value is None else f"<{name}>{_text(str(value))}</{name}>"


def _text(value: str) -> str:
    return escape(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value), {"\r": "&#13;"})


def _attribute(value: str) -> str:
    return quoteattr(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value))
