"""Checks of what the API says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.conformance.asking import joined
from gateway.conformance.suite import Check, Run, SkippedError, UnusualError, WrongError

DOWNLOAD = "https://api.stacspec.org/v1.0.0/download"
FEATURES = "https://api.stacspec.org/v1.0.0/ogcapi-features"
EXTENSION = "STAC API - Download 1.0.0"


async def _json(run: Run, path: str) -> dict[str, Any]:
    url = f"{run.subject.root}{path}"
    answer = await run.asking.ask("GET", url)
    told = answer.json()
    if answer.status != 200 or not isinstance(told, dict):
        raise WrongError(f"GET {path} is {answer.status}, {answer.media_type or 'without media type'}: no JSON object")
    return told


def _advertised(path: str) -> Callable[[Run], Awaitable[None]]:
    async def look(run: Run) -> None:
        classes = (await _json(run, path)).get("conformsTo")
        if not isinstance(classes, list) or DOWNLOAD not in classes:
            raise WrongError(f"conformsTo of {path} lacks {DOWNLOAD}")

    return look


async def _features(run: Run) -> None:
    classes = (await _json(run, "/conformance")).get("conformsTo")
    if not isinstance(classes, list) or FEATURES not in classes:
        raise UnusualError(f"conformsTo lacks {FEATURES}, which the extension depends on")


async def _linked(run: Run) -> None:
    if not run.subject.described:
        raise SkippedError("the item does not show the asset")
    if not run.subject.is_linked:
        raise UnusualError("neither href nor an alternate of the asset is its download: clients will not find it")


async def _described(run: Run) -> None:
    links = (await _json(run, "/")).get("links")
    found = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    hrefs = [link.get("href") for link in found if link.get("rel") == "service-desc"]
    if not hrefs or not isinstance(hrefs[0], str):
        raise UnusualError("/ has no link service-desc")
    answer = await run.asking.ask("GET", joined(f"{run.subject.root}/", hrefs[0]))
    told = answer.json()
    if answer.status == 200 and answer.is_whole and not isinstance(told, dict):
        raise SkippedError("the description is no JSON")
    if not answer.is_whole:
        raise SkippedError("the description is longer than is read")
    paths = told.get("paths") if isinstance(told, dict) else None
    items = paths.values() if isinstance(paths, dict) else ()
    operations = [one for item in items if isinstance(item, dict) for one in item.values()]
    if not any(isinstance(one, dict) and one.get("operationId") == "getDownload" for one in operations):
        raise UnusualError("the description has no operation getDownload")


CHECKS = (
    Check("the landing page advertises the class", f"{EXTENSION}, Overview; STAC API Core", _advertised("/")),
    Check("/conformance advertises the class", f"{EXTENSION}, Overview; OGC 17-069 §7.4", _advertised("/conformance")),
    Check("what the class depends on is advertised", f"{EXTENSION}, Overview: Dependencies", _features),
    Check("the asset leads to its download", f"{EXTENSION}, Link Relations", _linked),
    Check("the API description has getDownload", f"{EXTENSION}, openapi.yaml", _described),
)
