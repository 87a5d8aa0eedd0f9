"""What STAC assets and files of REGARDS have in common: where their copies lie, and what they are called."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import MAX_LOCATION_BYTES, Copy, Json, JsonObject
from gateway.storage import Storage
from gateway.text import is_storable

MAX_SIZE = 2**53
"""Largest size in bytes that is believed: larger ones are no exact numbers in many JSON readers."""

S3 = "s3"
"""Storage of ``s3://`` hrefs that no configured storage holds; their location is the whole URI."""
WEB = "web"
"""Storage of ``http(s)://`` hrefs that no configured storage holds; their location is the whole URL."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What turning an entry into rows needs to know beside the entry."""

    tenant: str
    storages: Sequence[Storage]
    directory: str
    """Absolute path of the directory that relative hrefs start from."""
    default_collection: str | None
    remark: Callable[[str], None]
    """Takes what is odd about the entry but does not keep it out."""


def locate(href: str, alternates: Sequence[str], state: str, context: Context) -> tuple[tuple[Copy, ...], bool]:
    """The copies that an href and its alternates stand for, and whether somebody else holds the file (reference).

    An alternate counts only if a storage holds it.

    Raises:
        RefusedError: nothing can be fetched from the href: no storage holds that path, or its scheme is not known.
    """
    copies = [copy for other in alternates if (copy := _held(_absolute(other, context), state, context)) is not None]
    absolute = _absolute(href, context)
    first = _held(absolute, state, context)
    held = first is not None or bool(copies)
    web = False
    if first is None:
        first, web = _held_by_others(absolute, state)
    unique = {(copy.storage, copy.location): copy for copy in (first, *copies)}
    return tuple(unique.values()), web and not held


def _absolute(href: str, context: Context) -> str:
    if _SCHEME.match(href):
        return href
    if href.startswith("//"):
        raise RefusedError(f"href {short(href)} has a host but no scheme")
    # An href without a scheme is a relative URI reference all the same (RFC 3986 §4.2), so percent-encoded.
    return posixpath.normpath(posixpath.join(context.directory, unquote(href)))


def _held(href: str, state: str, context: Context) -> Copy | None:
    for storage in context.storages:
        try:
            location = storage.locate(href)
        except ValueError as error:
            raise RefusedError(f"href {short(href)} is malformed: {error}") from error
        if location is not None:
            return _copy(storage.name, location, state)
    return None


def _held_by_others(href: str, state: str) -> tuple[Copy, bool]:
    match = _SCHEME.match(href)
    scheme = match[1].lower() if match else "file"
    if scheme == "file":
        raise RefusedError(f"no storage location holds the path {href!r}")
    if scheme == "s3":
        return _copy(S3, href, state), False
    if scheme in ("http", "https"):
        return _copy(WEB, href, state), True
    raise RefusedError(f"href {short(href)} has the scheme {scheme!r}; known are file, s3, http and https")


def _copy(storage: str, location: str, state: str) -> Copy:
    if not is_storable(location):
        raise RefusedError(f"location {short(location)} has the character NUL, or is not UTF-8")
    if len(storage.encode()) + len(location.encode()) > MAX_LOCATION_BYTES:
        raise RefusedError(f"href {short(location)}… is longer than {MAX_LOCATION_BYTES} bytes")
    return Copy(storage, location, state)


def file_name(href: str, otherwise: str) -> str:
    """The last segment of the href's path, percent-decoded; ``otherwise`` where it has none.

    It is not yet safe to be sent as a file name: whoever delivers the file sees to that.
    """
    path = re.split("[?#]", href, maxsplit=1)[0] if re.match("https?:", href, re.IGNORECASE) else href
    return last_segment(unquote(path)) or otherwise


def last_segment(path: str) -> str:
    """What follows the last slash; empty if that is nothing that names a file."""
    name = path.rpartition("/")[2].replace("\0", "")
    return "" if name.strip() in ("", ".", "..") else name


def size(value: Json, what: str, context: Context) -> int | None:
    """A size in bytes; None with a remark for what is none."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SIZE:
        return value
    context.remark(f"{what} is {short(value)}, no whole number from 0 to 2^53: ignored")
    return None


def optional_text(members: JsonObject, name: str, what: str, context: Context) -> str | None:
    """A member that is a string or absent; None with a remark for what is neither, or is empty."""
    value = members.get(name)
    if value is None or (isinstance(value, str) and value):
        return value
    context.remark(f"{what} is {short(value)}, no text: ignored")
    return None
