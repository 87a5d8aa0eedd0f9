"""Metalink documents: well-formed whatever a catalogue holds, and what aria2 downloads and verifies by."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.archive.names import Names
from gateway.metalink import Entry, Metalink3, Metalink4, Mirror, Writer, document
from tests.archive.tools import program
from tests.storage_plugins.web import holding, serving

NOW = datetime.datetime(2026, 5, 1, 14, 0, 0, 5, datetime.timezone(datetime.timedelta(hours=2)))
NAMESPACE = {4: "{urn:ietf:params:xml:ns:metalink}", 3: "{http://www.metalinker.org/}"}
VERSIONS: dict[int, Writer] = {4: Metalink4(), 3: Metalink3()}

each_version = pytest.mark.parametrize("version", VERSIONS)


def parsed(version: int, *entries: Entry) -> ET.Element:
    return ET.fromstring(b"".join(document(VERSIONS[version], entries, NOW)))


def shape(version: int, element: ET.Element) -> list[tuple[str, dict[str, str], str | None]]:
    return [
        (child.tag.removeprefix(NAMESPACE[version]), child.attrib, child.text)
        for child in element.iter()
        if child is not element
    ]


FULL = Entry(
    "p/a b.tif", [Mirror("https://h/x?a=1&b=2"), Mirror("ftp://g/<x>", 7)], 5, {"SHA-256": "AB", "WHIRLPOOL": "12"},
    "S2A <1>", "image/tiff",
)  # fmt: skip
LEAST = Entry("n", [Mirror("https://h/")])


def test_version_4_is_that_of_rfc_5854() -> None:
    root = parsed(4, FULL, LEAST)
    assert root.findtext(f"{NAMESPACE[4]}published") == "2026-05-01T12:00:00Z"
    full, least = root.findall(f"{NAMESPACE[4]}file")
    assert full.attrib == {"name": "p/a b.tif"}
    assert shape(4, full) == [
        ("identity", {}, "S2A <1>"),
        ("size", {}, "5"),
        ("hash", {"type": "sha-256"}, "ab"),
        ("url", {"priority": "1"}, "https://h/x?a=1&b=2"),
        ("url", {"priority": "7"}, "ftp://g/<x>"),
    ]
    assert shape(4, least) == [("url", {"priority": "1"}, "https://h/")]


def test_version_3_is_what_regards_serves_with_hashes() -> None:
    root = parsed(3, FULL, LEAST)
    assert root.attrib["version"] == "3.0"
    assert root.attrib["pubdate"] == "Fri, 01 May 2026 12:00:00 GMT"
    full, least = root.findall(f"{NAMESPACE[3]}files/{NAMESPACE[3]}file")
    assert shape(3, full) == [
        ("identity", {}, "S2A <1>"),
        ("size", {}, "5"),
        ("verification", {}, None),
        ("hash", {"type": "sha256"}, "ab"),
        ("mimetype", {}, "image/tiff"),
        ("resources", {}, None),
        ("url", {"type": "https", "preference": "100"}, "https://h/x?a=1&b=2"),
        ("url", {"type": "ftp", "preference": "94"}, "ftp://g/<x>"),
    ]
    assert shape(3, least) == [
        ("resources", {}, None),
        ("url", {"type": "https", "preference": "100"}, "https://h/"),
    ]


@each_version
@given(
    texts=st.lists(st.text(), min_size=4, max_size=4)
    | st.permutations(["]]>", "<!DOCTYPE x>", "&lt;", "\0\ud800\uffff\x0b\r\n\t\"'"])
)
def test_whatever_a_catalogue_holds_is_text(version: int, texts: list[str]) -> None:
    name, identity, digest, path = texts
    entry = Entry(Names().place(name, name), [Mirror(f"https://h/{path}")], None, {"MD5": digest}, identity, name)
    root = parsed(version, entry, LEAST)
    assert len(list(root.iter(f"{NAMESPACE[version]}file"))) == 2
    (found, _) = root.iter(f"{NAMESPACE[version]}file")
    assert found.get("name") == entry.name
    assert len(shape(version, found)) <= 7
    if identity.isprintable():
        assert found.findtext(f"{NAMESPACE[version]}identity") == identity


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "a/", ".", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="relative"):
        Entry(name, [Mirror("https://h/")])


def test_a_file_that_is_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Entry("a", [])
    for priority in (0, 1_000_000):
        with pytest.raises(ValueError, match="priority"):
            Mirror("https://h/", priority)


async def aria2(metalink: Path, directory: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        program("aria2c"), "--no-conf", "--quiet", f"--dir={directory}", "--max-tries=1", f"--metalink-file={metalink}",
        env={"PATH": os.environ["PATH"], "HOME": str(directory)}, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return await asyncio.wait_for(process.wait(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@each_version
@pytest.mark.parametrize("algorithm", ["SHA-256", "SHA-512"])
@pytest.mark.parametrize("right", [True, False])
async def test_aria2_downloads_by_it_and_sees_a_wrong_hash(
    tmp_path: Path, version: int, right: bool, algorithm: str
) -> None:
    content = b"0123456789" * 1000
    shown = hashlib.new(algorithm.replace("-", ""), content if right else b"other").hexdigest()
    async with serving(holding(content, 'ETag: "1"')) as upstream:
        names = Names()
        url = upstream.url("/file?a=1&b=2")
        entries = [  # aria2 1.36 itself would write an & in a name as &#38;
            Entry(names.place("a<'>é.tif", folder), [Mirror(url)], len(content), {algorithm: shown})
            for folder in ("one", "two")
        ]
        file = tmp_path / f"order{VERSIONS[version].extension}"
        file.write_bytes(b"".join(document(VERSIONS[version], entries, NOW)))
        ended = await aria2(file, tmp_path)
    if right:
        assert ended == 0
        assert {asked.target for asked in upstream.asked} == {"/file?a=1&b=2"}
        assert [(tmp_path / entry.name).read_bytes() for entry in entries] == [content, content]
    else:
        assert ended == 32
