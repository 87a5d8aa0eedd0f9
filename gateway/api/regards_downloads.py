"""REGARDS' catalogue download: ``/downloads/{aip_id}/files/{checksum}``."""

from __future__ import annotations

from aiohttp import web

from gateway.api.keys import DOWNLOADS
from gateway.catalog.model import ByChecksum


async def download_file(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD /downloads/{aip_id}/files/{checksum}``."""
    address = ByChecksum(product=request.match_info["aip_id"], checksum=request.match_info["checksum"])
    return await request.app[DOWNLOADS].answer(request, address)


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    path = f"{prefix}/downloads/{{aip_id}}/files/{{checksum}}"
    return [web.get(path, download_file, allow_head=False), web.head(path, download_file)]
