"""Reading JSON texts of any size in bounded memory: one entry at a time, each with the line on which it starts.

The standard library's decoder does the decoding, on a window that slides over the file. (ijson's C backend is as fast,
but turns half a surrogate pair into a question mark without a word, and knows no lines.)
"""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from gateway.catalog.ingest.model import Json, JsonObject

MAX_ENTRY = 16 * 1024 * 1024
"""Characters of one entry, or of all members of a FeatureCollection beside its features, at most."""
MAX_DEPTH = 100
"""Arrays and objects inside one another, at most."""

STREAMED = ("features", "content", "collections")
"""Members whose array is read entry by entry: of a FeatureCollection, a page of REGARDS, a list of collections."""

_WINDOW = 1024 * 1024
_NUMBER_CUT = 2
"""Characters of a number's next part, like "e+", that mean nothing yet: a number so near the end may go on."""
_BLANK = " \t\n\r"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A JSON value of a text."""

    line: int
    """Line on which it starts, from 1."""
    index: int | None
    """Position in the array that holds it, from 0; None if it stands for itself."""
    value: Json


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """What an object whose array came entry by entry holds beside it."""

    members: JsonObject


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """A place where a text is no JSON."""

    line: int
    reason: str


def values(stream: BinaryIO) -> Iterator[Found | Unreadable]:
    """Read one or more JSON texts that follow one another.

    As `page`, without what stands beside the entries.
    """
    return (found for found in page(stream) if not isinstance(found, Rest))


def page(stream: BinaryIO) -> Iterator[Found | Rest | Unreadable]:
    """Read one or more JSON texts that follow one another.

    Elements of an outermost array, and of the members `STREAMED` of an outermost object without ``type`` or with the
    type FeatureCollection, come one by one, wherever among the members they stand; of such an object only a Rest
    comes, after them. Where a text is no JSON an Unreadable comes, and nothing after it: no one could say where the
    next starts.
    """
    text = _Text(stream)
    try:
        while character := text.peek():
            if character == "{":
                yield from _object(text)
            elif character == "[":
                yield from _array(text)
            else:
                yield Found(text.line, None, text.value())
    except _SyntaxError as error:
        yield Unreadable(error.line, f"{error}; the rest of the file was not read")


def lines(stream: BinaryIO) -> Iterator[Found | Unreadable]:
    """Read one JSON text from each line that is not blank. A line that is no JSON harms no other."""
    number = 0
    while raw := stream.readline(MAX_ENTRY + 1):
        number += 1
        if len(raw) > MAX_ENTRY:
            while not raw.endswith(b"\n") and (raw := stream.readline(MAX_ENTRY)):
                pass
            yield Unreadable(number, f"is longer than {MAX_ENTRY} bytes")
            continue
        raw = raw.strip()
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if raw:
            yield _line(raw, number)


def whole(raw: bytes) -> Json:
    """Read exactly one JSON text, which fits into memory.

    Raises:
        ValueError: it is none, or nests too deep; the message says why.
    """
    found = _line(raw.removeprefix(codecs.BOM_UTF8), 1)
    if isinstance(found, Unreadable):
        raise ValueError(found.reason)  # noqa: TRY004 - no wrong type, but no JSON
    if too_deep(found.value):
        raise ValueError(f"nests deeper than {MAX_DEPTH} arrays and objects")
    return found.value


def too_deep(value: Json) -> bool:
    """Whether ``value`` nests deeper than `MAX_DEPTH`."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, list | dict)
        ]
    return bool(level)


class _SyntaxError(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _line(raw: bytes, number: int) -> Found | Unreadable:
    try:
        return Found(number, None, _DECODER.decode(raw.decode()))
    except json.JSONDecodeError as error:
        return Unreadable(number, f"is not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return Unreadable(number, _reason(error))


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return f"nests deeper than {MAX_DEPTH} arrays and objects"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8: {error.reason}"
    return f"is not JSON: {error}"


class _Text:
    """A window that slides over a file.

    After `peek` ``line`` is that of the next token. ``passed`` counts the characters of the values passed so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._window = ""
        self._position = 0
        self._ended = False
        self.line = 1
        self.passed = 0

    def peek(self) -> str:
        """The next character that is not blank, without passing it; empty at the end."""
        while True:
            start = self._position
            while self._position < len(self._window) and self._window[self._position] in _BLANK:
                self._position += 1
            self.line += self._window.count("\n", start, self._position)
            if self._position < len(self._window):
                return self._window[self._position]
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """Pass the next character that is not blank, which must be one of ``expected``."""
        character = self.peek()
        if not character or character not in expected:
            what = repr(character) if character else "the end of the file"
            raise _SyntaxError(self.line, f"is not JSON: {what} where one of {' '.join(expected)} is expected")
        self._position += 1
        return character

    def value(self) -> Json:
        """Pass the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._position)
            except json.JSONDecodeError as error:
                # Perhaps the window ends within the value.
                if self._more():
                    continue
                line = self.line + self._window.count("\n", self._position, error.pos)
                raise _SyntaxError(line, f"is not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise _SyntaxError(self.line, _reason(error)) from error
            if isinstance(value, int | float) and len(self._window) - end <= _NUMBER_CUT and self._more():
                continue
            if end - self._position > MAX_ENTRY:
                raise _SyntaxError(self.line, f"is longer than {MAX_ENTRY} characters")
            self.line += self._window.count("\n", self._position, end)
            self.passed += end - self._position
            self._position = end
            return value  # type: ignore[no-any-return]

    def _more(self) -> bool:
        """Lengthen the window, at least doubling what is left of it; False, and nothing is changed, at the end."""
        if self._ended:
            return False
        left = self._window[self._position :]
        if len(left) > MAX_ENTRY:
            raise _SyntaxError(self.line, f"is longer than {MAX_ENTRY} characters, or not JSON")
        raw = self._stream.read(max(_WINDOW, len(left)))
        self._ended = not raw
        try:
            decoded = self._decoder.decode(raw, self._ended)
        except UnicodeDecodeError as error:
            raise _SyntaxError(self.line + left.count("\n"), _reason(error)) from error
        if self._ended and not decoded:
            return False
        self._window, self._position = left + decoded, 0
        return True


def _array(text: _Text) -> Iterator[Found]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    index = 0
    while True:
        text.peek()
        line = text.line
        yield Found(line, index, text.value())
        index += 1
        if text.take(",]") == "]":
            return


def _object(text: _Text) -> Iterator[Found | Rest]:
    line = text.line
    members: JsonObject = {}
    streamed, size = False, 0
    text.take("{")
    end = text.peek() == "}"
    if end:
        text.take("}")
    while not end:
        before = text.passed
        name = _name(text)
        if name in STREAMED and text.peek() == "[" and members.get("type", "FeatureCollection") == "FeatureCollection":
            streamed = True
            yield from _array(text)
        else:
            members[name] = text.value()
            size += text.passed - before
        if size > MAX_ENTRY:
            raise _SyntaxError(line, f"is longer than {MAX_ENTRY} characters")
        end = text.take(",}") == "}"
    if not streamed or members.get("type", "FeatureCollection") != "FeatureCollection":
        yield Found(line, None, members)
    else:
        yield Rest(members)


def _name(text: _Text) -> str:
    if text.peek() != '"':
        text.take('"')
    name = text.value()
    text.take(":")
    return str(name)
