"""The Prefer field (RFC 7240): what a client would like, and may not get."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Possessive, so that no field takes longer to be refused than to be read.
_NAME = r"[0-9A-Za-z!#$%&'*+.^_`|~-]++"
_SPACE = r"[ \t]*+"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_EQUALS = rf"{_SPACE}={_SPACE}"
_PREFERENCE = re.compile(
    rf"{_SPACE}(?P<name>{_NAME})(?:{_EQUALS}(?P<value>{_NAME}|{_QUOTED})?+)?+"
    rf"(?:{_SPACE};{_SPACE}(?:{_NAME}(?:{_EQUALS}(?:{_NAME}|{_QUOTED})?+)?+)?+)*+{_SPACE}"
)
_ELEMENT = re.compile(rf'(?:{_QUOTED}|[^,"])++(?:".*)?|".*', re.DOTALL)
"""One element of a list. A quote that never ends takes all the rest."""
_ESCAPE = re.compile(r"\\(.)")


def preferences(values: Iterable[str]) -> dict[str, str]:
    """The preferences in the lines ``values`` of a request's Prefer field: value by name, names in lower case.

    A preference without a value has an empty one. Of several of the same name the first counts (RFC 7240 §2). What
    is no preference is passed over, as are parameters.
    """
    found: dict[str, str] = {}
    for element in (element for line in values for element in _ELEMENT.findall(line)):
        match = _PREFERENCE.fullmatch(element)
        if match is not None:
            found.setdefault(match["name"].lower(), _unquoted(match["value"] or ""))
    return found


def _unquoted(word: str) -> str:
    return _ESCAPE.sub(r"\1", word[1:-1]) if word.startswith('"') else word
