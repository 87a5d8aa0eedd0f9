"""What text may go where."""

from __future__ import annotations

import re

_SURROGATES = re.compile("[\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold ``text``: no NUL, and no half of a surrogate pair."""
    return "\0" not in text and (text.isascii() or _SURROGATES.search(text) is None)
