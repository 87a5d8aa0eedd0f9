"""Files on tape: their ingest, which asks no tape, and what the doctor finds of storages that restore."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.commands.support import BUCKET, Stand, problems, run, s3_storage, warnings
from tests.commands.test_doctor_storages import CONTENT, look, put
from tests.s3.strict import StrictS3
from tests.storage_plugins.tape_site import TapeFile, tape_site
from tests.storage_plugins.test_command import Library

COLLECTION = {
    "type": "Collection", "stac_version": "1.1.0", "id": "reels", "description": "On tape", "license": "other",
    "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}, "links": [],
}  # fmt: skip


@pytest.fixture
def library(stand: Stand) -> Library:
    return Library(stand.directory / "library")


def tape_table(library: Library, **options: object) -> dict[str, object]:
    programs = {action: library.program(action) for action in ("stage", "query", "release")}
    given = {
        "name": "reels",
        "plugin": "command",
        "type": "NEARLINE",
        "tenants": ["esa"],
        **programs,
        "staged_root": str(library.root / "disk"),
        "prefix": "archive/",
        **options,
    }
    return {name: it for name, it in given.items() if it is not None}


def cached(stand: Stand, library: Library, **options: object) -> Path:
    """A configuration with tapes and a cache."""
    cache = stand.directory / "cache"
    cache.mkdir(exist_ok=True)
    return stand.configure(
        tape_table(library, **options), stand.disk(name="cache", root=str(cache)), staging={"cache": "cache"}
    )


def catalogue(stand: Stand, *assets: Mapping[str, object]) -> Path:
    """Files with a collection and an item with ``assets``."""
    directory = stand.directory / "stac"
    directory.mkdir(exist_ok=True)
    (directory / "collection.json").write_text(json.dumps(COLLECTION))
    item: dict[str, object] = {
        "type": "Feature", "stac_version": "1.1.0", "id": "scene", "collection": "reels", "geometry": None,
        "properties": {"datetime": "2023-04-13T13:56:55Z"}, "links": [],
        "assets": {f"a{number}": asset for number, asset in enumerate(assets)},
    }  # fmt: skip
    (directory / "item.json").write_text(json.dumps(item))
    return directory


async def rows(stand: Stand) -> list[tuple[object, ...]]:
    found = await stand.catalogue.connection.fetch(
        "SELECT c.storage, c.location, c.state, f.size AS file_size, c.size, c.version FROM copies c "
        "JOIN files f USING (file_id) ORDER BY c.location"
    )
    return [tuple(row) for row in found]


@pytest.mark.parametrize("checksum", [False, True])
async def test_a_catalogue_of_tapes_is_ingested_without_asking_any(
    stand: Stand, library: Library, checksum: bool
) -> None:
    config = cached(stand, library)
    files = catalogue(
        stand,
        {"href": "tape://archive/esa/one.tif", "file:size": 12345, "file:checksum": "1220" + "ab" * 32},
        {"href": "tape://archive/esa/two.tif"},
    )
    arguments = [
        "ingest",
        str(files),
        "--config",
        str(config),
        "--tenant",
        "esa",
        *(["--checksum"] if checksum else []),
    ]
    result = await run(*arguments)
    assert result.exit_code == 0, result.output
    assert "items: 1 accepted, 0 updated\nfiles: 2\nrejected: 0" in result.stdout
    assert await rows(stand) == [
        ("reels", "esa/one.tif", "NEARLINE", 12345, None, None),
        ("reels", "esa/two.tif", "NEARLINE", None, None, None),
    ]
    assert ("is not read: its storage is nearline" in result.stderr) is checksum
    assert library.journal == []


async def test_hrefs_of_other_tapes_and_tenants_are_rejected(stand: Stand, library: Library) -> None:
    config = cached(stand, library, prefixes=["{tenant}/"])
    for href in ("tape://elsewhere/esa/one.tif", "tape://archive/cnes/one.tif", "tape://archive/esa/../cnes/one.tif"):
        files = catalogue(stand, {"href": href})
        result = await run("ingest", files, "--config", config, "--tenant", "esa")
        assert "rejected: 1" in result.stdout, result.output
    assert await rows(stand) == []


async def test_files_restored_in_place_are_described_but_not_read(stand: Stand, library: Library) -> None:
    disk = library.root / "disk"
    (disk / "stub").write_bytes(CONTENT)
    (disk / "stub").chmod(stat.S_IRUSR)
    table = tape_table(library, in_place=True, root=str(disk), staged_root=None)
    files = catalogue(stand, {"href": f"{disk}/stub"})
    result = await run("ingest", files, "--config", stand.configure(table), "--tenant", "esa", "--checksum")
    assert result.exit_code == 0, result.output
    assert "is not read: its storage is nearline" in result.stderr
    [(storage, location, state, file_size, size, version)] = await rows(stand)
    assert (storage, location, state, file_size, size) == ("reels", "stub", "NEARLINE", len(CONTENT), len(CONTENT))
    assert version


async def tape_copy(stand: Stand, location: str = "a", storage: str = "reels", state: str = "ONLINE") -> None:
    """A row for a file of ``storage``."""
    entry = await stand.catalogue.described(CONTENT)
    await stand.catalogue.copy(entry, storage, location, None)
    await stand.catalogue.connection.execute("UPDATE copies SET state = $1 WHERE storage = $2", state, storage)


async def test_the_doctor_asks_how_it_stands_with_a_copy(stand: Stand, library: Library) -> None:
    config = cached(stand, library)
    await tape_copy(stand)
    assert "'a' is lost: no such file on any tape" in problems(await look(config))
    library.put("a")
    found = await look(config)
    assert [finding.text for finding in found] == [
        "plug-in 'command': restores, fetches, knows tapes",
        "'a' is nearline: it must be restored first",
    ]
    assert {asked["action"] for asked in library.asked()} == {"query"}
    library.arrive("a")
    assert [finding.text for finding in await look(config)][-1] == "'a' can be fetched"
    of_cache = await look(config, storage=1)
    assert of_cache[0].text == "plug-in 'local': opens, keeps restored copies"
    library.answer({"copies": []})
    assert warnings(await look(config)) == ["'a': nothing is said of it"]
    library.answer({"copies": [{"key": "gateway-doctor", "state": "FAILED", "error": "eaten"}]})
    assert problems(await look(config)) == ["'a' cannot be restored: eaten"]
    library.answer(b"?")
    assert problems(await look(config)) == [f"'a': nobody tells how it stands: {sys.executable}: the answer is no JSON"]


async def test_the_doctor_finds_settings_that_do_not_fit(stand: Stand, library: Library) -> None:
    await tape_copy(stand)
    library.put("a")
    found = await look(stand.configure(tape_table(library)))
    assert problems(found) == [
        "plug-in 'command': restores, fetches, knows tapes: there is no cache to fetch files into"
    ]
    assert warnings(await look(cached(stand, library, type="ONLINE"))) == [
        "type 'ONLINE', but its files must be fetched first"
    ]
    absent = await look(stand.configure(tape_table(library, stage=["/absent/program"])))
    assert problems(absent) == ["stage: '/absent/program' is no program, or may not be run; give its absolute path"]


async def test_the_doctor_reads_no_file_that_waits_for_a_tape(stand: Stand, library: Library) -> None:
    disk = library.root / "disk"
    (disk / "a").write_bytes(CONTENT)
    await tape_copy(stand)
    config = stand.configure(tape_table(library, in_place=True, root=str(disk), staged_root=None))
    library.answer({"copies": [{"key": "gateway-doctor", "state": "NEARLINE"}]})
    assert [finding.text for finding in await look(config)] == [
        "plug-in 'command': opens, restores, knows tapes",
        "its directory can be looked into",
        "'a' is nearline: it must be restored first",
    ]
    library.answer({"copies": [{"key": "gateway-doctor", "state": "ONLINE"}]})
    assert [finding.text for finding in await look(config)][-1] == "it can be read"


async def test_the_doctor_finds_archived_objects(stand: Stand, strict: StrictS3) -> None:
    location = await put(stand, strict)
    strict.store.find(BUCKET, "esa/data").storage_class = "GLACIER"
    config = stand.configure(s3_storage(strict, type="NEARLINE"))
    assert [finding.text for finding in await look(config)] == [
        "plug-in 's3': streams, signs URLs, restores",
        f"'{location}' is nearline: it must be restored first",
    ]
    assert {request.method for request in strict.requests} == {"HEAD"}


async def test_the_doctor_asks_a_site_with_tapes(stand: Stand) -> None:
    async with tape_site() as site:
        site.files["/data/a"] = TapeFile(CONTENT)
        table: dict[str, object] = {
            "name": "reels", "plugin": "tape_rest", "type": "NEARLINE", "tenants": ["esa"],
            "url": f"{site.front}/data", "token": site.token,
        }  # fmt: skip
        await tape_copy(stand, state="NEARLINE")
        assert [finding.text for finding in await look(stand.configure(table))] == [
            "plug-in 'tape_rest': streams, restores",
            "'a' is nearline: it must be restored first",
        ]
        site.token = "another"
        assert "the site answers 401" in problems(await look(stand.configure(table)))[0]
