"""unzip, 7z, bsdtar and Python accept what is laid out: every kind of member, any number and any size of them."""

from __future__ import annotations

import datetime
import os
import subprocess
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.archive.layout import Layout, LayoutBuilder
from gateway.archive.names import Names
from tests.archive.serving import CREATED, MODIFIED, content_of
from tests.archive.tools import EXTRACTS, TESTS, program, run

FULL = bool(os.environ.get("GATEWAY_TEST_FULL"))
GIB = 2**30

each_tool = pytest.mark.parametrize("tool", TESTS)

HOSTILE = [
    "../../etc/passwd", "/etc/shadow", "C:\\Windows\\system.ini", "\\\\server\\share\\x", "con", "NUL.txt", "a/b/c",
    "trailing.", "trailing ", "new\nline", "nul\0byte", "e\u0301", "\u00e9", "\u00c9", "A.txt", "a.TXT",
    "-rf", "~", "..", ".", "", "\u202egpj.exe", "\U0001f600.tif", "\ud800",
    "x" * 400 + ".tif", "\u00fc" * 200 + ".tif", "NOTICE.txt",
    "notice.TXT", "a:b", "a*b?", '<>|"', "%00", "\u4e2d\u6587.nc", "*", "@list", "\uffff",
]  # fmt: skip


def write(path: Path, layout: Layout, contents: Mapping[int, bytes]) -> None:
    """The archive as it is sent, in a file."""
    crcs = layout.columns.crcs[:]
    with path.open("wb") as file:
        for piece in layout.pieces(0, layout.length, crcs):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                content = contents[piece.member][piece.start : piece.stop]
                file.write(content)
                crcs[piece.member] = zlib.crc32(content)
    assert path.stat().st_size == layout.length


def archive_of(files: list[tuple[str, bytes]], path: Path, *, known: bool = True) -> list[str]:
    """Make an archive; gives the names in it."""
    names, builder = Names("NOTICE.txt"), LayoutBuilder()
    placed = [names.place(name, folder) for name, folder in ((name, "") for name, _ in files)]
    for name, (_, content) in zip(placed, files, strict=True):
        builder.add(name, len(content), zlib.crc32(content) if known else None, MODIFIED, identity=name)
    builder.add_text("NOTICE.txt", b"nothing is missing\n", CREATED)
    write(path, builder.finish(CREATED), dict(enumerate(content for _, content in files)))
    return [*placed, "NOTICE.txt"]


@pytest.mark.parametrize("known", [True, False])
@each_tool
def test_hostile_names_are_extracted_below_the_directory_each_with_its_content(
    tool: str, known: bool, tmp_path: Path
) -> None:
    files = [(name, content_of(number * 7, number)) for number, name in enumerate(HOSTILE)]
    archive, directory = tmp_path / "archive.zip", tmp_path / "inside" / "out"
    directory.mkdir(parents=True)
    names = archive_of(files, archive, known=known)
    run(tool, TESTS[tool], archive)
    run(tool, EXTRACTS[tool], archive, directory)
    found = {unicodedata.normalize("NFC", path.name): path for path in directory.iterdir()}
    assert set(found) == set(names)
    for name, (_, content) in zip(names, files, strict=False):
        assert found[name].read_bytes() == content
        assert found[name].is_file()
        assert not found[name].is_symlink()
    assert [path.name for path in tmp_path.iterdir()] in (["archive.zip", "inside"], ["inside", "archive.zip"])
    assert [path.name for path in directory.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("known", [True, False])
def test_an_archive_can_be_taken_apart_while_it_comes(known: bool, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    files = [("one", content_of(1000)), ("empty", b""), ("two", content_of(100_000))]
    archive_of(files, archive, known=known)
    with subprocess.Popen(["cat", archive], stdout=subprocess.PIPE) as cat:
        subprocess.run([program("bsdtar"), "-xf", "-", "-C", tmp_path], stdin=cat.stdout, check=True, timeout=30)
    for name, content in files:
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("tool", ["unzip", "python"])
def test_the_time_of_a_member_is_told_in_utc(tool: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive_of([("file", b"x")], archive)
    run(tool, EXTRACTS[tool], archive, tmp_path)
    if tool == "unzip":  # Python does not restore times.
        assert (tmp_path / "file").stat().st_mtime == MODIFIED.timestamp()
    with zipfile.ZipFile(archive) as opened:
        assert opened.getinfo("file").date_time == (2024, 2, 29, 23, 59, 58)
        assert opened.getinfo("file").external_attr >> 16 == 0o100644


COUNTS = [70_000, *([65_534, 65_535, 65_536] if FULL else [])]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """An archive of so many members, made once."""
    directory = tmp_path_factory.mktemp("crowds")

    def made(count: int) -> Path:
        archive = directory / f"{count}.zip"
        if not archive.exists():
            builder, crcs = LayoutBuilder(), [zlib.crc32(b"x" * size) for size in range(3)]
            for number in range(count):
                builder.add(f"{number % 100:02}/{number}.txt", number % 3, crcs[number % 3], None, identity="")
            write(archive, builder.finish(CREATED), dict.fromkeys(range(count), b"xx"))
        return archive

    return made


@pytest.mark.parametrize("count", COUNTS)
@each_tool
def test_any_number_of_members_is_accepted(tool: str, count: int, crowd: Callable[[int], Path]) -> None:
    archive = crowd(count)
    assert (b"PK\6\6" in archive.read_bytes()[-98:]) == (count >= 65_535)
    run(tool, TESTS[tool], archive)


def sparse(path: Path, sizes: list[int], *, known: bool = True) -> Layout:
    """An archive of zeros that takes no space on the disk."""
    builder = LayoutBuilder()
    for number, size in enumerate(sizes):
        builder.add(f"{number}.bin", size, crc_of_zeros(size) if known else None, MODIFIED, identity=str(size))
    layout = builder.finish(CREATED)
    crcs = layout.columns.crcs[:]
    with path.open("wb") as file:
        for piece in layout.pieces(0, layout.length, crcs):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                file.seek(piece.length, os.SEEK_CUR)
                crcs[piece.member] = crc_of_zeros(piece.length)
    assert path.stat().st_size == layout.length
    return layout


def crc_of_zeros(size: int) -> int:
    crc, block = 0, bytes(2**24)
    while size:
        crc = zlib.crc32(block[: min(size, len(block))], crc)
        size -= min(size, len(block))
    return crc


@pytest.mark.skipif(not FULL, reason="GATEWAY_TEST_FULL is not set")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("known", [True, False])
@each_tool
def test_a_member_and_offsets_beyond_4_gib_are_accepted(tool: str, known: bool, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    sparse(archive, [10, 5 * GIB, 0, 20], known=known)
    run(tool, TESTS[tool], archive)


@pytest.mark.parametrize("edge", [2**32 - 2, 2**32 - 1, 2**32])
def test_zip64_stands_where_a_number_needs_it_and_only_there(edge: int, tmp_path: Path) -> None:
    """Python reads the directory; the others have read whole archives above."""
    builder = LayoutBuilder()
    header = 30 + 1 + (20 if edge >= 2**32 - 1 else 0)
    builder.add("a", edge, 1, None, identity="")
    builder.add("b", 2**32 - 2 - 31 - header, 2, None, identity="")
    builder.add("c", 5, 3, None, identity="")
    layout = builder.finish(CREATED)
    archive = tmp_path / "archive.zip"
    with archive.open("wb") as file:
        for piece in layout.pieces(0, layout.length):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                file.seek(piece.length, os.SEEK_CUR)
    assert archive.stat().st_size == layout.length
    with zipfile.ZipFile(archive) as opened:
        first, _, last = opened.infolist()
        assert first.file_size == first.compress_size == edge
        assert (first.extract_version == 45) == (edge >= 2**32 - 1)
        assert (last.extract_version == 45) == (last.header_offset >= 2**32 - 1)
        assert bool(first.extra) == (edge >= 2**32 - 1)


def test_a_time_that_dos_does_not_know_is_its_nearest(tmp_path: Path) -> None:
    builder = LayoutBuilder()
    for number, year in enumerate((1601, 1969, 1970, 1979, 1980, 2038, 2107, 2108, 9999)):
        builder.add(f"{number}", 0, None, datetime.datetime(year, 6, 1, tzinfo=datetime.UTC), identity="")
    archive = tmp_path / "archive.zip"
    write(archive, builder.finish(CREATED), {})
    with zipfile.ZipFile(archive) as opened:
        years = [info.date_time[0] for info in opened.infolist()]
    assert years == [1980, 1980, 1980, 1980, 1980, 2038, 2107, 2107, 2107]
    for tool in TESTS:
        run(tool, TESTS[tool], archive)
