"""The STAC API Download extension: ``/collections/{collectionId}/items/{itemId}/download/{assetId}``.

Some STAC APIs say ``assets`` for ``download``; both lead to the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.api.keys import DOWNLOADS
from gateway.catalog.model import ByAsset


def address(parts: Mapping[str, str]) -> ByAsset:
    """The file that the parts of a path name."""
    return ByAsset(collection=parts["collectionId"], item=parts["itemId"], asset=parts["assetId"])


async def get_download(request: web.Request) -> web.StreamResponse:
    """``GET`` (operation ``getDownload``) and ``HEAD`` of an asset."""
    return await request.app[DOWNLOADS].answer(request, address(request.match_info))


def routes(prefix: str) -> list[web.RouteDef]:
    """The routes of this family below ``prefix``."""
    item = f"{prefix}/collections/{{collectionId}}/items/{{itemId}}"
    return [
        one
        for path in (f"{item}/download/{{assetId}}", f"{item}/assets/{{assetId}}")
        for one in (web.get(path, get_download, allow_head=False), web.head(path, get_download))
    ]
