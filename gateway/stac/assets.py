"""STAC Assets of files: where they are downloaded, and what their bytes are.

The ``href`` is the gateway's download link, and where the catalogue has the file is an alternate; or the other way
round. An original that nobody outside may learn (a path of this machine, a URL with a credential in it) is in neither.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Literal

from gateway.catalog.ingest.checksums import to_multihash
from gateway.catalog.ingest.model import Checksum
from gateway.stac.links import Json, JsonObject, is_for_all, scheme_of, time_of
from gateway.stac.model import FileRow, LastRestore
from gateway.staging.model import RestoreState

ALTERNATE = "https://stac-extensions.github.io/alternate-assets/v1.2.0/schema.json"
AUTHENTICATION = "https://stac-extensions.github.io/authentication/v1.1.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
ORDER = "https://stac-extensions.github.io/order/v1.1.0/schema.json"
TIMESTAMPS = "https://stac-extensions.github.io/timestamps/v1.1.0/schema.json"

SCHEMES: JsonObject = {
    "gateway_token": {"type": "http", "scheme": "bearer", "description": "A bearer token, or an API key as one."},
    "gateway_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
"""``auth:schemes`` by which callers can show the gateway who they are."""
ORDERABLE = "orderable"

_STATUSES: Mapping[RestoreState, str] = {
    "QUEUED": "pending",
    "STAGING": "ordered",
    "RESTORED": "succeeded",
    "EXPIRED": ORDERABLE,
    "CANCELED": ORDERABLE,
    "FAILED": "failed",
}
"""``order:status`` of a file that has no copy that is always online."""
_KEYS = {"http": "https", "https": "https", "s3": "s3"}
_ROLES = {
    "RAWDATA": "data",
    "QUICKLOOK_SD": "overview",
    "QUICKLOOK_MD": "overview",
    "QUICKLOOK_HD": "overview",
    "THUMBNAIL": "thumbnail",
    "DOCUMENT": "metadata",
    "DESCRIPTION": "metadata",
    "AIP": "metadata",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Showing:
    """How assets are shown."""

    href: Literal["gateway", "origin"] = "gateway"
    """Where ``href`` leads; the other one is an alternate."""
    tells: Callable[[str], bool] = is_for_all
    """Whether everybody may know where the catalogue has a file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """An asset as it is shown."""

    document: JsonObject
    extensions: frozenset[str]
    """Schemas of what the gateway wrote into it."""

    @property
    def order_status(self) -> str | None:
        """``order:status`` of its file, if that has to be brought from a slow storage."""
        return str(self.document["order:status"]) if ORDER in self.extensions else None


def asset(file: FileRow, download: str, showing: Showing) -> Shown:
    """The Asset Object of ``file``, which is downloaded from ``download``."""
    came: JsonObject = json.loads(file.body)
    source = came.get("href")
    document = came
    if not isinstance(source, str):
        source, document = came.get("uri"), _of_regards(file)
    document = without_untold(document, showing)
    document.pop("href", None)
    refs = document.pop("auth:refs", None)
    told = document.pop("alternate", None)
    alternates = told if isinstance(told, dict) else {}
    if file.mime_type is not None:
        document.setdefault("type", file.mime_type)
    extensions = _describe(document, file)

    ours: JsonObject = {"href": download}
    if file.needs_login:
        ours["auth:refs"] = list(SCHEMES)
        extensions.add(AUTHENTICATION)
    first = ours
    if isinstance(source, str) and showing.tells(source):
        theirs: JsonObject = {"href": source} if refs is None else {"href": source, "auth:refs": refs}
        first = _arrange(alternates, ours, theirs, showing)
    if alternates:
        document["alternate"] = alternates
        extensions.add(ALTERNATE)
    return Shown({**first, **document}, frozenset(extensions))


def _arrange(alternates: JsonObject, ours: JsonObject, theirs: JsonObject, showing: Showing) -> JsonObject:
    """Add one of the two places of a file to its ``alternates``; the other one, which goes first."""
    if showing.href == "gateway":
        _add(alternates, theirs)
        return ours
    if "https" in alternates:
        alternates["origin"] = alternates.pop("https")
    alternates["https"] = ours
    return theirs


def _of_regards(file: FileRow) -> JsonObject:
    """The members of a file of REGARDS, which is described otherwise."""
    role = _ROLES.get(file.data_type)
    roles: list[Json] = [] if role is None else [role]
    return {"title": file.file_name, "roles": roles}


def _describe(document: JsonObject, file: FileRow) -> set[str]:
    """Write what is known of the bytes into ``document``; the schemas of that."""
    extensions = set()
    if file.size is not None:
        document["file:size"] = file.size
        extensions.add(FILE)
    if file.checksum is not None and file.checksum_algorithm is not None:
        document["file:checksum"] = to_multihash(Checksum(file.checksum_algorithm, file.checksum))
        extensions.add(FILE)
    if "NEARLINE" in file.states and "ONLINE" not in file.states:
        extensions |= _describe_nearline(document, file.restore)
    return extensions


def _describe_nearline(document: JsonObject, restore: LastRestore | None) -> set[str]:
    """Write how it stands with a file that has to be restored; the schemas of that."""
    document["order:status"] = ORDERABLE if restore is None else _STATUSES[restore.state]
    extensions = {ORDER}
    if restore is not None and restore.state == "RESTORED" and restore.expires is not None:
        document["expires"] = time_of(restore.expires)
        extensions.add(TIMESTAMPS)
    return extensions


def without_untold(document: JsonObject, showing: Showing) -> JsonObject:
    """An Asset Object without alternates and a path that not everybody may know; its ``href`` is looked at apart."""
    found = {name: value for name, value in document.items() if name != "alternate"}
    alternates = document.get("alternate")
    told: JsonObject = {}
    if isinstance(alternates, dict):
        told = {key: one for key, one in alternates.items() if isinstance(one, dict) and is_told(one, showing)}
    if told:
        found["alternate"] = told
    if not _is_relative(document.get("file:local_path", "")):
        del found["file:local_path"]
    return found


def is_told(leading: Mapping[str, Json], showing: Showing) -> bool:
    """Whether everybody may know where an asset or alternate leads."""
    href = leading.get("href")
    return isinstance(href, str) and showing.tells(href)


def _add(alternates: JsonObject, other: JsonObject) -> None:
    """Add ``other`` under the first key that is free; nothing if one of them has its href already."""
    href = other["href"]
    if any(isinstance(one, dict) and one.get("href") == href for one in alternates.values()):
        return
    key = _KEYS.get(scheme_of(str(href)), "origin")
    while key in alternates:
        key = "origin" if key != "origin" and "origin" not in alternates else f"{key}_"
    alternates[key] = other


def _is_relative(path: Json) -> bool:
    return isinstance(path, str) and not path.startswith("/") and "\\" not in path and scheme_of(path) == ""
