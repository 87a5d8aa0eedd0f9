"""From the paths that were given to the entries that lie in their files."""

from __future__ import annotations

import dataclasses
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from gateway.catalog.ingest import geoparquet, jsonstream
from gateway.catalog.ingest.events import Place, RefusedError, Rejection, Remark
from gateway.catalog.ingest.extent import short
from gateway.catalog.ingest.jsonstream import STREAMED, Found, Unreadable
from gateway.catalog.ingest.model import Json, JsonObject
from gateway.catalog.ingest.walking import Walk

LINE_SUFFIXES = frozenset((".ndjson", ".jsonl", ".geojsonl"))
"""Files with one JSON text a line."""
SUFFIXES = LINE_SUFFIXES | {".json", ".geojson"}
"""Files that are taken out of a directory."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawEntry:
    """An object that lies in a file, of whatever kind."""

    place: Place
    directory: str
    """What its relative hrefs start from: the absolute path of a directory, or the URL of its document."""
    value: JsonObject


def read(paths: Iterable[Path]) -> Iterator[RawEntry | Rejection | Remark]:
    """Read the files and directories one after another; a Rejection stands for what is no entry or cannot be read.

    Directories are searched to the bottom, in the order of names, without following links to directories. Files
    with the suffixes `LINE_SUFFIXES` hold a text a line, those with `geoparquet.SUFFIXES`, which are not looked for in
    directories, a row an item, all others one or more texts that follow one another. A file
    that was given and is a STAC Catalog is the root of a static catalogue: its links are followed below its directory.
    """
    for path in paths:
        if not _is_directory(path):
            yield from _walk(path) if _is_catalogue(path) else _read_file(path)
            continue
        empty = True
        for found in _files_below(path):
            empty = False
            if isinstance(found, Rejection):
                yield found
            else:
                yield from _read_file(found)
        if empty:
            yield Remark(Place(str(path)), f"holds no file with one of the suffixes {', '.join(sorted(SUFFIXES))}")


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # reading it will say why
        return False


def _files_below(directory: Path) -> Iterator[Path | Rejection]:
    errors: list[OSError] = []
    for folder, folders, names in os.walk(directory, onerror=errors.append):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)
    for error in errors:
        yield Rejection(Place(str(error.filename)), f"cannot be read: {error.strerror}")


def _read_file(path: Path) -> Iterator[RawEntry | Rejection]:
    place = Place(str(path))
    try:
        # Before it is opened: a pipe without a writer would hold up the thread for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            yield Rejection(place, "is no regular file")
            return
        if path.suffix.lower() in geoparquet.SUFFIXES:
            yield from _rows(path, place)
            return
        with path.open("rb") as stream:
            yield from _entries(stream, path, place)
    except OSError as error:
        yield Rejection(place, f"cannot be read: {error.strerror}")


def _rows(path: Path, place: Place) -> Iterator[RawEntry | Rejection]:
    for found in geoparquet.entries(path, place):
        yield found if isinstance(found, Rejection) else RawEntry(found[0], str(path.absolute().parent), found[1])


def _is_catalogue(path: Path) -> bool:
    """Whether the file is a STAC Catalog and nothing else. Of other files no more than two entries are looked at."""
    if path.suffix.lower() in LINE_SUFFIXES | geoparquet.SUFFIXES:
        return False
    try:
        # Before it is opened: as in `_read_file`.
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as stream:
            found = list(itertools.islice(jsonstream.page(stream), 2))
    except OSError:  # reading it will say why
        return False
    match found:
        case [Found(index=None, value={"type": "Catalog"})]:
            return True
    return False


def _walk(root: Path) -> Iterator[RawEntry | Rejection | Remark]:
    """The entries of the static catalogue with the root ``root``."""
    below = os.path.realpath(root.parent)

    def resolve(href: str, base: str) -> str:
        try:
            parts = urlsplit(href)
        except ValueError as error:
            raise RefusedError(f"the link {short(href)} is no URL") from error
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise RefusedError(f"the link {short(href)} leads away from the disk: not followed")
        path = unquote(parts.path)
        if not path or "\0" in path:
            raise RefusedError(f"the link {short(href)} names no file")
        address = os.path.realpath(Path(base).parent / path)
        if os.path.commonpath((below, address)) != below:
            raise RefusedError(f"the link {short(href)} leads out of {below}: not followed")
        return address

    walk = Walk(os.path.realpath(root), resolve)
    while found := walk.following(1):
        for entry in _read_file(Path(found[0].address)):
            if not isinstance(entry, RawEntry):
                yield entry
                continue
            yield from (Rejection(entry.place, reason) for reason in walk.read(found[0], entry.value))
            if entry.value.get("type") != "Catalog":
                yield entry


def _entries(stream: BinaryIO, path: Path, place: Place) -> Iterator[RawEntry | Rejection]:
    parse = jsonstream.lines if path.suffix.lower() in LINE_SUFFIXES else jsonstream.values
    directory = str(path.absolute().parent)
    for found in parse(stream):
        here = dataclasses.replace(place, line=found.line)
        if isinstance(found, Unreadable):
            yield Rejection(here, found.reason)
            continue
        here = dataclasses.replace(here, index=found.index)
        if jsonstream.too_deep(found.value):
            yield Rejection(here, f"nests deeper than {jsonstream.MAX_DEPTH} arrays and objects")
            continue
        yield from unfold(found.value, here, directory)


def unfold(value: Json, place: Place, directory: str) -> Iterator[RawEntry | Rejection]:
    """The entries within ``value``: itself, or those of the array, FeatureCollection or page that it is.

    Their relative hrefs start from ``directory``.
    """
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from unfold(element, dataclasses.replace(place, index=index), directory)
        return
    if not isinstance(value, dict):
        yield Rejection(place, "is no JSON object")
        return
    content = value.get("content")
    if isinstance(content, dict) and "type" not in value:  # how REGARDS wraps each element of a page
        yield from unfold(content, place, directory)
        return
    if value.get("type", "FeatureCollection") == "FeatureCollection":
        arrays = [elements for name in STREAMED if isinstance(elements := value.get(name), list)]
        if arrays:
            for elements in arrays:
                yield from unfold(elements, place, directory)
            return
    identifier = value.get("id")
    if isinstance(identifier, str):
        place = dataclasses.replace(place, id=identifier[:200])
    yield RawEntry(place, directory, value)
