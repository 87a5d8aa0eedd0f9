"""Answers whose bytes somebody else sends: the proxy in front, or the storage itself."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from gateway.http.offload import offloaded_headers
from gateway.sources import Candidate, readable
from gateway.storage import CopyChangedError, CopyUnavailableError, Stat, answering_within, can_sign

_OF_THE_REPRESENTATION = frozenset(
    {"Content-Length", "Content-Range", "Content-Type", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges"}
)
"""Fields that describe what the storage sends, not the redirect. The digests stay: they hold wherever the bytes come
from, and download clients verify by them (aria2)."""


async def offload(
    candidate: Candidate, expected: Stat, fields: Mapping[str, str], *, storage_timeout: float
) -> web.Response:
    """Tell the proxy in front to send the file, after a last look that it is still the one.

    Raises:
        StorageError: it is not, or nobody can tell within ``storage_timeout`` seconds.
    """
    assert candidate.location.offload is not None  # noqa: S101 - the decision says so
    location = candidate.copy.location
    async with answering_within(storage_timeout):
        found = await readable(candidate.location.storage).stat(location)
    if found.version != expected.version:
        raise CopyChangedError(f"{location}: changed since it was ingested")
    return web.Response(headers=offloaded_headers(fields, candidate.location.offload, location))


async def redirect(candidate: Candidate, fields: Mapping[str, str], *, storage_timeout: float) -> web.Response:
    """Tell the client where to fetch the file (307): by a URL that the storage accepts for a short while.

    File name and type are part of what is signed, since a client takes them from where the bytes come from.

    Raises:
        StorageError: the storage cannot sign now.
    """
    location = candidate.location
    storage = can_sign(location.storage)
    if storage is None:
        raise CopyUnavailableError(f"storage {location.storage.name!r} gives no signed URLs")
    async with answering_within(storage_timeout):
        signed = await storage.sign(
            candidate.copy.location,
            method="GET",
            lifetime=location.redirect_ttl,
            content_type=fields.get("Content-Type"),
            disposition=fields.get("Content-Disposition"),
        )
    max_age = location.redirect_max_age
    if signed.lifetime is not None:
        # A redirect that is kept must not lead to a URL that has ended.
        max_age = min(max_age, int(signed.lifetime) - 1)
    kept = {name: value for name, value in fields.items() if name not in _OF_THE_REPRESENTATION}
    headers = {
        **kept,
        "Cache-Control": f"private, max-age={max_age}" if max_age > 0 else "no-store",
        "Referrer-Policy": "no-referrer",
        "Location": signed.url,
    }
    return web.Response(status=HTTPStatus.TEMPORARY_REDIRECT, headers=headers)
