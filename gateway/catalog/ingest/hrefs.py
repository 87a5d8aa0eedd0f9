"""Which storage location an href belongs to: rules over its text alone."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from urllib.parse import unquote, urljoin

from gateway.catalog.ingest.assets import Context
from gateway.catalog.ingest.events import RefusedError
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import MAX_LOCATION_BYTES, Copy
from gateway.locations import EVERY_TENANT, Location
from gateway.storage import OnDisk
from gateway.text import is_storable

S3 = "s3"
"""Storage of ``s3://`` hrefs that no configured location takes; their location is the whole URI."""
WEB = "web"
"""Storage of ``http(s)://`` hrefs that no configured location takes; their location is the whole URL."""

_UNCONFIGURED = {"s3": S3, "http": WEB, "https": WEB}
_URLS = frozenset(("http", "https"))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def locate(
    href: str, alternates: Sequence[str], what: str, context: Context, *, state: str = "ONLINE"
) -> tuple[tuple[Copy, ...], bool]:
    """The copies that an href and its alternates stand for, and whether somebody else holds the file (reference).

    An href belongs to the first location that locates it and serves it for the tenant; `S3` and `WEB` are for what no
    location locates at all. An alternate counts only if a location takes it; one that is refused is remarked. A file is
    a reference if all of its copies lie at `WEB`, whether that is configured or not.

    Raises:
        RefusedError: the href itself is refused, or nothing can be fetched from it; the message starts with ``what``.
    """
    try:
        absolute = _absolute(href, context)
        first = _copy(absolute, state, context) or _unlocated(absolute, state, context)
    except RefusedError as error:
        raise RefusedError(f"{what}: {error}") from error
    copies = [first]
    for other in alternates:
        try:
            copy = _copy(_absolute(other, context), state, context)
        except RefusedError as error:
            context.remark(f"{what}: an alternate is left out: {error}")
            continue
        if copy is not None:
            copies.append(copy)
    unique = {(copy.storage, copy.location): copy for copy in copies}
    reference = _UNCONFIGURED.get(_scheme(href)) == WEB and all(copy.storage == WEB for copy in copies)
    return tuple(unique.values()), reference


def _scheme(href: str) -> str:
    """In small letters; empty for a path."""
    match = _SCHEME.match(href)
    return match[1].lower() if match else ""


def _absolute(href: str, context: Context) -> str:
    scheme = _scheme(href)
    if not scheme and _scheme(context.directory) in _URLS:
        return urljoin(context.directory, href)
    if context.remote and scheme in ("", "file"):
        raise RefusedError(f"href {_named(href)} names a local path, which an entry from elsewhere may not")
    if scheme:
        return href
    if not context.directory and not href.startswith("/"):
        raise RefusedError(f"href {_named(href)} is relative, and there is nothing that it could start from")
    if href.startswith("//"):
        raise RefusedError(f"href {_named(href)} has a host but no scheme")
    # An href without a scheme is a relative URI reference all the same (RFC 3986 §4.2), so percent-encoded.
    return posixpath.normpath(posixpath.join(context.directory, unquote(href)))


def _copy(href: str, state: str, context: Context) -> Copy | None:
    """The copy at the first location that takes the absolute ``href``; None if no location locates it."""
    refusals = []
    for location in context.locations:
        try:
            found = location.storage.locate(href)
        except ValueError as error:
            raise RefusedError(f"href {_named(href)} is malformed: {error}") from error
        if found is None:
            continue
        refusal = _refusal(location, found, context)
        if refusal is None:
            # What lies on tape is not online, whatever the catalogue says of it.
            return _storable(location.storage.name, found, state if location.type == "ONLINE" else location.type)
        refusals.append(refusal)
    if refusals:
        raise RefusedError("; ".join(refusals))
    return None


def _refusal(location: Location, found: str, context: Context) -> str | None:
    """Why a copy may not lie at ``found``; None if it may."""
    name = f"storage {location.storage.name!r}"
    if context.remote and isinstance(location.storage, OnDisk):
        return f"{name} is a disk of this machine, whose files ({_named(found)}) an entry from elsewhere may not name"
    if location.serves(context.tenant, found):
        # What lies at `WEB` is nobody's here.
        if not context.own_only or location.storage.name == WEB or location.is_own(context.tenant, found):
            return None
        return f"{name} is shared by tenants, and {_named(found)} does not lie below a prefix with {{tenant}}"
    if location.tenants.isdisjoint((context.tenant, EVERY_TENANT)):
        return f"{name} does not serve tenant {context.tenant!r}, to whom {_named(found)} would belong"
    return f"{name} serves no location like {_named(found)} for tenant {context.tenant!r}"


def _unlocated(href: str, state: str, context: Context) -> Copy:
    if context.own_only:
        raise RefusedError(f"no storage of the tenant holds {_named(href)}")
    return _unconfigured(href, state, context)


def _unconfigured(href: str, state: str, context: Context) -> Copy:
    scheme = _scheme(href)
    if scheme in ("", "file"):
        raise RefusedError(f"no storage location holds the path {href!r}")
    name = _UNCONFIGURED.get(scheme)
    if name is None:
        raise RefusedError(f"href {_named(href)} has the scheme {scheme!r}; known are file, s3, http and https")
    # Its plug-in would later be asked for a location that it never made.
    if any(location.storage.name == name for location in context.locations):
        raise RefusedError(f"storage {name!r} does not hold {_named(href)}, and no other location does")
    return _storable(name, href, state)


def _named(href: str) -> str:
    """An href or location for a message: without the query of a URL, which may be a secret."""
    path, mark, _ = href.partition("?")
    return short(f"{path}?..." if mark and "://" in path else href)


def _storable(storage: str, location: str, state: str) -> Copy:
    if not is_storable(location):
        raise RefusedError(f"location {_named(location)} has the character NUL, or is not UTF-8")
    if len(storage.encode()) + len(location.encode()) > MAX_LOCATION_BYTES:
        raise RefusedError(f"href {_named(location)}… is longer than {MAX_LOCATION_BYTES} bytes")
    return Copy(storage, location, state)
