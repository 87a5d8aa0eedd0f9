"""The rules of layouts: entered anywhere, exact in length, and another tag for every other byte."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive import records
from gateway.archive.frozen import FrozenLayoutError, freeze, thaw
from gateway.archive.layout import Layout, LayoutBuilder, MemberSpan, fingerprint_of
from gateway.archive.notice import notice
from tests.archive.serving import CREATED, MODIFIED

Files = list[tuple[str, bytes, bool, datetime.datetime | None]]

TIMES = st.none() | st.datetimes(timezones=st.just(datetime.UTC))
FILES: st.SearchStrategy[Files] = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
        st.binary(max_size=40), st.booleans(), TIMES,
    ),
    max_size=8,
    unique_by=lambda file: file[0],
)  # fmt: skip


def laid_out(files: Files, *, text: bytes | None = None) -> Layout:
    builder = LayoutBuilder()
    for number, (name, content, known, modified) in enumerate(files):
        crc = zlib.crc32(content) if known else None
        builder.add(name, len(content), crc, modified, identity=content.hex(), key=number * 10**12)
    if text is not None:
        builder.add_text("NOTICE.txt", text, CREATED)
    return builder.finish(CREATED)


def rendered(layout: Layout, files: Files, start: int = 0, stop: int | None = None) -> bytes:
    crcs = layout.columns.crcs[:]
    for index, file in enumerate(files):
        crcs[index] = zlib.crc32(file[1])
    made = bytearray()
    for piece in layout.pieces(start, layout.length if stop is None else stop, crcs):
        content = files[piece.member][1][piece.start : piece.stop] if isinstance(piece, MemberSpan) else piece
        assert content, "an empty piece"
        made += content
    return bytes(made)


@given(FILES, st.none() | st.binary(max_size=30), st.data())
def test_any_range_is_that_slice_of_the_whole(files: Files, text: bytes | None, data: st.DataObject) -> None:
    layout = laid_out(files, text=text)
    whole = rendered(layout, files)
    assert len(whole) == layout.length
    start = data.draw(st.integers(0, layout.length))
    stop = data.draw(st.integers(start, layout.length))
    assert rendered(layout, files, start, stop) == whole[start:stop]


@given(FILES)
def test_python_reads_what_was_laid_out(files: Files) -> None:
    files = [file for file in files if "\0" not in file[0] and "\\" not in file[0]]
    with zipfile.ZipFile(io.BytesIO(rendered(laid_out(files), files))) as opened:
        assert opened.testzip() is None
        assert [(info.filename, opened.read(info)) for info in opened.infolist()] == [file[:2] for file in files]
        for info in opened.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.flag_bits & 0x800


@given(FILES, st.none() | st.binary(max_size=30))
def test_a_layout_that_was_written_down_gives_the_very_same_bytes(files: Files, text: bytes | None) -> None:
    layout = laid_out(files, text=text)
    read = thaw(freeze(layout))
    assert rendered(read, files) == rendered(layout, files)
    assert (read.etag, read.length, read.created, len(read)) == (
        layout.etag,
        layout.length,
        layout.created,
        len(layout),
    )
    assert read.is_fixed == layout.is_fixed
    assert [read.member(index) for index in range(len(read))] == [layout.member(index) for index in range(len(layout))]


WRITTEN_DOWN = (
    "T1+tte!$T5cmZQ!fPf;01?eD`k)@@9xv_yolBtEES*p2ZN{VT+d5Td|s%f&Rp{1p1VzPyyrGcrr2vpyGMhJrg%IAdATu>UOjv2~_QA|(<8<ale"
    "sA39}JLJmiQ782<6~zA!1u*x)XqZ|Cfu&bofH(?XD=$Lb0+C~6s3{2D9HEfC{>ich;U$%uwrINbu4bw(yTrNGZramrxAYIM)KAna$xKU1_VW+%"
    "bavG%sVITD6XveG{F2P%Q~=SWJ9q"
)
"""By the first release that could."""


def test_a_layout_of_this_release_is_what_it_was_in_every_release_before() -> None:
    """Who makes this fail changes archives that are being downloaded: `_MAGIC` and `_FORMAT` must change with them."""
    files: Files = [("é/a.tif", b"abc", True, MODIFIED), ("b", b"", True, None), ("c", b"xy", False, CREATED)]
    layout = laid_out(files, text=b"notice")
    assert hashlib.sha256(rendered(layout, files)).hexdigest() == (
        "89ca276d0f237bbc35b4685a5695cfe6ee491e9fb0ee86ae06236e45f7f4503e"
    )
    assert rendered(thaw(base64.b85decode(WRITTEN_DOWN)), files) == rendered(layout, files)
    assert layout.etag == '"zip-29907308b5816e79dd5c7d2be5c51995ac819057"'


@pytest.mark.parametrize("damage", [0, 3, 5, 9, 40, -1])
def test_a_damaged_layout_is_refused(damage: int) -> None:
    frozen = bytearray(freeze(laid_out([("a", b"abc", True, None)])))
    frozen[damage] ^= 0x40
    with pytest.raises(FrozenLayoutError):
        thaw(bytes(frozen))
    for length in (0, 4, 7, 8, 20, len(frozen) - 1):
        with pytest.raises(FrozenLayoutError):
            thaw(freeze(laid_out([("a", b"abc", True, None)]))[:length])


BASE: Files = [("a", b"abc", True, MODIFIED), ("b", b"", True, None)]


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files[:1],
        lambda files: files[::-1],
        lambda files: [("A", *files[0][1:]), files[1]],
        lambda files: [("a", b"abd", True, MODIFIED), files[1]],
        lambda files: [("a", b"abcd", True, MODIFIED), files[1]],
        lambda files: [("a", b"abc", True, CREATED), files[1]],
        lambda files: [("a", b"abc", True, None), files[1]],
        lambda files: [*files, ("c", b"", True, None)],
    ],
)
def test_whatever_changes_a_byte_changes_the_tag(change: Callable[[Files], Files]) -> None:
    assert laid_out(change(BASE)).etag != laid_out(BASE).etag
    assert laid_out(BASE).etag == laid_out(BASE).etag


def test_other_content_of_the_same_size_and_crc_changes_the_tag() -> None:
    tags = set()
    for identity in ("one", "two"):
        builder = LayoutBuilder()
        builder.add("a", 3, 7, MODIFIED, identity=identity)
        layout = builder.finish(CREATED)
        tags.add(layout.etag)
        assert layout.member(0).fingerprint == fingerprint_of(identity)
    assert len(tags) == 2


def test_a_notice_with_another_text_changes_the_tag() -> None:
    assert laid_out(BASE, text=b"one").etag != laid_out(BASE, text=b"two").etag != laid_out(BASE).etag


def test_a_layout_without_a_crc_is_not_fixed_unless_the_member_is_empty() -> None:
    assert laid_out([("a", b"", False, None)]).is_fixed
    assert not laid_out([("a", b"x", False, None)]).is_fixed
    assert laid_out([]).is_fixed


@pytest.mark.parametrize(("name", "size"), [("", 1), ("x" * 65_536, 1), ("x", -1)])
def test_what_no_zip_can_hold_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="no member"):
        LayoutBuilder().add(name, size, 1, None, identity="")


@given(
    st.integers(0, 300), st.sampled_from([0, 1, 2**32 - 2, 2**32 - 1, 2**32, 2**62]), st.booleans(),
    st.sampled_from([-1, 0, 1_700_000_000, 2**31 - 1, 2**31, 2**40]), st.sampled_from([0, 2**32 - 2, 2**32 - 1, 2**60]),
)  # fmt: skip
def test_the_lengths_of_records_are_known_without_making_them(
    name: int, size: int, known: bool, modified: int, offset: int
) -> None:
    text = b"x" * name
    header = records.local_header(text, size, 5 if known else None, modified)
    assert len(header) == records.local_bytes(name, size, modified)
    entry = records.central_entry(text, size, 5, modified, offset, described=not known)
    assert len(entry) == records.central_bytes(name, size, modified, offset)
    assert len(records.descriptor(size, 5)) == records.descriptor_bytes(size)


def test_members_take_some_hundred_bytes_each_and_are_entered_anywhere() -> None:
    builder = LayoutBuilder()
    tracemalloc.start()
    for number in range(10_000):
        builder.add(f"product-{number // 10}/band-{number}.tif", 10**7, number, MODIFIED, identity=str(number))
    layout = builder.finish(CREATED)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 150 * len(layout)
    for member in (0, 3_456, 9_999):
        (found,) = (
            piece
            for piece in layout.pieces(layout.offset_of(member) + 100, layout.offset_of(member) + 200)
            if not isinstance(piece, bytes)
        )
        assert found.member == member


@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=5))
@settings(max_examples=50)
def test_a_notice_has_one_printable_line_for_each_file(missing: list[tuple[str, str]]) -> None:
    lines = notice(missing).decode().split("\n")
    assert len(lines) == len(missing) + 1
    assert all(line.isprintable() for line in lines)
    assert notice([("a.tif", "it is gone.")]) == b"Failed to download file (a.tif): it is gone.\n"
