"""Names in archives: safe wherever they are extracted, and no two the same on any file system."""

from __future__ import annotations

import time
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.archive.names import Names
from gateway.http.disposition import safe_filename

TEXT = st.text(max_size=12) | st.sampled_from(
    ["a.tif", "A.TIF", "é", "e\u0301", "ß", "SS", "K", "\u212a", "NOTICE.txt", "con", ""]
)


def same_somewhere(path: str) -> str:
    """What a file system without case and with any form of Unicode makes of it."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


@given(st.lists(st.tuples(TEXT, TEXT), max_size=20))
@example([("a (2).tif", ""), ("a.tif", ""), ("a.tif", ""), ("a.tif", "")])
@example([("b", "a"), ("a", ""), ("a", "A")])
def test_paths_are_safe_and_differ_everywhere(files: list[tuple[str, str]]) -> None:
    names = Names("NOTICE.txt")
    paths = [names.place(name, folder) for name, folder in files]
    # No file is another one, nor in the way of a folder.
    folders = {path.rpartition("/")[0] for path in paths if "/" in path}
    taken = [same_somewhere(path) for path in (*paths, *folders, "NOTICE.txt")]
    assert len(set(taken)) == len(taken)
    for path in paths:
        parts = path.split("/")
        assert len(parts) <= 2
        for part in parts:
            assert part == safe_filename(part)
            assert part not in (".", "..")
            assert unicodedata.is_normalized("NFC", part)
            assert 0 < len(part.encode()) <= 255


def test_files_of_one_folder_lie_together_and_of_another_apart() -> None:
    names = Names()
    assert names.place("x", "S2A:1") == "S2A_1/x"
    assert names.place("x", "S2A_1") == "S2A_1 (2)/x"
    assert names.place("y", "S2A:1") == "S2A_1/y"
    assert names.place("x", "S2A:1") == "S2A_1/x (2)"


def test_the_number_stands_before_the_extension_and_the_name_stays_short_enough() -> None:
    names = Names()
    long = "x" * 251 + ".tif"
    assert [names.place(name) for name in ("a.tif", "a.tif", "A.tif", long, long)] == [
        "a.tif", "a (2).tif", "A (3).tif", long, "x" * 247 + " (2).tif",
    ]  # fmt: skip


def test_many_files_of_one_name_are_numbered_in_no_time() -> None:
    names = Names()
    began = time.process_time()
    paths = {names.place("data.tif") for _ in range(20_000)}
    assert len(paths) == 20_000
    assert "data (20000).tif" in paths
    assert time.process_time() - began < 5  # to look at all before each of them would take minutes
