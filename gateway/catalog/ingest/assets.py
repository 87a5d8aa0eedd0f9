"""What STAC assets and files of REGARDS have in common beside their hrefs (`hrefs`): names, sizes, texts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.model import Json, JsonObject
from gateway.locations import Location

MAX_SIZE = 2**53
"""Largest size in bytes that is believed: larger ones are no exact numbers in many JSON readers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What turning an entry into rows needs to know beside the entry."""

    tenant: str
    locations: Sequence[Location]
    """The storage locations that hrefs may belong to; of several the first goes first."""
    remote: bool
    """Whether the entry came over the network from somebody else: then none of its hrefs may name a local path."""
    directory: str
    """What relative hrefs start from: the absolute path of a directory, or the URL of the entry's document."""
    default_collection: str | None
    remark: Callable[[str], None]
    """Takes what is odd about the entry but does not keep it out."""
    own_only: bool = False
    """Whether each href must lie where no other tenant's files do: for entries that administrators of a tenant push."""


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
