"""REGARDS' catalogue download: ``/downloads/{aip_id}/files/{checksum}``."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.api.keys import DOWNLOADS
from gateway.catalog.model import ByChecksum


def address(parts: Mapping[str, str]) -> ByChecksum:
    """The file that the parts of a path name."""
    return ByChecksum(product=parts["aip_id"], checksum=parts["checksum"])


async def download_file(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD /downloads/{aip_id}/files/{checksum}``."""
    return await request.app[DOWNLOADS].answer(request, address(request.match_info))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    path = f"{prefix}/downloads/{{aip_id}}/files/{{checksum}}"
    return [web.get(path, download_file, allow_head=False), web.head(path, download_file)]
