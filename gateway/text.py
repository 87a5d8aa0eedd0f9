"""What text may go where."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold ``text``: no NUL, and no half of a surrogate pair."""
    return "\0" not in text and (text.isascii() or _SURROGATES.search(text) is None)


def shown(location: str) -> str:
    """A copy's location for terminals: quoted, on one line, and without the query of a URL, which may be a secret."""
    path, mark, _ = location.partition("?")
    return repr(f"{path}?…" if mark and "://" in path else location)


def escaped(text: str, most: int) -> str:
    r"""``text`` for a record that others read later: at most ``most`` characters of it, none of which is obeyed.

    What a terminal, a log or a database would obey appears as Python writes it, like ``\x1b``.
    """
    kept = text if len(text) <= most else text[:most]
    if kept.isprintable():
        return kept
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in kept)[:most]


def one_line(text: str) -> str:
    """``text`` for a terminal: on one line, and without characters that a terminal would obey."""
    plain = " ".join(text.split())
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in plain)
