"""The file in an archive that says what is not in it."""

from __future__ import annotations

from collections.abc import Iterable

NOTICE_NAME = "NOTICE.txt"
"""As REGARDS calls it."""


def notice(missing: Iterable[tuple[str, str]]) -> bytes:
    """The text of the notice, in REGARDS' words: one line for each file that is not in the archive; empty without any.

    Args:
        missing: name and reason of each. A line feed in them begins no new line, and no control character passes.
    """
    lines = (f"Failed to download file ({_line(name)}): {_line(reason).rstrip('.')}.\n" for name, reason in missing)
    return "".join(lines).encode("utf-8", "replace")


def _line(text: str) -> str:
    return (
        text
        if text.isprintable()
        else "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    )
