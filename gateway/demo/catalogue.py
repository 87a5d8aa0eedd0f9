"""The demo's catalogue: four small STAC Collections with their Items and files, laid out like an archive.

Every file lies at ``{collection}/{item}/{file}``, the Item beside it as ``{item}.json``, the Collection above it as
``collection.json``. Files of the Collection `ARCHIVED` lie below `TAPE` instead, and their hrefs are ``tape://…``.
"""

from __future__ import annotations

import dataclasses
import datetime
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from gateway.demo import files

STAC_VERSION = "1.1.0"
FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

OPEN, RESTRICTED, LICENSED, ARCHIVED = "open", "restricted", "licensed", "archive"
"""Ids of the Collections; `gateway.demo.accounts` gives them their rights."""

TAPE = ".tape"
"""Folder that plays a tape library; locations of files in it are paths below it."""

LICENCE_URL = "https://demo.example/licences/demo-licence"
"""Terms of the Collection `LICENSED`. The host is one that cannot exist (RFC 2606)."""

MULTIHASH = {"md5": "d50110", "sha256": "1220"}
"""Code and length of each algorithm, both as hexadecimal varints: what a multihash has before the digest."""

MANY_ALPHABETS = "Île-de-France – Εύβοια – 北京 – Москва.tif"

GEOTIFF, PNG, TEXT, BINARY = "image/tiff; application=geotiff", "image/png", "text/plain", "application/octet-stream"
SCENE_PIXELS = 256
SCENE_DEGREES = 1.28
"""Side of every scene, in pixels and in degrees."""

ABOUT = """\
What this is
============
A made-up satellite scene of the demonstration catalogue. Its hills are sums of sines.

    coast-20240601.tif   the scene, GeoTIFF in EPSG:4326
    thumbnail.png        the same, smaller
    about.txt            this text
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    """A file of a product, before it is written."""

    key: str
    file_name: str
    media_type: str
    role: Literal["data", "thumbnail", "metadata"]
    pieces: Callable[[], Iterable[bytes]]
    algorithm: Literal["md5", "sha256"] = "sha256"


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """What becomes a STAC Item and its files."""

    item: str
    title: str
    when: datetime.datetime
    west: float
    north: float
    assets: tuple[Asset, ...]

    @property
    def bbox(self) -> list[float]:
        """West, south, east, north in degrees."""
        south, east = self.north - SCENE_DEGREES, self.west + SCENE_DEGREES
        return [round(value, 6) for value in (self.west, south, east, self.north)]


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """What becomes a STAC Collection."""

    collection: str
    title: str
    description: str
    license: str
    """As STAC writes it: an SPDX identifier, or ``other`` with a link."""
    products: tuple[Product, ...]
    on_tape: bool = False


def write_catalogue(directory: Path, *, large: int | None) -> list[Path]:
    """Write the files and their STAC documents below ``directory``, over those that are there.

    ``large`` adds a file of that many bytes to the Collection `OPEN`. Returns the documents, each Collection before its
    Items. It writes some 70 MB and ``large``: call it in a thread.

    Raises:
        OSError: a file cannot be written, or ``large`` bytes do not fit on the disk.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if large is not None and large > (free := shutil.disk_usage(directory).free):
        raise OSError(errno.ENOSPC, f"A file of {large} bytes does not fit: {free} are free", str(directory))
    documents = []
    for dataset in datasets(large):
        folder = directory / dataset.collection
        documents.append(_write_json(folder / "collection.json", _collection(dataset)))
        for product in dataset.products:
            path = folder / product.item / f"{product.item}.json"
            assets = {asset.key: _write_asset(directory, path.parent, asset, dataset) for asset in product.assets}
            documents.append(_write_json(path, _item(dataset, product, assets)))
    return documents


def datasets(large: int | None) -> list[Dataset]:
    """The catalogue as values, with a file of ``large`` bytes or, where None, without."""
    big = () if large is None else (_blob("large-20240606", "One large file", 6, large),)
    return [
        Dataset(
            OPEN,
            "Open scenes",
            "Everybody may download these, with or without an account.",
            "CC-BY-4.0",
            (
                _coast(),
                _scene("alphabets-20240602", "A name in several alphabets", 2, "alphabets.tif", MANY_ALPHABETS),
                _bands(),
                _blob("mosaic-20240604", "A mosaic of 64 MiB", 4, 64 * files.MIB),
                _product("empty-20240605", "A file without bytes", 5, [_data("empty.dat", BINARY, lambda: ())]),
                *big,
            ),
        ),
        Dataset(
            RESTRICTED,
            "Restricted radar scenes",
            "Only the group science may download these.",
            "CC-BY-NC-4.0",
            tuple(_scene(f"radar-202406{day}", f"Radar scene of {day} June", day) for day in range(11, 17)),
        ),
        Dataset(
            LICENSED,
            "Licensed survey scenes",
            "Only the group science may download these, and only who has accepted the licence.",
            "other",
            tuple(_scene(f"survey-202406{day}", f"Survey scene of {day} June", day) for day in range(21, 23)),
        ),
        Dataset(
            ARCHIVED,
            "Archived scenes",
            "Only the group science may download these, and they must be brought from tape first.",
            "CC-BY-NC-4.0",
            tuple(_scene(f"archive-202406{day}", f"Archived scene of {day} June", day) for day in range(25, 28)),
            on_tape=True,
        ),
    ]


def _product(item: str, title: str, day: int, assets: Sequence[Asset]) -> Product:
    """A product of that day of June 2024; each day has its own place on the globe."""
    west, north = _corner(day)
    when = datetime.datetime(2024, 6, day, 10, 30, tzinfo=datetime.UTC)
    return Product(item, title, when, west, north, tuple(assets))


def _corner(day: int) -> tuple[float, float]:
    """Longitude and latitude of the north-west corner of the scene of that day."""
    return float(-20 + 3 * day), float(45 - day)


def _data(file_name: str, media_type: str, pieces: Callable[[], Iterable[bytes]], *, key: str | None = None) -> Asset:
    return Asset(key or file_name, file_name, media_type, "data", pieces)


def _scene(item: str, title: str, day: int, key: str | None = None, file_name: str | None = None) -> Product:
    """A product with one GeoTIFF in colours and its thumbnail."""
    name = file_name or f"{item}.tif"
    image = _data(name, GEOTIFF, lambda: [_geotiff(item, day, colour=True)], key=key)
    return _product(item, title, day, [image, _thumbnail(item)])


def _coast() -> Product:
    scene = _scene("coast-20240601", "A coast, with a thumbnail and a text", 1)
    about = Asset("about", "about.txt", TEXT, "metadata", lambda: [ABOUT.encode()], "md5")
    return dataclasses.replace(scene, assets=(*scene.assets, about))


def _bands() -> Product:
    item, day = "bands-20240603", 3

    def band(name: str) -> Asset:
        return _data(f"{name}.tif", GEOTIFF, lambda: [_geotiff(f"{item}/{name}", day, colour=False)])

    return _product(item, "Three bands in grey", day, [band("B02"), band("B03"), band("B04")])


def _blob(item: str, title: str, day: int, size: int) -> Product:
    return _product(item, title, day, [_data(f"{item}.bin", BINARY, lambda: files.noise(item, size))])


def _geotiff(seed: str, day: int, *, colour: bool) -> bytes:
    west, north = _corner(day)
    grey = files.relief(seed, width=SCENE_PIXELS, height=SCENE_PIXELS)
    raster = files.coloured(grey) if colour else grey
    return files.geotiff(raster, west=west, north=north, degrees=SCENE_DEGREES / SCENE_PIXELS)


def _thumbnail(item: str) -> Asset:
    def pieces() -> list[bytes]:
        grey = files.relief(item, width=SCENE_PIXELS, height=SCENE_PIXELS)
        return [files.png(files.coloured(files.reduced(grey, 4)))]

    return Asset("thumbnail", "thumbnail.png", PNG, "thumbnail", pieces)


def _write_asset(directory: Path, folder: Path, asset: Asset, dataset: Dataset) -> dict[str, object]:
    """Write the file; returns its STAC Asset."""
    path = folder / asset.file_name
    # An href is a reference (RFC 3986 §4.1), in which spaces and letters beyond ASCII are percent-encoded.
    href = "./" + quote(path.name)
    if dataset.on_tape:
        location = path.relative_to(directory)
        path, href = directory / TAPE / location, "tape://" + quote(location.as_posix())
    written = files.write(path, asset.pieces(), asset.algorithm)
    return {
        "href": href,
        "title": path.name,
        "type": asset.media_type,
        "roles": [asset.role],
        "file:size": written.size,
        "file:checksum": MULTIHASH[asset.algorithm] + written.digest,
    }


def _item(dataset: Dataset, product: Product, assets: dict[str, dict[str, object]]) -> dict[str, object]:
    west, south, east, north = product.bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    collection = {"href": "../collection.json", "type": "application/json", "title": dataset.title}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [FILE_EXTENSION],
        "id": product.item,
        "collection": dataset.collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": product.bbox,
        "properties": {"title": product.title, "datetime": _timestamp(product.when)},
        "links": [{"rel": rel, **collection} for rel in ("root", "parent", "collection")],
        "assets": assets,
    }


def _collection(dataset: Dataset) -> dict[str, object]:
    wests, souths, easts, norths = zip(*(product.bbox for product in dataset.products), strict=True)
    times = [product.when for product in dataset.products]
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json", "title": dataset.title}]
    if dataset.license == "other":
        links.append({"rel": "license", "href": LICENCE_URL, "type": "text/html", "title": "Demo licence"})
    links += [
        {"rel": "item", "href": f"./{p.item}/{p.item}.json", "type": "application/geo+json", "title": p.title}
        for p in dataset.products
    ]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": dataset.collection,
        "title": dataset.title,
        "description": dataset.description,
        "license": dataset.license,
        "extent": {
            "spatial": {"bbox": [[min(wests), min(souths), max(easts), max(norths)]]},
            "temporal": {"interval": [[_timestamp(min(times)), _timestamp(max(times))]]},
        },
        "links": links,
    }


def _timestamp(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_json(path: Path, document: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path
