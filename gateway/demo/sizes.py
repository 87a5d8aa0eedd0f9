"""Sizes as people write them."""

from __future__ import annotations

import re

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
"""Bytes in each unit, by its name in capitals."""

_SIZE = re.compile(r"([0-9]+) ?([A-Za-z]*)")


def parse_size(text: str) -> int:
    """The bytes meant by ``text``: a whole number, alone or with a unit (``1048576``, ``500MB``, ``64MiB``, ``1 GiB``).

    Units ending in ``iB`` are powers of 1024, the others of 1000; capitals or not makes no difference.

    Raises:
        ValueError: the text is no such size; the message says what would be.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in UNITS:
        raise ValueError(
            f"{text!r} is not a size: write a whole number of bytes, or one with a unit, like 500MB, 64MiB or 1GiB "
            "(units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"
        )
    return int(match[1]) * UNITS[match[2].upper()]
