"""From the paths that were given to the entries that lie in their files."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.catalog.ingest import jsonstream
from gateway.catalog.ingest.events import Place, Rejection, Remark
from gateway.catalog.ingest.jsonstream import STREAMED, Unreadable
from gateway.catalog.ingest.model import Json, JsonObject

LINE_SUFFIXES = frozenset((".ndjson", ".jsonl", ".geojsonl"))
"""Files with one JSON text a line."""
SUFFIXES = LINE_SUFFIXES | {".json", ".geojson"}
"""Files that are taken out of a directory."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawEntry:
    """An object that lies in a file, of whatever kind."""

    place: Place
    directory: str
    """Absolute path of the directory that its relative hrefs start from."""
    value: JsonObject


def read(paths: Iterable[Path]) -> Iterator[RawEntry | Rejection | Remark]:
    """Read the files and directories one after another; a Rejection stands for what is no entry or cannot be read.

    Directories are searched to the bottom, in the order of names, without following links to directories. Files
    with the suffixes `LINE_SUFFIXES` hold a text a line, all others one or more texts that follow one another.
    """
    for path in paths:
        if not _is_directory(path):
            yield from _read_file(path)
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
        with path.open("rb") as stream:
            yield from _entries(stream, path, place)
    except OSError as error:
        yield Rejection(place, f"cannot be read: {error.strerror}")


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
        yield from _unfold(found.value, here, directory)


def _unfold(value: Json, place: Place, directory: str) -> Iterator[RawEntry | Rejection]:
    """The entries within ``value``: itself, or those of the array, FeatureCollection or page that it is."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from _unfold(element, dataclasses.replace(place, index=index), directory)
        return
    if not isinstance(value, dict):
        yield Rejection(place, "is no JSON object")
        return
    content = value.get("content")
    if isinstance(content, dict) and "type" not in value:  # how REGARDS wraps each element of a page
        yield from _unfold(content, place, directory)
        return
    if value.get("type", "FeatureCollection") == "FeatureCollection":
        arrays = [elements for name in STREAMED if isinstance(elements := value.get(name), list)]
        if arrays:
            for elements in arrays:
                yield from _unfold(elements, place, directory)
            return
    identifier = value.get("id")
    if isinstance(identifier, str):
        place = dataclasses.replace(place, id=identifier[:200])
    yield RawEntry(place, directory, value)
