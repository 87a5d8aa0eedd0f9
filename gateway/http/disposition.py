"""Content-Disposition (RFC 6266, RFC 8187) with a filename that is safe wherever it is saved."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Literal
from urllib.parse import quote

MAX_BYTES = 255
"""Longest filename in bytes of UTF-8: that of common file systems."""
FALLBACK_NAME = "download"
"""The filename when nothing of the stored one is left."""

_PATH_CHARACTERS = re.compile(r'[/\\:*?"<>|]')
_JOINERS = frozenset("\u200c\u200d")
"""Invisible, but needed to spell several languages, and harmless."""
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³]|CONIN\$|CONOUT\$) *(?:\.|\Z)", re.IGNORECASE)
"""Device names of Windows, with any extension."""
_LONGEST_EXTENSION = 32
_PERCENT_ENCODED = re.compile("%(?=[0-9A-Fa-f]{2})")
_ATTR_CHAR = "!#$&+-.^_`|~"
"""What RFC 8187 lets stand unencoded beside letters and digits."""


@functools.lru_cache(maxsize=4096)
def content_disposition(name: str, kind: Literal["attachment", "inline"] = "attachment") -> str:
    """The value of Content-Disposition for a file stored as ``name``: printable ASCII whatever ``name`` holds.

    ``filename`` is in ASCII; ``filename*`` is added only where that says less than the name.
    """
    safe = safe_filename(name)
    plain = _ascii(safe)
    value = f'{kind}; filename="{plain}"'
    if plain != safe:
        value += f"; filename*=UTF-8''{quote(safe, safe=_ATTR_CHAR)}"
    return value


def safe_filename(name: str) -> str:
    """``name`` as a filename that no client can be harmed by, at most MAX_BYTES bytes of UTF-8, never empty.

    Characters that are part of paths or forbidden on Windows, and lone surrogates, become ``_``. Controls and invisible
    format characters (those that reverse the reading direction among them) are taken out, as are dots and spaces at
    either end. A device name of Windows gets a ``_`` before it. A name too long is cut before its extension.
    """
    safe = _PATH_CHARACTERS.sub("_", name)
    if not safe.isprintable():
        safe = "".join(map(_visible, safe))
    safe = _shortened(safe.strip(" ."))
    if not safe:
        return FALLBACK_NAME
    return _shortened(f"_{safe}") if _RESERVED.match(safe) else safe


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cs":
        return "_"
    if category in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS:
        return ""
    return character


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    if len(extension.encode()) > _LONGEST_EXTENSION:  # so has a name without a dot
        stem, dot, extension = name, "", ""
    room = MAX_BYTES - len((dot + extension).encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + dot + extension


def _ascii(name: str) -> str:
    """``name`` in ASCII: letters without their accents, any other character as ``_``, nothing that looks encoded."""
    plain = name if name.isascii() else "".join(map(_ascii_character, unicodedata.normalize("NFC", name)))
    return safe_filename(_PERCENT_ENCODED.sub("_", plain))


def _ascii_character(character: str) -> str:
    if character.isascii():
        return character
    base = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode("ascii")
    return base if len(base) == 1 and base.isalnum() else "_"
