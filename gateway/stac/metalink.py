"""Metalink documents (RFC 5854): what download managers fetch many files by, and verify them."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape, quoteattr

from gateway import __version__
from gateway.http.disposition import safe_filename

MEDIA_TYPE = "application/metalink4+xml"
_NAMESPACE = "urn:ietf:params:xml:ns:metalink"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file, and where it is fetched."""

    directory: str
    """What it belongs to, as the catalogue has it."""
    name: str
    """As the catalogue has it."""
    url: str
    size: int | None
    """Bytes."""
    digests: Mapping[str, str]
    """Hexadecimal, by textual name (``sha-256``)."""


def metalink(entries: Iterable[Entry], published: datetime.datetime) -> bytes:
    """The document of ``entries``.

    Each is saved in a directory of its own item below that of the client. No name leads out of it, and no two are the
    same (RFC 5854 §4.1.2.1), on file systems without upper and lower case neither.
    """
    taken: set[str] = set()
    files = "".join(_file(one, _path(one, taken)) for one in entries)
    time = published.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<metalink xmlns="{_NAMESPACE}">\n'
        f"<generator>download-gateway/{escape(__version__)}</generator>\n<published>{time}</published>\n"
        f"{files}</metalink>\n"
    )
    return text.encode()


def _file(entry: Entry, path: str) -> str:
    size = "" if entry.size is None else f"<size>{entry.size}</size>"
    hashes = "".join(f"<hash type={quoteattr(name)}>{escape(value)}</hash>" for name, value in entry.digests.items())
    return f"<file name={quoteattr(path)}>{size}{hashes}<url>{escape(entry.url)}</url></file>\n"


def _path(entry: Entry, taken: set[str]) -> str:
    directory, name = _safe(entry.directory), _safe(entry.name)
    stem, dot, extension = name.rpartition(".")
    path, number = f"{directory}/{name}", 1
    while path.casefold() in taken:
        number += 1
        path = f"{directory}/{stem} ({number}).{extension}" if dot else f"{directory}/{name} ({number})"
    taken.add(path.casefold())
    return path


def _safe(name: str) -> str:
    """``name`` as a file name of characters that XML can hold."""
    return safe_filename("".join("_" if one in "\ufffe\uffff" else one for one in name))
