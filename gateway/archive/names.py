"""Names of many files that are saved below one directory: safe on every system, and no two the same."""

from __future__ import annotations

import unicodedata

from gateway.http.disposition import MAX_BYTES, safe_filename

_SHORTEST_STEM = 16
"""Bytes that a number leaves of a name before its extension, at least."""
_NONCHARACTERS = str.maketrans(dict.fromkeys("\ufffe\uffff", "_"))
"""Those that XML cannot hold, so that a name is the same in every kind of list."""


class Names:
    """Gives every file a relative path of its own, of one part, or of two with a folder.

    Parts are those of `safe_filename`, in the Normalization Form C of Unicode. Two paths differ also on file systems
    that do not tell upper from lower case, and no file is in the way of a folder. What would be the same gets a number
    before its extension: ``data (2).tif``.

    Paths are remembered as numbers of 64 bits: two of them may, once in a blue moon, be taken for the same. Then one
    gets a number without need.
    """

    def __init__(self, *taken: str) -> None:
        """Nothing is given yet but the paths ``taken``."""
        self._taken = {_key(path) for path in taken}
        self._folders: dict[str, str] = {}
        self._next: dict[int, int] = {}  # By the path that was wanted: how often it was.

    def place(self, name: str, folder: str = "") -> str:
        """The path of the next file.

        Args:
            name: of the file, as the catalogue has it; files may have the same.
            folder: what it belongs to, as the catalogue has it: files of the same text lie in the same folder, and
                those of another text in another. Empty: in no folder.
        """
        if not folder:
            return self._unused("", _safe(name))
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._unused("", _safe(folder)) + "/"
        return self._unused(known, _safe(name))

    def _unused(self, folder: str, name: str) -> str:
        path = folder + name
        wanted = key = _key(path)
        while key in self._taken:
            # Else a million files of one name would be a million times a million looks.
            number = self._next[wanted] = self._next.get(wanted, 1) + 1
            path = folder + _numbered(name, number)
            key = _key(path)
        self._taken.add(key)
        return path


def _safe(name: str) -> str:
    safe = safe_filename(name)
    if safe.isascii():
        return safe
    # Composing may lengthen a name, and must not make it unsafe.
    return safe_filename(unicodedata.normalize("NFC", safe.translate(_NONCHARACTERS)))


def _key(path: str) -> int:
    """The same for paths that some file system takes for the same."""
    if path.isascii():
        return hash(path.lower())
    return hash(unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold()))


def _numbered(name: str, number: int) -> str:
    suffix = f" ({number})"
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    room = MAX_BYTES - len((suffix + dot + extension).encode())
    if room < _SHORTEST_STEM:  # so long an extension is none
        stem, dot, extension, room = name, "", "", MAX_BYTES - len(suffix)
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + suffix + dot + extension
