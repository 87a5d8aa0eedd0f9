"""Documents of an upstream STAC API, changed so that they lead to this gateway: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from urllib.parse import quote, urljoin

from gateway.catalog.ingest.model import Json, JsonObject
from gateway.stac.links import is_for_all

DOWNLOAD_CLASS = "https://api.stacspec.org/v1.0.0/download"
"""Conformance class of the STAC API Download extension."""
ORIGIN = "origin"
"""Key under which an asset keeps the href of the upstream (alternate-assets extension)."""
ALTERNATE_ASSETS = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
_SERVICE = ("service-desc", "service-doc")


@dataclasses.dataclass(frozen=True, slots=True)
class Rewriting:
    """From URLs of the upstream to those of this gateway, for one document."""

    upstream: str
    """Root URL of the upstream, without a slash at the end."""
    root: str
    """Root URL of the STAC API here, without a slash at the end."""
    document: str
    """URL of the document at the upstream: what its relative links start from."""
    delivers: Callable[[str], bool]
    """Whether this gateway can deliver what lies at an absolute href."""

    def link(self, href: str) -> str:
        """``href``, absolute; what leads into the upstream leads here."""
        absolute = joined(self.document, href)
        rest = absolute.removeprefix(self.upstream)
        if rest is absolute or (rest and rest[0] not in "/?#"):
            return absolute
        return self.root + rest

    def links(self, links: Json) -> Json:
        """The member ``links`` of any document, or an array of links like it."""
        if not isinstance(links, list):
            return links
        return [self._link(link) for link in links]

    def whole(self, document: Json) -> Json:
        """A document that came whole: a landing page, a collection, an item, or anything else with links."""
        if not isinstance(document, dict):
            return document
        changed = dict(document)
        if "links" in changed:
            changed["links"] = self.links(changed["links"])
        if "conformsTo" in changed:
            changed["conformsTo"] = with_download_class(changed["conformsTo"])
        if document.get("type") == "Feature":
            changed |= self._assets(document)
        return changed

    def _link(self, link: Json) -> Json:
        if not isinstance(link, dict) or not isinstance(link.get("href"), str):
            return link
        href = self.link(str(link["href"]))
        if link.get("rel") in _SERVICE and href.startswith(self.root):
            # What describes the upstream says nothing of the operations that are here.
            return {**link, **_SERVICES[str(link["rel"])](self.root)}
        return {**link, "href": href}

    def _assets(self, item: JsonObject) -> JsonObject:
        """The members of an item that change along with its assets."""
        assets, collection, identifier = item.get("assets"), item.get("collection"), item.get("id")
        if not isinstance(assets, dict) or not isinstance(collection, str) or not isinstance(identifier, str):
            return {}
        base = f"{self.root}/collections/{_part(collection)}/items/{_part(identifier)}/download"
        changed = {key: self._asset(asset, f"{base}/{_part(key)}") for key, asset in assets.items()}
        members: JsonObject = {"assets": changed}
        if any(isinstance(one, dict) and "alternate" in one and one is not assets[key] for key, one in changed.items()):
            listed = item.get("stac_extensions")
            extensions = list(listed) if isinstance(listed, list) else []
            if not any(isinstance(one, str) and "/alternate-assets/" in one for one in extensions):
                members["stac_extensions"] = [*extensions, ALTERNATE_ASSETS]
        return members

    def _asset(self, asset: Json, download: str) -> Json:
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str) or not asset["href"]:
            return asset
        href = joined(self.document, str(asset["href"]))
        if not self.delivers(href):
            return asset if href == asset["href"] else {**asset, "href": href}
        rest = {name: value for name, value in asset.items() if name != "alternate"}
        alternates = self._alternates(asset.get("alternate"))
        if is_for_all(href):
            alternates[ORIGIN] = {"href": href}
        return {**rest, "href": download, **({"alternate": alternates} if alternates else {})}

    def _alternates(self, others: Json) -> JsonObject:
        """Other places of a file. By a URL that lets in whoever has it, downloads would go past rights and quotas."""
        found: JsonObject = {}
        for name, other in others.items() if isinstance(others, dict) else ():
            if isinstance(other, dict) and isinstance(other.get("href"), str):
                href = joined(self.document, str(other["href"]))
                if is_for_all(href):
                    found[name] = {**other, "href": href}
        return found


def joined(base: str, href: str) -> str:
    """``href`` from ``base`` on; as it is where it is no URL."""
    try:
        return urljoin(base, href)
    except ValueError:
        return href


def with_download_class(conforms_to: Json) -> Json:
    """A member ``conformsTo``, with the download class."""
    if not isinstance(conforms_to, list) or DOWNLOAD_CLASS in conforms_to:
        return conforms_to
    return [*conforms_to, DOWNLOAD_CLASS]


_SERVICES: dict[str, Callable[[str], JsonObject]] = {
    "service-desc": lambda root: {"href": f"{root}/api", "type": "application/vnd.oai.openapi+json;version=3.1"},
    "service-doc": lambda root: {"href": f"{root}/api.html", "type": "text/html"},
}


def _part(text: str) -> str:
    return quote(text, safe="")
